"""The primary that Sentinels name, by the word of all of them: who was replaced may not know it, and go on."""

import asyncio
from typing import Any, cast

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError


class Sentinels(Sentinel):
    """Some Sentinels, all asked at once.

    redis-py takes the word of the first that answers, which may be the one that a partition has left alone with the old
    primary. The latest failover that any of them knows is the last one.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address of the primary.

        Raises:
            MasterNotFoundError: No Sentinel names one that is well.
        """
        answers = await asyncio.gather(*(self._ask(one, service_name) for one in self.sentinels))
        states = [one for one in answers if isinstance(one, dict)]
        well = [one for one in states if self.check_master_state(one, service_name)]
        if not well:
            told = "it is down" if states else "; ".join(map(str, answers))
            raise MasterNotFoundError(f"no Sentinel names a primary of {service_name!r} that is well: {told}")
        latest = max(well, key=lambda state: int(state["config-epoch"]))
        return latest["ip"], latest["port"]

    async def _ask(self, sentinel: Any, service_name: str) -> dict[str, Any] | Exception:
        try:
            named = await sentinel.sentinel_masters()
        except (RedisError, TimeoutError, OSError) as error:
            return error
        state = named.get(service_name)
        return cast("dict[str, Any]", state) if state else RedisError(f"{service_name!r} is not known")


class PrimaryPool(SentinelConnectionPool):
    """Connections to the primary."""

    async def get_master_address(self) -> tuple[str, int]:
        """Ask the Sentinels, and where they name another one than before, use no connection to that one again."""
        before = self.master_address
        # This closes the idle ones; the others go on until they have their answer.
        address: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        if before not in (None, address):
            await self.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        return address
