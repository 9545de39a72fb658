"""Which keys and tokens were wrong again and again: whoever sends one of them is told to wait, without a look at it."""

from collections import OrderedDict
from time import monotonic
from typing import Final

MOST: Final = 10
"""Enough for a player whose token has just expired, or is signed by a key that is only now being fetched."""

_WINDOW_SECONDS: Final = 60
_REMEMBERED: Final = 10_000


class FailedCredentials:
    """Remembers the last ones that were wrong, in this process.

    Not in the store: strangers would fill it with a key for each token that they invent, and each would cost a call.
    It knows hashes (Python's, with a secret of the process) and never a credential.

    Args:
        most: So often a credential may be wrong in a minute; 0 is any number.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._failures: OrderedDict[int, tuple[int, float]] = OrderedDict()
        """How often each was wrong, and when that is forgotten."""

    def wait_ms(self, credential: str) -> int:
        """After how many ms it is looked at again; 0 where it is now."""
        count, until = self._failures.get(hash(credential), (0, 0.0))
        left_ms = round((until - monotonic()) * 1000)
        return left_ms if 0 < self._most <= count and left_ms > 0 else 0

    def note(self, credential: str) -> None:
        """It was wrong."""
        now = monotonic()
        count, until = self._failures.pop(hash(credential), (0, 0.0))
        self._failures[hash(credential)] = (count + 1, until) if until > now else (1, now + _WINDOW_SECONDS)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
