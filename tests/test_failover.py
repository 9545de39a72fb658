"""Failovers, on Sentinels and on a Cluster: what is lost, for how long, and who notices."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamlimit import Admission, Lease, Rules, StoreUnavailable, StreamEnded, StreamTracker
from streamlimit.hash_slots import slot_of
from tests.audience import Audience, Streamlimit
from tests.cluster import Cluster
from tests.conftest import SECRET
from tests.failover import (
    DEVICES,
    FAULTS,
    MEAN_SECONDS,
    REST_SECONDS,
    RETRY_SECONDS,
    RULES,
    USERS,
    Outcome,
    incident,
    outcomes,
)
from tests.figures import figures, report
from tests.helpers import admitted, until
from tests.nodes import Node
from tests.operations import OPERATIONS
from tests.sentinels import Sentinels
from tests.servers import HAVE_SUBNETS, wait_for
from tests.topologies import Topology

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]

PROCESSES = 3
KEY = "stream:{alice}:1"
KINDS = {"Sentinel": Sentinels, "Cluster": Cluster}
TTL_SECONDS = RULES.ttl_ms / 1000
NOTICED_SECONDS = 1
"""Within this time after a failover every process has left the old primary."""


@pytest.fixture(scope="module", params=KINDS)
def topology_of_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    with KINDS[request.param](tmp_path_factory.mktemp(request.param), partitionable=True) as topology:
        yield topology


@pytest.fixture
def topology(topology_of_module: Topology) -> Iterator[Topology]:
    yield topology_of_module
    topology_of_module.mend()
    for node in topology_of_module.nodes:
        if node.role() == "master":
            node.command("FLUSHALL")


@pytest.fixture
async def trackers(topology: Topology, request: pytest.FixtureRequest) -> AsyncIterator[list[StreamTracker]]:
    rules = getattr(request, "param", Rules())
    async with AsyncExitStack() as stack:
        trackers = [StreamTracker.from_url(topology.url(), [SECRET], rules) for _ in range(PROCESSES)]
        yield [await stack.enter_async_context(tracker) for tracker in trackers]


@pytest.mark.parametrize("trackers", [RULES], indirect=True, ids=["load"])
async def test_failovers_under_load_interrupt_nobody_and_exceed_the_limit_for_no_longer_than_a_ttl(
    topology: Topology, trackers: list[StreamTracker]
) -> None:
    audience = Audience(Streamlimit(trackers), RULES, USERS, DEVICES, RETRY_SECONDS, MEAN_SECONDS, REST_SECONDS)

    def users_of(node: Node) -> Iterable[str]:
        users = [f"user-{number}" for number in range(USERS)]
        if not isinstance(topology, Cluster):
            return users
        held = trackers[0]._store._topology
        return [user for user in users if held.node(slot_of(user)).name.startswith(f"{node.announced}:")]

    async with audience.watching():
        incidents = [await incident(audience, topology, fault, users_of) for fault in FAULTS]
        await asyncio.sleep(TTL_SECONDS)

    found = dict(zip([fault.name for fault in FAULTS], outcomes(audience.events, incidents), strict=True))
    for fault, outcome in found.items():
        report("failover", topology=type(topology).__name__, fault=fault, **dataclasses.asdict(outcome))
    assert {fault: outcome.expired for fault, outcome in found.items()} == dict.fromkeys(found, 0), found
    assert all(outcome.streams > 0.7 * audience.seats for outcome in found.values()), found
    assert all(outcome.unanswered_elsewhere == 0 for outcome in found.values()), found
    # Budgets, at twice their length: a deadline that holds from one that is added up.
    assert all(outcome.longest_call_seconds < 2 for outcome in found.values()), found
    assert all(outcome.longest_call_elsewhere_seconds < 2 for outcome in found.values()), found
    assert all(outcome.over_seconds <= closed_by(outcome) for outcome in found.values()), found


def closed_by(outcome: Outcome) -> float:
    """One TTL after all write to the same primary again, in seconds since the fault."""
    return max(outcome.replaced_seconds + NOTICED_SECONDS, outcome.silent_seconds) + TTL_SECONDS


async def lost_admission(topology: Topology, tracker: StreamTracker, **options: Any) -> tuple[str, Node]:
    """The id of a stream that only the old primary knows of, and the new one."""
    await until(lambda: tracker.list("alice"))
    before = topology.primary_of(KEY)
    topology.partition(before)
    stream_id = (await admitted(tracker, **options)).lease.stream_id
    after = await asyncio.to_thread(topology.wait_for_another_primary, KEY, before)
    assert after.command("EXISTS", KEY) == 0
    return stream_id, after


async def test_a_stream_whose_admission_a_failover_lost_comes_back_by_its_heartbeat(
    topology: Topology, trackers: list[StreamTracker]
) -> None:
    stream_id, after = await lost_admission(topology, trackers[0])

    async def known_again() -> bool:
        assert isinstance(await trackers[0].heartbeat("alice", stream_id), Lease)
        return bool(after.command("EXISTS", KEY))

    await until(known_again)


async def test_a_stream_whose_seat_was_given_away_after_a_failover_is_told_so_at_its_next_heartbeat(
    topology: Topology, trackers: list[StreamTracker]
) -> None:
    await trackers[0].set_user_limit("alice", 1)
    stream_id, after = await lost_admission(topology, trackers[0])

    async def let_in() -> bool:
        try:
            return isinstance(await trackers[1].admit("alice"), Admission) and bool(after.command("EXISTS", KEY))
        except StoreUnavailable:
            return False

    await until(let_in)

    async def ended() -> object:
        answer = await trackers[0].heartbeat("alice", stream_id)
        return answer if isinstance(answer, StreamEnded) else None

    assert await until(ended) == StreamEnded("limit_reached")


async def test_without_a_quorum_that_could_promote_another_primary_every_operation_answers_within_the_budget(
    topology: Topology, trackers: list[StreamTracker]
) -> None:
    tracker = trackers[0]
    stream_id = (await admitted(tracker)).lease.stream_id
    primary = topology.primary_of(KEY)
    if isinstance(topology, Cluster):
        for node in topology.primaries:
            if node is not primary:
                node.stop()
        wait_for(lambda: primary.command("CLUSTER INFO")["cluster_state"] == "fail", "the node to be alone")
    elif isinstance(topology, Sentinels):
        for node in (primary, *topology.sentinels[1:]):
            node.stop()

    with figures("quorum lost") as measured:
        measured.cases = 1
        calls = (measured.call(one(tracker, "alice", stream_id)) for one in OPERATIONS.values())
        answers = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    await asyncio.to_thread(topology.mend)
    assert isinstance(await until(lambda: tracker.admit("alice", on_limit="evict")), Admission)
