"""What tests of the tracker do again and again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis

from streamlimit import Admission, StoreUnavailable, StreamTracker
from streamlimit.connection import connect
from streamlimit.store import BUDGET_SECONDS
from tests.servers import PATIENCE_SECONDS, RedisServer

_Found = TypeVar("_Found")


def single(url: str, budget_seconds: float = BUDGET_SECONDS) -> Redis:
    """redis-py's client of one server."""
    client = connect(url, budget_seconds)
    assert isinstance(client, Redis)
    return client


def patient(server: RedisServer) -> Redis:
    """redis-py's client as it is by itself, for those who look on while the service's must hurry."""
    client: Redis = Redis.from_url(server.url, decode_responses=True)
    return client


async def admitted(tracker: StreamTracker, user_id: str = "alice", **options: Any) -> Admission:
    answer = await tracker.admit(user_id, **options)
    assert isinstance(answer, Admission), answer
    return answer


async def refs(tracker: StreamTracker, user_id: str = "alice") -> list[str]:
    """The REFs of the live streams, by seat."""
    return [stream.ref for stream in (await tracker.list(user_id)).streams]


async def until(condition: Callable[[], Awaitable[_Found]]) -> _Found:
    """Wait until the condition holds, and return what it returned; a store that is away is waited for too."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                if found := await condition():
                    return found
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.02)
