"""A slot on its way from one node of a Cluster to another: heartbeats go on, and whatever else is answered is true."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import RedisCluster
from redis.exceptions import ClusterError

from streamlimit import Admission, Lease, LimitReached, Rules, StoreUnavailable, Stream, StreamTracker
from streamlimit.hash_slots import SLOTS, slot_of
from tests import history
from tests.audience import SETTLED_MS, Audience, Streamlimit
from tests.breakages import KEY, SLOT
from tests.cluster import Cluster, Migration
from tests.conftest import SECRET
from tests.figures import figures
from tests.helpers import admitted, until
from tests.nodes import PORT, Node
from tests.servers import HAVE_SUBNETS, wait_for

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]

RULES = Rules()
USERS, DEVICES = 100, 5
RETRY_SECONDS, MEAN_SECONDS = 0.3, 5
MIGRATIONS = 8
WINDOW_SECONDS = 0.3
"""As long a slot's keys lie on both nodes."""


@pytest.fixture
async def tracker(empty_cluster: Cluster) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(empty_cluster.url(), [SECRET], RULES) as tracker:
        yield tracker


@pytest.fixture
async def streams(tracker: StreamTracker) -> list[str]:
    """As many as alice may watch."""
    return [(await admitted(tracker)).lease.stream_id for _ in range(RULES.limit)]


@pytest.fixture
def migration(empty_cluster: Cluster, streams: list[str]) -> Iterator[Migration]:  # noqa: ARG001 - they are there before
    """Of alice's slot, begun; afterwards it is brought back."""
    with empty_cluster.migrating(SLOT) as migration:
        yield migration


async def outcome(call: Coroutine[Any, Any, Any]) -> Any:
    """What it returns, or None where it is unavailable."""
    try:
        return await call
    except StoreUnavailable:
        return None


async def test_in_each_step_of_a_migration_heartbeats_go_on_and_no_answer_is_wrong(
    tracker: StreamTracker, migration: Migration, streams: list[str]
) -> None:
    async def check() -> None:
        """All that a user may ask, at once, while three are live."""
        beats, admission, dry, seen, known, stream = await asyncio.gather(
            asyncio.gather(*(measured.call(tracker.heartbeat("alice", one)) for one in streams)),
            outcome(measured.call(tracker.admit("alice"))),
            outcome(measured.call(tracker.check("alice"))),
            outcome(measured.call(tracker.list("alice"))),
            outcome(measured.call(tracker.set_user_limit("alice", RULES.limit))),
            outcome(measured.call(tracker.get("alice", streams[0]))),
        )
        assert {type(beat) for beat in beats} == {Lease}
        assert admission is None or isinstance(admission, LimitReached)
        assert dry is None or not dry.admissible
        assert seen is None or len(seen.streams) == RULES.limit
        assert known in (None, ())
        assert stream is None or isinstance(stream, Stream)

    seats = [f"stream:{{alice}}:{seat}" for seat in range(1, RULES.limit + 1)]
    with figures("slot migrated key by key") as measured:
        await check()
        for keys in (seats[:1], seats[1:], migration.keys()):
            measured.cases += 1
            left = set(migration.keys())
            await asyncio.to_thread(migration.move, *(key for key in keys if key in left))
            await check()
        await asyncio.to_thread(migration.finish)
        await check()

    assert isinstance(await tracker.admit("alice"), LimitReached)
    await tracker.release("alice", streams[0])
    assert isinstance(await tracker.admit("alice"), Admission)


async def test_an_admission_in_the_middle_of_a_migration_is_answered_when_that_is_finished(
    empty_cluster: Cluster, migration: Migration
) -> None:
    async with StreamTracker.from_url(empty_cluster.url(), [SECRET], RULES, budget_seconds=10) as patient:
        migration.move(KEY)
        waiting = asyncio.create_task(patient.admit("alice", on_limit="evict"))
        await asyncio.wait([waiting], timeout=WINDOW_SECONDS)
        assert not waiting.done()
        await asyncio.to_thread(migration.finish)

        assert isinstance(await waiting, Admission)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves connections open, too
async def test_redis_pys_own_client_fails_where_ours_goes_on(
    empty_cluster: Cluster, tracker: StreamTracker, migration: Migration, streams: list[str]
) -> None:
    """It sends ASKING on one connection and the command on the next. Where that is mended, ours may do less."""
    migration.move(KEY)
    async with RedisCluster(host=empty_cluster.nodes[0].announced, port=PORT) as client:
        there = next(
            key for key in map("{{{}}}".format, range(100)) if empty_cluster.primary_of(key) is migration.target
        )
        await asyncio.gather(*(client.get(there) for _ in range(2)))  # two connections

        with pytest.raises(ClusterError, match="TTL exhausted"):
            await client.exists(KEY)
    del client
    gc.collect()
    assert isinstance(await tracker.heartbeat("alice", streams[0]), Lease)


@pytest.fixture
async def audience(empty_cluster: Cluster) -> AsyncIterator[Audience]:
    rules = Rules(ttl_ms=3_000, heartbeat_ms=1_000)
    async with AsyncExitStack() as stack:
        trackers = [StreamTracker.from_url(empty_cluster.url(), [SECRET], rules) for _ in range(2)]
        limiter = Streamlimit([await stack.enter_async_context(tracker) for tracker in trackers])
        audience = Audience(limiter, rules, USERS, DEVICES, RETRY_SECONDS, MEAN_SECONDS, MEAN_SECONDS)
        async with audience.watching():
            await until(lambda: full(audience))
            yield audience


async def full(audience: Audience) -> bool:
    return audience.playing > 0.7 * audience.seats


def violations(audience: Audience) -> list[history.Violation]:
    ttl_ms, limit = audience.rules.ttl_ms, audience.rules.limit
    return history.violations(audience.events, ttl_ms, limit=limit, settled_ms=SETTLED_MS)


UNCHANGED: dict[str, object] = {"roles": {}, "config epochs": {}, "epochs": {}}


def clocks(*nodes: Node) -> tuple[float, ...]:
    """Of this process and of the nodes, in ms: who is over the limit where they disagree is explained by that."""
    times = [node.command("TIME") for node in nodes]
    return (time.time() * 1000, *(seconds * 1000 + microseconds / 1000 for seconds, microseconds in times))


async def test_slots_that_migrate_under_load_interrupt_no_heartbeat(empty_cluster: Cluster, audience: Audience) -> None:
    source = empty_cluster.primaries[0]
    before = empty_cluster.standing()
    times = []
    slots = {slot_of(user) for user in audience.names if empty_cluster.primary_of(f"{{{user}}}") is source}

    def migrate(slot: int) -> None:
        """Not in one go: half of its keys stay behind for a while."""
        with empty_cluster.migrating(slot) as migration:
            keys = migration.keys()
            migration.move(*keys[: len(keys) // 2])
            time.sleep(WINDOW_SECONDS)
        times.append(clocks(migration.source, migration.target))

    for slot in sorted(slots)[:MIGRATIONS]:
        await asyncio.to_thread(migrate, slot)
    await asyncio.sleep(audience.rules.ttl_ms / 1000)

    beats = Counter(event.status for event in audience.events if event.operation == "heartbeat")
    assert beats.keys() == {200}, beats
    assert empty_cluster.standing().changed(before, empty_cluster.primaries[:2]) == UNCHANGED
    assert violations(audience) == [], times


async def test_atomic_migration_under_load_is_noticed_by_nobody(empty_cluster: Cluster, audience: Audience) -> None:
    source, target = empty_cluster.primaries[:2]
    before = empty_cluster.standing()
    times = []

    def migrate(slots: Sequence[int], source: Node, target: Node) -> None:
        """As Valkey 9 does it."""
        name = target.command("CLUSTER", "MYID")
        source.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slots[0], slots[-1], "NODE", name)
        moved = f"{{{next(user for user in audience.names if slot_of(user) in slots)}}}"
        wait_for(lambda: empty_cluster.primary_of(moved) is target, "the slots to move")
        wait_for(empty_cluster.is_whole, "all to know")
        times.append(clocks(source, target))

    for there in ((source, target), (target, source)):
        await asyncio.to_thread(migrate, range(SLOTS // 6), *there)
    await asyncio.sleep(audience.rules.ttl_ms / 1000)

    assert Counter(event.status for event in audience.events).keys() <= {200, 201, 204, 409}
    assert empty_cluster.standing().changed(before, (source, target)) == UNCHANGED
    assert violations(audience) == [], times


async def test_a_node_of_a_cluster_is_no_server_alone(empty_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Where the URL says redis:// the log says what to write instead."""
    other = empty_cluster.other_than(empty_cluster.primary_of(KEY))
    async with StreamTracker.from_url(f"redis://{other.host}:{PORT}", [SECRET], RULES) as tracker:
        with pytest.raises(StoreUnavailable, match=r"redis\+cluster://"):
            await tracker.admit("alice")
    assert "redis+cluster://" in caplog.text
