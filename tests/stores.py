"""The stores that the contract is tested on, and what an operator sees of any of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from streamlimit import Rules, StreamTracker
from streamlimit.connection import MEMORY_URL, connect


@dataclass(frozen=True, slots=True)
class Backend:
    """A store: where the service finds it, and how an operator connects."""

    url: str
    connect: Callable[[], Any]


def backend_of(kind: str, request: pytest.FixtureRequest) -> Backend:
    """Return the store of this kind; the servers are fixtures that start with the first test that wants them."""
    match kind:
        case "fakeredis":
            return Backend(MEMORY_URL, lambda: FakeAsyncRedis(server=FakeServer(), decode_responses=True))
        case _:
            url = request.getfixturevalue(f"{kind}_server").url
            return Backend(url, lambda: connect(url))


def open_tracker(redis: Redis, url: str, secrets: Sequence[str], rules: Rules, **options: Any) -> StreamTracker:
    """Make a tracker on the store that an operator's client sees, as another process of the service would."""
    if isinstance(redis, FakeAsyncRedis):
        return StreamTracker(FakeAsyncRedis(connection_pool=redis.connection_pool), secrets, rules, **options)
    return StreamTracker.from_url(url, secrets, rules, **options)


async def stored(redis: Redis) -> set[str]:
    """The names of all keys but the epochs."""
    return {name for name in await _names(redis) if "epoch:{" not in name}


async def epochs(redis: Redis) -> list[str]:
    """The names of all epoch keys."""
    return [name for name in await _names(redis) if "epoch:{" in name]


def epoch_of(redis: Redis, user_id: str = "alice") -> str:  # noqa: ARG001 - one for all
    """The name of the epoch key that the scripts of a user look at."""
    return "epoch:{0}"


async def _names(redis: Redis) -> list[str]:
    return cast("list[str]", await redis.keys())
