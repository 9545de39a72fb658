"""Which attempts prove that a server is out of reach."""

import asyncio
from typing import cast

import pytest

from streamlimit.attempts import Attempts
from streamlimit.epochs import Epochs
from streamlimit.errors import StoreUnavailable
from streamlimit.node import Node
from streamlimit.topology import Topology

pytestmark = pytest.mark.anyio

BUDGET_SECONDS = 0.2


class World:
    """A server that never answers, and what is noted of it."""

    name = ""
    down: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.outages = 0

    def node(self, _: int) -> "World":
        return self

    def down_seconds(self, _: int) -> float:
        return 0

    def note_outage(self, *_: object) -> None:
        self.outages += 1

    def look_again(self, _: object) -> None:
        pass


async def never(_: Node) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(("part_of_the_budget", "outages"), [(1, 1), (0.1, 0)])
async def test_a_server_is_out_of_reach_where_it_had_time_to_answer(part_of_the_budget: float, outages: int) -> None:
    """A step that is begun shortly before the deadline of its operation is no proof."""
    world = World()
    attempts = Attempts(
        cast("Topology", world), cast("Epochs", world), budget_seconds=BUDGET_SECONDS, on_outage=lambda: None
    )
    deadline = asyncio.get_running_loop().time() + part_of_the_budget * BUDGET_SECONDS
    in_doubt = []

    with pytest.raises(StoreUnavailable):
        await attempts.make(0, never, deadline, lambda: in_doubt.append(True))

    assert (world.outages, in_doubt) == (outages, [True])
