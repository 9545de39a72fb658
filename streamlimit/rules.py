"""The rules of a deployment: how many streams, and for how long."""

import random
from dataclasses import dataclass
from typing import Final, Literal

from streamlimit.errors import InvalidInput
from streamlimit.fields import MAX_SEATS
from streamlimit.results import Lease

MAX_TTL_MS: Final = 600_000
"""As long as `ended:{USER}` remembers that a stream ended: a REF younger than a TTL may resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What every process of a deployment must agree on.

    Args:
        limit: Streams that a user without a record may have live.
        max_limit: Seats of a user; no limit is higher. May be raised, and lowered only when no higher seat is in use.
        ttl_ms: A stream without a heartbeat ends after this time.
        heartbeat_ms: How often players are asked to send one.
        unknown_users: What a user without a record gets.
        enforce: False is shadow mode: beyond the limit streams are let in while a seat is free, and counted.
        on_outage: What new streams get while the store is out of reach: an error, or a provisional admission, which
            takes a seat with its first heartbeat afterwards, or is told then that the limit is reached.
        admissions_per_minute: As many may be asked for, for one user; 0 is any number. See `AdmissionRate`.

    Raises:
        InvalidInput: They contradict each other.
    """

    limit: int = 3
    max_limit: int = 10
    ttl_ms: int = 90_000
    heartbeat_ms: int = 30_000
    unknown_users: Literal["admit", "reject"] = "admit"
    enforce: bool = True
    on_outage: Literal["deny", "allow"] = "deny"
    admissions_per_minute: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_limit <= MAX_SEATS:
            raise InvalidInput("max_limit", f"must be 1 to {MAX_SEATS}")
        if not 0 <= self.limit <= self.max_limit:
            raise InvalidInput("limit", f"must be 0 to max_limit ({self.max_limit})")
        if self.admissions_per_minute < 0:
            raise InvalidInput("admissions_per_minute", "must be at least 0")
        if self.heartbeat_ms < 1:
            raise InvalidInput("heartbeat_ms", "must be at least 1")
        if self.ttl_ms > MAX_TTL_MS:
            raise InvalidInput("ttl_ms", f"must be at most {MAX_TTL_MS}, as long as the ends of streams are remembered")
        if self.ttl_ms < 3 * self.heartbeat_ms:
            raise InvalidInput("ttl_ms", "must be at least three heartbeats, so that two may be lost")

    @property
    def stale_below_ms(self) -> int:
        """A stream with less time left has missed a heartbeat."""
        return self.ttl_ms - 2 * self.heartbeat_ms

    @property
    def limit_of_unknown(self) -> int | Literal[""]:
        """The limit of a user without a record, as the scripts take it."""
        return self.limit if self.unknown_users == "admit" else ""

    def lease(self, stream_id: str, expires_at_ms: int) -> Lease:
        """The right to play until then, with a time for the next heartbeat that no other player is likely to have."""
        return Lease(stream_id, expires_at_ms, self.ttl_ms, round(self.heartbeat_ms * (0.85 + 0.1 * random.random())))


DEFAULT_RULES: Final = Rules()
