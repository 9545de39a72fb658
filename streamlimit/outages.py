"""Since when servers are out of reach, by hash slot; and what the log says of it.

A slot is out of reach from the first call that its server left unanswered, or refused because it takes no writes, until
the server has proved that it takes them (`Epochs.probe`). An answered read proves nothing: with too few replicas, or on
a full disk, lists are answered while no heartbeat is kept. For example, heartbeats are refused for a whole TTL and an
edge asks in between; if its answers ended the outage, streams would have expired in an outage that never lasted long
enough to open a recovery.
"""

import asyncio
import logging
import math
from collections.abc import Iterable
from typing import Final

_REPEAT_SECONDS: Final = 10
"""How soon the same complaint is logged again."""
_CALM_SECONDS: Final = 1.0
"""How long all must be well before the log says so: connections that fail now and then are one outage."""

_logger = logging.getLogger(__name__)


class Outages:
    """Those under way; False where all is well.

    Args:
        ttl_ms: The stream TTL.
        long_ms: In an outage longer than this, streams may have expired through no fault of their players.
    """

    def __init__(self, *, ttl_ms: int, long_ms: int) -> None:
        self._ttl_seconds = ttl_ms / 1000
        self._long_seconds = long_ms / 1000
        self.since: dict[int, float] = {}
        """Since when each slot is out of reach, in the event loop's time."""
        self._began: float | None = None
        """When the log's outage began; it ends when all has been well for a while."""
        self._calm: asyncio.TimerHandle | None = None
        self._was_logged = False
        self._complaint = ("", -math.inf)

    def __bool__(self) -> bool:
        return bool(self.since)

    def seconds(self, slot: int) -> float:
        """How long a slot has been out of reach; 0 where it is not."""
        since = self.since.get(slot)
        return 0 if since is None else _now() - since

    def is_long(self, slot: int) -> bool:
        """Whether the slot's server is to be asked for its epoch before a decision about seats."""
        return self.seconds(slot) > self._long_seconds

    def begin(self, slots: Iterable[int]) -> None:
        """Note that slots are out of reach."""
        now = _now()
        for slot in slots:
            self.since.setdefault(slot, now)
        if self._calm:
            self._calm.cancel()
            self._calm = None
        elif self._began is None:
            self._began = now

    def begin_replaced(self, alone_seconds: float) -> None:
        """Note that another server has taken the place of one that was alone for so long: what that one took is lost.

        It is an outage from when it was alone, even for those whom it answered. They do not know, and do not repeat
        their heartbeats, so that each may be on its way for an interval.
        """
        silent_seconds = self.seconds(0)
        if alone_seconds > silent_seconds:
            interval = self._ttl_seconds - self._long_seconds
            lost_seconds = alone_seconds - silent_seconds + max(silent_seconds, interval)
            if lost_seconds > self._long_seconds:
                self.begin((0,))
                self.since[0] = _now() - lost_seconds

    def end(self, slots: Iterable[int]) -> None:
        """Note that the server of these slots takes writes."""
        for slot in slots:
            self.since.pop(slot, None)
        if not self.since and self._began is not None and self._calm is None:
            loop = asyncio.get_running_loop()
            self._calm = loop.call_later(_CALM_SECONDS, self._log_end, loop.time() - self._began)

    def complain(self, message: str) -> None:
        """Log why a call was not answered; the same once in a while."""
        now = _now()
        last, at = self._complaint
        if message != last or now - at > _REPEAT_SECONDS:
            self._complaint = (message, now)
            self._was_logged = True
            _logger.warning("No usable answer from the store: %s", message)

    def close(self) -> None:
        """Log nothing more."""
        if self._calm:
            self._calm.cancel()

    def _log_end(self, seconds: float) -> None:
        if self._was_logged:
            _logger.warning("The store is back after %.1f s", seconds)
        self._calm = self._began = None
        self._was_logged = False
        # The next outage is logged at once, even where it has the same cause.
        self._complaint = ("", -math.inf)


def _now() -> float:
    return asyncio.get_running_loop().time()
