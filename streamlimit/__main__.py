"""The `streamlimit` command, and `python -m streamlimit`."""

import signal
import sys


def main() -> int:
    """Run the command; return its exit code."""
    # While the rest loads, a Ctrl-C ends the process as it ends any other, and not with a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from streamlimit.cli import main as run  # noqa: PLC0415 - see above

    return run()


if __name__ == "__main__":
    sys.exit(main())
