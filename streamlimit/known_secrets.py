"""Whether this process signs with a secret that the other processes of the deployment know.

With another secret it would admit and keep streams as if all were well: only after a loss of the store's data, or a
release, would it call the streams of the others "never issued". So each process reports fingerprints of its secrets to
the store once a minute, and warns where it shares none with those in use. See secrets.lua.
"""

import asyncio
import hmac
import logging
from collections.abc import Callable, Sequence
from typing import Final

from redis.exceptions import RedisError

from streamlimit.node import Node, script_call
from streamlimit.scripts import SECRETS

FIELD: Final = "secret:"
"""How the fields of the epoch begin that hold fingerprints."""

_REPORT_SECONDS: Final = 60
_ENDED_MS: Final = 600_000
"""How long the store remembers streams that have ended."""
_MAX_SECRETS: Final = 8

_logger = logging.getLogger(__name__)


def fingerprints(secrets: Sequence[str]) -> list[str]:
    """48 bits of HMAC-SHA256 (RFC 2104) of a fixed text under each secret, in hex; they tell nothing of the secret."""
    return [hmac.digest(secret.encode(), b"streamlimit fingerprint", "sha256")[:6].hex() for secret in secrets]


def kept_ms(ttl_ms: int) -> int:
    """How long after its last report a secret counts as in use: until no stream of it is live or remembered."""
    return ttl_ms + _ENDED_MS


class KnownSecrets:
    """Reports the secrets of this process.

    Args:
        epoch_key: Where fingerprints are kept.
        secrets: Of this process, the one that signs first.
        ttl_ms: The stream TTL.
        find_node: Finds the server that holds the key.
    """

    def __init__(self, epoch_key: str, secrets: Sequence[str], ttl_ms: int, find_node: Callable[[], Node]) -> None:
        self._find_node = find_node
        self._own = fingerprints(secrets)[:_MAX_SECRETS]
        self._call = script_call(SECRETS, [epoch_key], [kept_ms(ttl_ms), *self._own])
        self.warning = ""
        """For an operator; empty where a secret is shared, or it is not known."""

    async def report_regularly(self) -> None:
        """Report once a minute, until cancelled."""
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            await self.report()

    async def report(self) -> None:
        """Report now. A failure changes nothing: it is done again soon."""
        try:
            (reply,) = await self._find_node().exchange([self._call])
            if isinstance(reply, RedisError):
                raise reply
        except (RedisError, TimeoutError, OSError) as error:
            _logger.debug("The fingerprints of the secrets were not reported: %s", error)
            return
        shared, *others = reply
        was_warned, self.warning = bool(self.warning), "" if shared else self._explained(others)
        if self.warning and not was_warned:
            _logger.warning("%s", self.warning)

    def _explained(self, others: Sequence[str]) -> str:
        return (
            f"the secret of this process ({', '.join(self._own)}) is none of those that other processes use on this "
            f"store ({', '.join(sorted(others))}; these are fingerprints): each will call the other's streams unknown; "
            "give all of them the same SECRET"
        )
