"""The `streamlimit` command."""

import argparse
import os
import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_settings import SettingsError

import streamlimit
from streamlimit.errors import StreamlimitError
from streamlimit.settings import ENV_PREFIX, Settings, explain

_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 it could not run, 2 a setting or option is wrong."""
    parser = argparse.ArgumentParser(
        prog="streamlimit", description="Lets one account watch at most N streams at once."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {streamlimit.__version__}")
    parser.add_argument("command", choices=["serve"], help="serve: serve the HTTP API; serve --help lists the settings")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if any(option.partition("=")[0] == "--secret" for option in parsed.options):
        return _fail(f"--secret: a command line is seen by everyone on the machine; set {ENV_PREFIX}SECRET", _BAD_INPUT)
    try:
        settings = Settings(_cli_parse_args=parsed.options, _cli_exit_on_error=False)
    except ValidationError as error:
        return _fail(explain(error), _BAD_INPUT)
    except SettingsError as error:
        return _fail(str(error).removeprefix("error parsing CLI: "), _BAD_INPUT)
    for name in sorted(_unknown_variables()):
        print(f"streamlimit: warning: {name} is no setting and is ignored", file=sys.stderr)

    from streamlimit.server import serve  # noqa: PLC0415 - what is wrong with a setting is said before uvicorn loads

    try:
        serve(settings)
    except KeyboardInterrupt:
        pass
    except StreamlimitError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}; choose another directory with --data-dir", 1)
    return 0


def _unknown_variables() -> set[str]:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    return {name for name in os.environ if name.startswith(ENV_PREFIX) and name not in known}


def _fail(message: str, code: int) -> int:
    print(f"streamlimit: {message}", file=sys.stderr)
    return code
