"""How long and how often, and on which cores."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
CONNECTIONS: Final = 64
GATEWAYS: Final = 16
"""Connections with batches: gateways are few."""
BATCH: Final = 200
"""Heartbeats in a request of a gateway."""
TTL_SECONDS: Final = 600
"""The longest there is: no stream ends while others are measured."""
SECRET: Final = "a secret for measurements that is long enough to be one"  # noqa: S105 - it guards nothing


class BenchError(Exception):
    """It cannot be measured; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int
    """In each of them every server has its turn."""
    seconds: int
    """Of load in a turn."""
    warm_seconds: int
    """Of load before each turn."""
    users: int
    """Who ask for admission in a turn, each once."""
    streams: int
    """Started through the API. More than heartbeats in a second: one within a second of the last writes nothing."""
    batch_streams: int
    many_streams: int
    script_users: int
    starts: int


FULL: Final = Plan(
    rounds=5,
    seconds=3,
    warm_seconds=1,
    users=100_000,
    streams=60_000,
    batch_streams=150_000,
    many_streams=1_000_000,
    script_users=2_000,
    starts=5,
)
QUICK: Final = Plan(
    rounds=1,
    seconds=1,
    warm_seconds=1,
    users=25_000,
    streams=3_000,
    batch_streams=20_000,
    many_streams=50_000,
    script_users=300,
    starts=2,
)


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core does what."""

    server: int
    store: int
    load: int
    second_server: int | None
    """For a second worker, where there are four cores."""
    all: tuple[int, ...]

    @property
    def others(self) -> set[int]:
        """Those of the load generator and the store: one and the same where there are only two."""
        return {self.store, self.load}


def choose_cores(found: Iterable[int]) -> Cores:
    """One for the server, one for the store, and one for the load, which shares that of the store if need be.

    Raises:
        BenchError: There is only one.
    """
    match sorted(found):
        case [server, store, load, second, *_] as every:
            return Cores(server, store, load, second, tuple(every))
        case [server, store, load] as every:
            return Cores(server, store, load, None, tuple(every))
        case [server, store] as every:
            return Cores(server, store, store, None, tuple(every))
    raise BenchError("there is one core only: the server under test needs one for itself")
