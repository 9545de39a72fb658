"""Which primary the service writes to, where not everybody agrees on that."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import SimpleNamespace

import pytest

from streamlimit import Lease, StoreUnavailable, StreamTracker, node
from streamlimit.connection import connect
from streamlimit.store import BUDGET_SECONDS
from streamlimit.topology import find_topology
from tests.conftest import RULES, SECRET
from tests.helpers import admitted, until
from tests.network import Clients
from tests.nodes import Node
from tests.sentinels import Sentinels
from tests.servers import HAVE_SUBNETS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]


@pytest.fixture(scope="module")
def partitionable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("sentinels"), partitionable=True) as sentinels:
        yield sentinels


@pytest.fixture
def sentinels(partitionable: Sentinels) -> Iterator[Sentinels]:
    yield partitionable
    partitionable.mend()
    partitionable.primary.command("FLUSHALL")


@pytest.fixture
async def tracker(sentinels: Sentinels) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(sentinels.url(), [SECRET]) as tracker:
        yield tracker


async def equals(answer: Awaitable[object], expected: object) -> bool:
    return await answer == expected


async def writes_to(tracker: StreamTracker, node: Node) -> bool:
    admission = await admitted(tracker, "alice")
    await tracker.release("alice", admission.lease.stream_id)
    return bool(node.command("HEXISTS", "ended:{alice}", admission.stream.ref))


async def test_a_primary_that_was_replaced_without_knowing_it_is_left(
    sentinels: Sentinels, tracker: StreamTracker
) -> None:
    before = sentinels.primary
    assert await writes_to(tracker, before)
    sentinels.partition(before)  # we reach all of them
    after = sentinels.wait_for_another_primary("", before)

    await until(lambda: writes_to(tracker, after))
    assert before.role() == "master"


@pytest.mark.parametrize("clients", ["everywhere", "inside"])
async def test_streams_that_a_replaced_primary_kept_live_in_vain_resume(
    sentinels: Sentinels, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where we are alone with it, and learn of its successor only when the partition has healed."""
    rules = dataclasses.replace(RULES, ttl_ms=1_200, heartbeat_ms=400)  # over before another primary is chosen
    hour_ago = time.time_ns() - 3600 * 10**9  # a young stream would come back in any case
    async with StreamTracker.from_url(sentinels.url(), [SECRET], rules) as tracker:
        with monkeypatch.context() as patches:
            patches.setattr("streamlimit.stream_id.time", SimpleNamespace(time_ns=lambda: hour_ago))
            stream_id = (await admitted(tracker, "bob")).lease.stream_id
        before = sentinels.primary
        sentinels.partition(before, clients=clients)
        failing_over = asyncio.create_task(asyncio.to_thread(sentinels.wait_for_another_primary, "", before))

        async def at_the_new_primary() -> int | None:
            answer = await tracker.heartbeat("bob", stream_id)
            assert isinstance(answer, Lease), answer
            return int(failing_over.result().command("EXISTS", "stream:{bob}:1")) if failing_over.done() else None

        if clients == "inside":
            await until(lambda: equals(at_the_new_primary(), 0))
            sentinels.heal()
        await until(at_the_new_primary)


async def test_a_primary_without_replicas_can_be_told_to_take_no_writes(
    sentinels: Sentinels, tracker: StreamTracker
) -> None:
    """So what a process that is alone with it is told is not in vain for long."""
    before = sentinels.primary
    before.command("CONFIG", "SET", "min-replicas-to-write", 1, "min-replicas-max-lag", 1)
    stream_id = (await admitted(tracker, "bob")).lease.stream_id
    sentinels.partition(before, clients="inside")

    async def refused() -> bool:
        try:
            await admitted(tracker, "alice", on_limit="evict")
        except StoreUnavailable as error:
            return "NOREPLICAS" in str(error)
        return False

    await until(refused)
    sentinels.heal()
    assert isinstance(await until(lambda: tracker.heartbeat("bob", stream_id)), Lease)
    before.command("CONFIG", "SET", "min-replicas-to-write", 0)


async def test_a_failover_that_was_asked_for_is_followed_at_once(sentinels: Sentinels, tracker: StreamTracker) -> None:
    stream_id = (await admitted(tracker, "bob")).lease.stream_id
    before = sentinels.primary
    after = sentinels.fail_over("")

    await until(lambda: writes_to(tracker, after))
    assert before.role() == "master"  # for many seconds more: Sentinels take their time
    assert isinstance(await tracker.heartbeat("bob", stream_id), Lease)


@pytest.mark.parametrize(
    "befall",
    [
        lambda sentinels: sentinels.partition(sentinels.primary),
        lambda sentinels: sentinels.partition(sentinels.primary, sentinels.sentinels[0]),
        lambda sentinels: sentinels.fail_over(""),
    ],
    ids=["it is cut off", "a Sentinel with it", "an operator asks for it"],
)
async def test_for_how_long_a_replaced_primary_was_alone_is_known(
    sentinels: Sentinels, befall: Callable[[Sentinels], object]
) -> None:
    """Told too short, streams would end on its successor; told too long, new ones would wait in vain."""
    clock = asyncio.get_running_loop().time
    told: list[tuple[float, float]] = []

    async def long_in_touch() -> bool:
        return max(await asyncio.to_thread(sentinels.silent_ms)) / 1000 < clock() - opened - 2

    async def replaced() -> bool:
        return bool(told)

    make_node = partial(node.Node, ttl_ms=1_000, budget_seconds=BUDGET_SECONDS)
    topology = find_topology(connect(sentinels.url()), make_node, lambda alone: told.append((alone, clock())))
    await topology.open()
    opened = clock()
    try:
        await until(long_in_touch)
        await asyncio.to_thread(befall, sentinels)
        befallen = clock()
        await until(replaced)
    finally:
        await topology.close()
    ((alone_seconds, at),) = told
    assert at - befallen <= alone_seconds < at - opened


async def test_a_sentinel_alone_with_the_old_primary_is_not_believed(sentinels: Sentinels) -> None:
    before = sentinels.primary
    alone = sentinels.sentinels[0]
    sentinels.partition(before, alone)
    after = sentinels.wait_for_another_primary("", before)
    assert alone.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "streams")[0] == before.announced

    async with StreamTracker.from_url(sentinels.url(), [SECRET]) as newcomer:
        assert await writes_to(newcomer, after)
