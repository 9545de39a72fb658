"""Which attempts prove that a server is out of reach, and which are made again."""

import asyncio
from typing import cast

import pytest
from redis.exceptions import ClusterDownError, ReadOnlyError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from streamlimit.attempts import Attempts, is_outage
from streamlimit.errors import StoreUnavailable
from streamlimit.node import Node
from streamlimit.outages import Outages
from streamlimit.topology import Topology

pytestmark = pytest.mark.anyio

BUDGET_SECONDS = 0.2


class World:
    """A server that never answers, and what is noted of it."""

    name = ""

    def __init__(self, down_seconds: float = 0) -> None:
        self.outages: list[tuple[int, ...]] = []
        """The slots of each that was noted."""
        self._down_seconds = down_seconds

    def node(self, _: int) -> "World":
        return self

    def seconds(self, _: int) -> float:
        return self._down_seconds

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


async def number_of_attempts(world: World, error: Exception) -> int:
    made = 0

    async def attempt(_: Node) -> None:
        nonlocal made
        made += 1
        raise error

    with pytest.raises(StoreUnavailable):
        await attempts_in(world).make(0, attempt, asyncio.get_running_loop().time() + BUDGET_SECONDS)
    return made


async def test_a_call_to_a_server_that_is_known_to_be_away_is_not_repeated() -> None:
    assert await number_of_attempts(World(), RedisConnectionError("away")) > 1
    assert await number_of_attempts(World(down_seconds=2 * BUDGET_SECONDS), RedisConnectionError("away")) == 1


async def test_a_call_in_a_slot_that_is_moved_is_repeated_though_the_server_was_away() -> None:
    assert await number_of_attempts(World(down_seconds=2 * BUDGET_SECONDS), TryAgainError("moving")) > 1


async def test_what_a_server_refuses_is_not_repeated() -> None:
    assert await number_of_attempts(World(), ResponseError("WRONGTYPE Operation against a key")) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("away"), True),
        (ResponseError("BUSY Redis is busy running a script."), True),
        (TryAgainError("moving"), True),
        (ResponseError("it says MISCONF somewhere"), False),
    ],
    ids=str,
)
def test_an_outage_is_what_passes_by_itself(error: Exception, *, expected: bool) -> None:
    failure = StoreUnavailable("no usable answer")
    failure.__cause__ = error

    assert is_outage(failure) is expected
