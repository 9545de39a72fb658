"""What may befall a store and a caller in the middle of things: which promises hold, and the exceptions to them."""

import asyncio
import dataclasses
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, Lease, LimitReached, Recovering, StoreUnavailable, StreamEnded, StreamTracker
from tests.conftest import RULES, SECRET
from tests.cuts import seats
from tests.figures import figures
from tests.helpers import admitted, until
from tests.servers import RedisServer, running, valkey

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LIMIT: Final = RULES.limit
LONG_RULES: Final = dataclasses.replace(RULES, ttl_ms=90_000, heartbeat_ms=30_000)


@pytest.fixture(params=[("--appendonly", "yes")])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    with running(valkey(tmp_path, *request.param)) as server:
        yield server


@pytest.fixture
async def tracker(server: RedisServer) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(server.url, [SECRET], LONG_RULES) as tracker:
        yield tracker


async def full(tracker: StreamTracker) -> list[str]:
    """The ids of as many streams as the limit allows."""
    return [(await admitted(tracker)).lease.stream_id for _ in range(LIMIT)]


async def beats(tracker: StreamTracker, stream_ids: list[str]) -> tuple[Any, ...]:
    return await tracker.heartbeat_many([("alice", stream_id) for stream_id in stream_ids])


async def leases(tracker: StreamTracker, stream_ids: list[str]) -> bool:
    """Whether all go on; that the store is away is no answer, and any other end is wrong."""
    answers = await beats(tracker, stream_ids)
    assert all(isinstance(answer, Lease | StoreUnavailable) for answer in answers), answers
    return all(isinstance(answer, Lease) for answer in answers)


async def unknown(operation: Awaitable[object]) -> bool:
    with suppress(StoreUnavailable):
        await operation
        return False
    return True


async def restart(server: RedisServer, operator: Redis) -> None:
    """Kill the server and start it again with the file it has, before anybody calls it."""
    server.stop()
    server.start()
    await operator.connection_pool.disconnect()


# Scripts that vanish.


async def test_scripts_that_are_flushed_under_load_are_noticed_by_nobody(
    tracker: StreamTracker, operator: Redis
) -> None:
    done = asyncio.Event()

    async def watch(user_id: str) -> None:
        for _ in range(40):
            answer = await measured.call(tracker.admit(user_id))
            assert isinstance(answer, Admission), answer
            stream_id = answer.lease.stream_id
            assert isinstance(await measured.call(tracker.heartbeat(user_id, stream_id)), Lease)
            await measured.call(tracker.release(user_id, stream_id))
            assert await measured.call(tracker.heartbeat(user_id, stream_id)) == StreamEnded("released")

    async def flush() -> None:
        while not done.is_set():
            await operator.script_flush()
            measured.cases += 1
            await asyncio.sleep(0.05)

    with figures("SCRIPT FLUSH under load") as measured:
        flushing = asyncio.create_task(flush())
        await asyncio.gather(*(watch(f"u{number}") for number in range(10)))
        done.set()
        await flushing
    assert measured.cases > 1
    assert measured.unknown == 0


# Expiry.


async def test_a_heartbeat_within_a_millisecond_of_the_expiry_is_answered_truly(
    server: RedisServer, operator: Redis
) -> None:
    rules = dataclasses.replace(RULES, ttl_ms=600, heartbeat_ms=200)
    outcomes: set[type] = set()
    clock = asyncio.get_running_loop().time
    async with StreamTracker.from_url(server.url, [SECRET], rules) as tracker:
        with figures("heartbeat at the expiry") as measured:
            # Longer ago than a TTL: the last writes before a failover would resume.
            streams = {f"u{number}": (await admitted(tracker, f"u{number}")).lease.stream_id for number in range(50)}
            admitted_at = (await operator.time())[0]
            while (await operator.time())[0] < admitted_at + 2:
                assert all(isinstance(beat, Lease) for beat in await tracker.heartbeat_many(list(streams.items())))
            for user_id, stream_id in streams.items():
                for milliseconds, part in itertools.product((1, 2, 3), (0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.5)):
                    key = f"stream:{{{user_id}}}:1"
                    await operator.pexpire(key, milliseconds)
                    aim = clock() + milliseconds * part / 1000
                    while clock() < aim:  # noqa: ASYNC110 - no timer is as exact
                        await asyncio.sleep(0)
                    beat = await measured.call(tracker.heartbeat(user_id, stream_id))
                    outcomes.add(type(beat))
                    measured.cases += 1
                    if isinstance(beat, Lease):
                        assert await operator.pttl(key) > 300
                    else:
                        assert beat == StreamEnded("expired")
                        assert await tracker.heartbeat(user_id, stream_id) == beat
                        assert not await operator.exists(key)
                        break
    assert outcomes == {Lease, StreamEnded}


# A store that is frozen, killed, or full.


async def test_a_freeze_shorter_than_the_ttl_is_forgotten(tracker: StreamTracker, server: RedisServer) -> None:
    streams = await full(tracker)
    with figures("frozen for less than the TTL") as measured:
        server.signal(signal.SIGSTOP)
        for operation in (tracker.admit("alice"), tracker.admit("bob"), tracker.release("bob", streams[0])):
            measured.cases += 1
            assert await unknown(measured.call(operation))
        server.signal(signal.SIGCONT)

        await until(lambda: leases(tracker, streams))
    assert isinstance(await tracker.admit("alice"), LimitReached)
    assert isinstance(await tracker.admit("bob"), Admission)


async def test_streams_that_expired_in_a_freeze_resume_where_it_was_noticed(server: RedisServer) -> None:
    rules = dataclasses.replace(RULES, ttl_ms=900, heartbeat_ms=300)
    async with StreamTracker.from_url(server.url, [SECRET], rules) as tracker:
        streams = await full(tracker)
        with figures("frozen for more than the TTL") as measured:
            server.signal(signal.SIGSTOP)
            for _ in range(2):  # a second each, or at once where the outage is known
                measured.cases += 1
                assert await unknown(measured.call(tracker.heartbeat("alice", streams[0])))
            server.signal(signal.SIGCONT)
            await until(lambda: leases(tracker, streams))
        assert isinstance(await tracker.admit("alice"), LimitReached)
        assert isinstance(await tracker.admit("bob"), Recovering)


async def test_streams_that_expired_in_a_freeze_that_nobody_noticed_end_and_nobody_waits(
    server: RedisServer, operator: Redis
) -> None:
    """The exception: whoever sends no heartbeat for a TTL has ended, frozen store or not."""
    rules = dataclasses.replace(RULES, ttl_ms=600, heartbeat_ms=200)
    async with StreamTracker.from_url(server.url, [SECRET], rules) as tracker:
        streams = await full(tracker)
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(0.7)  # the time is what is tested
        server.signal(signal.SIGCONT)

        assert await beats(tracker, streams) == (StreamEnded("expired"),) * LIMIT
        await full(tracker)
        assert isinstance(await tracker.admit("alice"), LimitReached)
        assert len(await seats(operator, "alice")) == LIMIT


async def test_a_killed_store_with_its_file_keeps_limits_streams_ends_and_deadlines(
    tracker: StreamTracker, server: RedisServer, operator: Redis
) -> None:
    await tracker.set_user_limit("alice", 2)
    stream_id = (await admitted(tracker)).lease.stream_id
    other = (await admitted(tracker)).lease.stream_id
    await tracker.release("alice", other)
    await operator.hset("stream:{alice}:2", "ref", "short")
    await operator.pexpire("stream:{alice}:2", 100)
    deadline = await operator.pexpiretime("stream:{alice}:1")
    with figures("killed, with an append-only file") as measured:
        server.stop()
        measured.cases += 1
        assert await unknown(measured.call(tracker.heartbeat("alice", stream_id)))  # a second: the other one expires
        server.start()
        await operator.connection_pool.disconnect()
        assert await operator.pexpiretime("stream:{alice}:1") == deadline  # it does not begin anew
        assert len(await seats(operator, "alice")) == 1

        await until(lambda: leases(tracker, [stream_id]))
        assert await measured.call(tracker.heartbeat("alice", other)) == StreamEnded("released")
    assert isinstance(await tracker.admit("alice"), Admission)
    assert isinstance(await tracker.admit("alice"), LimitReached)


@pytest.mark.parametrize("server", [("--appendonly", "no")], indirect=True)
async def test_a_killed_store_without_a_file_interrupts_nobody_and_keeps_the_limit(
    tracker: StreamTracker, server: RedisServer
) -> None:
    streams = await full(tracker)
    with figures("killed, with nothing kept") as measured:
        server.stop()
        measured.cases += 1
        assert await unknown(measured.call(tracker.admit("alice")))
        server.start()

        assert isinstance(await until(lambda: measured.call(tracker.admit("alice"))), Recovering)
        assert await leases(tracker, streams)
        assert isinstance(await measured.call(tracker.admit("alice")), LimitReached)
        assert len((await tracker.list("alice")).streams) == LIMIT


@pytest.mark.parametrize("server", [("--appendonly", "no")], indirect=True)
async def test_with_everything_else_a_store_without_a_file_forgets_what_ended(
    tracker: StreamTracker, server: RedisServer, operator: Redis
) -> None:
    """The exception: the record of an end is lost together with everything else, and its player may go on."""
    stream_id = (await admitted(tracker, limit=1)).lease.stream_id
    await tracker.terminate_all("alice")
    server.stop()
    server.start()

    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
    assert isinstance(await tracker.admit("alice", limit=1), LimitReached)
    assert len(await seats(operator, "alice")) == 1


@pytest.mark.parametrize("server", [("--appendonly", "no")], indirect=True)
@pytest.mark.parametrize("known_by", [{"device_id": "tv-1"}, {"idempotency_key": "k"}])
async def test_a_resumed_stream_has_no_device_and_no_key_so_these_may_get_a_second_seat(
    server: RedisServer, operator: Redis, known_by: dict[str, Any]
) -> None:
    """The exception: ids do not say which device or admission they are of. The limit holds."""
    rules = dataclasses.replace(RULES, ttl_ms=900, heartbeat_ms=300)
    async with StreamTracker.from_url(server.url, [SECRET], rules) as tracker:
        stream_id = (await admitted(tracker, limit=2, **known_by)).lease.stream_id
        server.stop()
        server.start()

        async def let_in() -> bool:
            assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
            return isinstance(await tracker.admit("alice", limit=2, **known_by), Admission)

        await until(let_in)
        assert len(await seats(operator, "alice")) == 2
        assert isinstance(await tracker.admit("alice", limit=2), LimitReached)


# A file that is older than the end of its server. It has the epoch that everybody knows.


@pytest.mark.parametrize("server", [("--appendonly", "no")], indirect=True)
async def test_a_stale_snapshot_brings_back_what_ended_since_until_its_old_deadline(
    tracker: StreamTracker, server: RedisServer, operator: Redis
) -> None:
    """The exception: a released seat is held for the rest of its TTL. The limit holds, and nobody waits."""
    streams = await full(tracker)
    deadline = await operator.pexpiretime("stream:{alice}:1")
    await operator.save()
    await tracker.release("alice", streams[0])
    await restart(server, operator)

    assert await operator.pexpiretime("stream:{alice}:1") == deadline
    assert await leases(tracker, streams[1:])
    assert isinstance(await tracker.admit("alice"), LimitReached)
    assert isinstance(await tracker.admit("bob"), Admission)


@pytest.mark.parametrize("server", [("--appendonly", "no")], indirect=True)
async def test_a_stream_begun_after_a_stale_snapshot_goes_on_unless_its_seat_was_given_away(
    tracker: StreamTracker, server: RedisServer, operator: Redis
) -> None:
    """The exception: until its next heartbeat it plays beyond the limit, and then it ends."""
    first = await full(tracker)
    await tracker.release("alice", first.pop())
    await operator.save()
    others = {user_id: (await admitted(tracker, user_id)).lease.stream_id for user_id in ("alice", "bob")}
    await restart(server, operator)

    assert isinstance(await tracker.admit("alice"), Admission)
    assert await tracker.heartbeat("alice", others["alice"]) == StreamEnded("limit_reached")
    assert await leases(tracker, first)
    assert len(await seats(operator, "alice")) == LIMIT
    assert isinstance(await tracker.heartbeat("bob", others["bob"]), Lease)


@pytest.mark.parametrize("server", [("--appendonly", "no")], indirect=True)
@pytest.mark.parametrize("told", [False, True])
async def test_a_snapshot_older_than_a_ttl_ends_all_streams_unless_its_epoch_is_deleted(
    server: RedisServer, operator: Redis, *, told: bool
) -> None:
    """The exception, and the remedy: without an epoch it is a loss like any other."""
    rules = dataclasses.replace(RULES, ttl_ms=900, heartbeat_ms=300)
    async with StreamTracker.from_url(server.url, [SECRET], rules) as tracker:
        streams = await full(tracker)
        await operator.save()
        deadline = await operator.pexpiretime("stream:{alice}:3")

        async def played_on() -> bool:
            assert await leases(tracker, streams)
            seconds, microseconds = await operator.time()
            return seconds * 1000 + microseconds // 1000 > deadline

        await until(played_on)
        await restart(server, operator)
        if told:
            await operator.delete("epoch:{0}")

        outcome, newcomer = (Lease, Recovering) if told else (StreamEnded, Admission)
        assert {type(beat) for beat in await beats(tracker, streams)} == {outcome}
        assert isinstance(await tracker.admit("bob"), newcomer)


# Memory.


async def test_short_of_memory_streams_go_on_and_end_and_nobody_is_admitted_falsely(
    tracker: StreamTracker, operator: Redis
) -> None:
    streams = await full(tracker)
    with figures("memory full") as measured:
        await operator.config_set("maxmemory", "1")
        assert await leases(tracker, streams)
        await measured.call(tracker.release("alice", streams[0]))
        assert len(await seats(operator, "alice")) == LIMIT - 1
        for user_id in ("alice", "bob"):
            measured.cases += 1
            assert await unknown(measured.call(tracker.admit(user_id)))
        await operator.config_set("maxmemory", "0")

        assert await measured.call(tracker.heartbeat("alice", streams[0])) == StreamEnded("released")
        assert isinstance(await measured.call(tracker.admit("alice")), Admission)
        assert isinstance(await measured.call(tracker.admit("alice")), LimitReached)


async def test_short_of_memory_the_release_of_a_stream_that_the_store_had_lost_is_forgotten(
    tracker: StreamTracker, operator: Redis
) -> None:
    """The exception: nothing is deleted, so nothing can be written; the young stream may go on. The limit holds."""
    streams = await full(tracker)
    await operator.delete("stream:{alice}:1")
    await operator.config_set("maxmemory", "1")
    await tracker.release("alice", streams[0])
    assert await unknown(tracker.heartbeat("alice", streams[0]))
    await operator.config_set("maxmemory", "0")

    assert isinstance(await tracker.heartbeat("alice", streams[0]), Lease)
    assert isinstance(await tracker.admit("alice"), LimitReached)
    assert len(await seats(operator, "alice")) == LIMIT
