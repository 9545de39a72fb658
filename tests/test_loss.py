"""The loss of everything under load: nobody is interrupted and no limit exceeded, which takes the epoch."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis

from streamlimit import StreamTracker
from streamlimit.hash_slots import slot_of
from tests.audience import Streamlimit
from tests.cluster import Cluster
from tests.conftest import SECRET
from tests.figures import report
from tests.helpers import single
from tests.loss import LOSSES, LOSSES_ON_TOPOLOGIES, RULES, USERS, Outcome, PlainPexpire, trial, without_epoch
from tests.nodes import Node
from tests.servers import HAVE_SUBNETS, PATIENCE_SECONDS, RedisServer
from tests.topologies import Topology

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STREAMS = USERS * RULES.limit
PROCESSES = 3


@asynccontextmanager
async def processes(url: str) -> AsyncIterator[Streamlimit]:
    async with AsyncExitStack() as stack:
        trackers = [StreamTracker.from_url(url, [SECRET], RULES) for _ in range(PROCESSES)]
        yield Streamlimit([await stack.enter_async_context(tracker) for tracker in trackers])


@pytest.fixture
async def streamlimit(server: RedisServer) -> AsyncIterator[Streamlimit]:
    async with processes(server.url) as limiter:
        yield limiter


def reported(case: str, outcome: Outcome, losses: int = LOSSES) -> Outcome:
    figures = dataclasses.asdict(dataclasses.replace(outcome, violations=()))
    del figures["violations"]
    report("loss", case=case, losses=losses, **figures)
    assert outcome.streams == STREAMS, outcome
    return outcome


async def test_the_loss_of_everything_interrupts_nobody_and_exceeds_no_limit(
    streamlimit: Streamlimit, operator: Redis
) -> None:
    outcome = reported("FLUSHALL", await trial(streamlimit, operator.flushall))

    assert (outcome.interrupted, outcome.users_over, outcome.violations) == (0, 0, ())


async def test_a_restart_with_no_data_interrupts_nobody_and_exceeds_no_limit(
    streamlimit: Streamlimit, server: RedisServer
) -> None:
    async def restart() -> None:
        server.stop()
        await asyncio.to_thread(server.start)

    outcome = reported("restart with no data", await trial(streamlimit, restart))

    assert (outcome.interrupted, outcome.users_over, outcome.violations) == (0, 0, ())


async def test_without_the_epoch_the_same_loss_interrupts_streams_and_exceeds_limits(
    streamlimit: Streamlimit, operator: Redis
) -> None:
    with without_epoch():
        outcome = reported("FLUSHALL, without the epoch", await trial(streamlimit, operator.flushall))

    assert outcome.interrupted
    assert outcome.users_over


async def test_plain_pexpire_interrupts_streams_and_exceeds_limits_too(server: RedisServer, operator: Redis) -> None:
    # It has no answer to a command that fails, so none may fail for being slow.
    async with single(server.url, PATIENCE_SECONDS) as client:
        outcome = reported("FLUSHALL, plain PEXPIRE", await trial(PlainPexpire(client), operator.flushall))

    assert outcome.interrupted
    assert outcome.users_over


LOSSES_OF_A_NODE: dict[str, Callable[[Node], None]] = {
    "FLUSHALL": lambda node: node.command("FLUSHALL"),
    "restart with no data": lambda node: node.restart(empty=True),
}


@pytest.fixture(params=["Sentinel", "Cluster"])
def topology(request: pytest.FixtureRequest) -> Iterator[Topology]:
    if not HAVE_SUBNETS:
        pytest.skip("without an address of its own for each server")
    found: Topology = request.getfixturevalue("sentinels" if request.param == "Sentinel" else "cluster")
    for node in found.nodes:
        if node.role() == "master":
            node.command("FLUSHALL")
    yield found
    found.mend()


@pytest.mark.parametrize("how", LOSSES_OF_A_NODE)
async def test_a_primary_that_loses_everything_interrupts_nobody_and_concerns_nobody_elsewhere(
    topology: Topology, how: str
) -> None:
    clustered = isinstance(topology, Cluster)
    primary = topology.primary_of("{0}")

    def concerns(user_id: str) -> bool:
        return not clustered or slot_of(user_id) in slots

    async def lose() -> None:
        await asyncio.to_thread(LOSSES_OF_A_NODE[how], primary)

    async with processes(topology.url()) as limiter:
        known = limiter.trackers[0]._store._topology
        slots = set(known.slots(known.node(slot_of("0"))))
        lost = await trial(limiter, lose, losses=LOSSES_ON_TOPOLOGIES, concerns=concerns)
    where = "of a Cluster's primary" if clustered else "of a Sentinel set's primary"
    outcome = reported(f"{how} {where}", lost, LOSSES_ON_TOPOLOGIES)

    assert (outcome.interrupted, outcome.users_over, outcome.violations) == (0, 0, ())
    assert outcome.waited_elsewhere == 0
