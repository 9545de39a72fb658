"""Keys that somebody overwrote by hand with another type: which of a user's they are, for the caller and the log."""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Final

from redis.exceptions import RedisError

from streamlimit.errors import DamagedKey
from streamlimit.node import Node, command

_REPEAT_SECONDS: Final = 600
_MAX_REMEMBERED: Final = 1_000
_USER: Final = re.compile(r"(?<=\{).*(?=\})")

_logger = logging.getLogger(__name__)


def is_damage(reply: object) -> bool:
    """Whether a server refused a command because a key holds another type than the command is for."""
    return isinstance(reply, RedisError) and "WRONGTYPE" in str(reply)


class Damages:
    """Finds out which key is damaged. That costs two commands a key, and only where a script has failed.

    Args:
        name_user: What the log calls a user.
    """

    def __init__(self, name_user: Callable[[str], str]) -> None:
        self._name_user = name_user
        self._logged: dict[str, float] = {}

    async def explain(self, refusal: RedisError, node: Node, keys: Sequence[str], deadline: float) -> DamagedKey:
        """Name the first of the keys that is damaged, and tell the log once in a while.

        Args:
            refusal: What the server replied to a script.
            node: The server.
            keys: The script's. All of them should be hashes.
            deadline: In the event loop's time.

        Raises:
            RedisError: The refusal itself, where no damaged key is found to be its cause.
        """
        damaged = await _find(node, keys, deadline) if is_damage(refusal) else None
        if damaged is None:
            raise refusal
        self._log(damaged)
        return damaged

    def _log(self, damaged: DamagedKey) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged.get(damaged.key, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return
        if len(self._logged) >= _MAX_REMEMBERED:
            self._logged.clear()
        self._logged[damaged.key] = now
        shown = DamagedKey(_USER.sub(lambda user: self._name_user(user[0]), damaged.key), damaged.key_type)
        _logger.error("%s. See docs/redis-cli.md, or `streamlimit doctor --user`", shown)


async def _find(node: Node, keys: Sequence[str], deadline: float) -> DamagedKey | None:
    """None, too, where the key was repaired in the meantime, or the server no longer answers."""
    # HLEN is among what the service needs anyway. TYPE is not, and may be refused.
    questions = [command(question, key) for key in keys for question in ("HLEN", "TYPE")]
    try:
        async with asyncio.timeout_at(deadline):
            replies = await node.exchange(questions)
    except (RedisError, TimeoutError, OSError):
        return None
    for key, size, kind in zip(keys, replies[::2], replies[1::2], strict=True):
        if is_damage(size):
            return DamagedKey(key, kind if isinstance(kind, str) else "")
    return None
