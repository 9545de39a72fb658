"""Which attempts prove that a server is out of reach."""

import asyncio
from typing import cast

import pytest
from redis.exceptions import ClusterDownError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from streamlimit.attempts import Attempts
from streamlimit.errors import StoreUnavailable
from streamlimit.node import Node
from streamlimit.outages import Outages
from streamlimit.topology import Topology

pytestmark = pytest.mark.anyio

BUDGET_SECONDS = 0.2


class World:
    """A server that never answers, and what is noted of it."""

    name = ""

    def __init__(self) -> None:
        self.outages: list[tuple[int, ...]] = []
        """The slots of each that was noted."""

    def node(self, _: int) -> "World":
        return self

    def seconds(self, _: int) -> float:
        return 0

    def begin(self, slots: tuple[int, ...]) -> None:
        self.outages.append(slots)

    def end(self, _: object) -> None:
        self.outages.clear()

    def slots(self, _: object) -> tuple[int, ...]:
        return (0, 1, 2)

    def look_again(self, _: object) -> None:
        pass

    def complain(self, _: str) -> None:
        pass


async def never(_: Node) -> None:
    await asyncio.Event().wait()


def attempts_in(world: World) -> Attempts:
    return Attempts(
        cast("Topology", world), cast("Outages", world), budget_seconds=BUDGET_SECONDS, on_outage=lambda: None
    )


@pytest.mark.parametrize(("part_of_the_budget", "outages"), [(1, 1), (0.1, 0)])
async def test_a_server_is_out_of_reach_where_it_had_time_to_answer(part_of_the_budget: float, outages: int) -> None:
    """A step that is begun shortly before the deadline of its operation is no proof."""
    world = World()
    attempts = attempts_in(world)
    deadline = asyncio.get_running_loop().time() + part_of_the_budget * BUDGET_SECONDS
    in_doubt = []

    with pytest.raises(StoreUnavailable):
        await attempts.make(0, never, deadline, lambda: in_doubt.append(True))

    assert (len(world.outages), in_doubt) == (outages, [True])


@pytest.mark.parametrize(
    ("error", "slots"),
    [
        (RedisConnectionError("closed"), {0, 1, 2}),
        (ReadOnlyError("You can't write against a read only replica."), {0, 1, 2}),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), {0, 1, 2}),
        (ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), {0, 1, 2}),
        (ResponseError("BUSY Redis is busy running a script."), {0, 1, 2}),
        (ClusterDownError("Hash slot not served"), {1}),
        (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), None),
    ],
    ids=str,
)
async def test_an_outage_is_noted_for_all_slots_of_the_server_unless_it_is_of_one(
    error: Exception, slots: set[int] | None
) -> None:
    async def fail(_: Node) -> None:
        raise error

    world = World()
    with pytest.raises(StoreUnavailable):
        await attempts_in(world).make(1, fail, asyncio.get_running_loop().time() + BUDGET_SECONDS)

    assert {slot for outage in world.outages for slot in outage} == (slots or set())


async def test_an_answer_ends_no_outage() -> None:
    """It may be that of a read, from a server that takes no writes."""

    async def read(_: Node) -> str:
        return "all is well"

    world = World()
    world.begin((0,))
    await attempts_in(world).make(0, read, asyncio.get_running_loop().time() + BUDGET_SECONDS)

    assert world.outages == [(0,)]
