"""The names of all keys in Redis, which operators meet again in `redis-cli`."""

from typing import Final

from streamlimit.fields import check_key_prefix, check_user_id, checked

EPOCH_TAG: Final = "0"
"""One epoch key serves a single server; on a Cluster each hash slot would need its own."""


class Keys:
    """Builds key names. The braces are literal: the Redis Cluster hash tag keeps all keys of a user in one slot.

    Args:
        prefix: Put before every key, so that deployments can share a Redis.
        seats: How many seats a user has (`max_limit`).
    """

    def __init__(self, prefix: str = "", seats: int = 10) -> None:
        self._prefix = f"{checked('key_prefix', check_key_prefix, prefix)}:" if prefix else ""
        self.seats = seats
        self.epoch = f"{self._prefix}epoch:{{{EPOCH_TAG}}}"

    def user(self, user_id: str) -> str:
        """The user's record: hash of `limit`, no TTL."""
        return self._of("user", user_id)

    def ended(self, user_id: str) -> str:
        """Why the user's last streams ended: hash of REF to `REASON MS`, 10 minutes."""
        return self._of("ended", user_id)

    def stream(self, user_id: str, seat: int) -> str:
        """One live stream: hash, the stream TTL."""
        return f"{self._of('stream', user_id)}:{seat}"

    def all_of(self, user_id: str) -> list[str]:
        """The KEYS of every script that looks at a whole user: user, ended, epoch, seats 1 to `max_limit`."""
        stream = self._of("stream", user_id)
        seats = (f"{stream}:{seat}" for seat in range(1, self.seats + 1))
        return [self.user(user_id), self.ended(user_id), self.epoch, *seats]

    def _of(self, noun: str, user_id: str) -> str:
        return f"{self._prefix}{noun}:{{{checked('user_id', check_user_id, user_id)}}}"
