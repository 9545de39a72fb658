"""Which streams have just been found to have ended: whoever asks for one again and again costs the store nothing."""

from time import monotonic
from typing import Final

from streamlimit.results import StreamEnded
from streamlimit.stream_id import StreamId

_SECONDS: Final = 1.0
_MAX_STREAMS: Final = 10_000
"""The process forgets all of them before it remembers more."""


class RecentEnds:
    """Remembers for a second that a stream has ended. False where it remembers none.

    An end is final, so the answer is no older than it looks. A stream that ended while the store was losing its data
    may resume; its player then learns of it a second later.
    """

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str, str], tuple[StreamEnded, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._ends)

    def get(self, user_id: str, stream_id: StreamId) -> StreamEnded | None:
        """Return how the stream ended, or None where that is not known. Seats are not compared: they are hints."""
        key = (user_id, *stream_id[1:])
        found = self._ends.get(key)
        if found is None:
            return None
        ended, until = found
        if monotonic() < until:
            return ended
        del self._ends[key]
        return None

    def add(self, user_id: str, stream_id: StreamId, ended: StreamEnded) -> None:
        """Remember the end of a stream whose id is genuine."""
        if len(self._ends) >= _MAX_STREAMS:
            self._ends.clear()
        self._ends[(user_id, *stream_id[1:])] = (ended, monotonic() + _SECONDS)
