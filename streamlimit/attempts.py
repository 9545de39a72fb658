"""Repeats what servers left unanswered, as long as that may help and the budget of the operation lasts."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final, TypeVar

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streamlimit.errors import StoreOverloaded, StoreUnavailable
from streamlimit.node import PATIENCE, Node
from streamlimit.outages import Outages
from streamlimit.topology import Topology

_FIRST_PAUSE_SECONDS: Final = 0.01
_NEARLY: Final = 0.99
"""Of a time, since the event loop's clock and its timers are rounded."""
_OUTAGES: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    TimeoutError,
    OSError,
    BusyLoadingError,
    ReadOnlyError,
    ClusterDownError,
    MasterDownError,
    RedisClusterException,
)
_REFUSALS: Final = ("BUSY ", "NOREPLICAS ", "MISCONF ")
"""Replies of a server that takes no writes for now: a script runs on and on, replicas or the disk are not there."""
_PASSING: Final = (MovedError, TryAgainError)
"""A slot goes from one server to another; in the middle of that the keys of one user may lie on both."""

_Reply = TypeVar("_Reply")


class Attempts:
    """Makes attempts at servers, and keeps account of which of them answer.

    Once a server is known to be out of reach, calls fail at their first attempt.

    Args:
        topology: Who holds which slot.
        outages: Where they are noted.
        budget_seconds: How long an operation may take.
        on_outage: Called where a server gave no answer.
    """

    def __init__(
        self, topology: Topology, outages: Outages, *, budget_seconds: float, on_outage: Callable[[], None]
    ) -> None:
        self._topology = topology
        self._outages = outages
        self._budget_seconds = budget_seconds
        self._patience_seconds = PATIENCE * budget_seconds
        self._on_outage = on_outage

    async def make(
        self,
        slot: int,
        attempt: Callable[[Node], Awaitable[_Reply]],
        deadline: float,
        doubt: Callable[[], None] = lambda: None,
        *,
        ends_by_itself: bool = False,
    ) -> _Reply:
        """Make an attempt at the server of a slot, again and again if need be.

        Args:
            slot: Whose server to try.
            attempt: What to try.
            deadline: In the event loop's time.
            doubt: Called where an attempt may have been carried out although it was not answered.
            ends_by_itself: An attempt takes at most the budget by itself, so that one with all of it before it needs no
                timer.

        Raises:
            StoreUnavailable: No usable answer by then.
        """
        clock = asyncio.get_running_loop().time
        known_outage = self._outages.seconds(slot) > self._budget_seconds
        pause = _FIRST_PAUSE_SECONDS
        needs_timer = not ends_by_itself or deadline - clock() < _NEARLY * self._budget_seconds
        while True:
            node = None
            started = clock()
            try:
                async with asyncio.timeout_at(deadline) if needs_timer else nullcontext():
                    node = self._topology.node(slot)
                    try:
                        reply = await attempt(node)
                    except MovedError as error:
                        await self._topology.moved(error)
                        raise
            except asyncio.CancelledError:
                doubt()
                raise
            except StoreUnavailable as error:
                self._outages.complain(str(error))
                raise
            except (RedisError, TimeoutError, OSError) as error:
                was_unanswered = _is_outage(error)
                if was_unanswered:
                    doubt()
                    self._note_outage(slot, node, error, clock() - started)
                repeatable = isinstance(error, _PASSING) or (was_unanswered and not known_outage)
                if not repeatable or clock() + pause >= deadline:
                    raise self.failure(error, node) from error
            else:
                return reply
            await asyncio.sleep(pause)
            pause *= 2
            needs_timer = True

    def failure(self, error: BaseException, node: Node | None = None) -> StoreUnavailable:
        """What callers are told; the log is told the cause."""
        where = f"{node.name}: " if node and node.name else ""
        message = where + (str(error) or type(error).__name__)
        self._outages.complain(message)
        return StoreUnavailable(message)

    def _note_outage(self, slot: int, node: Node | None, error: Exception, tried_seconds: float) -> None:
        if isinstance(error, TimeoutError) and tried_seconds < _NEARLY * self._patience_seconds:
            return  # begun shortly before the deadline, it proves nothing of the server
        # What is said of one slot is no word about the others.
        others = self._topology.slots(node) if node and not isinstance(error, ClusterDownError) else ()
        self._outages.begin((slot, *others))
        self._topology.look_again(node)
        self._on_outage()


def may_be_answered_later(failure: StoreUnavailable) -> bool:
    """Whether the server may answer when it is back; what it refused it will refuse again."""
    return isinstance(failure, StoreOverloaded) or is_outage(failure)


def is_outage(failure: StoreUnavailable) -> bool:
    """Whether a server was out of reach for now, which a call that it refuses, or too many of ours, are not."""
    cause = failure.__cause__
    return isinstance(cause, _PASSING) or _is_outage(cause)


def _is_outage(error: BaseException | None) -> bool:
    return isinstance(error, _OUTAGES) or str(error).startswith(_REFUSALS)
