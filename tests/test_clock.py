"""The store's clock is stepped: the limit holds all the same, and these are the exceptions to what else is promised."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, Lease, LimitReached, Recovering, StreamEnded, StreamTracker
from tests import faketime
from tests.conftest import RULES, SECRET
from tests.cuts import seats
from tests.faketime import with_a_clock_of_its_own
from tests.figures import Figures, figures
from tests.helpers import admitted, until
from tests.servers import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TTL: Final = 90
TTL_RULES: Final = dataclasses.replace(RULES, ttl_ms=TTL * 1000, heartbeat_ms=30_000)
HOUR: Final = 3_600


class Clock:
    """The clock of a server, so many seconds from the true one."""

    def __init__(self, directory: Path, operator: Redis, measured: Figures) -> None:
        self._directory = directory
        self._operator = operator
        self._measured = measured
        self.call = measured.call

    async def step(self, seconds: int) -> None:
        before = await self._now()
        self._measured.fault = f"clock set {'forward' if seconds > 0 else 'back'}"
        self._measured.cases += 1
        faketime.step(self._directory, seconds)
        await until(lambda: self._stepped(before))

    async def _stepped(self, before: int) -> bool:
        return abs(await self._now() - before) > TTL / 2

    async def _now(self) -> int:
        return int((await self._operator.time())[0])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with with_a_clock_of_its_own(tmp_path) as server:
        yield server


@pytest.fixture
def clock(operator: Redis, tmp_path: Path) -> Iterator[Clock]:
    with figures("clock") as measured:
        yield Clock(tmp_path, operator, measured)


@pytest.fixture
async def tracker(server: RedisServer) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(server.url, [SECRET], TTL_RULES) as tracker:
        yield tracker


async def full(tracker: StreamTracker) -> list[str]:
    """The ids of as many streams as the limit allows."""
    return [(await admitted(tracker)).lease.stream_id for _ in range(TTL_RULES.limit)]


async def beats(tracker: StreamTracker, clock: Clock, stream_ids: list[str]) -> list[object]:
    calls = (clock.call(tracker.heartbeat("alice", stream_id)) for stream_id in stream_ids)
    return list(await asyncio.gather(*calls))


async def test_a_step_forward_of_less_than_a_ttl_ends_no_stream_that_has_time_left(
    tracker: StreamTracker, clock: Clock
) -> None:
    streams = await full(tracker)
    await clock.step(TTL * 2 // 3)

    assert all(isinstance(beat, Lease) for beat in await beats(tracker, clock, streams))
    assert isinstance(await clock.call(tracker.admit("alice")), LimitReached)


async def test_a_step_forward_ends_an_old_stream_that_has_less_time_left(
    tracker: StreamTracker, clock: Clock, operator: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception: its next heartbeat would have been in time."""
    hour_ago = time.time_ns() - HOUR * 10**9  # a young stream would resume
    with monkeypatch.context() as patches:
        patches.setattr("streamlimit.stream_id.time", SimpleNamespace(time_ns=lambda: hour_ago))
        streams = await full(tracker)
    await operator.pexpire("stream:{alice}:1", TTL * 1000 // 2)
    await clock.step(TTL * 2 // 3)

    first, *others = await beats(tracker, clock, streams)
    assert first == StreamEnded("expired")
    assert all(isinstance(beat, Lease) for beat in others)


async def test_a_step_forward_of_more_than_a_ttl_ends_all_streams_once_and_nobody_waits(
    tracker: StreamTracker, clock: Clock, operator: Redis
) -> None:
    """The exception: until their next heartbeat they play beside those that are admitted in their place."""
    streams = await full(tracker)
    await clock.step(2 * TTL)

    again = await full(tracker)
    assert await beats(tracker, clock, streams) == [StreamEnded("expired")] * TTL_RULES.limit
    assert isinstance(await clock.call(tracker.admit("alice")), LimitReached)
    assert all(isinstance(beat, Lease) for beat in await beats(tracker, clock, again))
    assert await beats(tracker, clock, streams) == [StreamEnded("expired")] * TTL_RULES.limit
    assert len(await seats(operator, "alice")) == TTL_RULES.limit


async def test_after_a_step_backward_the_limit_holds_and_the_next_heartbeat_sets_the_ttl_right(
    tracker: StreamTracker, clock: Clock, operator: Redis
) -> None:
    streams = await full(tracker)
    await clock.step(-HOUR)

    assert isinstance(await clock.call(tracker.admit("alice")), LimitReached)
    assert all(isinstance(beat, Lease) for beat in await beats(tracker, clock, streams))
    assert len(await seats(operator, "alice")) == TTL_RULES.limit


async def test_after_a_step_backward_a_dead_seat_is_held_longer_by_the_step_but_can_be_ended(
    tracker: StreamTracker, clock: Clock, operator: Redis
) -> None:
    await full(tracker)
    await clock.step(-HOUR)

    assert HOUR < await operator.ttl("stream:{alice}:1") <= HOUR + TTL
    assert isinstance(await clock.call(tracker.admit("alice", on_limit="evict")), Admission)
    assert len(await clock.call(tracker.terminate_all("alice"))) == TTL_RULES.limit


async def test_while_the_clock_is_behind_a_stream_lost_alone_does_not_resume(
    tracker: StreamTracker, clock: Clock, operator: Redis
) -> None:
    await clock.step(-HOUR)
    stream_id = (await admitted(tracker)).lease.stream_id
    assert isinstance(await clock.call(tracker.heartbeat("alice", stream_id)), Lease)
    await operator.delete("stream:{alice}:1")

    assert await clock.call(tracker.heartbeat("alice", stream_id)) == StreamEnded("expired")


async def test_a_step_backward_in_recovery_makes_nobody_wait_longer_than_a_ttl(
    tracker: StreamTracker, clock: Clock, operator: Redis
) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await operator.flushall()
    assert isinstance(await clock.call(tracker.heartbeat("alice", stream_id)), Lease)
    await clock.step(-HOUR)

    answer = await clock.call(tracker.admit("alice"))
    assert isinstance(answer, Recovering)
    assert answer.retry_after_ms <= TTL * 1000
    assert isinstance(await clock.call(tracker.heartbeat("alice", stream_id)), Lease)
