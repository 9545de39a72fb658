"""The epochs of a Cluster's slots: what one of them lost, all slots of its node have lost, and those of others not."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Final

import pytest

from streamlimit import Admission, Recovering, StreamTracker
from streamlimit.hash_slots import SLOTS, slot_of
from tests.cluster import Cluster
from tests.conftest import RULES, SECRET
from tests.figures import report
from tests.helpers import admitted, until
from tests.nodes import Node
from tests.servers import HAVE_SUBNETS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]

MAX_EPOCHS_BYTES: Final = 5_000_000


@pytest.fixture
async def tracker(empty_cluster: Cluster) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(empty_cluster.url(), [SECRET], RULES) as tracker:
        yield tracker


def users_of(tracker: StreamTracker, node: Node) -> Iterator[str]:
    """Any number of users whose keys are there, each in another slot."""
    known = tracker._store._topology
    seen: set[int] = set()
    for user_id in map("user-{}".format, count()):
        slot = slot_of(user_id)
        if slot not in seen and known.node(slot).name.startswith(f"{node.announced}:"):
            seen.add(slot)
            yield user_id


def of_epochs(node: Node, *words: str) -> list[Any]:
    """The replies to a command about each epoch of a node; KEY stands for the epoch."""
    with node.operator() as client, client.pipeline(transaction=False) as pipeline:
        for key in client.keys("epoch:*"):
            pipeline.execute_command(*(key if word == "KEY" else word for word in words))  # type: ignore[no-untyped-call]
        return pipeline.execute()


def recoveries(node: Node) -> list[int]:
    """The ends of those that some slots are in, or were, by the node's own clock."""
    return [int(until) for until in of_epochs(node, "HGET", "KEY", "recovering_until") if int(until)]


async def recovered(node: Node) -> bool:
    seconds, microseconds = node.command("TIME")
    return bool(max(recoveries(node)) < seconds * 1000 + microseconds // 1000)


async def test_the_epochs_of_all_slots_are_written_at_the_first_meeting(empty_cluster: Cluster) -> None:
    started = time.monotonic()
    async with StreamTracker.from_url(empty_cluster.url(), [SECRET], RULES) as tracker:
        assert isinstance(await tracker.admit("alice"), Admission)  # at a first start nobody waits
        seconds = time.monotonic() - started

        sizes = [size for node in empty_cluster.primaries for size in of_epochs(node, "MEMORY", "USAGE", "KEY")]
    assert len(sizes) == SLOTS
    assert sum(sizes) < MAX_EPOCHS_BYTES
    report("epochs", slots=SLOTS, seconds=seconds, bytes=sum(sizes))


async def test_a_loss_that_is_seen_in_one_slot_starts_the_recovery_of_all_slots_of_that_node_and_of_no_other(
    empty_cluster: Cluster, tracker: StreamTracker
) -> None:
    lost, *others = empty_cluster.primaries
    waiting, quiet = (user for user, _ in zip(users_of(tracker, lost), range(2), strict=False))
    lost.command("FLUSHALL")

    assert isinstance(await tracker.admit(waiting), Recovering)
    assert isinstance(await tracker.admit(quiet), Recovering)
    assert len(recoveries(lost)) == lost.command("DBSIZE")
    for other in others:
        assert isinstance(await tracker.admit(next(users_of(tracker, other))), Admission)
        assert recoveries(other) == []


async def test_a_slot_that_was_quiet_while_its_node_recovered_does_not_wait_afterwards(
    empty_cluster: Cluster, tracker: StreamTracker
) -> None:
    lost = empty_cluster.primaries[0]
    users = users_of(tracker, lost)
    first, quiet = next(users), next(users)
    lost.command("FLUSHALL")
    assert isinstance(await tracker.admit(first), Recovering)
    await until(lambda: recovered(lost))

    assert isinstance(await tracker.admit(quiet), Admission)


async def test_a_loss_that_another_process_saw_starts_no_second_waiting(
    empty_cluster: Cluster, tracker: StreamTracker
) -> None:
    """Of the process that calls a quiet slot hours later."""
    lost = empty_cluster.primaries[0]
    users = users_of(tracker, lost)
    first, quiet = next(users), next(users)
    async with StreamTracker.from_url(empty_cluster.url(), [SECRET], RULES) as other:
        await admitted(other, first)
        lost.command("FLUSHALL")
        assert isinstance(await other.admit(first), Recovering)
        await until(lambda: recovered(lost))

    assert isinstance(await tracker.admit(quiet), Admission)


async def test_a_rolling_restart_makes_nobody_wait(empty_cluster: Cluster) -> None:
    async with AsyncExitStack() as rest:
        running = await rest.enter_async_context(StreamTracker.from_url(empty_cluster.url(), [SECRET], RULES))
        for number in range(3):
            async with StreamTracker.from_url(empty_cluster.url(), [SECRET], RULES) as fresh:
                both = await asyncio.gather(fresh.admit(f"new-{number}"), running.admit(f"old-{number}"))
                assert {type(answer) for answer in both} == {Admission}
