"""The primary that Sentinels name, by the word of all of them: who was replaced may not know it, and go on."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError


class Sentinels(Sentinel):
    """Some Sentinels, all asked at once.

    redis-py takes the word of the first that answers, which may be the one that a partition has left alone with the old
    primary. The latest failover that any of them knows, or knew when we asked before, is the last one.
    """

    down_after_seconds = 0.0
    """For so long a primary did not answer a Sentinel before that takes it for down."""

    _last_named: dict[str, Any] | None = None

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address of the primary.

        Raises:
            MasterNotFoundError: No Sentinel names one that is well.
        """
        answers = await asyncio.gather(*(self._ask(one, service_name) for one in self.sentinels))
        states = [one for one in answers if isinstance(one, dict)]
        known = states
        if len(states) < len(self.sentinels) and self._last_named:
            known = [*states, self._last_named]  # those who know better may be late
        latest = max(map(_failover, known), default=0)
        well = [one for one in known if _failover(one) == latest and self.check_master_state(one, service_name)]
        if not states or not well:
            told = "it is down" if states else "; ".join(map(str, answers))
            raise MasterNotFoundError(f"no Sentinel names a primary of {service_name!r} that is well: {told}")
        self._last_named = named = well[0]
        self.down_after_seconds = int(named["down-after-milliseconds"]) / 1000
        return named["ip"], named["port"]

    async def _ask(self, sentinel: Any, service_name: str) -> dict[str, Any] | Exception:
        try:
            named = await sentinel.sentinel_masters()
        except (RedisError, TimeoutError, OSError) as error:
            return error
        state = named.get(service_name)
        return cast("dict[str, Any]", state) if state else RedisError(f"{service_name!r} is not known")


def _failover(state: Mapping[str, Any]) -> int:
    """The number of the failover that a Sentinel knows as the last one."""
    return int(state["config-epoch"])


class PrimaryPool(SentinelConnectionPool):
    """Connections to the primary."""

    def __init__(self, service_name: str, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(service_name, sentinels, **options)  # type: ignore[no-untyped-call]
        self._sentinels = sentinels
        self._named = 0.0
        """When it was last named by the Sentinels, in the event loop's time."""
        self._doubted = False
        """Since then, no Sentinel took it for well."""
        self.on_replaced: Callable[[float], None] = lambda _: None
        """Called where another primary is named than before, with for how long the old one may have been alone."""

    async def get_master_address(self) -> tuple[str, int]:
        """Ask the Sentinels, and where they name another primary than before, use no connection to that one again."""
        now = asyncio.get_running_loop().time()
        try:
            address = await self._sentinels.discover_master(self.service_name)
        except MasterNotFoundError:
            self._doubted = True
            raise
        before, self.master_address = self.master_address, address
        alone_seconds = now - self._named + (self._sentinels.down_after_seconds if self._doubted else 0)
        self._named, self._doubted = now, False
        if before not in (None, address):
            self.on_replaced(alone_seconds)
            await self.disconnect(inuse_connections=False)
            await self.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        return address
