"""The real scripts, run and timed on streams of a user that nobody has, and that are gone afterwards."""

import asyncio
import contextlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import ResponseError

from streamlimit.findings import Finding
from streamlimit.scripts import ADMIT, HEARTBEAT, LIST, RELEASE, RESUME, TRIM, Script
from streamlimit.stream_id import mint_ref
from streamlimit.targets import NoAnswer, Target

HEARTBEATS: Final = 200
ADMISSIONS: Final = 50
TTL_MS: Final = 10_000
"""Should we be killed in the middle: when the last of the streams is gone."""

_SECONDS: Final = 3
"""On a slow store fewer runs will do."""

_SLOW_MEDIAN_MS: Final = 5
_SLOW_MS: Final = 100

_REFUSALS: Final = {
    "OOM": "the memory is full, so new streams are refused: raise maxmemory",
    "READONLY": "a replica takes no writes: connect to the primary",
    "MISCONF": "it cannot write to its disk, and takes no writes: see its log",
    "NOREPLICAS": "too few replicas are connected, and it takes no writes: see min-replicas-to-write",
    "CLUSTERDOWN": "hash slots are not served: see the coverage of the cluster",
    "BUSY": "it is busy with a script of somebody else, until SCRIPT KILL ends that",
}
_MOVING: Final = ("MOVED", "ASK", "TRYAGAIN")


@dataclass(frozen=True, slots=True)
class Timings:
    """How long the runs of one script took."""

    name: str
    wanted: int
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        shown = " / ".join(f"{self.milliseconds(share):.2f}" for share in (0.5, 0.99, 1))
        return f"{self.name} {shown} of {len(self.seconds)}"

    def milliseconds(self, share: float) -> float:
        """The time within which this share of the runs was done."""
        return sorted(self.seconds)[max(0, math.ceil(share * len(self.seconds)) - 1)] * 1000


async def check_scripts(target: Target, keys: Sequence[str]) -> Finding:
    """Run them and say how long they take.

    Args:
        target: Which server.
        keys: The KEYS of scripts that look at a whole user: user, ended, epoch, seats. None of them exists.

    Raises:
        NoAnswer: The server stopped answering.
    """
    try:
        return judged(await _time(target, keys))
    except ResponseError as error:
        code = error.status_code or str(error).partition(" ")[0]
        if code in _MOVING:
            return Finding("scripts", "skipped", f"hash slots are being moved: {error}", "examine it again afterwards")
        advice = _REFUSALS.get(code, "the service will fail like this, too")
        return Finding("scripts", "problem", f"refused: {error}", advice)
    finally:
        with contextlib.suppress(ResponseError, NoAnswer):
            await target.ask("DEL", *keys)


def judged(timings: Sequence[Timings]) -> Finding:
    """Say whether it is fast enough."""
    found = f"ms, median / 99 % / slowest: {', '.join(map(str, timings))} runs"
    if max(one.milliseconds(0.5) for one in timings) > _SLOW_MEDIAN_MS:
        advice = "a slow network, or a busy server: redis-cli --latency and SLOWLOG GET say which"
        return Finding("scripts", "warning", found, advice)
    if max(one.milliseconds(0.99) for one in timings) > _SLOW_MS:
        advice = (
            "now and then the server, the network or this machine stands still: see SLOWLOG GET, LATENCY DOCTOR, and "
            "what else runs there"
        )
        return Finding("scripts", "warning", found, advice)
    return Finding("scripts", "ok", found)


async def _time(target: Target, keys: Sequence[str]) -> list[Timings]:
    clock = asyncio.get_running_loop().time
    deadline = clock() + _SECONDS
    timings = {
        ADMIT: Timings("admit", ADMISSIONS),
        HEARTBEAT: Timings("heartbeat", HEARTBEATS),
        RELEASE: Timings("release", ADMISSIONS),
    }
    for script in (*timings, RESUME, LIST, TRIM):
        await target.ask("SCRIPT", "LOAD", script.source)

    ref, sig = "", secrets.token_hex(8)

    async def run(script: Script, script_keys: Sequence[str], *arguments: str | int) -> None:
        began = clock()
        await target.ask("EVALSHA", script.sha, len(script_keys), *script_keys, *arguments)
        if script in timings and len(timings[script].seconds) < timings[script].wanted:
            timings[script].seconds.append(clock() - began)

    async def admit() -> None:
        nonlocal ref
        ref = mint_ref(1)
        # In any epoch, and shadow mode, since recovery is no reason not to measure.
        await run(ADMIT, keys, "", ref, sig, 1, TTL_MS, 0, 1, 1, *[""] * 6, "", "", "")

    for beat in range(HEARTBEATS):
        if beat % (HEARTBEATS // ADMISSIONS) == 0:
            if ref:
                await run(RELEASE, keys, ref, sig, "1", "released", "")
            await admit()
        # Another TTL each time: else it writes nothing so soon after the last one.
        await run(HEARTBEAT, keys[3:4], TTL_MS - beat % 2 * 1000, ref, sig)
        if clock() > deadline:
            break
    await run(RESUME, keys, "", ref, sig, "1", 1, 0, 1, TTL_MS, "1", "1", "")
    await run(LIST, keys, 1)
    await run(RELEASE, keys, ref, sig, "1", "released", "")
    await run(TRIM, keys, 0, "terminated", 0, "")
    return list(timings.values())
