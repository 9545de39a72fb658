"""A slot half-way between two primaries: what each operation answers, and what others see."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from streamlimit import Admission, Lease, LimitReached, Rules, StoreUnavailable, StreamTracker
from streamlimit.hash_slots import slot_of
from tests.breakages import KEY, SLOT
from tests.cluster import Cluster
from tests.conftest import SECRET
from tests.figures import figures
from tests.helpers import admitted
from tests.operations import OPERATIONS
from tests.servers import HAVE_SUBNETS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]

OTHER: Final = "stream:{alice}:2"
ONE_KEY: Final = {"heartbeat", "heartbeat_many", "delete_user"}
"""Operations that need a single key, where all is well. The others look at all seats, of which some are free: keys that
are nowhere, so that in the middle of a migration no node can say that it has all."""


@pytest.fixture
async def tracker(empty_cluster: Cluster) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(empty_cluster.url(), [SECRET], Rules()) as tracker:
        yield tracker


async def outcome_of(calls: Any) -> Any:
    """Its answer, or why there is none."""
    try:
        return await calls
    except StoreUnavailable as error:
        return error


async def test_a_heartbeat_renews_a_stream_on_the_node_to_which_it_has_moved(
    cluster: Cluster, tracker: StreamTracker
) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    with cluster.migrating(SLOT) as migration:
        migration.move(KEY)
        with migration.target.operator() as operator, operator.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")  # type: ignore[no-untyped-call]
            pipeline.execute_command("PEXPIRE", KEY, 5_000)  # type: ignore[no-untyped-call]
            pipeline.execute()

        await tracker.heartbeat("alice", stream_id)
        migration.finish()

        assert migration.target.command("PTTL", KEY) > 5_000


@pytest.mark.parametrize("moved", [(), (KEY,), (KEY, OTHER)], ids=["nothing", "one stream", "all streams"])
async def test_while_a_slot_moves_every_operation_is_right_or_unanswered_within_the_budget(
    cluster: Cluster, tracker: StreamTracker, moved: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await admitted(tracker)
    with cluster.migrating(SLOT) as migration, figures("slot on its way") as measured:
        for key in moved:
            migration.move(key)
        measured.cases = 1
        calls = (outcome_of(measured.call(one(tracker, "alice", stream_id))) for one in OPERATIONS.values())
        answers = dict(zip(OPERATIONS, await asyncio.gather(*calls), strict=True))

    assert {name for name, one in answers.items() if not isinstance(one, StoreUnavailable)} == ONE_KEY, answers
    assert isinstance(answers["heartbeat"], Lease)
    assert "Multiple keys request during rehashing of slot" in caplog.text


async def test_the_users_of_other_slots_of_the_same_node_are_served_while_a_slot_moves(
    cluster: Cluster, tracker: StreamTracker
) -> None:
    source = cluster.primary_of(KEY)
    names = (f"user-{number}" for number in range(100))
    neighbour = next(name for name in names if cluster.primary_of(f"stream:{{{name}}}:1") is source)
    stream_id = (await admitted(tracker, neighbour)).lease.stream_id
    with cluster.migrating(SLOT):
        answers = {name: await outcome_of(one(tracker, neighbour, stream_id)) for name, one in OPERATIONS.items()}

    assert [name for name, answer in answers.items() if isinstance(answer, StoreUnavailable)] == []
    assert not tracker._store._outages


async def test_after_a_migration_all_is_as_it_was(cluster: Cluster, tracker: StreamTracker) -> None:
    await tracker.set_user_limit("alice", 2)
    streams = [(await admitted(tracker)).lease.stream_id for _ in range(2)]
    with cluster.migrating(SLOT) as migration:
        migration.move(KEY)
        migration.finish()

        listed = await tracker.list("alice")
        assert [stream.ref for stream in listed.streams] == [one.split(".")[1] for one in streams]
        assert listed.limit == 2
        assert isinstance(await tracker.admit("alice"), LimitReached)
        assert [type(await tracker.heartbeat("alice", one)) for one in streams] == [Lease, Lease]
        await tracker.release("alice", streams[0])
        assert isinstance(await tracker.admit("alice"), Admission), "a slot that moved has lost nothing: nobody waits"


async def test_a_process_that_starts_while_a_slot_moves_takes_it_for_no_loss(
    cluster: Cluster, tracker: StreamTracker
) -> None:
    await admitted(tracker)
    epoch = f"epoch:{{{next(tag for tag in map(str, range(109_758)) if slot_of(tag) == SLOT)}}}"
    with cluster.migrating(SLOT) as migration:
        migration.move(epoch)
        async with StreamTracker.from_url(cluster.url(), [SECRET], Rules()) as late:
            assert (await late.health()).recovering_ms == 0
            assert late._store._epochs.known(SLOT) == tracker._store._epochs.known(SLOT) != ""
            migration.finish()

            assert isinstance(await late.admit("alice"), Admission)
            assert isinstance(await tracker.admit("alice"), Admission)
