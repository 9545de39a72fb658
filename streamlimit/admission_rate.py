"""How often a user may ask for admission: a player gone wild is told to wait before it costs anything."""

import asyncio
from typing import Final

from streamlimit.attempts import is_outage
from streamlimit.calls import Calls
from streamlimit.errors import StoreUnavailable
from streamlimit.store import Store

WINDOW_MS: Final = 60_000
_MAX_USERS: Final = 50_000
"""Of whom a process knows how often they asked; it forgets all of them before it remembers more."""


class AdmissionRate:
    """Counts the admissions of each user over all processes, in the store.

    Those who ask as often as people do cost no call and leave no key: a process tells the store when a user has asked
    for a twelfth of the rate. So a user may exceed it by less than that for each process.

    Args:
        store: Where they are counted.
        calls: Makes the call that counts.
        per_minute: As many may be asked for; 0 is any number.
    """

    def __init__(self, store: Store, calls: Calls, per_minute: int) -> None:
        self._store = store
        self._calls = calls
        self._per_minute = per_minute
        self._step = max(1, per_minute // 12)
        self._asked: dict[str, int] = {}
        """Not told to the store yet."""
        self._waiting: dict[str, float] = {}
        """Until when users are to wait, in the event loop's time."""
        self._forget_at = 0.0

    async def wait_ms(self, user_id: str, deadline: float) -> int:
        """Count an admission that is asked for.

        Args:
            user_id: Whose.
            deadline: In the event loop's time.

        Returns:
            After how many ms to ask again; 0 where there is no need to wait.

        Raises:
            StoreUnavailable: The store is out of reach.
        """
        if not self._per_minute:
            return 0
        now = asyncio.get_running_loop().time()
        if now >= self._forget_at or len(self._asked) >= _MAX_USERS:
            self._asked.clear()
            self._waiting = {user: until for user, until in self._waiting.items() if until > now}
            self._forget_at = now + WINDOW_MS / 1000
        until = self._waiting.get(user_id, 0)
        if until > now:
            return round((until - now) * 1000)
        asked = self._asked.pop(user_id, 0) + 1
        if asked < self._step:
            self._asked[user_id] = asked
            return 0
        try:
            wait_ms = int(
                await self._store.run(self._calls.count(user_id, asked, self._per_minute, WINDOW_MS), deadline)
            )
        except StoreUnavailable as error:
            if is_outage(error):
                raise
            return 0  # logged; what cannot be counted is let in
        if wait_ms:
            self._waiting[user_id] = now + wait_ms / 1000
        return wait_ms
