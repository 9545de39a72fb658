"""How servers are met: which of their slots are asked for an epoch, and what an interruption leaves behind."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from redis.exceptions import AskError, ClusterDownError, MovedError
from redis.exceptions import ConnectionError as RedisConnectionError

from streamlimit.epochs import _AT_ONCE, Epochs
from streamlimit.node import Command, Node
from streamlimit.outages import Outages
from streamlimit.topology import Topology
from tests.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

SLOTS = 2 * _AT_ONCE
QUIET = SLOTS - 1
NOW_MS = 1_764_000_000_000


class Server:
    """One that keeps epochs, as epoch.lua does."""

    def __init__(self) -> None:
        self.name = "server"
        self.meeting = asyncio.Lock()
        self.meetings = 0
        self.clock_ahead_ms = 0
        self.epochs: dict[str, str] = {}
        self.asked: list[str] = []
        self.replies: list[Exception] = []
        """What it says first, in place of an epoch."""
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens before it answers."""
        self.stuck_at = ""
        self.is_stuck = asyncio.Event()

    async def exchange(self, commands: Sequence[Command], *, asking: bool = False) -> list[Any]:
        del asking
        self.meanwhile()
        return [await self._answer(command) for command in commands]

    async def _answer(self, command: Command) -> Any:
        words = command.packed.decode().split("\r\n")
        key, fresh = words[8], words[12]
        if key == self.stuck_at:
            self.is_stuck.set()
            await asyncio.Event().wait()
        self.asked.append(key)
        return self.replies.pop() if self.replies else [self.epochs.setdefault(key, fresh), NOW_MS, NOW_MS]

    def lose(self) -> None:
        self.epochs.clear()


class OneServer:
    """A topology in which one server has all slots, though another one may be named."""

    def __init__(self) -> None:
        self.server = self.other = Server()
        self.moves: list[MovedError] = []
        self.replaced = False

    def slots(self, node: Node) -> Sequence[int]:
        del node
        return () if self.replaced else range(SLOTS)

    def replace(self) -> None:
        self.replaced = True

    def asked(self, error: AskError) -> Server:
        del error
        return self.other

    async def moved(self, error: MovedError) -> None:
        self.moves.append(error)


class Meetings:
    """Epochs on such a topology, all of whose slots were met."""

    def __init__(self) -> None:
        self.topology = OneServer()
        self.server = self.topology.server
        self.outages = Outages(ttl_ms=1000, long_ms=500)
        keys = [f"epoch:{slot}" for slot in range(SLOTS)]
        self.epochs = Epochs(cast("Topology", self.topology), keys, ttl_ms=1000, outages=self.outages)

    async def meet(self, slot: int, refused: str | None = None) -> None:
        refused = self.epochs.known(slot) if refused is None else refused
        self.server.asked.clear()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.epochs.meet_again(slot, refused, self.server.meetings, cast("Node", self.server))

    def knows(self, slot: int) -> bool:
        """Whether what it knows of a slot is what the server has."""
        return self.epochs.known(slot) == self.server.epochs.get(f"epoch:{slot}")


@pytest.fixture
async def meetings() -> Meetings:
    meetings = Meetings()
    await meetings.meet(0, "")
    return meetings


async def test_at_first_all_slots_are_asked(meetings: Meetings) -> None:
    assert len(meetings.server.asked) == SLOTS
    assert meetings.knows(QUIET)
    assert meetings.server.clock_ahead_ms


async def test_where_nothing_was_lost_only_the_slot_that_was_refused_is_asked(meetings: Meetings) -> None:
    """As where the call was late: of many callers that wait, each would otherwise ask for all slots in turn."""
    await meetings.meet(5)

    assert meetings.server.asked == ["epoch:5"]


async def test_callers_that_are_refused_at_one_moment_meet_the_server_once(meetings: Meetings) -> None:
    """As where its clock was set forward, and all calls under way are late."""
    await asyncio.gather(*(meetings.meet(5) for _ in range(100)))

    assert meetings.server.asked == ["epoch:5"]


async def test_where_one_slot_was_lost_all_are_asked_once(meetings: Meetings) -> None:
    meetings.server.lose()
    await meetings.meet(5)

    assert sorted(meetings.server.asked) == sorted(f"epoch:{slot}" for slot in range(SLOTS))
    assert meetings.knows(5)
    assert meetings.knows(QUIET)


async def test_an_interruption_does_not_hide_the_loss_of_quiet_slots(meetings: Meetings) -> None:
    meetings.server.lose()
    meetings.server.stuck_at = f"epoch:{QUIET}"
    meeting = asyncio.create_task(meetings.meet(5))
    await meetings.server.is_stuck.wait()
    meeting.cancel()
    await asyncio.wait([meeting])
    assert not meetings.knows(5)  # so the next call in this slot is refused, and it is met again
    meetings.server.stuck_at = ""
    await meetings.meet(5)

    assert meetings.knows(QUIET)


async def test_an_interruption_of_the_first_meeting_loses_nothing_of_it() -> None:
    meetings = Meetings()
    meetings.server.stuck_at = f"epoch:{QUIET}"
    meeting = asyncio.create_task(meetings.meet(0, ""))
    await meetings.server.is_stuck.wait()
    meeting.cancel()
    await asyncio.wait([meeting])

    assert meetings.knows(0)
    assert not meetings.epochs.known(QUIET)


async def test_a_slot_that_moved_is_met_where_it_is_now(meetings: Meetings) -> None:
    meetings.topology.other = other = Server()
    other.epochs["epoch:5"] = meetings.epochs.known(5)
    meetings.server.replies = [MovedError("5 127.0.0.1:6379")]
    await meetings.meet(5)

    assert other.asked == ["epoch:5"]
    assert [error.slot_id for error in meetings.topology.moves] == [5]


async def test_a_server_that_is_replaced_while_it_answers_is_not_met(meetings: Meetings) -> None:
    """Else the recovery would be opened there, and its successor would have none."""
    meetings.outages.begin((5,))
    meetings.server.lose()
    meetings.server.meanwhile = meetings.topology.replace
    with pytest.raises(RedisConnectionError, match="replaced"):
        await meetings.meet(5)

    assert 5 in meetings.outages.since
    assert not meetings.knows(5)


async def test_a_slot_that_nobody_serves_is_in_no_other_slots_way(meetings: Meetings) -> None:
    meetings.outages.since = dict.fromkeys(range(SLOTS), 0.0)
    meetings.server.replies = [ClusterDownError("Hash slot not served")]  # of slot 0, the first that is asked
    await meetings.meet(5)

    assert [*meetings.outages.since] == [0]
    assert meetings.knows(5)


async def test_the_slot_that_is_needed_is_not_met_where_nobody_serves_it(meetings: Meetings) -> None:
    meetings.outages.since = dict.fromkeys(range(SLOTS), 0.0)
    meetings.server.replies = [ClusterDownError("Hash slot not served")]
    with pytest.raises(ClusterDownError):
        await meetings.meet(0)

    assert 0 in meetings.outages.since


async def test_a_probe_that_was_refused_ends_no_outage(meetings: Meetings) -> None:
    meetings.outages.begin(range(SLOTS))
    meetings.server.replies = [ClusterDownError("The cluster is down")]
    with pytest.raises(ClusterDownError):
        await meetings.epochs.probe(cast("Node", meetings.server))

    assert len(meetings.outages.since) == SLOTS


async def test_a_loss_that_somebody_else_has_met_is_not_met_again(meetings: Meetings) -> None:
    refused = meetings.epochs.known(5)
    meetings.server.lose()
    await meetings.meet(5, refused)
    await meetings.meet(5, refused)

    assert meetings.server.asked == []


async def test_a_server_that_is_proven_asks_no_more_slots_than_are_needed(meetings: Meetings) -> None:
    meetings.server.asked.clear()
    meetings.outages.begin(range(SLOTS))
    await meetings.epochs.probe(cast("Node", meetings.server))

    assert meetings.server.asked == ["epoch:0"]
    assert not meetings.outages


async def test_a_server_without_slots_is_asked_nothing(meetings: Meetings) -> None:
    meetings.server.asked.clear()
    meetings.topology.replace()

    assert await meetings.epochs.probe(cast("Node", meetings.server)) == 0
    assert meetings.server.asked == []
