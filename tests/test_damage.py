"""Keys that somebody overwrote by hand: what is said of them, what goes on in spite of them, and what repairs them."""

import asyncio
from typing import Any, Final

import httpx2
import pytest
from redis.asyncio import Redis

from streamlimit import (
    Admission,
    DamagedKey,
    Lease,
    LimitReached,
    Recovering,
    Rules,
    StreamTracker,
    TooManyAdmissions,
)
from streamlimit.audit import Audit
from tests.conftest import SECRET, TrackerFactory
from tests.helpers import admitted
from tests.stores import epoch_of
from tests.web import ALICE, STREAMS, no_content, ok, problem, started

pytestmark = pytest.mark.anyio

SEAT: Final = "stream:{alice}:3"
DAMAGES: Final = {SEAT: "string", "user:{alice}": "list", "ended:{alice}": "set"}
NO_REF: Final = "3.no-ref-in-seat-0003"


async def damage(redis: Redis, *keys: str) -> None:
    """Overwrite keys, as somebody does who has mistaken the command."""
    for key in keys:
        await redis.delete(key)
        match DAMAGES.get(key, "string"):
            case "string":
                await redis.set(key, "x")
            case "list":
                await redis.rpush(key, "a")
            case "set":
                await redis.sadd(key, "x")


async def write_hash(redis: Redis, key: str, **fields: Any) -> None:
    await redis.hset(key, mapping={name.rstrip("_"): value for name, value in fields.items()})


@pytest.mark.parametrize("key", DAMAGES)
async def test_a_damaged_key_is_named_with_its_type(tracker: StreamTracker, redis: Redis, key: str) -> None:
    await damage(redis, key)

    with pytest.raises(DamagedKey) as caught:
        await tracker.admit("alice")

    assert (caught.value.key, caught.value.key_type) == (key, DAMAGES[key])


@pytest.mark.parametrize("key", DAMAGES)
async def test_it_harms_no_other_user(tracker: StreamTracker, redis: Redis, key: str) -> None:
    bob = (await admitted(tracker, "bob")).lease.stream_id
    await damage(redis, key)

    answers = await asyncio.gather(
        *(tracker.admit(user_id) for user_id in ("alice", "bob", "carol")), return_exceptions=True
    )

    assert [type(answer) for answer in answers] == [DamagedKey, Admission, Admission]
    assert isinstance(await tracker.heartbeat("bob", bob), Lease)


@pytest.mark.parametrize("key", DAMAGES)
async def test_the_other_streams_of_the_user_go_on(tracker: StreamTracker, redis: Redis, key: str) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await damage(redis, key)

    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)


async def test_a_stream_that_was_overwritten_is_not_said_to_have_ended(tracker: StreamTracker, redis: Redis) -> None:
    stream_ids = [(await admitted(tracker)).lease.stream_id for _ in range(3)]
    await damage(redis, SEAT)

    with pytest.raises(DamagedKey):
        await tracker.heartbeat("alice", stream_ids[2])
    with pytest.raises(DamagedKey):
        await tracker.get("alice", stream_ids[2])


async def test_in_a_batch_only_its_own_heartbeat_fails(tracker: StreamTracker, redis: Redis) -> None:
    beats = [("alice", (await admitted(tracker)).lease.stream_id) for _ in range(3)]
    beats.append(("bob", (await admitted(tracker, "bob")).lease.stream_id))
    await damage(redis, SEAT)

    answers = await tracker.heartbeat_many(beats)

    assert [type(answer) for answer in answers] == [Lease, Lease, DamagedKey, Lease]


async def test_a_player_may_release_its_stream_beside_a_damaged_seat(tracker: StreamTracker, redis: Redis) -> None:
    stream_ids = [(await admitted(tracker)).lease.stream_id for _ in range(2)]
    await damage(redis, "stream:{alice}:1")

    await tracker.release("alice", stream_ids[1])

    assert not await redis.exists("stream:{alice}:2")


@pytest.mark.parametrize(
    ("naming", "name"), [("hashed", Audit("hashed", SECRET).name("alice")), ("cut", "al…"), ("full", "alice")]
)
async def test_the_log_names_the_key_once_and_the_user_as_it_should(
    make_tracker: TrackerFactory, redis: Redis, caplog: pytest.LogCaptureFixture, naming: Any, name: str
) -> None:
    tracker = await make_tracker(name_user=Audit(naming, SECRET).name)
    await damage(redis, SEAT)

    for _ in range(3):
        with pytest.raises(DamagedKey):
            await tracker.admit("alice")

    (line,) = [record.getMessage() for record in caplog.records if record.name == "streamlimit.damage"]
    assert f"stream:{{{name}}}:3 is damaged: its type is string" in line
    assert ("alice" in line) == (naming == "full")


async def test_by_default_the_log_names_no_user(
    tracker: StreamTracker, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await damage(redis, SEAT)

    with pytest.raises(DamagedKey):
        await tracker.admit("alice")

    assert "stream:{" in caplog.text
    assert "alice" not in caplog.text


async def test_termination_of_all_repairs_seats_and_ends(tracker: StreamTracker, redis: Redis) -> None:
    await admitted(tracker)
    await damage(redis, SEAT, "ended:{alice}")

    ended = await tracker.terminate_all("alice")

    assert [(one.stream.seat, one.reason) for one in ended] == [(1, "terminated")]
    assert await tracker.heartbeat("alice", f"{ended[0].stream.stream_ref}.{'x' * 16}")  # no DamagedKey
    assert (await redis.exists(SEAT), await redis.type("ended:{alice}")) == (0, "hash")
    assert (await admitted(tracker)).live == 1


async def test_termination_of_all_leaves_the_record_alone(tracker: StreamTracker, redis: Redis) -> None:
    await damage(redis, "user:{alice}")

    await tracker.terminate_all("alice")

    assert await redis.type("user:{alice}") == "list"


async def test_a_new_limit_repairs_the_record_and_is_not_held_up_by_a_seat(
    tracker: StreamTracker, redis: Redis
) -> None:
    await damage(redis, "user:{alice}", SEAT)

    await tracker.set_user_limit("alice", 2)

    assert await redis.hgetall("user:{alice}") == {"limit": "2"}
    assert await redis.type(SEAT) == "string"


async def test_a_new_limit_that_ends_streams_repairs_their_seats(tracker: StreamTracker, redis: Redis) -> None:
    for _ in range(2):
        await admitted(tracker)
    await damage(redis, "user:{alice}", SEAT)

    ended = await tracker.set_user_limit("alice", 1, end_excess=True)

    assert [one.reason for one in ended] == ["limit_lowered"]
    assert isinstance(await tracker.admit("alice"), LimitReached)


async def test_the_deletion_of_a_record_repairs_it(tracker: StreamTracker, redis: Redis) -> None:
    await damage(redis, "user:{alice}")

    assert await tracker.delete_user("alice")
    assert await admitted(tracker)


@pytest.mark.parametrize("value", ["", "many", "9223372036854775807", None])
async def test_a_damaged_count_of_admissions_begins_anew(
    make_tracker: TrackerFactory, redis: Redis, value: str | None
) -> None:
    tracker = await make_tracker(Rules(admissions_per_minute=1))
    if value is None:
        await redis.rpush("admissions:{alice}", "x")
    else:
        await redis.set("admissions:{alice}", value)

    assert await admitted(tracker)
    assert isinstance(await tracker.admit("alice"), TooManyAdmissions)
    assert 0 < await redis.pttl("admissions:{alice}") <= 60_000


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_damaged_epoch_is_made_anew_and_counts_as_a_loss(
    make_tracker: TrackerFactory, redis: Redis, caplog: pytest.LogCaptureFixture, *, is_known: bool
) -> None:
    first = await make_tracker()
    stream_id = (await admitted(first)).lease.stream_id
    await redis.delete("stream:{alice}:1")  # to be brought back by its heartbeat
    await damage(redis, epoch_of(redis))

    tracker = first if is_known else await make_tracker()

    assert isinstance(await tracker.admit("alice"), Recovering)
    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
    assert await redis.type(epoch_of(redis)) == "hash"
    assert f"{epoch_of(redis)} was no hash" in caplog.text


async def test_a_heartbeat_that_meets_a_damaged_epoch_resumes(tracker: StreamTracker, redis: Redis) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.delete("stream:{alice}:1")
    await damage(redis, epoch_of(redis))

    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
    assert await redis.type(epoch_of(redis)) == "hash"


@pytest.mark.parametrize("ref", [None, "", "short", "y" * 20, "a b" + "c" * 16, "é" * 19])
async def test_a_hash_without_a_usable_ref_is_listed_and_can_be_terminated(
    tracker: StreamTracker, redis: Redis, ref: str | None
) -> None:
    await write_hash(redis, SEAT, device_name="by hand", **({} if ref is None else {"ref": ref}))

    assert [stream.stream_ref for stream in (await tracker.list("alice")).streams] == [NO_REF]
    assert await tracker.terminate("alice", NO_REF)
    assert not await redis.exists(SEAT)
    assert not await tracker.terminate("alice", NO_REF)


async def test_a_hash_without_ref_can_be_taken_over(tracker: StreamTracker, redis: Redis) -> None:
    await tracker.set_user_limit("alice", 1)
    await write_hash(redis, SEAT, device_name="by hand")
    refused = await tracker.admit("alice")
    assert isinstance(refused, LimitReached)

    taken = await admitted(tracker, take_over=refused.streams[0].stream_ref)

    assert taken.stream.seat == 3
    assert [(one.stream.stream_ref, one.reason) for one in taken.ended] == [(NO_REF, "taken_over")]


async def test_the_ref_of_a_seat_names_no_stream_that_has_one_of_its_own(tracker: StreamTracker) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id

    assert not await tracker.terminate("alice", "1.no-ref-in-seat-0001")
    assert (await admitted(tracker, take_over="1.no-ref-in-seat-0001")).ended == ()
    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)


async def test_a_player_cannot_end_a_hash_without_ref(tracker: StreamTracker, redis: Redis) -> None:
    await write_hash(redis, SEAT, sig="s" * 16)

    await tracker.release("alice", f"{NO_REF}.{'x' * 16}")

    assert await redis.exists(SEAT)


async def test_a_seat_of_another_type_can_be_terminated_like_one_without_ref(
    tracker: StreamTracker, redis: Redis
) -> None:
    await damage(redis, SEAT)

    assert await tracker.terminate("alice", NO_REF)
    assert await admitted(tracker)


@pytest.mark.parametrize("started_at", ["nan", "inf", "-1", "0x1F", "1e400", "yesterday", "9" * 40, ""])
async def test_a_start_that_is_no_time_breaks_no_order(
    make_tracker: TrackerFactory, redis: Redis, started_at: str
) -> None:
    tracker = await make_tracker(Rules(limit=4))
    for _ in range(4):
        await admitted(tracker)
    for seat in (2, 4):
        await write_hash(redis, f"stream:{{alice}}:{seat}", started_at=started_at)

    assert len((await tracker.list("alice")).streams) == 4
    assert len((await admitted(tracker, on_limit="evict")).ended) == 1
    assert len(await tracker.set_user_limit("alice", 1, end_excess=True)) == 3


async def test_a_repetition_gets_no_stream_that_its_player_could_not_keep(tracker: StreamTracker, redis: Redis) -> None:
    await admitted(tracker, idempotency_key="k")
    await redis.hdel("stream:{alice}:1", "sig")

    again = await admitted(tracker, idempotency_key="k")

    assert again.stream.seat == 2
    assert isinstance(await tracker.heartbeat("alice", again.lease.stream_id), Lease)


async def test_a_stream_without_ttl_gets_one_with_the_next_heartbeat(tracker: StreamTracker, redis: Redis) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await redis.persist("stream:{alice}:1")

    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
    assert await redis.pttl("stream:{alice}:1") > 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", STREAMS),
        ("GET", STREAMS),
        ("GET", ALICE),
        ("GET", f"{ALICE}/admission"),
    ],
)
async def test_callers_get_a_problem_of_its_own(
    http: httpx2.AsyncClient, fake_redis: Redis, method: str, path: str
) -> None:
    await damage(fake_redis, SEAT)

    told = problem(await http.request(method, path), 503, "damaged-key")

    assert "reached" not in told["title"]
    assert 'store_errors_total{kind="damaged"} 1.0' in (await http.get("/metrics")).text


async def test_readiness_repairs_the_epoch_and_tells_of_the_recovery(
    http: httpx2.AsyncClient, fake_redis: Redis
) -> None:
    await damage(fake_redis, epoch_of(fake_redis))

    assert (await http.get("/readyz")).json()["recovering_seconds"] > 0
    problem(await http.post(STREAMS), 503, "recovering")


async def test_a_gateway_gets_it_for_the_one_heartbeat(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    stream_ids = [(await started(http))["stream_id"] for _ in range(3)]
    await damage(fake_redis, SEAT)
    streams = [{"user_id": "alice", "stream_id": stream_id} for stream_id in stream_ids]

    answers = (await http.post("/v1/heartbeats", json={"streams": streams})).json()["streams"]

    assert [one.get("status") for one in answers] == [200, 200, 503]
    assert answers[2]["type"] == "urn:streamlimit:damaged-key"
    assert 'store_errors_total{kind="damaged"} 1.0' in (await http.get("/metrics")).text


@pytest.mark.parametrize("key", DAMAGES)
async def test_operators_repair_it_over_http(http: httpx2.AsyncClient, fake_redis: Redis, key: str) -> None:
    await damage(fake_redis, key)

    if key.startswith("user"):
        await http.put(ALICE, json={"limit": 3})
    else:
        await http.delete(STREAMS)

    assert await started(http)


async def test_what_was_written_by_hand_is_listed_within_the_schema(
    http: httpx2.AsyncClient, fake_redis: Redis
) -> None:
    await write_hash(fake_redis, SEAT, ref="x", started_at="nan", device_id="\x00", content_id="é" * 100)

    listed = ok(await http.get(STREAMS), {"user_id", "limit", "live", "streams"})

    assert [stream["stream_ref"] for stream in listed["streams"]] == [NO_REF]
    no_content(await http.delete(f"{STREAMS}/{NO_REF}"))
    assert ok(await http.get(STREAMS), {"user_id", "limit", "live", "streams"})["live"] == 0
