"""Whether the store is well, for all who ask at about the same time: none of them can make it work harder."""

import asyncio
from types import TracebackType
from typing import Final, Self

from streamlimit.results import Health
from streamlimit.tracker import StreamTracker

FRESH_SECONDS: Final = 1.0


class Readiness:
    """Looks at the store once a second at most, as a context in whose time nothing is left behind.

    Args:
        tracker: What looks.
    """

    def __init__(self, tracker: StreamTracker) -> None:
        self._tracker = tracker
        self._look: asyncio.Task[Health] | None = None
        self._began = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._look:
            self._look.cancel()
            await asyncio.wait({self._look})

    async def health(self) -> Health:
        """Return what the last look found, or what the one under way will find.

        Raises:
            StoreUnavailable: As `StreamTracker.health`; whoever asks within the second is told the same.
        """
        now = asyncio.get_running_loop().time()
        if self._look is None or (self._look.done() and now - self._began >= FRESH_SECONDS):
            self._began = now
            self._look = asyncio.create_task(self._tracker.health(), name="streamlimit-readiness")
            self._look.add_done_callback(_heard)
        # Whoever goes away does not take it from the others.
        return await asyncio.shield(self._look)


def _heard(look: asyncio.Task[Health]) -> None:
    """Take note of how it ended: everybody who asked may have gone away."""
    if not look.cancelled():
        look.exception()
