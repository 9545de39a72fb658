"""Loss of data: who notices it, and for how long new admissions wait."""

import dataclasses
import time
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, Lease, LimitReached, Recovering, StreamEnded, StreamTracker
from streamlimit.scripts import EPOCH
from tests.conftest import RULES, TrackerFactory
from tests.helpers import admitted, until
from tests.stores import epoch_of, epochs

pytestmark = pytest.mark.anyio


async def recovering_ms(tracker: StreamTracker) -> int:
    return (await tracker.health()).recovering_ms


async def test_at_a_first_start_nobody_waits(tracker: StreamTracker) -> None:
    assert await recovering_ms(tracker) == 0
    assert isinstance(await tracker.admit("alice"), Admission)


async def test_another_process_that_starts_does_not_make_anybody_wait(
    tracker: StreamTracker, make_tracker: TrackerFactory
) -> None:
    other = await make_tracker()

    assert (await recovering_ms(other), await recovering_ms(tracker)) == (0, 0)


async def test_a_process_that_starts_in_recovery_waits_too(
    tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis
) -> None:
    await redis.flushall()
    await recovering_ms(tracker)

    assert isinstance(await (await make_tracker()).admit("alice"), Recovering)


async def test_old_streams_resume_through_a_process_that_started_in_recovery(
    tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_ago = time.time_ns() - 3600 * 10**9  # a young stream would resume without a recovery
    with monkeypatch.context() as patches:
        patches.setattr("streamlimit.stream_id.time", SimpleNamespace(time_ns=lambda: hour_ago))
        stream_id = (await admitted(tracker)).lease.stream_id
    await redis.flushall()
    await recovering_ms(tracker)

    assert isinstance(await (await make_tracker()).heartbeat("alice", stream_id), Lease)


async def test_a_loss_while_all_processes_were_idle_is_noticed_at_the_next_call_however_late(
    make_tracker: TrackerFactory, redis: Redis
) -> None:
    """Nobody knows which of the streams were silent, so all may resume."""
    rules = dataclasses.replace(RULES, ttl_ms=600, heartbeat_ms=200)
    tracker, other = await make_tracker(rules), await make_tracker(rules)
    streams = [await admitted(tracker) for _ in range(rules.limit)]
    await redis.flushall()

    async def all_are_older_than_a_ttl() -> bool:
        seconds, microseconds = await redis.time()
        return seconds * 1000 + microseconds // 1000 > streams[-1].lease.expires_at_ms

    await until(all_are_older_than_a_ttl)
    for stream in streams:
        assert isinstance(await tracker.heartbeat("alice", stream.lease.stream_id), Lease)
    assert isinstance(await other.admit("bob"), Recovering)
    assert isinstance(await other.admit("alice"), LimitReached)


async def test_recovery_opens_though_a_new_process_met_the_empty_store_first(
    tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis
) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.flushall()
    newcomer = await make_tracker()
    assert await recovering_ms(newcomer) == 0

    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
    assert isinstance(await newcomer.admit("alice"), Recovering)


async def test_recovery_is_not_lengthened_by_those_who_learn_of_it_late(
    tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis
) -> None:
    other = await make_tracker()
    await redis.flushall()
    await recovering_ms(tracker)
    until = await redis.hget(epoch_of(redis), "recovering_until")

    await recovering_ms(other)

    assert await redis.hget(epoch_of(redis), "recovering_until") == until


async def test_a_loss_that_was_long_ago_makes_nobody_wait(
    tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis
) -> None:
    await redis.flushall()
    await make_tracker()
    since = int(str(await redis.hget(epoch_of(redis), "since")))
    for epoch in await epochs(redis):
        await redis.hset(epoch, "since", str(since - RULES.ttl_ms))

    assert await recovering_ms(tracker) == 0
    assert isinstance(await tracker.admit("alice"), Admission)


@pytest.mark.parametrize(("known", "waits"), [("", False), ("E0", True)])
async def test_a_long_outage_of_a_store_that_nobody_used_makes_nobody_wait(
    redis: Redis, known: str, *, waits: bool
) -> None:
    _, now, recovering_until = await redis.eval(EPOCH.source, 1, epoch_of(redis), known, "E1", "3000", "1")

    assert (recovering_until > now) == waits


async def test_after_a_long_outage_all_wait_for_a_whole_ttl(redis: Redis) -> None:
    await redis.eval(EPOCH.source, 1, epoch_of(redis), "", "E1", "3000", "")
    _, now, recovering_until = await redis.eval(EPOCH.source, 1, epoch_of(redis), "E1", "E2", "3000", "1")

    assert recovering_until - now == 3000


async def test_a_recovery_that_began_before_the_clock_was_set_back_lasts_no_longer_than_a_ttl(
    tracker: StreamTracker, redis: Redis
) -> None:
    in_an_hour = time.time_ns() // 1_000_000 + 3_600_000
    await redis.hset(epoch_of(redis), "recovering_until", str(in_an_hour))

    answer = await tracker.admit("alice")

    assert isinstance(answer, Recovering)
    assert answer.retry_after_ms <= RULES.ttl_ms


@pytest.mark.parametrize("live", [0, 1, 2])
async def test_no_free_seat_is_given_in_recovery_not_even_the_last(
    tracker: StreamTracker, redis: Redis, live: int
) -> None:
    streams = [(await admitted(tracker)).lease.stream_id for _ in range(live)]
    await redis.flushall()
    for stream_id in streams:
        assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)

    assert isinstance(await tracker.admit("alice"), Recovering)


async def test_a_loss_at_which_every_process_starts_anew_is_known_to_nobody(
    make_tracker: TrackerFactory, redis: Redis
) -> None:
    """The exception: streams that are older than a TTL end, and nobody waits."""
    rules = dataclasses.replace(RULES, ttl_ms=300, heartbeat_ms=100)
    tracker = await make_tracker(rules)
    admission = await admitted(tracker)

    async def is_old() -> bool:
        lease = await tracker.heartbeat("alice", admission.lease.stream_id)
        assert isinstance(lease, Lease)
        return lease.expires_at_ms > admission.stream.started_at_ms + 3 * rules.ttl_ms

    await until(is_old)
    await redis.flushall()
    anew = await make_tracker(rules)

    assert await anew.heartbeat("alice", admission.lease.stream_id) == StreamEnded("expired")
    assert isinstance(await anew.admit("alice"), Admission)


async def test_recovery_ends_after_one_ttl(make_tracker: TrackerFactory, redis: Redis) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, ttl_ms=300, heartbeat_ms=100))
    await redis.flushall()
    waits: list[int] = []

    async def let_in() -> Admission | None:
        answer = await tracker.admit("alice")
        if isinstance(answer, Recovering):
            waits.append(answer.retry_after_ms)
        return answer if isinstance(answer, Admission) else None

    await until(let_in)
    assert len(waits) > 1
    assert 300 >= max(waits) == waits[0] > min(waits) == waits[-1] > 0


async def test_of_streams_that_report_together_the_first_comes_back_where_there_is_room_for_one(
    tracker: StreamTracker, redis: Redis
) -> None:
    streams = [("alice", (await admitted(tracker)).lease.stream_id) for _ in range(3)]
    await redis.flushall()
    await tracker.set_user_limit("alice", 1)

    beats = await tracker.heartbeat_many(streams)

    assert [type(beat) for beat in beats] == [Lease, StreamEnded, StreamEnded]
