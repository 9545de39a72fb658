"""The log of who changed what: each change that a back end or an operator made, with the key it used and the user.

Users are named as the operator chose. By default that is an HMAC with the service's secret: lines about one user can be
found by whoever has the secret, and users by nobody who has the log alone.
"""

import hmac
import logging
from typing import Final, Literal

from streamlimit.callers import Caller, Role

Naming = Literal["hashed", "cut", "full"]
_HASH_LENGTH: Final = 12
_CUT_LENGTH: Final = 3

_logger = logging.getLogger(__name__)


class Audit:
    """Writes the log.

    Args:
        naming: How users are named.
        secret: What they are hashed with.
    """

    def __init__(self, naming: Naming, secret: str) -> None:
        self._naming = naming
        self._secret = secret.encode()

    def record(self, caller: Caller, method: str, route: str, user_id: str) -> None:
        """Write that somebody changed something; what players do with their own streams is not written."""
        if caller.role is not Role.PLAYER:
            _logger.info("%s %s of user %s by %s", method, route, self.name(user_id), caller.name)

    def name(self, user_id: str) -> str:
        """What the log calls a user."""
        match self._naming:
            case "hashed":
                return hmac.digest(self._secret, user_id.encode(), "sha256").hex()[:_HASH_LENGTH]
            case "cut":
                # A short id would stand there whole.
                return f"{user_id[: min(_CUT_LENGTH, len(user_id) // 2)]}…"
            case "full":
                return user_id
