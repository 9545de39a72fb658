"""The trial of a loss: of everything, while 300 streams play and 100 more devices ask for a seat again and again.

The same devices play against three limiters: ours, ours without the epoch, and the few lines that would be written
instead. What they were told is judged by tests/history.py.
"""

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha1
from itertools import count
from typing import Final

import pytest
from redis.asyncio import Redis

from streamlimit import Rules
from streamlimit.scripts import ADMIT, RESUME, Script
from tests import history
from tests.audience import SETTLED_MS, Audience, Limiter
from tests.helpers import until

RULES: Final = Rules(limit=3, ttl_ms=3_000, heartbeat_ms=1_000)
USERS: Final = 100
DEVICES: Final = RULES.limit + 1
"""Of each user: one more than may play."""
LOSSES: Final = 5
LOSSES_ON_TOPOLOGIES: Final = int(os.environ.get("PROVE_LOSSES", "1"))
RETRY_SECONDS: Final = 0.2
"""A device without a seat asks again after half to one and a half times this."""
CALM_SECONDS: Final = RULES.ttl_ms / 1000 + 0.2
"""When nothing has changed for so long, every stream is older than a TTL, and what came before is over."""


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
            return 410, "expired"
        await self._client.pexpire(f"{user_id}:{seat}", RULES.ttl_ms)
        return 200, stream_id

    async def release(self, user_id: str, stream_id: str) -> tuple[int, str]:
        raise NotImplementedError


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
    waited_elsewhere: int
    """Calls that had to wait, or got no answer, of users whose server had lost nothing."""
    violations: tuple[history.Violation, ...]


async def trial(
    limiter: Limiter,
    lose: Callable[[], Awaitable[object]],
    *,
    losses: int = LOSSES,
    concerns: Callable[[str], bool] = lambda _: True,
) -> Outcome:
    """Lose everything, again and again, each time after things have settled.

    Args:
        limiter: What the devices talk to.
        lose: Does it.
        losses: How often.
        concerns: Whether a user's server is the one that loses.
    """
    audience = Audience(limiter, RULES, USERS, DEVICES, RETRY_SECONDS)
    lost = 0.0

    async def settled() -> bool:
        return audience.playing >= audience.seats and time.monotonic() > max(audience.changed, lost) + CALM_SECONDS

    newcomers = filter(concerns, map("newcomer-{}".format, count()))
    waited = []
    streams = []
    async with audience.watching():
        for _ in range(losses):
            await until(settled)
            streams.append(audience.playing)
            await lose()
            lost = time.monotonic()
            waited.append(await _wait(audience, next(newcomers)))
        await until(settled)
    violations = history.violations(audience.events, RULES.ttl_ms, limit=RULES.limit, settled_ms=SETTLED_MS)
    return Outcome(
        min(streams),
        len({one.events[-1].stream for one in violations if one.promise == 2}),
        len({one.events[0].user for one in violations if one.promise == 1}),
        max(waited),
        sum(one.status == 503 and not concerns(one.user) for one in audience.events),
        tuple(violations),
    )


async def _wait(audience: Audience, user_id: str) -> float:
    """How long a user without any stream waits for one, in seconds."""
    started = time.monotonic()

    async def admitted() -> bool:
        return (await audience.call("admit", user_id))[0] == 201

    await until(admitted)
    return time.monotonic() - started
