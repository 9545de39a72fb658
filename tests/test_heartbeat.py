"""The contract of a stream's life after its admission, on every store."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from streamlimit import InvalidInput, Lease, Reason, Rules, Stream, StreamEnded, StreamTracker, UnknownStream, replies
from streamlimit.keys import Keys
from streamlimit.node import Claim
from streamlimit.results import Undecided
from streamlimit.scripts import DELETE, TRIM, Script
from streamlimit.store import Store
from streamlimit.stream_id import Signer, StreamId, mint_ref, parse_stream_id
from tests.conftest import RULES, SECRET, TrackerFactory
from tests.helpers import admitted, refs, until
from tests.stores import epoch_of, stored

pytestmark = pytest.mark.anyio

SHORT = Rules(ttl_ms=300, heartbeat_ms=100)


async def until_gone(redis: Redis) -> None:
    async def gone() -> bool:
        return not await redis.exists("stream:{alice}:1")

    await until(gone)


async def test_a_heartbeat_gives_a_whole_ttl(tracker: StreamTracker, redis: Redis) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.pexpire("stream:{alice}:1", 500)

    lease = await tracker.heartbeat("alice", stream_id)

    assert isinstance(lease, Lease)
    assert (lease.stream_id, lease.ttl_ms) == (stream_id, RULES.ttl_ms)
    assert 500 < await redis.pttl("stream:{alice}:1") <= RULES.ttl_ms


async def test_heartbeats_keep_a_stream_live_past_its_ttl(make_tracker: TrackerFactory) -> None:
    tracker = await make_tracker(SHORT)
    admission = await admitted(tracker)
    async with asyncio.timeout(10):
        while True:
            lease = await tracker.heartbeat("alice", admission.lease.stream_id)
            assert isinstance(lease, Lease), lease
            if lease.expires_at_ms > admission.stream.started_at_ms + 4 * SHORT.ttl_ms:
                break
            await asyncio.sleep(0.05)
    assert await refs(tracker) == [admission.stream.ref]


async def test_a_stream_without_heartbeats_is_gone_after_its_ttl(make_tracker: TrackerFactory, redis: Redis) -> None:
    tracker = await make_tracker(SHORT)
    stream_id = (await admitted(tracker)).lease.stream_id
    await until_gone(redis)

    assert await tracker.heartbeat("alice", stream_id) == StreamEnded("expired")
    assert (await admitted(tracker)).live == 1
    assert await tracker.heartbeat("alice", stream_id) == StreamEnded("expired")


@pytest.mark.parametrize(("ttl_ms", "unwritten_ms"), [(90_000, 1_000), (20_000, 1_000), (3_000, 150)])
async def test_a_heartbeat_soon_after_the_last_writes_nothing(
    make_tracker: TrackerFactory, redis: Redis, ttl_ms: int, unwritten_ms: int
) -> None:
    tracker = await make_tracker(Rules(ttl_ms=ttl_ms, heartbeat_ms=ttl_ms // 3))
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.pexpire("stream:{alice}:1", ttl_ms - unwritten_ms // 2)
    lease = await tracker.heartbeat("alice", stream_id)
    assert isinstance(lease, Lease)
    assert await redis.pttl("stream:{alice}:1") <= ttl_ms - unwritten_ms // 2

    await redis.pexpire("stream:{alice}:1", ttl_ms - unwritten_ms - 1)
    await tracker.heartbeat("alice", stream_id)
    assert await redis.pttl("stream:{alice}:1") > ttl_ms - unwritten_ms


@pytest.mark.parametrize("heartbeat_ms", [1_000, 5_000, 30_000])
async def test_two_heartbeats_may_be_lost_though_the_last_one_wrote_nothing(
    make_tracker: TrackerFactory, redis: Redis, heartbeat_ms: int
) -> None:
    rules = Rules(ttl_ms=3 * heartbeat_ms, heartbeat_ms=heartbeat_ms)
    tracker = await make_tracker(rules)
    lease = (await admitted(tracker)).lease
    apart = round(rules.heartbeat_ms * 0.85)  # as often as a player may be asked for them
    await redis.pexpire("stream:{alice}:1", rules.ttl_ms - apart)

    await tracker.heartbeat("alice", lease.stream_id)

    assert await redis.pttl("stream:{alice}:1") > 3 * rules.heartbeat_ms * 0.95


async def test_a_ttl_that_is_too_long_is_cut(tracker: StreamTracker, redis: Redis) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    for command in (redis.persist("stream:{alice}:1"), redis.pexpire("stream:{alice}:1", 60_000)):
        await command
        await tracker.heartbeat("alice", stream_id)
        assert 0 < await redis.pttl("stream:{alice}:1") <= RULES.ttl_ms


async def test_players_are_spread_out(tracker: StreamTracker) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    beats = {(await tracker.heartbeat("alice", stream_id)).heartbeat_ms for _ in range(50)}  # type: ignore[union-attr]

    assert len(beats) > 10
    assert min(beats) >= 0.85 * RULES.heartbeat_ms
    assert max(beats) <= 0.95 * RULES.heartbeat_ms


async def test_an_invented_id_is_unknown_and_makes_no_key(tracker: StreamTracker, redis: Redis) -> None:
    invented = f"1.{mint_ref(3)}.{'A' * 16}"

    assert await tracker.heartbeat("alice", invented) == UnknownStream()
    assert await tracker.get("alice", invented) == UnknownStream()
    await tracker.release("alice", invented)
    assert await stored(redis) == set()


@pytest.mark.parametrize("text", ["", "1", "1.2.3", "a.b.c", "../1", "1." + "A" * 19, "0." + "A" * 19 + "." + "A" * 16])
async def test_a_malformed_id_is_unknown(tracker: StreamTracker, text: str) -> None:
    assert await tracker.heartbeat("alice", text) == UnknownStream()
    assert await tracker.get("alice", text) == UnknownStream()
    await tracker.release("alice", text)


async def test_an_id_of_another_user_is_unknown(tracker: StreamTracker) -> None:
    stream_id = (await admitted(tracker, "alice")).lease.stream_id

    assert await tracker.heartbeat("bob", stream_id) == UnknownStream()
    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)


async def test_a_wrong_signature_keeps_nothing_alive(tracker: StreamTracker) -> None:
    seat, ref, _ = (await admitted(tracker)).lease.stream_id.split(".")

    assert await tracker.heartbeat("alice", f"{seat}.{ref}.{'A' * 16}") == UnknownStream()


@pytest.mark.parametrize("seat", [1, 2])
async def test_the_signature_of_another_stream_keeps_nothing_alive(tracker: StreamTracker, seat: int) -> None:
    sig = (await admitted(tracker)).lease.stream_id.rpartition(".")[2]

    assert await tracker.heartbeat("alice", f"{seat}.{mint_ref(3)}.{sig}") == UnknownStream()


@pytest.mark.parametrize("seat", [2, 10, 99])
async def test_the_seat_is_only_a_hint(tracker: StreamTracker, redis: Redis, seat: int) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.pexpire("stream:{alice}:1", 500)

    lease = await tracker.heartbeat("alice", f"{seat}{stream_id[1:]}")

    assert isinstance(lease, Lease)
    assert lease.stream_id == stream_id
    assert 500 < await redis.pttl("stream:{alice}:1") <= RULES.ttl_ms


async def test_a_seat_beyond_the_last_which_nobody_counts_is_not_kept_alive(
    tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis
) -> None:
    streams = [(await admitted(tracker)).lease.stream_id for _ in range(3)]
    await redis.pexpire("stream:{alice}:3", 500)
    small = await make_tracker(dataclasses.replace(RULES, limit=2, max_limit=2))

    await small.heartbeat("alice", streams[2])

    assert await redis.pttl("stream:{alice}:3") <= 500


async def test_many_heartbeats_are_answered_in_order(tracker: StreamTracker, redis: Redis) -> None:
    alive = (await admitted(tracker, "alice")).lease.stream_id
    gone = (await admitted(tracker, "bob")).lease.stream_id
    await tracker.terminate_all("bob")
    await redis.script_flush()

    answers = await tracker.heartbeat_many(
        [("alice", alive), ("bob", gone), ("alice", "nonsense"), ("{bob}", gone), ("alice", alive)]
    )

    assert [type(answer) for answer in answers] == [Lease, StreamEnded, UnknownStream, InvalidInput, Lease]
    assert answers[1] == StreamEnded("terminated")
    assert await tracker.heartbeat_many([]) == ()


# Resume.


async def test_a_stream_resumes_after_the_loss_of_everything(tracker: StreamTracker, redis: Redis) -> None:
    streams = [await admitted(tracker, device_id=f"tv-{number}") for number in range(3)]
    await redis.flushall()

    for one in streams:
        lease = await tracker.heartbeat("alice", one.lease.stream_id)
        assert isinstance(lease, Lease)
        assert lease.stream_id == one.lease.stream_id
    resumed = (await tracker.list("alice")).streams
    assert [one.ref for one in resumed] == [one.stream.ref for one in streams]
    assert [one.started_at_ms for one in resumed] == [StreamId(1, one.ref).minted_ms for one in resumed]
    assert 0 < await redis.pttl("stream:{alice}:3") <= RULES.ttl_ms


async def test_a_resumed_stream_whose_seat_is_taken_moves(tracker: StreamTracker, redis: Redis) -> None:
    first, second = await admitted(tracker), await admitted(tracker)
    await redis.rename("stream:{alice}:1", "stream:{alice}:2")

    lease = await tracker.heartbeat("alice", second.lease.stream_id)

    assert isinstance(lease, Lease)
    assert lease.stream_id == f"1{second.lease.stream_id[1:]}"
    assert set(await refs(tracker)) == {first.stream.ref, second.stream.ref}


async def test_more_streams_than_the_limit_do_not_resume(tracker: StreamTracker, redis: Redis) -> None:
    streams = [await admitted(tracker, limit=5) for _ in range(5)]
    await redis.flushall()
    await tracker.set_user_limit("alice", 2)

    beats = [await tracker.heartbeat("alice", one.lease.stream_id) for one in streams]

    assert [type(beat) for beat in beats] == [Lease, Lease, StreamEnded, StreamEnded, StreamEnded]


async def test_without_a_record_the_limit_at_admission_counts(tracker: StreamTracker, redis: Redis) -> None:
    await tracker.set_user_limit("alice", 5)
    streams = [await admitted(tracker) for _ in range(5)]
    await redis.flushall()

    assert {type(await tracker.heartbeat("alice", one.lease.stream_id)) for one in streams} == {Lease}


async def test_a_stream_that_a_failover_lost_resumes_while_it_is_young(tracker: StreamTracker, redis: Redis) -> None:
    admission = await admitted(tracker)
    await redis.delete("stream:{alice}:1")

    assert isinstance(await tracker.heartbeat("alice", admission.lease.stream_id), Lease)


async def test_outside_recovery_an_old_stream_does_not_resume(make_tracker: TrackerFactory, redis: Redis) -> None:
    tracker = await make_tracker(SHORT)
    stream_id = (await admitted(tracker)).lease.stream_id
    await until_gone(redis)

    assert await tracker.heartbeat("alice", stream_id) == StreamEnded("expired")


async def test_who_was_told_that_it_expired_does_not_resume_later(make_tracker: TrackerFactory, redis: Redis) -> None:
    tracker = await make_tracker(SHORT)
    stream_id = (await admitted(tracker)).lease.stream_id
    await until_gone(redis)
    await tracker.heartbeat("alice", stream_id)
    await redis.delete(epoch_of(redis))  # recovery begins

    assert await tracker.heartbeat("alice", stream_id) == StreamEnded("expired")


async def test_a_released_stream_does_not_resume_in_recovery(tracker: StreamTracker, redis: Redis) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.flushall()
    await tracker.release("alice", stream_id)  # its key is gone, but it is genuine

    assert await tracker.heartbeat("alice", stream_id) == StreamEnded("released")


async def test_an_invented_id_does_not_resume_in_recovery(tracker: StreamTracker, redis: Redis) -> None:
    await admitted(tracker)
    await redis.flushall()

    assert await tracker.heartbeat("alice", f"1.{mint_ref(3)}.{'A' * 16}") == UnknownStream()
    assert await refs(tracker) == []


async def test_a_resuming_that_comes_late_brings_nothing_back(tracker: StreamTracker, redis: Redis) -> None:
    stream_id = parse_stream_id((await admitted(tracker)).lease.stream_id)
    assert stream_id is not None
    await redis.delete("stream:{alice}:1")
    call, epoch = tracker._calls.resume("alice", stream_id), await redis.hget(epoch_of(redis), "id")

    keys, args = call.keys, [str(epoch), *map(str, call.args)]
    assert await redis.eval(call.script.source, len(keys), *keys, *args, "1") == ["epoch"]
    assert await stored(redis) == set()


async def test_an_end_that_the_full_record_dropped_is_not_forgotten(tracker: StreamTracker, redis: Redis) -> None:
    first = (await admitted(tracker)).lease.stream_id
    await tracker.release("alice", first)
    for _ in range(64):
        await tracker.release("alice", (await admitted(tracker)).lease.stream_id)

    assert await redis.hlen("ended:{alice}") == 64
    assert not await redis.hexists("ended:{alice}", first.split(".")[1])
    assert await tracker.heartbeat("alice", first) == StreamEnded("expired")


async def test_a_ref_from_the_future_is_no_proof_of_youth(
    tracker: StreamTracker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomorrow = time.time_ns() + 86_400 * 10**9
    monkeypatch.setattr("streamlimit.stream_id.time.time_ns", lambda: tomorrow)
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.delete("stream:{alice}:1")

    assert await tracker.heartbeat("alice", stream_id) == StreamEnded("expired")


async def test_shadow_mode_lets_every_stream_resume(make_tracker: TrackerFactory, redis: Redis) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, enforce=False))
    streams = [await admitted(tracker) for _ in range(5)]
    await redis.flushall()

    assert {type(await tracker.heartbeat("alice", one.lease.stream_id)) for one in streams} == {Lease}


async def test_forged_ids_are_unknown_by_one_look_at_their_seats(
    tracker: StreamTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = (await admitted(tracker)).lease.stream_id
    forged = [("alice", f"{seat}.{mint_ref(3)}.{'A' * 16}") for seat in range(1, 12)]
    monkeypatch.delattr(Store, "run")
    results = await tracker.heartbeat_many([("alice", live), *forged])

    assert [type(result) for result in results] == [Lease, *[UnknownStream] * 11]
    assert await tracker.heartbeat(*forged[0]) == UnknownStream()


async def test_a_stream_that_has_just_been_found_to_have_ended_is_not_looked_for(
    tracker: StreamTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ("alice", (await admitted(tracker)).lease.stream_id)
    await tracker.release(*stream)
    (ended,) = await tracker.heartbeat_many([stream])
    monkeypatch.delattr(Store, "run")
    monkeypatch.delattr(Store, "heartbeat")
    monkeypatch.setattr(Store, "heartbeats", nothing_to_send)

    assert ended == StreamEnded("released")
    assert await tracker.heartbeat(*stream) == await tracker.get(*stream) == ended
    assert await tracker.heartbeat_many([stream]) == (ended,)


async def nothing_to_send(_: Store, beats: Sequence[Claim], __: float) -> list[int]:
    assert not beats
    return []


# Secrets.


async def test_an_old_secret_is_accepted_while_listed(make_tracker: TrackerFactory, redis: Redis) -> None:
    old, new = "o" * 32, "n" * 32
    stream_id = (await admitted(await make_tracker(secrets=(old,)))).lease.stream_id
    rotated, forgetful = await make_tracker(secrets=(new, old)), await make_tracker(secrets=(new,))

    assert isinstance(await forgetful.heartbeat("alice", stream_id), Lease)  # live: compared as stored
    assert isinstance(await forgetful.get("alice", stream_id), Stream)
    await redis.delete("stream:{alice}:1")
    assert await forgetful.heartbeat("alice", stream_id) == UnknownStream()
    assert await forgetful.get("alice", stream_id) == UnknownStream()
    assert isinstance(await rotated.heartbeat("alice", stream_id), Lease)


async def test_a_signature_by_any_secret_releases(make_tracker: TrackerFactory) -> None:
    old, new = "o" * 32, "n" * 32
    tracker = await make_tracker(secrets=(old, new))
    admission = await admitted(tracker)
    signed_anew = Signer([new]).sign("alice", admission.stream.ref)

    await tracker.release("alice", f"{admission.stream.stream_ref}.{signed_anew}")

    assert await refs(tracker) == []


# Release, terminate, list, get.


async def test_release_frees_the_seat_at_once(tracker: StreamTracker, redis: Redis) -> None:
    admission = await admitted(tracker)
    await tracker.release("alice", admission.lease.stream_id)
    await tracker.release("alice", admission.lease.stream_id)

    assert await refs(tracker) == []
    reason, ended_at = str(await redis.hget("ended:{alice}", admission.stream.ref)).split()
    assert reason == "released"
    assert int(ended_at) >= admission.stream.started_at_ms
    assert 500_000 < await redis.pttl("ended:{alice}") <= 600_000
    assert await tracker.heartbeat("alice", admission.lease.stream_id) == StreamEnded("released")


async def test_releasing_an_ended_stream_does_not_change_its_reason(tracker: StreamTracker) -> None:
    admission = await admitted(tracker)
    await tracker.terminate("alice", admission.stream.stream_ref)
    await tracker.release("alice", admission.lease.stream_id)

    assert await tracker.heartbeat("alice", admission.lease.stream_id) == StreamEnded("terminated")


async def test_release_needs_the_whole_id(tracker: StreamTracker) -> None:
    admission = await admitted(tracker)
    await tracker.release("alice", f"{admission.stream.stream_ref}.{'A' * 16}")
    await tracker.release("bob", admission.lease.stream_id)

    assert await refs(tracker) == [admission.stream.ref]


async def test_a_stream_is_terminated_by_its_ref(tracker: StreamTracker) -> None:
    admission = await admitted(tracker)

    assert await tracker.terminate("alice", admission.stream.stream_ref) is True
    assert await tracker.terminate("alice", admission.stream.stream_ref) is False
    assert await tracker.heartbeat("alice", admission.lease.stream_id) == StreamEnded("terminated")


async def test_terminating_a_stream_that_is_not_live_does_not_bar_it(tracker: StreamTracker, redis: Redis) -> None:
    admission = await admitted(tracker)
    await redis.delete("stream:{alice}:1")

    assert await tracker.terminate("alice", admission.stream.stream_ref) is False
    assert isinstance(await tracker.heartbeat("alice", admission.lease.stream_id), Lease)


async def test_a_stream_in_the_last_seat_is_released(make_tracker: TrackerFactory) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, limit=2, max_limit=2))
    first, last = await admitted(tracker), await admitted(tracker)

    await tracker.release("alice", last.lease.stream_id)
    assert await refs(tracker) == [first.stream.ref]


async def test_all_streams_are_terminated(tracker: StreamTracker) -> None:
    streams = [await admitted(tracker) for _ in range(3)]

    ended = await tracker.terminate_all("alice")

    assert {(one.stream.ref, one.reason) for one in ended} == {(one.stream.ref, "terminated") for one in streams}
    assert await tracker.terminate_all("alice") == ()


async def test_the_list_shows_what_remains(tracker: StreamTracker) -> None:
    admission = await admitted(tracker, device_id="tv-1")

    (stream,) = (await tracker.list("alice")).streams

    assert (stream.ref, stream.device_id) == (admission.stream.ref, "tv-1")
    assert stream.started_at_ms < stream.expires_at_ms <= time.time_ns() // 1_000_000 + RULES.ttl_ms + 1


async def test_get_says_whether_a_stream_may_go_on_and_changes_nothing(tracker: StreamTracker, redis: Redis) -> None:
    admission = await admitted(tracker, device_id="tv-1")
    await redis.pexpire("stream:{alice}:1", 500)

    stream = await tracker.get("alice", admission.lease.stream_id)

    assert isinstance(stream, Stream)
    assert (stream.device_id, stream.provisional) == ("tv-1", False)
    assert await redis.pttl("stream:{alice}:1") <= 500


async def seen(tracker: StreamTracker, user_id: str, stream_id: str) -> Stream | None:
    """The stream where one look at the seat tells, as the checks of an edge get it."""
    result = await looked_at(tracker, user_id, stream_id)
    return result if isinstance(result, Stream) else None


async def looked_at(tracker: StreamTracker, user_id: str, stream_id: str) -> object:
    answer = asyncio.get_running_loop().create_future()
    tracker.get_live(user_id, stream_id, answer.set_result)
    return await answer


async def test_a_live_stream_is_seen_as_get_tells_of_it(tracker: StreamTracker) -> None:
    names = {"device_id": "tv-1", "device_name": "Zoë's TV", "content_id": "film-7"}
    for given in ({}, names):
        stream_id = (await admitted(tracker, **given)).lease.stream_id
        told = await tracker.get("alice", stream_id)
        stream = await seen(tracker, "alice", stream_id)

        assert isinstance(told, Stream)
        assert stream == dataclasses.replace(told, expires_at_ms=stream.expires_at_ms if stream else 0)
        assert abs(stream.expires_at_ms - told.expires_at_ms) <= 1_000


async def test_what_a_seat_does_not_hold_is_not_seen(tracker: StreamTracker, redis: Redis) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    seat, ref, sig = stream_id.split(".")
    for genuine in (f"2.{ref}.{sig}", f"99.{ref}.{sig}"):
        assert await looked_at(tracker, "alice", genuine) is Undecided.NOT_IN_ITS_SEAT
    for forged in (f"{seat}.{ref}.{'A' * 16}", f"{seat}.{'A' * 19}.{sig}", f"99.{'A' * 19}.{sig}", "x"):
        assert await looked_at(tracker, "alice", forged) == UnknownStream()
    assert await looked_at(tracker, "bob", stream_id) == UnknownStream()
    await redis.delete("stream:{alice}:1")

    assert await looked_at(tracker, "alice", stream_id) is Undecided.NOT_IN_ITS_SEAT


async def test_many_are_seen_at_once_whatever_becomes_of_one(tracker: StreamTracker, redis: Redis) -> None:
    streams = {user: (await admitted(tracker, user)).lease.stream_id for user in ("alice", "bob", "carol")}
    await redis.delete("stream:{bob}:1")
    await redis.set("stream:{bob}:1", "by mistake")

    found = await asyncio.gather(*(seen(tracker, *one) for one in streams.items()))

    assert [stream and stream.user_id for stream in found] == ["alice", None, "carol"]


async def test_get_calls_provisional_what_a_heartbeat_would_bring_back(tracker: StreamTracker, redis: Redis) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.flushall()

    stream = await tracker.get("alice", stream_id)

    assert isinstance(stream, Stream)
    assert stream.provisional
    assert await redis.exists("stream:{alice}:1") == 0
    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)


async def test_get_tells_the_reason_of_an_end(tracker: StreamTracker) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await tracker.terminate_all("alice")

    assert await tracker.get("alice", stream_id) == StreamEnded("terminated")


async def test_at_most_64_ends_are_kept_and_the_oldest_is_dropped(tracker: StreamTracker, redis: Redis) -> None:
    await redis.hset("ended:{alice}", mapping={f"R{number}": f"expired {1000 + number}" for number in range(64)})
    stream_id = (await admitted(tracker)).lease.stream_id

    await tracker.release("alice", stream_id)

    kept = await redis.hkeys("ended:{alice}")
    assert len(kept) == 64
    assert "R0" not in kept
    assert stream_id.split(".")[1] in kept


async def test_a_key_made_by_hand_counts_as_a_stream(tracker: StreamTracker, redis: Redis) -> None:
    await redis.hset("stream:{alice}:1", "note", "by hand")
    await redis.pexpire("stream:{alice}:1", 5_000)

    assert (await tracker.list("alice")).streams[0].ref == "no-ref-in-seat-0001"
    assert (await admitted(tracker)).live == 2
    assert len(await tracker.terminate_all("alice")) == 2


@pytest.mark.parametrize(("written", "reason"), [("", "expired"), ("banned 5", "terminated"), ("evicted", "evicted")])
async def test_an_end_written_by_hand_is_an_end(
    tracker: StreamTracker, redis: Redis, written: str, reason: Reason
) -> None:
    admission = await admitted(tracker)
    await redis.delete("stream:{alice}:1")
    await redis.hset("ended:{alice}", admission.stream.ref, written)

    assert await tracker.heartbeat("alice", admission.lease.stream_id) == StreamEnded(reason)


# Users.


async def test_a_users_record_is_set_read_and_deleted(tracker: StreamTracker, redis: Redis) -> None:
    assert await tracker.user_limit("alice") is None
    await tracker.set_user_limit("alice", 5)
    assert await redis.hgetall("user:{alice}") == {"limit": "5"}
    assert await redis.pttl("user:{alice}") == -1
    assert await tracker.user_limit("alice") == 5
    assert await tracker.delete_user("alice") is True
    assert await tracker.delete_user("alice") is False


async def test_a_lowered_limit_ends_nobody(tracker: StreamTracker) -> None:
    await admitted(tracker)
    await admitted(tracker)

    assert await tracker.set_user_limit("alice", 1) == ()
    assert (await tracker.list("alice")).limit == 1
    assert len(await refs(tracker)) == 2


async def test_a_lowered_limit_ends_the_excess_where_asked_to(tracker: StreamTracker, redis: Redis) -> None:
    streams = [await admitted(tracker) for _ in range(3)]
    await redis.pexpire("stream:{alice}:3", RULES.stale_below_ms - 100)

    ended = await tracker.set_user_limit("alice", 1, end_excess=True)

    assert [(one.stream.seat, one.reason) for one in ended] == [(3, "limit_lowered"), (1, "limit_lowered")]
    assert await tracker.heartbeat("alice", streams[0].lease.stream_id) == StreamEnded("limit_lowered")
    assert await refs(tracker) == [streams[1].stream.ref]
    assert await tracker.user_limit("alice") == 1


async def test_an_end_of_all_that_is_tried_again_says_the_same_and_ends_no_more(tracker: StreamTracker) -> None:
    for number in range(3):
        await admitted(tracker, device_id=f"tv-{number}", device_name="TV", content_id="match 1")
    call = tracker._calls.trim("alice", 0, "terminated")
    first = replies.trimmed("alice", await tracker._store.run(call))
    since = await admitted(tracker)

    assert replies.trimmed("alice", await tracker._store.run(call)) == first
    assert len(first) == 3
    assert await refs(tracker) == [since.stream.ref]


async def test_a_limit_that_ended_streams_and_is_set_again_leaves_the_one_set_since(tracker: StreamTracker) -> None:
    for _ in range(2):
        await admitted(tracker)
    call = tracker._calls.trim("alice", 1, "limit_lowered", "1")
    await tracker._store.run(call)
    await tracker.set_user_limit("alice", 5)
    await tracker._store.run(call)

    assert await tracker.user_limit("alice") == 5


@pytest.mark.parametrize("script", [TRIM, DELETE], ids=lambda script: script.name)
async def test_what_comes_late_changes_nothing(tracker: StreamTracker, redis: Redis, script: Script) -> None:
    stream = await admitted(tracker)
    await tracker.set_user_limit("alice", 5)
    keys = [epoch_of(redis) if key.startswith("epoch:") else key for key in Keys().all_of("alice")]
    args: list[str | int] = [0, "terminated", 0, 1, "operation"] if script is TRIM else []

    reply = await redis.eval(script.source, len(keys), *keys, *args, str(time.time_ns() // 1_000_000 - 60_000))

    assert reply == ["late"]
    assert await refs(tracker) == [stream.stream.ref]
    assert await tracker.user_limit("alice") == 5


@pytest.mark.parametrize("user_id", ["", "a{b}", "a b", "a*", "ä", "a\n", "..", ".", "x" * 129, "a/b", "\ufffd"])
async def test_a_user_id_outside_the_alphabet_makes_no_key(tracker: StreamTracker, redis: Redis, user_id: str) -> None:
    stream_id = f"1.{mint_ref(3)}.{Signer([SECRET]).sign(user_id, mint_ref(3))}"
    for operation in (
        tracker.admit(user_id),
        tracker.check(user_id),
        tracker.heartbeat(user_id, stream_id),
        tracker.heartbeat(user_id, "malformed"),
        tracker.get(user_id, stream_id),
        tracker.get(user_id, "malformed"),
        tracker.release(user_id, stream_id),
        tracker.release(user_id, "malformed"),
        tracker.terminate(user_id, stream_id.rpartition(".")[0]),
        tracker.terminate_all(user_id),
        tracker.list(user_id),
        tracker.user_limit(user_id),
        tracker.set_user_limit(user_id, 3),
        tracker.delete_user(user_id),
    ):
        with pytest.raises(InvalidInput, match="user_id"):
            await operation
    assert await stored(redis) == set()
