"""Request heads (RFC 9112): what must hold before the parser sees one, and where the body behind it ends.

The parser, llhttp, checks the syntax of a head, but not what is checked here. Its own idea of where a body ends depends
on more headers than these: it takes what follows `Upgrade` for another protocol. So the end of each message is found
here, from `Content-Length` and `Transfer-Encoding` alone; where these leave any doubt the request is refused.
"""

import re
from dataclasses import dataclass
from typing import Final

from streamlimit.refusals import HEAD_TOO_LARGE, Refusal, malformed

HEAD_END: Final = b"\r\n\r\n"
MAX_HEAD_BYTES: Final = 32 * 1024
"""Of the request line and the headers, with the empty line at their end."""
MAX_HEADERS: Final = 100

_REQUEST_LINE: Final = re.compile(rb"(?!CONNECT )[!-~]+ [!-~\x80-\xff]+ HTTP/1\.[01]")
_BEGINNING: Final = re.compile(rb"\r?|[A-Z][^\r\n]*\r?|[A-Z][^\r\n]* HTTP/1\.[01]\r\n.*", re.DOTALL)
_HOST: Final = re.compile(rb"(?:[a-z0-9._~!$&'()*+,;=%-]*|\[[0-9a-f:.]+\])(?::[0-9]*)?")
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Framing:
    """Which body follows a head."""

    length: int = 0
    """In bytes; -1: chunked."""
    upgrades: bool = False
    """An upgrade is asked for. It is not supported, and RFC 9110 section 7.8 lets a server ignore that."""


def check_request_line(line: bytes) -> None:
    """Check method, target and version, separated by one space each (RFC 9112 section 3).

    Raises:
        Refusal: It is of another shape, of another version than 1.0 and 1.1, or CONNECT.
    """
    if not _REQUEST_LINE.fullmatch(line):
        raise malformed("The request line must be METHOD TARGET HTTP/1.1; CONNECT is not supported.")


def check_beginning(head: bytes | bytearray) -> None:
    """Check a head of which only the beginning has arrived, so that what cannot become one is not waited for.

    Raises:
        Refusal: It cannot.
    """
    if not _BEGINNING.fullmatch(head):
        raise malformed("This is not HTTP/1.1.")


def frame(fields: bytes, version: bytes) -> Framing:
    """Return how the body is framed, and check the headers on which that depends.

    Args:
        fields: The header lines and the empty line, each with its CRLF.
        version: `1.0` or `1.1`.

    Raises:
        Refusal: There are too many headers, not one `Host` (section 3.2), or the framing is in doubt (section 6.3).
    """
    if fields.count(b"\n") > MAX_HEADERS + 1:
        raise Refusal(HEAD_TOO_LARGE, f"At most {MAX_HEADERS} headers.")
    lowered = b"\n" + fields.lower()
    hosts = _values(lowered, b"host")
    if len(hosts) > 1 or (not hosts and version != b"1.0"):
        raise malformed("There must be one Host header.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise malformed("The Host header must be a host name or an address, and a port.")
    lengths, codings = _values(lowered, b"content-length"), _values(lowered, b"transfer-encoding")
    upgrades = b"\nupgrade:" in lowered
    if codings:
        if lengths or upgrades or version == b"1.0" or codings != [b"chunked"]:
            raise malformed("Transfer-Encoding must be chunked, in HTTP/1.1, without Content-Length and Upgrade.")
        return Framing(-1)
    if len(lengths) > 1 or (lengths and not _CONTENT_LENGTH.fullmatch(lengths[0])):
        raise malformed("There must be one Content-Length at most, of digits only.")
    return Framing(int(lengths[0]) if lengths else 0, upgrades)


def _values(lowered: bytes, name: bytes) -> list[bytes]:
    """The values of all headers of a name. The parser refuses blanks before the colon, and folded lines."""
    lines = lowered.split(b"\n%b:" % name)[1:]
    return [line.partition(b"\n")[0].strip(b" \t\r") for line in lines]
