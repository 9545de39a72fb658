"""The trial of a loss: of everything, while 300 streams play and 100 more devices ask for a seat again and again.

The same devices play against three limiters: ours, ours without the epoch, and the few lines that would be written
instead. What they were told is judged by tests/history.py.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha1
from random import uniform
from typing import Any, Final, Protocol

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, Lease, LimitReached, Recovering, Rules, StoreUnavailable, StreamEnded, StreamTracker
from streamlimit.scripts import ADMIT, RESUME, Script
from tests import history
from tests.helpers import until
from tests.history import Event, Operation

RULES: Final = Rules(limit=3, ttl_ms=3_000, heartbeat_ms=1_000)
USERS: Final = 100
DEVICES: Final = RULES.limit + 1
"""Of each user: one more than may play."""
LOSSES: Final = 5
RETRY_SECONDS: Final = 0.2
"""A device without a seat asks again after half to one and a half times this."""
CALM_SECONDS: Final = RULES.ttl_ms / 1000 + 0.2
"""When nothing has changed for so long, every stream is older than a TTL, and what came before is over."""
SETTLED_MS: Final = 2_000
"""After this time nothing of a call goes on: twice the budget."""


class Limiter(Protocol):
    """What a device talks to. Answers are HTTP's: a status, and with 200 and 201 the stream id to go on with."""

    async def admit(self, user_id: str) -> tuple[int, str]: ...

    async def heartbeat(self, user_id: str, stream_id: str) -> tuple[int, str]: ...


class Streamlimit:
    """Several trackers on one store, as several processes of the service are; calls go to any."""

    def __init__(self, trackers: Sequence[StreamTracker]) -> None:
        self._trackers = trackers

    async def admit(self, user_id: str) -> tuple[int, str]:
        match await self._any().admit(user_id):
            case Admission(lease=lease):
                return 201, lease.stream_id
            case LimitReached():
                return 409, ""
            case Recovering():
                return 503, ""
            case other:
                raise AssertionError(other)

    async def heartbeat(self, user_id: str, stream_id: str) -> tuple[int, str]:
        match await self._any().heartbeat(user_id, stream_id):
            case Lease(stream_id=stream_id):
                return 200, stream_id
            case StreamEnded("expired" | "limit_reached"):
                return 410, ""
            case other:
                raise AssertionError(other)

    def _any(self) -> StreamTracker:
        return secrets.choice(self._trackers)


class PlainPexpire:
    """A seat is a key with a TTL: SET NX takes it, PEXPIRE keeps it. Right, as long as the store loses nothing."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def admit(self, user_id: str) -> tuple[int, str]:
        token = secrets.token_hex(8)
        for seat in range(1, RULES.limit + 1):
            if await self._client.set(f"{user_id}:{seat}", token, nx=True, px=RULES.ttl_ms):
                return 201, f"{seat}.{token}"
        return 409, ""

    async def heartbeat(self, user_id: str, stream_id: str) -> tuple[int, str]:
        seat, token = stream_id.split(".")
        if await self._client.get(f"{user_id}:{seat}") != token:
            return 410, ""
        await self._client.pexpire(f"{user_id}:{seat}", RULES.ttl_ms)
        return 200, stream_id


@contextmanager
def without_epoch() -> Iterator[None]:
    """Make trackers heedless of the epoch: whatever is missing resumes at any time, and no admission waits for that."""
    with pytest.MonkeyPatch.context() as patches:
        admit = _changed(ADMIT, "enforce == '1' and now < recovering_until then", "false then")
        resume = _changed(RESUME, "now < lost_until and", "")
        patches.setattr("streamlimit.calls.ADMIT", admit)
        patches.setattr("streamlimit.calls.RESUME", resume)
        yield


def _changed(script: Script, old: str, new: str) -> Script:
    assert old in script.source
    source = script.source.replace(old, new)
    return replace(script, source=source, sha=sha1(source.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the devices were told, judged."""

    streams: int
    """So many played at each loss, at least."""
    interrupted: int
    """Streams that were told to have ended although their heartbeats were in time."""
    users_over: int
    """Users with more streams at once than their limit."""
    waited_seconds: float
    """The longest time from a loss until a user without any stream was admitted."""
    violations: tuple[history.Violation, ...]


@dataclass
class Trial:
    """The devices, and what they did and were told."""

    limiter: Limiter
    events: list[Event] = field(default_factory=list)
    playing: int = 0
    changed: float = 0
    """When a stream last began or ended, or all were lost, in seconds."""
    over: bool = False

    async def run(self, lose: Callable[[], Awaitable[object]]) -> Outcome:
        """Lose everything, again and again, each time after things have settled.

        Args:
            lose: Does it.
        """
        waited = []
        streams = []
        async with asyncio.TaskGroup() as tasks:
            for number in range(USERS * DEVICES):
                tasks.create_task(self._device(f"user-{number % USERS}"))
            try:
                for number in range(LOSSES):
                    await until(self._settled)
                    streams.append(self.playing)
                    await lose()
                    self.changed = time.monotonic()
                    waited.append(await self._wait(f"newcomer-{number}"))
                await until(self._settled)
            finally:
                # Cancelling them is not enough: before Python 3.12 asyncio.wait_for, in redis-py, may swallow it.
                self.over = True
        violations = history.violations(self.events, RULES.ttl_ms, limit=RULES.limit, settled_ms=SETTLED_MS)
        return Outcome(
            min(streams),
            len({one.events[-1].stream for one in violations if one.promise == 2}),
            len({one.events[0].user for one in violations if one.promise == 1}),
            max(waited),
            tuple(violations),
        )

    async def _device(self, user_id: str) -> None:
        """Ask until admitted, play until told that it is over, and ask again."""
        while not self.over:
            status, stream_id = await self._call("admit", user_id)
            if status != 201:
                await asyncio.sleep(uniform(0.5, 1.5) * RETRY_SECONDS)
                continue
            self._note(1)
            while status != 410 and not self.over:
                await asyncio.sleep(uniform(0.85, 0.95) * RULES.heartbeat_ms / 1000)
                status, answered = await self._call("heartbeat", user_id, stream_id)
                stream_id = answered or stream_id
            self._note(-1)

    async def _wait(self, user_id: str) -> float:
        """How long a user without any stream waits for one, in seconds."""
        started = time.monotonic()

        async def admitted() -> bool:
            return (await self._call("admit", user_id))[0] == 201

        await until(admitted)
        return time.monotonic() - started

    async def _call(self, operation: Operation, user_id: str, *stream_id: str) -> tuple[int, str]:
        sent = time.monotonic() * 1000
        call: Any = getattr(self.limiter, operation)
        try:
            status, answered = await call(user_id, *stream_id)
        except StoreUnavailable:
            status, answered = 503, ""
        about = history.ref_of(*stream_id) if stream_id else ""
        answer = {201: {"stream_ref": answered}, 410: {"reason": "expired"}}.get(status, {})
        self.events.append(Event("", user_id, operation, sent, time.monotonic() * 1000, status, about, answer=answer))
        return status, answered

    def _note(self, more: int) -> None:
        self.playing += more
        self.changed = time.monotonic()

    async def _settled(self) -> bool:
        return self.playing >= USERS * RULES.limit and time.monotonic() > self.changed + CALM_SECONDS
