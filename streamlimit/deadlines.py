"""Deadlines of connections: all are looked at once a second, since a timer for each request would cost too much."""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

_LOOK_SECONDS: Final = 1


class Limited(Protocol):
    """A connection that has a deadline."""

    deadline: float

    def overdue(self) -> None:
        """End it, unless it is waiting for us. Called once a second while its deadline is over."""


class Deadlines:
    """Of all connections of one server.

    Args:
        connections: They come and go.
        loop: Whose clock it is.
    """

    def __init__(self, connections: Iterable[Limited], loop: asyncio.AbstractEventLoop) -> None:
        self._connections = connections
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.now = 0.0
        """When they were looked at last."""

    def after(self, seconds: float) -> float:
        """The deadline so many seconds from now, and up to a second more."""
        return self.now + seconds + _LOOK_SECONDS

    def watch(self) -> None:
        """Look at the connections from now on, until none is left."""
        if self._timer is None:
            self._look()

    def _look(self) -> None:
        self.now = now = self._loop.time()
        connections = tuple(self._connections)
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look) if connections else None
        for connection in connections:
            if connection.deadline <= now:
                connection.overdue()
