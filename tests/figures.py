"""What tests measured, for scripts/prove: JSON lines in the file that PROVE_FIGURES names, if any."""

import dataclasses
import json
import os
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from streamlimit import StoreUnavailable

_Answer = TypeVar("_Answer")


def report(test: str, **figures: float | str) -> None:
    """Add a line."""
    if path := os.environ.get("PROVE_FIGURES"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"test": test} | figures) + "\n")


@dataclass
class Figures:
    """What became of the calls during one kind of fault."""

    fault: str
    cases: int = 0
    calls: int = 0
    unknown: int = 0
    """Calls without a usable answer: the store is unavailable, or the connection broke."""
    longest_call_seconds: float = 0

    async def call(self, operation: Awaitable[_Answer], *unknown: type[Exception]) -> _Answer:
        """Await an operation, and count and time it."""
        started = time.monotonic()
        self.calls += 1
        try:
            return await operation
        except Exception as error:
            self.unknown += isinstance(error, (StoreUnavailable, *unknown))
            raise
        finally:
            self.longest_call_seconds = max(self.longest_call_seconds, time.monotonic() - started)


@contextmanager
def figures(fault: str) -> Iterator[Figures]:
    """Measure calls during a fault. None may have taken twice the budget of a second: it is a deadline, not a sum."""
    measured = Figures(fault)
    yield measured
    report("fault", **dataclasses.asdict(measured))
    assert measured.longest_call_seconds < 2, measured
