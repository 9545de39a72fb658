"""Processes pinned to cores, and the CPU time that they take."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

from bench.plan import ROOT, BenchError

HOST: Final = "127.0.0.1"
PATIENCE_SECONDS: Final = 30


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def pinned(command: Sequence[str | Path], cores: Iterable[int]) -> list[str]:
    """The command, to be run on these cores only."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *map(str, command)]


class Process:
    """A server that runs while the context is open.

    Args:
        name: What messages call it.
        command: What to run.
        port: Where it will listen.
        cores: Where it may run.
        env: Variables beside those of this process.
        directory: Its log lies there.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        port: int,
        *,
        cores: Iterable[int],
        directory: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self._command = pinned(command, cores)
        self._log = directory / f"{name.replace(' ', '-')}-{port}.log"
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("STREAMLIMIT_")}
        self._env |= {"STREAMLIMIT_DRAIN_SECONDS": "0"} | dict(env or {})  # nobody is to be sent away first

    def __enter__(self) -> Self:
        """Start it; `wait` waits until it listens."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self._command, cwd=ROOT, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait(self, ready: Callable[[], bool] | None = None, pause: float = 0.02) -> Self:
        """Wait until it listens, or until another condition holds.

        Raises:
            BenchError: It ended, or took too long.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (ready() if ready else listens(self.port)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{self.name} does not start: {self._log.read_text()[-2000:].strip()}")
            time.sleep(pause)
        return self

    def cpu_seconds(self) -> float:
        """What it and its children have used so far, from /proc/PID/stat."""
        process = psutil.Process(self._process.pid)
        used = 0.0
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            used += times.user + times.system
        return used


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """What a core has done so far, in seconds, from /proc/stat."""

    busy: float
    stolen: float
    total: float

    def since(self, earlier: Self) -> Self:
        """What it did in the meantime."""
        return type(self)(self.busy - earlier.busy, self.stolen - earlier.stolen, self.total - earlier.total)


def core_times(core: int) -> CoreTimes:
    """Read it."""
    times = psutil.cpu_times(percpu=True)[core]
    # guest time is in user time already
    total = sum((times.user, times.nice, times.system, times.idle, times.iowait, times.irq, times.softirq, times.steal))
    return CoreTimes(total - times.idle - times.iowait - times.steal, times.steal, total)
