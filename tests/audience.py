"""Devices that play, and those that ask for a seat again and again, and what they were told.

Several limiters can be set before them, to compare.
"""

import asyncio
import gc
import math
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from random import expovariate, uniform
from typing import Any, Final, Protocol

from streamlimit import Admission, Lease, LimitReached, Recovering, Rules, StoreUnavailable, StreamEnded, StreamTracker
from tests import history
from tests.history import Event, Operation

SETTLED_MS: Final = 2_000
"""After this time nothing of a call goes on: twice the budget."""


class Limiter(Protocol):
    """What a device talks to. It answers with HTTP's status and the stream id to go on with, or why there is none."""

    async def admit(self, user_id: str) -> tuple[int, str]: ...

    async def heartbeat(self, user_id: str, stream_id: str) -> tuple[int, str]: ...

    async def release(self, user_id: str, stream_id: str) -> tuple[int, str]: ...


class Streamlimit:
    """Several trackers on one store, as several processes of the service are; calls go to any."""

    def __init__(self, trackers: Sequence[StreamTracker]) -> None:
        self.trackers = trackers

    async def admit(self, user_id: str) -> tuple[int, str]:
        match await self._any().admit(user_id):
            case Admission(lease=lease):
                return 201, lease.stream_id
            case LimitReached():
                return 409, ""
            case Recovering():
                return 503, "recovering"
            case other:
                raise AssertionError(other)

    async def heartbeat(self, user_id: str, stream_id: str) -> tuple[int, str]:
        match await self._any().heartbeat(user_id, stream_id):
            case Lease(stream_id=stream_id):
                return 200, stream_id
            case StreamEnded("expired" | "limit_reached" as reason):
                return 410, reason
            case other:
                raise AssertionError(other)

    async def release(self, user_id: str, stream_id: str) -> tuple[int, str]:
        await self._any().release(user_id, stream_id)
        return 204, ""

    def _any(self) -> StreamTracker:
        return secrets.choice(self.trackers)


@contextmanager
def _without_collections() -> Iterator[None]:
    """No collection of garbage: to look through the heap of all tests takes half of the time that a call has."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@dataclass
class Audience:
    """The devices, and their log.

    Args:
        limiter: What they talk to.
        rules: Which it has.
        users: user-0, user-1 and so on.
        devices: Of each user. Where they are more than the limit, some ask in vain.
        retry_seconds: A device without a seat asks again after half to one and a half times this.
        mean_seconds: How long a stream is watched, on average, until its player releases it.
        rest_seconds: How long a device rests after that, on average.
    """

    limiter: Limiter
    rules: Rules
    users: int
    devices: int
    retry_seconds: float
    mean_seconds: float = math.inf
    rest_seconds: float = 0
    events: list[Event] = field(default_factory=list, init=False)
    playing: int = field(default=0, init=False)
    changed: float = field(default=0, init=False)
    """When a stream last began or ended, in seconds."""
    _over: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def names(self) -> list[str]:
        return [f"user-{number}" for number in range(self.users)]

    @property
    def seats(self) -> int:
        return self.users * self.rules.limit

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """All of them do what they do."""
        with _without_collections():
            async with asyncio.TaskGroup() as tasks:
                for number in range(self.users * self.devices):
                    tasks.create_task(self._device(f"user-{number % self.users}"))
                try:
                    yield
                finally:
                    # Cancelling them is not enough: before Python 3.12 asyncio.wait_for, in redis-py, may swallow it.
                    self._over.set()

    async def call(self, operation: Operation, user_id: str, *stream_id: str) -> tuple[int, str]:
        """Call the limiter, and write down what it said."""
        sent = time.monotonic() * 1000
        call: Any = getattr(self.limiter, operation)
        try:
            status, answered = await call(user_id, *stream_id)
        except StoreUnavailable:
            status, answered = 503, ""
        about = history.ref_of(*stream_id) if stream_id else ""
        answer = {201: {"stream_ref": answered}, 410: {"reason": answered}, 503: {"why": answered}}.get(status, {})
        self.events.append(Event("", user_id, operation, sent, time.monotonic() * 1000, status, about, answer=answer))
        return status, answered

    async def _device(self, user_id: str) -> None:
        """Ask until admitted, play until told that it is over or enough was seen, and ask again."""
        while not self._over.is_set():
            status, stream_id = await self.call("admit", user_id)
            if status == 201:
                self._note(1)
                rests = await self._play(user_id, stream_id)
                self._note(-1)
                if rests:
                    await self._pause(expovariate(1 / self.rest_seconds))
            else:
                await self._pause(uniform(0.5, 1.5) * self.retry_seconds)

    async def _pause(self, seconds: float) -> None:
        """Sleep so long, or until it is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    async def _play(self, user_id: str, stream_id: str) -> bool:
        """Whether enough was seen."""
        seen = time.monotonic() + (expovariate(1 / self.mean_seconds) if self.mean_seconds < math.inf else math.inf)
        known = True
        while not self._over.is_set():
            # Without an answer it asks again soon, as Retry-After says.
            await self._pause(uniform(0.85, 0.95) * self.rules.heartbeat_ms / 1000 / (1 if known else 4))
            if time.monotonic() > seen:
                await self.call("release", user_id, stream_id)
                return self.rest_seconds > 0
            status, answered = await self.call("heartbeat", user_id, stream_id)
            if status == 410:
                return False
            known = status == 200
            stream_id = answered or stream_id
        return False

    def _note(self, more: int) -> None:
        self.playing += more
        self.changed = time.monotonic()
