"""What the tracker answers: typed, frozen, free of HTTP and Redis. Times are Unix ms of the store's clock."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

Reason = Literal[
    "expired", "released", "replaced", "taken_over", "evicted", "terminated", "limit_lowered", "limit_reached"
]
"""`limit_reached`: the store lost the stream, or it began in an outage, and all seats are taken since."""
RefusalReason = Literal["limit_reached", "unknown_user", "recovering"]


@dataclass(frozen=True, slots=True)
class Stream:
    """One live stream, as everybody who may see the user's streams sees it.

    `seat` and `ref` together are its `stream_ref`. `device_id`, `device_name` and `content_id` are None where none was
    given, and for a stream that resumed after the store lost it.
    """

    user_id: str
    seat: int
    ref: str
    started_at_ms: int
    expires_at_ms: int
    device_id: str | None = None
    device_name: str | None = None
    content_id: str | None = None
    provisional: bool = False
    """It holds no seat: the store lost it, or was away when it began. Its next heartbeat, up to `expires_at_ms`, takes
    one."""

    @property
    def stream_ref(self) -> str:
        """`SEAT.REF`: names the stream to `take_over` and `terminate`."""
        return f"{self.seat}.{self.ref}"


@dataclass(frozen=True, slots=True)
class EndedStream:
    """A stream that an operation ended, and why."""

    stream: Stream
    reason: Reason


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to play until `expires_at_ms`. Go on with this `stream_id`: its seat may have changed."""

    stream_id: str
    expires_at_ms: int
    ttl_ms: int
    heartbeat_ms: int
    """Send the next heartbeat after this time; 0.85 to 0.95 of the setting, so that players spread out."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A stream was started, or the same admission was made before and its stream is live."""

    stream: Stream
    """Provisional where it was let in during an outage of the store."""
    lease: Lease
    live: int | None
    """None where the store was away, and the limit is a guess then."""
    limit: int
    ended: tuple[EndedStream, ...]
    """What it ended; of a repetition, what the admission ended when it was made, as far back as the store remembers
    (10 minutes, 64 streams of a user)."""
    over_limit: bool
    """Shadow mode let it in although the limit was reached."""


@dataclass(frozen=True, slots=True)
class LimitReached:
    """Refused: as many streams are live as the limit allows, or more."""

    live: int
    limit: int
    streams: tuple[Stream, ...]
    retry_after_ms: int | None
    """Until the first of the streams would expire; None where there is none to wait for."""


@dataclass(frozen=True, slots=True)
class UnknownUser:
    """Refused: there is no record of the user, and unknown users are rejected."""


@dataclass(frozen=True, slots=True)
class TooManyAdmissions:
    """Not now: more admissions of this user were asked for than the rules allow in a minute."""

    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Recovering:
    """Not now: the store lost data, and the free seat may belong to a stream that has not reported yet."""

    live: int
    limit: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class EndedBy:
    """The stream that replaced, took over or evicted another one."""

    stream_ref: str
    """As it was then: `SEAT.REF`."""
    device_name: str | None = None


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream is not live any more."""

    reason: Reason
    by: EndedBy | None = None
    """None where no other stream ended it, or that is not known."""


Refusal = LimitReached | UnknownUser | Recovering | StreamEnded | TooManyAdmissions
"""Why no stream was started."""


@dataclass(frozen=True, slots=True)
class UnknownStream:
    """No such stream id was ever issued for this user."""


class Undecided(Enum):
    """What a look at the seat in a stream id leaves open."""

    UNANSWERED = auto()
    """The store gave no answer in time."""
    NOT_IN_ITS_SEAT = auto()
    """The id is genuine and its seat does not hold the stream: it ended, was lost, or is in another seat."""


@dataclass(frozen=True, slots=True)
class Check:
    """Whether the user would be admitted now. `live` and `limit` are None for an unknown user."""

    admissible: bool
    live: int | None = None
    limit: int | None = None
    reason: RefusalReason | None = None
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class UserStreams:
    """A snapshot of a user. `limit` is None for an unknown user where unknown users are rejected."""

    limit: int | None
    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """The store answers and takes writes. `warnings` are what will hurt later, in words for an operator."""

    recovering_ms: int
    """How long recovery goes on; 0 where there is none."""
    warnings: tuple[str, ...] = ()
