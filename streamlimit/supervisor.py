"""Keeps the embedded store's server running: a process of its own between the service and the server.

It is run by its path, `python -I supervisor.py JSON`, and imports nothing but the standard library, so that it starts
in some milliseconds. Its standard input is a pipe whose other end only the service has: when that closes, by a clean
stop or because the service was killed, the supervisor stops the server.

On Linux the server is sent SIGTERM when its supervisor dies. Elsewhere it lives on as an orphan, until the next
supervisor of its directory, or the next start of the service, stops it.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 10
PID_FILE: Final = "valkey.pid"
"""In the server's directory; the server writes it."""
REPAIRED: Final = "appendonlydir.repaired"
"""In the server's directory, while a repair is under way, or where it was interrupted."""

_MIN_LIFE_SECONDS: Final = 1
_MAX_BACKOFF_SECONDS: Final = 60
_ORPHAN_SECONDS: Final = 5
"""After SIGTERM, and once more after SIGKILL."""
_POLL_SECONDS: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1
_HAS_PROC: Final = Path("/proc/self/cmdline").exists()


@dataclass(frozen=True, slots=True)
class Orders:
    """What a supervisor is told."""

    server: list[str]
    """The command that starts the server."""
    repair: list[str]
    """The command that repairs the server's files: exit code 0 and one line on its output if it changed something."""
    directory: str
    """The server's files."""
    log: str
    """Where its output goes."""
    lock: int
    """The open lock of the data directory. The server inherits it, so that the lock is held for as long as it lives."""
    keep_trying: bool = False
    """Whether a server that refuses to start from the beginning is started again; else the supervisor ends."""

    def command(self) -> list[str]:
        """How to start the supervisor."""
        given = {name: getattr(self, name) for name in self.__slots__}
        return [sys.executable, "-I", __file__, json.dumps(given)]


def command_of(pid: int) -> str:
    """The command line of a process; empty where there is none, or it has ended and was not waited for."""
    if _HAS_PROC:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    shown = subprocess.run(  # noqa: S603 - a number
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()


def server_of(directory: Path, binary: Path) -> int:
    """The pid of the server that uses this directory; 0 where none is found.

    The pid in the file may belong to another process by now, so it counts only if its command is that of a server and
    names the directory. The server may be that of an earlier installation, so only the name of `binary` counts.
    """
    try:
        pid = int((directory / PID_FILE).read_text())
    except (OSError, ValueError):
        return 0
    command = command_of(pid) + " "
    program, _, _ = command.partition(" -")
    return pid if f" --dir {directory} " in command and Path(program).name == binary.name else 0


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def one_line(text: str) -> str:
    """Escape what does not show as a character, as `log_lines` does, which is part of the package."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say(message: str) -> None:
    """Write a line for the operator."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(one_line(message), file=sys.stderr, flush=True)  # noqa: T201 - the supervisor has no logging


def supervise(orders: Orders, service: int) -> int:
    """Keep the server running until `service`, the reading end of the pipe, closes. Returns an exit code."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    if orphan := _stop_orphan(Path(orders.directory), Path(orders.server[0])):
        say(f"The embedded store cannot be started: the server with pid {orphan}, left behind, does not stop")
        return 1
    may_give_up = not orders.keep_trying
    failures = 0
    while True:
        repaired = _repaired(orders) if Path(orders.directory, REPAIRED).exists() else ""
        if repaired:
            say(f"The embedded store's files: {repaired}")
        started = time.monotonic()
        # After half a repair the server could begin with no files at all.
        code = _run_server(orders, service) if repaired is not None else 1
        if code is None:
            return 0
        if code > 0 and repaired is not None and (repaired := _repaired(orders)):
            say(f"The embedded store's files were damaged: {repaired}")
            continue
        has_failed = repaired is None or time.monotonic() - started < _MIN_LIFE_SECONDS
        failures = failures + 1 if has_failed else 0
        if may_give_up and failures and code > 0:
            return 1  # it refuses to run, which trying again does not change
        may_give_up = False
        delay = min(2 ** (failures - 1), _MAX_BACKOFF_SECONDS) if failures else 0
        when = f"in {delay} s" if delay else "now"
        say(f"The embedded store ended by itself ({code}) and is started again {when}; its log is {orders.log}")
        if _closed(service, delay):
            return 0


def _run_server(orders: Orders, service: int) -> int | None:
    """Run the server once. Returns its exit code; None where the service ended and the server was stopped."""
    log = Path(orders.log)
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("ab") as output:
            server = subprocess.Popen(  # noqa: S603 - our own binary and options
                orders.server,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[orders.lock],
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - this process has one thread
            )
    except OSError as error:
        say(f"The embedded store cannot be started: {error}")
        return 1
    while server.poll() is None:
        if _closed(service, _POLL_SECONDS):
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            return None
    return server.returncode


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def ask_for_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_for_signal


def _stop_orphan(directory: Path, binary: Path) -> int:
    """Stop a server that the last supervisor left behind: two would write the same files.

    Returns:
        Its pid if it cannot be stopped; else 0.
    """
    pid = server_of(directory, binary)
    for number in (signal.SIGTERM, signal.SIGKILL) if pid else ():
        send(pid, number)
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while time.monotonic() < deadline:
            if server_of(directory, binary) != pid:
                return 0
            time.sleep(_POLL_SECONDS)
    return pid


def _repaired(orders: Orders) -> str | None:
    """What was repaired; None if that failed, which may be different later."""
    done = subprocess.run(  # noqa: S603 - our own module
        orders.repair,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        pass_fds=[orders.lock],  # it may outlive this process
    )
    if done.returncode == 0:
        return done.stdout.strip()
    why = done.stderr.strip().rpartition("\n")[2] or f"the repair ended ({done.returncode})"
    say(f"The embedded store's files cannot be repaired now: {why}")
    return None


def _closed(pipe: int, seconds: float) -> bool:
    readable, _, _ = select.select([pipe], [], [], seconds)
    return bool(readable)


if __name__ == "__main__":
    sys.exit(supervise(Orders(**json.loads(sys.argv[1])), sys.stdin.fileno()))
