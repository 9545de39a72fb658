"""The names of all keys in Redis, which operators meet again in `redis-cli`."""

from collections.abc import Sequence
from typing import Final

from streamlimit.fields import check_key_prefix, check_user_id, checked
from streamlimit.hash_slots import slot_of

SINGLE_SERVER: Final = ("0",)
"""The tags of the epoch keys where one server holds all keys: one. On a Cluster each hash slot has its own."""


class Keys:
    """Builds key names. The braces are literal: the Redis Cluster hash tag keeps all keys of a user in one slot.

    Args:
        prefix: Put before every key, so that deployments can share a Redis.
        seats: How many seats a user has (`max_limit`).
        tags: The hash tag of each slot's epoch key; one where there are no slots.
    """

    def __init__(self, prefix: str = "", seats: int = 10, tags: Sequence[str] = SINGLE_SERVER) -> None:
        self._prefix = f"{checked('key_prefix', check_key_prefix, prefix)}:" if prefix else ""
        self._seats = [f":{seat}" for seat in range(1, seats + 1)]
        self._clustered = len(tags) > 1
        self.epochs = tuple(f"{self._prefix}epoch:{{{tag}}}" for tag in tags)
        """The epoch key of each slot."""

    def slot(self, user_id: str) -> int:
        """The hash slot of all keys of a user; 0 where one server holds all."""
        return slot_of(user_id) if self._clustered else 0

    def user(self, user_id: str) -> str:
        """The user's record: hash of `limit`, no TTL."""
        return self._of("user", user_id)

    def ended(self, user_id: str) -> str:
        """Why the user's last streams ended, and by what: hash of REF to `REASON … MS`, 10 minutes."""
        return self._of("ended", user_id)

    def admissions(self, user_id: str) -> str:
        """How many admissions the user asked for: number, a minute from the first on."""
        return self._of("admissions", user_id)

    def stream(self, user_id: str, seat: int) -> str:
        """One live stream: hash, the stream TTL."""
        return f"{self._of('stream', user_id)}:{seat}"

    def all_of(self, user_id: str) -> list[str]:
        """The KEYS of every script that looks at a whole user: user, ended, epoch, seats 1 to `max_limit`."""
        stream = self._of("stream", user_id)
        epoch = self.epochs[self.slot(user_id)]
        return [self.user(user_id), self.ended(user_id), epoch, *[stream + seat for seat in self._seats]]

    def _of(self, noun: str, user_id: str) -> str:
        return f"{self._prefix}{noun}:{{{checked('user_id', check_user_id, user_id)}}}"
