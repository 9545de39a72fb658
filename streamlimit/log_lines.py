"""Lines of the log and of terminals, in which nothing that others wrote passes for something else.

A line feed in the name of a key would begin a line of its own, ESC would command the terminal, and U+202E would turn
the rest of the line around. They are escaped here, in the one formatter of all loggers, so that no call has to think of
it. So are passwords and tokens left out: HTTP clients and exceptions quote the URL that they are about, and Redis the
arguments of a command that it does not know.
"""

import logging
import re
from typing import Final

_TRACEBACK: Final = "Traceback (most recent call last):"
_INDENT: Final = "    "
_URL: Final = re.compile(r"://(?!USER:PASSWORD@)(\S*)")
"""But for those in advice of ours."""
_QUERY: Final = re.compile("[?#].*", re.DOTALL)
_ARGUMENTS: Final = re.compile("(args beginning with:).*", re.DOTALL)
"""In what Redis says of an unknown command: the password of AUTH, or the ids of users and streams."""


def one_line(text: str) -> str:
    r"""Return the text without passwords and tokens, and with whatever does not show as a character escaped.

    That is what Python calls not printable: control, format, separating (but for the blank), private and unassigned
    characters, and lone surrogates. They are written as in Python: `\n`, `\x1b`, `\u202e`.
    """
    text = _ARGUMENTS.sub(r"\1 ***", _URL.sub(_redacted, text))
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _redacted(url: re.Match[str]) -> str:
    # A password may have any character, so that everything before the last @ may belong to it.
    _, at, address = url[1].rpartition("@")
    return f"://{'***@' if at else ''}{_QUERY.sub('?***', address)}"


class LineFormatter(logging.Formatter):
    """Writes each record as one line; below it, indented, the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return what is written for a record."""
        record.message = record.getMessage().rstrip("\n")
        record.asctime = self.formatTime(record, self.datefmt)
        below = []
        if record.message.startswith(_TRACEBACK):
            # uvicorn logs those of the application's start like this.
            record.message, _, traceback = record.message.partition("\n")
            below.append(traceback)
        if record.exc_info:
            below.append(self.formatException(record.exc_info))
        if record.stack_info:
            below.append(self.formatStack(record.stack_info))
        lines = [self.formatMessage(record), *(f"{_INDENT}{line}" for text in below for line in text.split("\n"))]
        return "\n".join(map(one_line, lines))
