"""The `streamlimit` command."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from pydantic import ValidationError
from pydantic_settings import CliSettingsSource, SettingsError

import streamlimit
from streamlimit.errors import StreamlimitError
from streamlimit.fields import check_user_id
from streamlimit.log_lines import one_line
from streamlimit.secret_files import FILE_SUFFIX, secret_names
from streamlimit.settings import ENV_PREFIX, Settings, explain

_BAD_INPUT: Final = 2
_INTERRUPTED: Final = 130

_DOCTOR: Final = """\
Examines a store before it is trusted: is it reachable, is it a version that is tested, may its user do what is needed,
are the scripts fast enough, what would a crash cost, are its settings right. Takes some seconds, runs the scripts on
streams of a user that nobody has, and leaves nothing behind. With --user it reads that user's
keys instead: what somebody wrote there by hand. Exit code 0: no problem, 1: a problem, 2: bad usage."""


def _user_id(text: str) -> str:
    try:
        return check_user_id(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _UsageError(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    """Says on one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 it could not run, 2 a setting or option is wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for name in secret_names(Settings):
        option = f"--{name.replace('_', '-')}"
        if any(given.partition("=")[0] == option for given in arguments):
            variable = f"{ENV_PREFIX}{name.upper()}"
            message = f"{option}: a command line is seen by everyone on the machine; set {variable}, or {variable}_FILE"
            return _fail(message, _BAD_INPUT)
    parser, sources = _parser()
    try:
        parsed = parser.parse_args(arguments)
        settings = Settings(_cli_settings_source=sources[parsed.command](parsed_args=parsed))
    except (_UsageError, SettingsError) as error:
        return _fail(str(error).removeprefix("error parsing CLI: "), _BAD_INPUT)
    except ValidationError as error:
        return _fail(explain(error), _BAD_INPUT)
    for name in sorted(_unknown_variables()):
        print(one_line(f"streamlimit: warning: {name} is no setting and is ignored"), file=sys.stderr)
    # Imported so late, since what is wrong with a setting is said before uvicorn loads.
    if parsed.command == "doctor":
        from streamlimit.report import report  # noqa: PLC0415 - see above

        _take_ctrl_c()
        try:
            return report(settings, as_json=parsed.json, strict=parsed.strict, user_id=parsed.user)
        except KeyboardInterrupt:
            return _INTERRUPTED
    return _serve(settings)


def _take_ctrl_c() -> None:
    """Let Ctrl-C be a KeyboardInterrupt again: from here on there is something to be cleaned up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _parser() -> tuple[_Parser, dict[str, CliSettingsSource[Any]]]:
    """The parser of the command line, and for each command what makes settings of what is parsed."""
    parser = _Parser(prog="streamlimit", description="Lets one account watch at most N streams at once.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {streamlimit.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve the HTTP API; serve --help lists the settings",
        description="Serve the HTTP API.",
        allow_abbrev=False,
    )
    doctor = commands.add_parser(
        "doctor",
        help="examine the store before it is trusted",
        description=_DOCTOR,
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object in place of lines for people")
    doctor.add_argument("--user", type=_user_id, metavar="USER_ID", help="examine the keys of this user instead")
    doctor.add_argument("--strict", action="store_true", help="let warnings count as problems")
    return parser, {
        name: CliSettingsSource(Settings, root_parser=command)
        for name, command in {"serve": serve, "doctor": doctor}.items()
    }


def _serve(settings: Settings) -> int:
    from streamlimit.server import serve  # noqa: PLC0415 - as above

    try:
        _take_ctrl_c()
        serve(settings)
    except KeyboardInterrupt:  # while it started; later it is a signal to stop, and no error
        return _INTERRUPTED
    except StreamlimitError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}; choose another directory with --data-dir", 1)
    return 0


def _unknown_variables() -> set[str]:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{ENV_PREFIX}{name.upper()}{FILE_SUFFIX}" for name in secret_names(Settings)}
    return {name for name in os.environ if name.startswith(ENV_PREFIX) and name not in known}


def _fail(message: str, code: int) -> int:
    print(one_line(f"streamlimit: {message}"), file=sys.stderr)
    return code
