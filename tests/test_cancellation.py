"""A caller that is cancelled leaves nothing behind, wherever it happens."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, Lease, LimitReached, StreamTracker
from tests.conftest import SECRET
from tests.cuts import seats
from tests.figures import figures
from tests.helpers import admitted
from tests.servers import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
async def tracker(server: RedisServer) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(server.url, [SECRET]) as tracker:
        yield tracker


@pytest.mark.parametrize("meeting", ["known", "new"])
async def test_an_admission_that_is_cancelled_at_any_step_holds_no_seat_and_disturbs_nobody(
    tracker: StreamTracker, operator: Redis, meeting: str
) -> None:
    bystander = (await admitted(tracker, "bob")).lease.stream_id
    answered = 0
    stride = 1 if meeting == "known" else 5
    with figures("cancelled admission") as measured:
        while answered < 20:  # later and later, until all are answered before
            user_id = f"u{measured.cases}"
            if meeting == "new":
                await connections(tracker).disconnect()
                await operator.script_flush()
            task = asyncio.create_task(tracker.admit(user_id))
            beat = asyncio.create_task(measured.call(tracker.heartbeat("bob", bystander)))
            for _ in range(stride * measured.cases):
                await asyncio.sleep(0)
            task.cancel()
            (answer,) = await asyncio.gather(task, return_exceptions=True)
            lease = await beat
            assert isinstance(lease, Lease)
            assert lease.stream_id == bystander
            if tracker._store._repair:
                await tracker._store._repair
            if isinstance(answer, Admission):
                answered += 1
                assert await seats(operator, user_id) == [answer.stream.ref]
            else:
                assert isinstance(answer, asyncio.CancelledError), answer
                answered = 0
                assert await seats(operator, user_id) == []
            measured.cases += 1
    assert measured.cases > 20


async def test_a_crowd_that_is_cancelled_loses_no_connection(tracker: StreamTracker) -> None:
    pool = connections(tracker)
    for steps in range(60):
        crowd = [asyncio.create_task(tracker.admit(f"u{number}")) for number in range(100)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in crowd:
            task.cancel()
        await asyncio.wait(crowd)
        assert all(task.cancelled() or isinstance(task.result(), Admission | LimitReached) for task in crowd)
        if tracker._store._repair:
            await tracker._store._repair
        await tracker._store._topology.node(0).calls.drain()
        assert not pool._in_use_connections


def connections(tracker: StreamTracker) -> Any:
    """redis-py's pool."""
    topology: Any = tracker._store._topology
    return topology._client.connection_pool
