"""The load: wrk as fast as the server answers, or bench/paced.py at a rate of its own."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

from bench.plan import CONNECTIONS, ROOT, BenchError
from bench.processes import HOST, pinned

LUA: Final = ROOT / "bench" / "load.lua"
TIMEOUT_SECONDS: Final = 10
"""A slow answer is a slow answer, and no error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the generator saw."""

    requests: int
    errors: int
    """Broken connections, time-outs, and answers that are no success."""
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float
    """Of the generator itself."""
    late_p99_ms: float = 0
    """How much later than planned a paced generator sent its requests; wrk has no plan."""
    planned: int = 0
    """How many requests a paced generator was to send."""


def wrk(
    port: int,
    requests: Path,
    seconds: int,
    connections: int = CONNECTIONS,
    *,
    output: Path | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> list[str | Path]:
    """The command that sends the requests of a file for some time; with `output` each once, for at most that time."""
    command: list[str | Path] = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_SECONDS}s"]
    command += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command += ["-s", LUA]
    return [*command, f"http://{HOST}:{port}", "--", requests, *([output] if output else [])]


def paced(port: int, requests: Path, seconds: int, rate: float) -> list[str | Path]:
    """The command that sends them at a rate."""
    return [sys.executable, "-m", "bench.paced", str(port), requests, str(seconds), f"{rate:.1f}"]


def generate(command: Sequence[str | Path], core: int, begin: Callable[[], None] = lambda: None) -> Load:
    """Run a generator.

    Args:
        command: What to run.
        core: Where.
        begin: Called when it has read its requests and begins.

    Raises:
        BenchError: It failed.
    """
    with subprocess.Popen(  # noqa: S603 - our own commands
        pinned(command, [core]), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        stdout = process.stdout
        said = []
        if stdout is not None:
            for line in stdout:
                said.append(line)
                if line == "ready\n":
                    break
        before = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(process.pid).cpu_times()
            before = times.user + times.system
        begin()
        said += stdout or []
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    try:
        measured = json.loads(said[-1])
    except (ValueError, IndexError):
        raise BenchError(f"{command[0]} failed: {''.join(said).strip()}") from None
    return Load(**measured, cpu_seconds=usage.ru_utime + usage.ru_stime - before)
