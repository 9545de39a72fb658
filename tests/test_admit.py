"""The contract of admission, rule by rule, on every store."""

import dataclasses
import re
from typing import Any

import pytest
from redis.asyncio import Redis

from streamlimit import (
    Admission,
    EndedBy,
    InvalidInput,
    LimitReached,
    Recovering,
    StreamEnded,
    StreamTracker,
    UnknownUser,
)
from streamlimit.keys import Keys
from streamlimit.scripts import ADMIT
from streamlimit.stream_id import mint_ref, parse_stream_id
from tests.conftest import RULES, TrackerFactory
from tests.helpers import admitted, refs
from tests.stores import epoch_of, stored

pytestmark = pytest.mark.anyio


async def test_streams_are_admitted_up_to_the_limit(tracker: StreamTracker) -> None:
    answers = [await tracker.admit("alice") for _ in range(4)]

    assert [type(answer) for answer in answers] == [Admission, Admission, Admission, LimitReached]
    assert [answer.live for answer in answers if isinstance(answer, Admission)] == [1, 2, 3]


async def test_a_refusal_shows_the_live_streams_and_when_the_first_would_expire(tracker: StreamTracker) -> None:
    devices = [f"tv-{number}" for number in range(3)]
    for device in devices:
        await admitted(tracker, device_id=device, device_name="Wohnzimmer 📺", content_id="match-1")

    refusal = await tracker.admit("alice")

    assert isinstance(refusal, LimitReached)
    assert (refusal.live, refusal.limit) == (3, 3)
    assert [stream.device_id for stream in refusal.streams] == devices
    assert {stream.device_name for stream in refusal.streams} == {"Wohnzimmer 📺"}
    assert {stream.content_id for stream in refusal.streams} == {"match-1"}
    assert refusal.retry_after_ms is not None
    assert 0 < refusal.retry_after_ms <= RULES.ttl_ms


async def test_the_lowest_free_seat_is_given(tracker: StreamTracker) -> None:
    streams = [await admitted(tracker) for _ in range(3)]
    await tracker.release("alice", streams[1].lease.stream_id)

    assert (await admitted(tracker)).stream.seat == 2


async def test_users_do_not_meet(tracker: StreamTracker) -> None:
    for _ in range(3):
        await admitted(tracker, "alice")

    assert (await admitted(tracker, "bob")).live == 1


async def test_the_keys_are_those_of_the_contract(tracker: StreamTracker, redis: Redis) -> None:
    admission = await admitted(tracker, device_id="tv-1", device_name="TV", content_id="match-1", idempotency_key="k")

    assert await stored(redis) == {"stream:{alice}:1"}
    fields = await redis.hgetall("stream:{alice}:1")
    seat, ref, sig = admission.lease.stream_id.split(".")
    assert (seat, fields["ref"], fields["sig"]) == ("1", ref, sig)
    assert int(fields["started_at"]) == admission.stream.started_at_ms
    assert (fields["device_id"], fields["device_name"], fields["content_id"]) == ("tv-1", "TV", "match-1")
    assert set(fields) == {"ref", "sig", "started_at", "device_id", "device_name", "content_id", "request"}
    assert 0 < await redis.pttl("stream:{alice}:1") <= RULES.ttl_ms
    epoch = {str(field).partition(":")[0] for field in await redis.hgetall(epoch_of(redis))}
    assert epoch - {"secret"} == {"id", "since", "recovering_until"}
    assert await redis.pttl(epoch_of(redis)) == -1


async def test_what_is_not_given_is_not_stored(tracker: StreamTracker, redis: Redis) -> None:
    await admitted(tracker)

    assert set(await redis.hkeys("stream:{alice}:1")) == {"ref", "sig", "started_at"}


async def test_a_prefix_separates_deployments(make_tracker: TrackerFactory, redis: Redis) -> None:
    blue, green = await make_tracker(key_prefix="blue"), await make_tracker(key_prefix="green")
    stream_id = (await admitted(blue)).lease.stream_id

    assert "blue:stream:{alice}:1" in await stored(redis)
    assert (await green.list("alice")).streams == ()
    assert not isinstance(await green.heartbeat("alice", stream_id), type(await blue.heartbeat("alice", stream_id)))


# Rule 1: the limit.


async def test_the_record_goes_before_the_default(tracker: StreamTracker) -> None:
    await tracker.set_user_limit("alice", 1)

    assert (await admitted(tracker)).limit == 1
    assert isinstance(await tracker.admit("alice"), LimitReached)


async def test_a_trusted_override_goes_before_the_record(tracker: StreamTracker) -> None:
    await tracker.set_user_limit("alice", 1)

    assert [(await admitted(tracker, limit=2)).limit for _ in range(2)] == [2, 2]
    assert isinstance(await tracker.admit("alice", limit=2), LimitReached)


async def test_limit_0_refuses_always(tracker: StreamTracker) -> None:
    answer = await tracker.admit("alice", limit=0, on_limit="evict")

    assert answer == LimitReached(live=0, limit=0, streams=(), retry_after_ms=None)


@pytest.mark.parametrize(
    ("written", "limit"),
    [("2", 2), ("99", 10), ("-4", 0), ("2.9", 2), (" 4 ", 4), ("many", 3), ("", 3), ("nan", 3), ("0x2", 3), ("1e1", 3)],
)
async def test_a_limit_written_by_hand_is_clamped_or_ignored(
    tracker: StreamTracker, redis: Redis, written: str, limit: int
) -> None:
    await redis.hset("user:{alice}", "limit", written)

    assert (await tracker.list("alice")).limit == limit
    assert (await tracker.check("alice")).limit == limit
    assert (await tracker.admit("alice")).limit == limit  # type: ignore[union-attr]


async def test_the_limit_is_kept_in_the_stream_id(tracker: StreamTracker) -> None:
    await tracker.set_user_limit("alice", 7)
    stream_id = parse_stream_id((await admitted(tracker)).lease.stream_id)

    assert stream_id is not None
    assert stream_id.limit == 7


async def test_an_unknown_user_is_rejected_where_that_is_the_rule(make_tracker: TrackerFactory) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, unknown_users="reject"))

    assert await tracker.admit("alice") == UnknownUser()
    assert (await tracker.check("alice")).reason == "unknown_user"
    assert (await tracker.list("alice")).limit is None
    await tracker.set_user_limit("alice", 2)
    assert (await admitted(tracker)).limit == 2


async def test_a_trusted_override_makes_a_user_known(make_tracker: TrackerFactory) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, unknown_users="reject"))

    assert (await admitted(tracker, limit=1)).limit == 1


@pytest.mark.parametrize("limit", [-1, 11])
async def test_an_override_out_of_range_is_an_error(tracker: StreamTracker, limit: int) -> None:
    with pytest.raises(InvalidInput, match="limit: must be 0 to 10"):
        await tracker.admit("alice", limit=limit)


# Rule 2: an admission already made.


async def test_the_same_idempotency_key_gives_the_same_stream(tracker: StreamTracker) -> None:
    first = await admitted(tracker, idempotency_key="k", device_id="tv-1")
    again = await admitted(tracker, idempotency_key="k", device_id="tv-2", on_limit="evict")

    assert again.lease.stream_id == first.lease.stream_id
    assert (again.live, again.ended, again.stream.device_id) == (1, (), "tv-1")


async def test_a_repeated_admission_says_again_what_it_ended(tracker: StreamTracker, redis: Redis) -> None:
    for number in range(3):
        await admitted(tracker, device_id=f"tv-{number}", device_name=f"TV {number} 📺", content_id="match 1")
    await redis.pexpire("stream:{alice}:3", RULES.stale_below_ms - 100)  # evicted first
    wish: dict[str, Any] = {"device_id": "tv-1", "on_limit": "evict", "limit": 1, "idempotency_key": "k"}
    first = await admitted(tracker, **wish)
    await admitted(tracker, limit=10)

    again = await admitted(tracker, **wish)

    assert [one.stream.seat for one in first.ended] == [2, 3, 1]
    assert [one.reason for one in first.ended] == ["replaced", "evicted", "evicted"]
    assert again.ended == first.ended


async def test_a_repeated_admission_does_not_list_what_others_ended(tracker: StreamTracker) -> None:
    other = await admitted(tracker)
    await admitted(tracker, take_over=other.stream.stream_ref)
    await admitted(tracker, idempotency_key="k")
    await tracker.release("alice", (await admitted(tracker)).lease.stream_id)

    assert (await admitted(tracker, idempotency_key="k")).ended == ()


async def test_an_end_that_a_version_before_recorded_is_not_listed(tracker: StreamTracker, redis: Redis) -> None:
    other = await admitted(tracker)
    await admitted(tracker, take_over=other.stream.stream_ref, idempotency_key="k")
    await redis.hset("ended:{alice}", other.stream.ref, "taken_over 1795478462516")

    assert (await admitted(tracker, idempotency_key="k")).ended == ()
    assert await tracker.heartbeat("alice", other.lease.stream_id) == StreamEnded("taken_over")


async def test_a_version_before_finds_the_reason_first_and_the_time_last(tracker: StreamTracker, redis: Redis) -> None:
    other = await admitted(tracker, device_name="TV 1", content_id="match 1")
    await admitted(tracker, take_over=other.stream.stream_ref, device_name="Phone 2")

    (entry,) = map(str, await redis.hvals("ended:{alice}"))

    assert re.findall(r"^\S+", entry) == ["taken_over"]
    assert re.findall(r"\d+$", entry) == [entry.split("\t")[-1]]


async def test_what_is_written_by_hand_does_not_garble_what_is_remembered(tracker: StreamTracker, redis: Redis) -> None:
    await admitted(tracker)
    await redis.hset("stream:{alice}:1", mapping={"device_name": "a\tb\n", "content_id": "\t" * 9})
    wish: dict[str, Any] = {"on_limit": "evict", "limit": 1, "idempotency_key": "k"}
    await admitted(tracker, **wish)

    (ended,) = (await admitted(tracker, **wish)).ended

    assert (ended.stream.device_name, ended.stream.content_id) == ("a b ", " " * 9)


async def test_a_repeated_admission_lives_a_whole_ttl_from_then(tracker: StreamTracker, redis: Redis) -> None:
    first = await admitted(tracker, idempotency_key="k")
    await redis.pexpire("stream:{alice}:1", 500)

    again = await admitted(tracker, idempotency_key="k")

    assert await redis.pttl("stream:{alice}:1") > 500
    assert again.lease.expires_at_ms == again.stream.expires_at_ms >= first.lease.expires_at_ms


async def test_at_the_limit_a_repeated_admission_is_not_refused(tracker: StreamTracker) -> None:
    first = await admitted(tracker, idempotency_key="k")
    await admitted(tracker)
    await admitted(tracker)

    assert (await admitted(tracker, idempotency_key="k")).stream.ref == first.stream.ref


async def test_above_a_lowered_limit_a_repeated_admission_is_not_let_in_beyond_it(tracker: StreamTracker) -> None:
    await admitted(tracker, idempotency_key="k")
    await admitted(tracker)
    await tracker.set_user_limit("alice", 1)

    assert (await admitted(tracker, idempotency_key="k")).over_limit is False


async def test_an_idempotency_key_of_an_ended_stream_starts_a_new_one(tracker: StreamTracker) -> None:
    first = await admitted(tracker, idempotency_key="k")
    await tracker.release("alice", first.lease.stream_id)

    assert (await admitted(tracker, idempotency_key="k")).stream.ref != first.stream.ref


async def test_idempotency_keys_of_users_are_their_own(tracker: StreamTracker) -> None:
    assert (await admitted(tracker, "alice", idempotency_key="k")).stream.ref != (
        await admitted(tracker, "bob", idempotency_key="k")
    ).stream.ref


async def run_admit(redis: Redis, ref: str, **given: str) -> Any:
    """Run the script as a late retry would: with a REF chosen here."""
    arguments = {"epoch": "", "ref": ref, "sig": "s" * 16, "ref_limit": "3", "ttl": "3000", "stale_below": "1000"}
    arguments |= {"override": "", "default": "3", "on_limit": "", "take_over": "", "device_id": "", "device_name": ""}
    arguments |= {"content_id": "", "request": "", "enforce": "1", "dry_run": ""} | given
    keys = [epoch_of(redis) if key.startswith("epoch:") else key for key in Keys().all_of("alice")]
    return await redis.eval(ADMIT.source, len(keys), *keys, *arguments.values())


async def test_a_late_run_with_the_same_ref_takes_no_second_seat(tracker: StreamTracker, redis: Redis) -> None:
    ref = mint_ref(3)

    first, again = await run_admit(redis, ref), await run_admit(redis, ref)

    assert (first[0], again[0]) == ("admitted", "admitted")
    assert await refs(tracker) == [ref]


async def test_a_run_does_not_list_what_an_admission_with_its_ref_ended_that_has_expired_since(redis: Redis) -> None:
    await run_admit(redis, "R0")
    await run_admit(redis, "R1", take_over="R0")
    entry = str(await redis.hget("ended:{alice}", "R0"))
    await redis.hset("ended:{alice}", "R0", f"{entry[:-13]}{int(entry[-13:]) - 1_000}")
    await redis.delete("stream:{alice}:1")

    first, again = await run_admit(redis, "R1"), await run_admit(redis, "R1")

    assert first[5] == again[5] == []


async def test_a_late_run_does_not_bring_an_ended_stream_back(tracker: StreamTracker, redis: Redis) -> None:
    await run_admit(redis, "R1")
    await tracker.terminate_all("alice")

    assert await run_admit(redis, "R1") == ["ended", "terminated", None, None]
    assert await refs(tracker) == []


async def test_a_late_run_is_told_its_end_even_with_another_device_in_its_seat(redis: Redis) -> None:
    await run_admit(redis, "R1", device_id="tv")
    await run_admit(redis, "R2", device_id="tv")

    assert await run_admit(redis, "R1", device_id="tv") == ["ended", "replaced", "1.R2", None]


async def test_another_limit_than_that_in_ref_writes_nothing(redis: Redis) -> None:
    assert await run_admit(redis, "R1", ref_limit="4") == ["limit", 3]
    assert await stored(redis) == set()


async def test_another_epoch_writes_nothing(redis: Redis) -> None:
    assert await run_admit(redis, "R1", epoch="another") == ["epoch"]
    assert await stored(redis) == set()


# Rule 3: replace.


async def test_a_device_gets_its_own_seat_back(tracker: StreamTracker) -> None:
    crashed = await admitted(tracker, device_id="tv-1")
    await admitted(tracker, device_id="tv-2")
    await admitted(tracker, device_id="tv-3")

    again = await admitted(tracker, device_id="tv-1", device_name="TV")

    assert (again.stream.seat, again.live) == (1, 3)
    assert [(ended.stream.ref, ended.reason) for ended in again.ended] == [(crashed.stream.ref, "replaced")]
    by = EndedBy(again.stream.stream_ref, "TV")
    assert await tracker.heartbeat("alice", crashed.lease.stream_id) == StreamEnded("replaced", by)


async def test_a_lowered_limit_cannot_be_kept_open_by_reloading(tracker: StreamTracker) -> None:
    streams = [await admitted(tracker, device_id=f"tv-{number}") for number in range(3)]
    await tracker.set_user_limit("alice", 2)

    refusal = await tracker.admit("alice", device_id="tv-0")
    assert isinstance(refusal, LimitReached)
    assert (refusal.live, refusal.limit) == (3, 2)
    assert await refs(tracker) == [one.stream.ref for one in streams]


async def test_replace_goes_before_take_over(tracker: StreamTracker) -> None:
    own = await admitted(tracker, device_id="tv-1")
    other = await admitted(tracker, device_id="tv-2")

    answer = await admitted(tracker, device_id="tv-1", take_over=other.stream.stream_ref)

    assert [(ended.stream.ref, ended.reason) for ended in answer.ended] == [(own.stream.ref, "replaced")]


# Rule 4: take over.


async def test_take_over_ends_the_chosen_stream_and_sits_in_its_seat(tracker: StreamTracker) -> None:
    streams = [await admitted(tracker) for _ in range(3)]

    answer = await admitted(tracker, take_over=streams[1].stream.stream_ref, device_name="Kids' tablet")

    assert (answer.stream.seat, answer.live) == (2, 3)
    assert [(ended.stream.ref, ended.reason) for ended in answer.ended] == [(streams[1].stream.ref, "taken_over")]
    by = EndedBy(answer.stream.stream_ref, "Kids' tablet")
    assert await tracker.heartbeat("alice", streams[1].lease.stream_id) == StreamEnded("taken_over", by)
    assert await tracker.get("alice", streams[1].lease.stream_id) == StreamEnded("taken_over", by)


async def test_take_over_works_below_the_limit_too(tracker: StreamTracker) -> None:
    other = await admitted(tracker)

    assert (await admitted(tracker, take_over=other.stream.stream_ref)).live == 1


async def test_taking_over_a_stream_that_is_not_live_is_ignored(tracker: StreamTracker) -> None:
    gone = await admitted(tracker)
    await tracker.release("alice", gone.lease.stream_id)

    assert (await admitted(tracker, take_over=gone.stream.stream_ref)).ended == ()


async def test_another_users_stream_cannot_be_taken_over(tracker: StreamTracker) -> None:
    other = await admitted(tracker, "bob")

    assert (await admitted(tracker, "alice", take_over=other.stream.stream_ref)).ended == ()
    assert await refs(tracker, "bob") == [other.stream.ref]


async def test_take_over_above_a_lowered_limit_ends_nobody(tracker: StreamTracker) -> None:
    streams = [await admitted(tracker) for _ in range(3)]
    await tracker.set_user_limit("alice", 2)

    assert isinstance(await tracker.admit("alice", take_over=streams[0].stream.stream_ref), LimitReached)
    assert len(await refs(tracker)) == 3


@pytest.mark.parametrize("wrong", ["", "1", "x.y", "1.AaIK0_JpA3awvPVL1Sg.b402MtFGMyX3vA59", "0.AaIK0_JpA3awvPVL1Sg"])
async def test_take_over_wants_a_stream_ref(tracker: StreamTracker, wrong: str) -> None:
    with pytest.raises(InvalidInput, match="take_over: must be a stream_ref"):
        await tracker.admit("alice", take_over=wrong)


# Rule 5: a free seat, but not in recovery.


async def test_a_new_admission_waits_while_the_store_recovers(tracker: StreamTracker, redis: Redis) -> None:
    await admitted(tracker)
    await redis.flushall()

    answer = await tracker.admit("alice")

    assert isinstance(answer, Recovering)
    assert 0 < answer.retry_after_ms <= RULES.ttl_ms
    assert await redis.exists("stream:{alice}:1") == 0


async def test_a_known_seat_may_change_hands_in_recovery(tracker: StreamTracker, redis: Redis) -> None:
    first = await admitted(tracker)
    await redis.flushall()
    await tracker.heartbeat("alice", first.lease.stream_id)

    assert (await admitted(tracker, take_over=first.stream.stream_ref)).live == 1


async def test_a_device_gets_its_own_seat_back_in_recovery_too(tracker: StreamTracker, redis: Redis) -> None:
    first = await admitted(tracker, device_id="tv-1")
    await redis.delete(epoch_of(redis))

    again = await admitted(tracker, device_id="tv-1")
    assert [one.stream.ref for one in again.ended] == [first.stream.ref]


async def test_evict_waits_for_a_free_seat_in_recovery_too(tracker: StreamTracker, redis: Redis) -> None:
    await admitted(tracker)
    await redis.delete(epoch_of(redis))

    assert isinstance(await tracker.admit("alice", on_limit="evict"), Recovering)


# Rule 6: evict.


async def test_evict_ends_the_oldest(tracker: StreamTracker) -> None:
    streams = [await admitted(tracker) for _ in range(3)]

    answer = await admitted(tracker, on_limit="evict")

    assert [(ended.stream.ref, ended.reason) for ended in answer.ended] == [(streams[0].stream.ref, "evicted")]
    assert (answer.stream.seat, answer.live) == (1, 3)
    by = EndedBy(answer.stream.stream_ref)
    assert await tracker.heartbeat("alice", streams[0].lease.stream_id) == StreamEnded("evicted", by)


async def test_evict_ends_a_stale_stream_first(tracker: StreamTracker, redis: Redis) -> None:
    streams = [await admitted(tracker) for _ in range(3)]
    await redis.pexpire("stream:{alice}:3", RULES.stale_below_ms - 100)

    answer = await admitted(tracker, on_limit="evict")

    assert [ended.stream.ref for ended in answer.ended] == [streams[2].stream.ref]


async def test_of_equally_old_streams_evict_ends_the_lower_seat(tracker: StreamTracker, redis: Redis) -> None:
    for seat in (1, 2, 3):
        await admitted(tracker)
        await redis.hset(f"stream:{{alice}}:{seat}", "started_at", "1000")

    assert [ended.stream.seat for ended in (await admitted(tracker, on_limit="evict")).ended] == [1]


async def test_evict_ends_as_many_as_needed(tracker: StreamTracker) -> None:
    streams = [await admitted(tracker) for _ in range(3)]
    await tracker.set_user_limit("alice", 2)

    answer = await admitted(tracker, on_limit="evict")

    assert [ended.stream.ref for ended in answer.ended] == [one.stream.ref for one in streams[:2]]
    assert answer.live == 2


@pytest.mark.parametrize(("chosen", "oldest_other"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("reason", ["replaced", "taken_over"])
async def test_above_a_lowered_limit_evict_ends_others_besides_the_stream_whose_seat_it_gets(
    tracker: StreamTracker, reason: str, chosen: int, oldest_other: int
) -> None:
    streams = [(await admitted(tracker, device_id=f"tv-{number}")).stream for number in range(3)]
    await tracker.set_user_limit("alice", 2)
    wish = {"device_id": f"tv-{chosen}"} if reason == "replaced" else {"take_over": streams[chosen].stream_ref}
    assert isinstance(await tracker.admit("alice", **wish), LimitReached)  # type: ignore[arg-type]

    answer = await admitted(tracker, on_limit="evict", **wish)

    ended = [(one.stream.ref, one.reason) for one in answer.ended]
    assert ended == [(streams[chosen].ref, reason), (streams[oldest_other].ref, "evicted")]
    assert (answer.stream.seat, answer.live) == (chosen + 1, 2)
    assert await refs(tracker) == [answer.stream.ref, streams[2].ref]


async def test_evict_ends_nobody_below_the_limit(tracker: StreamTracker) -> None:
    await admitted(tracker)

    assert (await admitted(tracker, on_limit="evict")).ended == ()


# Shadow mode.


async def test_shadow_mode_admits_beyond_the_limit_and_says_so(make_tracker: TrackerFactory) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, enforce=False))

    answers = [await admitted(tracker) for _ in range(5)]

    assert [answer.over_limit for answer in answers] == [False, False, False, True, True]
    assert tracker.shadow_admissions == 2


@pytest.mark.parametrize("live", [0, 3])
async def test_shadow_mode_says_so_again(make_tracker: TrackerFactory, live: int) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, enforce=False))
    for _ in range(live):
        await admitted(tracker)

    first = await admitted(tracker, idempotency_key="k")

    assert (await admitted(tracker, idempotency_key="k")).over_limit == first.over_limit == bool(live)


async def test_shadow_mode_refuses_when_no_seat_is_free(make_tracker: TrackerFactory) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, enforce=False, max_limit=4))
    for _ in range(4):
        await admitted(tracker)

    assert isinstance(await tracker.admit("alice"), LimitReached)


async def test_shadow_mode_ends_a_stream_only_where_asked_to(make_tracker: TrackerFactory) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, enforce=False))
    for _ in range(3):
        await admitted(tracker, device_id="tv")  # replaces itself
    await tracker.set_user_limit("alice", 0)

    answer = await admitted(tracker, on_limit="evict")

    assert (answer.over_limit, answer.ended, answer.live) == (True, (), 2)


async def test_shadow_mode_does_not_wait_in_recovery(make_tracker: TrackerFactory, redis: Redis) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, enforce=False))
    await redis.flushall()

    assert (await admitted(tracker)).over_limit is False


# Check.


async def test_check_answers_as_admit_would_and_writes_nothing(tracker: StreamTracker, redis: Redis) -> None:
    async def snapshot() -> list[tuple[Any, Any]]:
        return [(key, await redis.hgetall(key)) for key in sorted(await stored(redis))]

    for live in range(4):
        before = await snapshot()
        check = await tracker.check("alice")
        assert await snapshot() == before
        assert (check.live, check.limit) == (min(live, 3), 3)
        assert check.admissible == isinstance(await tracker.admit("alice", device_id=f"tv-{live}"), Admission)
    assert (await tracker.check("alice")).reason == "limit_reached"
    assert (await tracker.check("alice", device_id="tv-0")).admissible
    await redis.flushall()
    assert (await tracker.check("alice")).reason == "recovering"


async def test_check_can_take_a_user_without_a_record_as_unknown(tracker: StreamTracker) -> None:
    assert (await tracker.check("alice", known_users_only=True)).reason == "unknown_user"
