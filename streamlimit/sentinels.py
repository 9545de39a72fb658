"""The primary that Sentinels name, by the word of all of them: who was replaced may not know it, and go on."""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import RedisError


@dataclass(frozen=True, slots=True)
class _View:
    """What one Sentinel says of the primary."""

    address: tuple[str, int]
    is_well: bool
    failover: int
    """The number of the last failover that it knows of."""
    silent_seconds: float
    """For how long it has not heard of it; infinite while it is about to replace it."""
    quorum: int
    """So many Sentinels that do not hear of it may replace it."""


class Sentinels(Sentinel):
    """Some Sentinels, all asked at once.

    redis-py takes the word of the first that answers, which may be the one that a partition has left alone with the old
    primary. The latest failover that any of them knows, or knew when we asked before, is the last one.
    """

    out_of_touch_seconds = 0.0
    """So long ago, when they were asked last, so many of them had heard of the primary that it was not replaced before;
    infinite where too few of them tell."""

    _last_named: _View | None = None

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address of the primary.

        Raises:
            MasterNotFoundError: No Sentinel names one that is well.
        """
        answers = await asyncio.gather(*(self._ask(one, service_name) for one in self.sentinels))
        views = [one for one in answers if isinstance(one, _View)]
        known = views
        if len(views) < len(self.sentinels) and self._last_named:
            known = [*views, self._last_named]  # those who know better may be late
        latest = max((one.failover for one in known), default=0)
        well = [one for one in known if one.failover == latest and one.is_well]
        if not views or not well:
            told = "it is down" if views else "; ".join(dict.fromkeys(map(str, answers)))
            raise MasterNotFoundError(f"no Sentinel names a primary of {service_name!r} that is well: {told}")
        self._last_named = named = well[0]
        silences = sorted(one.silent_seconds for one in views if one.failover == latest)
        needed = max(1, len(self.sentinels) - named.quorum + 1)
        # An operator may have one of them replace a primary that all hear of.
        known_to_stay = len(silences) >= needed and math.inf not in silences
        self.out_of_touch_seconds = silences[needed - 1] if known_to_stay else math.inf
        return named.address

    async def _ask(self, sentinel: Any, service_name: str) -> _View | Exception:
        try:
            async with sentinel.pipeline(transaction=False) as both:
                both.execute_command("SENTINEL MASTERS")
                both.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", service_name)
                primaries, address = await both.execute()
        except (RedisError, TimeoutError, OSError) as error:
            return error
        state = primaries.get(service_name)
        if not state:
            return RedisError(f"{service_name!r} is not known")
        # Of the two only the address is that of a replica which it has promoted, until the others follow that one.
        promoted = address != (state["ip"], state["port"])
        silent_ms = math.inf if "failover_in_progress" in state["flags"] else state["last-ok-ping-reply"]
        return _View(
            address,
            is_well=promoted or self.check_master_state(state, service_name),
            failover=state["config-epoch"],
            silent_seconds=silent_ms / 1000,
            quorum=state["quorum"],
        )
