"""A user that asks for admission again and again is told to wait; nobody else notices, and no viewer ever does."""

import dataclasses
from typing import Any

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, LimitReached, StoreUnavailable, StreamTracker, TooManyAdmissions, admission_rate
from tests.conftest import RULES, TrackerFactory
from tests.helpers import until

pytestmark = pytest.mark.anyio

KEY = "admissions:{alice}"
FEW = dataclasses.replace(RULES, admissions_per_minute=5)
MANY = dataclasses.replace(RULES, admissions_per_minute=120)


@pytest.fixture
async def tracker(make_tracker: TrackerFactory) -> StreamTracker:
    return await make_tracker(FEW)


async def answers(tracker: StreamTracker, count: int, user_id: str = "alice", **options: Any) -> list[type]:
    return [type(await tracker.admit(user_id, **options)) for _ in range(count)]


async def test_as_many_as_the_rate_are_decided_and_the_next_is_to_wait(tracker: StreamTracker) -> None:
    assert await answers(tracker, 5) == [Admission] * 3 + [LimitReached] * 2

    refusal = await tracker.admit("alice")
    assert isinstance(refusal, TooManyAdmissions)
    assert 0 < refusal.retry_after_ms <= admission_rate.WINDOW_MS


async def test_who_waits_takes_no_seat_and_loses_none(tracker: StreamTracker) -> None:
    assert await answers(tracker, 6, on_limit="evict") == [Admission] * 5 + [TooManyAdmissions]
    before = await tracker.list("alice")

    await tracker.admit("alice", on_limit="evict")

    assert [one.ref for one in (await tracker.list("alice")).streams] == [one.ref for one in before.streams]


async def test_other_users_do_not_wait(tracker: StreamTracker) -> None:
    await answers(tracker, 6)

    assert await answers(tracker, 1, "bob") == [Admission]


async def test_heartbeats_and_questions_are_not_counted(tracker: StreamTracker) -> None:
    first = await tracker.admit("alice")
    assert isinstance(first, Admission)
    for _ in range(6):
        await tracker.heartbeat("alice", first.lease.stream_id)
        await tracker.check("alice")
        await tracker.list("alice")

    assert await answers(tracker, 4) == [Admission] * 2 + [LimitReached] * 2


async def test_another_process_knows_too(tracker: StreamTracker, make_tracker: TrackerFactory) -> None:
    await answers(tracker, 5)

    assert await answers(await make_tracker(FEW), 1) == [TooManyAdmissions]


async def test_after_the_minute_all_is_forgotten(tracker: StreamTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_rate, "WINDOW_MS", 300)

    async def refused() -> bool:
        return await answers(tracker, 1) == [TooManyAdmissions]

    async def decided() -> bool:
        return await answers(tracker, 1) == [LimitReached]

    await until(refused)
    await until(decided)


async def test_the_minute_begins_with_the_first_and_is_not_prolonged(tracker: StreamTracker, redis: Redis) -> None:
    await answers(tracker, 1)
    await redis.pexpire(KEY, 10_000)

    assert (await answers(tracker, 5))[-1] == TooManyAdmissions
    assert 0 < await redis.pttl(KEY) <= 10_000


async def test_a_count_without_an_end_gets_one(tracker: StreamTracker, redis: Redis) -> None:
    await redis.set(KEY, 100)

    assert await answers(tracker, 1) == [TooManyAdmissions]
    assert await redis.pttl(KEY) > 0


async def test_who_asks_as_often_as_people_do_leaves_no_key(make_tracker: TrackerFactory, redis: Redis) -> None:
    await answers(await make_tracker(MANY), 9)

    assert not await redis.exists(KEY)


async def test_a_process_lets_in_less_than_a_twelfth_more(make_tracker: TrackerFactory) -> None:
    trackers = [await make_tracker(MANY) for _ in range(2)]
    decided = 0
    for _ in range(100):
        for tracker in trackers:
            decided += await answers(tracker, 1) != [TooManyAdmissions]

    assert 120 <= decided < 120 + 2 * 10


async def test_what_cannot_be_counted_is_let_in(tracker: StreamTracker, redis: Redis) -> None:
    await redis.hset(KEY, "a", "hash")

    assert await answers(tracker, 3) == [Admission] * 3


async def test_a_process_remembers_no_more_users_than_it_may(
    make_tracker: TrackerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_rate, "_MAX_USERS", 10)
    tracker = await make_tracker(MANY)
    for number in range(25):
        await answers(tracker, 1, f"user-{number}")

    assert len(tracker._rate._asked) == 5


async def test_without_a_rate_nothing_is_counted(make_tracker: TrackerFactory, redis: Redis) -> None:
    await answers(await make_tracker(RULES), 20)

    assert not await redis.exists(KEY)


async def test_a_store_that_is_away_tells_nobody_to_wait(
    tracker: StreamTracker, make_tracker: TrackerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowing = await make_tracker(dataclasses.replace(FEW, on_outage="allow"))

    async def away(*_: Any) -> Any:
        raise StoreUnavailable("away") from ConnectionError("away")

    for one in (tracker, allowing):
        monkeypatch.setattr(one._store, "run", away)

    with pytest.raises(StoreUnavailable):
        await tracker.admit("alice")
    assert await answers(allowing, 10) == [Admission] * 10
