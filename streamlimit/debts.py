"""What is to be undone as soon as the store answers: admissions that may have been carried out, unknown to anybody."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from streamlimit.attempts import may_be_answered_later
from streamlimit.errors import StoreUnavailable
from streamlimit.scripts import Call

_MAX_OWED: Final = 10_000
_AT_ONCE: Final = 100

_logger = logging.getLogger(__name__)


class Debts:
    """Calls that are owed. False where there are none.

    Args:
        run: Runs one, or raises StoreUnavailable.
    """

    def __init__(self, run: Callable[[Call], Awaitable[Any]]) -> None:
        self._run = run
        self._owed: deque[Call] = deque()

    def __bool__(self) -> bool:
        return bool(self._owed)

    def add(self, call: Call) -> bool:
        """Owe a call; False where there are too many already, and it is left."""
        if len(self._owed) >= _MAX_OWED:
            return False
        self._owed.append(call)
        return True

    async def pay(self) -> None:
        """Run what is owed; what gets no answer stays owed."""
        while self._owed:
            batch = [self._owed.popleft() for _ in range(min(len(self._owed), _AT_ONCE))]
            try:
                replies = await asyncio.gather(*map(self._run, batch), return_exceptions=True)
            except asyncio.CancelledError:
                self._owed.extendleft(reversed(batch))
                raise
            unanswered = [
                call
                for call, reply in zip(batch, replies, strict=True)
                if isinstance(reply, StoreUnavailable) and may_be_answered_later(reply)
            ]
            if refused := sum(isinstance(reply, Exception) for reply in replies) - len(unanswered):
                _log_left(refused)
            if unanswered:
                self._owed.extend(unanswered)
                return

    async def settle(self, seconds: float) -> None:
        """Run what is owed for the last time, and take so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.pay()
        if self._owed:
            _log_left(len(self._owed))


def _log_left(count: int) -> None:
    _logger.warning("Left %d admissions in doubt: their streams, if there are any, expire by themselves", count)
