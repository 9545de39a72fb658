"""The shapes of all bodies, in and out. OpenAPI is made from the same models."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from streamlimit import fields, results

MAX_BATCH = 1000
"""Heartbeats in one request of a gateway."""

_LAST_TIMESTAMP_MS = 253_402_300_799_999  # 9999-12-31, the last that RFC 3339 can write


def timestamp(unix_ms: int) -> str:
    """Write Unix ms as RFC 3339 in UTC with milliseconds."""
    unix_ms = min(max(unix_ms, 0), _LAST_TIMESTAMP_MS)
    moment = datetime.fromtimestamp(unix_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03d}Z"


def _whole(value: object) -> object:
    """JSON does not tell 3.0 from 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Timestamp = Annotated[
    str,
    Field(
        json_schema_extra={"format": "date-time"}, examples=["2026-11-23T20:15:00.000Z"], description="Store's clock"
    ),
]
DeviceId = Annotated[
    str,
    AfterValidator(fields.check_device_id),
    Field(min_length=1, max_length=fields.MAX_FIELD_BYTES, examples=["tv-1"]),
]
Text = Annotated[str, AfterValidator(fields.check_text), Field(min_length=1, max_length=fields.MAX_FIELD_BYTES)]
Limit = Annotated[int, Field(ge=0, le=fields.MAX_SEATS), BeforeValidator(_whole)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class AdmissionRequest(_Request):
    """All of it optional."""

    device_id: DeviceId | None = None
    """Printable ASCII. A device that is admitted again replaces its own stream."""
    device_name: Text | None = None
    """For people, as in "stop watching on Living-room TV?"."""
    content_id: Text | None = None
    """What is played."""
    take_over: str | None = None
    """The `stream_ref` of a stream of this user that ends in favour of the new one; ignored where it is not live."""
    on_limit: Literal["reject", "evict"] = "reject"
    """At the limit: refuse, or end stale streams first, then the oldest."""
    limit: Limit | None = None
    """The user's limit as a back end knows it, over any record."""


class UserRequest(_Request):
    """A user's record."""

    limit: Limit
    """How many streams of the user may be live."""
    end_excess: bool = False
    """End what is too much now: stale streams first, then the oldest."""


class Heartbeat(_Request):
    """One heartbeat of a batch."""

    user_id: str
    stream_id: str


class HeartbeatsRequest(_Request):
    """The heartbeats of many players, as a gateway collects them."""

    streams: list[Heartbeat] = Field(max_length=MAX_BATCH)


class _Playback(_Answer):
    stream_ref: str = Field(examples=["1.AaIK0_JpA3awvPVL1Sg"])
    """Names the stream to `take_over` and DELETE."""
    user_id: str = Field(examples=["alice"])
    seat: int
    device_id: str | None
    device_name: str | None
    content_id: str | None
    started_at: Timestamp


class Stream(_Playback):
    """One live stream."""

    expires_at: Timestamp

    @classmethod
    def of(cls, stream: results.Stream) -> Self:
        """Write a stream."""
        return cls(**_playback(stream), expires_at=timestamp(stream.expires_at_ms))


class StreamState(Stream):
    """One stream, and whether it waits to be brought back."""

    provisional: bool = False
    """The store lost this stream; its next heartbeat, before `expires_at`, brings it back."""

    @classmethod
    def of(cls, stream: results.Stream) -> Self:
        """Write a stream."""
        expires_at = timestamp(stream.expires_at_ms)
        return cls(**_playback(stream), expires_at=expires_at, provisional=stream.provisional)


class EndedStream(_Playback):
    """A stream that this request ended, and why."""

    reason: results.Reason

    @classmethod
    def of(cls, ended: results.EndedStream) -> Self:
        """Write the end of a stream."""
        return cls(**_playback(ended.stream), reason=ended.reason)


class Admission(Stream):
    """A stream was started."""

    stream_id: str = Field(examples=["1.AaIK0_JpA3awvPVL1Sg.b402MtFGMyX3vA59"])
    """Whoever has it may heartbeat and release this stream: for its player only."""
    ttl_seconds: int
    heartbeat_seconds: float
    """Send the next heartbeat after this time."""
    live: int
    limit: int
    over_limit: bool
    """Let in beyond the limit, because it is not enforced."""
    ended: list[EndedStream]
    """What this admission ended."""

    @classmethod
    def of_admission(cls, admission: results.Admission) -> Self:
        """Write an admission."""
        lease = admission.lease
        return cls(
            **_playback(admission.stream),
            expires_at=timestamp(lease.expires_at_ms),
            stream_id=lease.stream_id,
            ttl_seconds=lease.ttl_ms // 1000,
            heartbeat_seconds=lease.heartbeat_ms / 1000,
            live=admission.live,
            limit=admission.limit,
            over_limit=admission.over_limit,
            ended=[EndedStream.of(ended) for ended in admission.ended],
        )


class Lease(_Answer):
    """The stream goes on until `expires_at`. Use this `stream_id` from now on."""

    stream_id: str
    expires_at: Timestamp
    ttl_seconds: int
    heartbeat_seconds: float

    @classmethod
    def of(cls, lease: results.Lease) -> Self:
        """Write a lease."""
        return cls(
            stream_id=lease.stream_id,
            expires_at=timestamp(lease.expires_at_ms),
            ttl_seconds=lease.ttl_ms // 1000,
            heartbeat_seconds=lease.heartbeat_ms / 1000,
        )


class UserStreams(_Answer):
    """The live streams of a user, by seat."""

    user_id: str
    limit: int | None
    """None for an unknown user where unknown users are rejected."""
    live: int
    streams: list[Stream]


class AdmissionCheck(_Answer):
    """Whether an admission would succeed now."""

    admissible: bool
    live: int | None
    limit: int | None
    reason: results.RefusalReason | None


class EndedStreams(_Answer):
    """What was ended."""

    ended: list[EndedStream]


class User(_Answer):
    """A user's record."""

    user_id: str
    limit: int


class UserChange(User):
    """A user's record as it is now."""

    ended: list[EndedStream]
    """What `end_excess` ended."""


class HeartbeatLease(Lease):
    """A heartbeat of a batch that succeeded."""

    status: Literal[200] = 200


class FieldError(_Answer):
    """What is wrong with one value of the request."""

    field: str
    message: str


class Problem(_Answer):
    """An error (RFC 9457). What a type has beyond these members is said where it occurs."""

    type: str = Field(examples=["urn:streamlimit:stream-ended"])
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None
    reason: results.Reason | None = None
    limit: int | None = None
    live: int | None = None
    streams: list[Stream] | None = None


class HeartbeatResults(_Answer):
    """In order, the answer to each heartbeat."""

    streams: list[HeartbeatLease | Problem]


class Readiness(_Answer):
    """The store runs our scripts and takes writes."""

    status: Literal["ready"] = "ready"
    recovering_seconds: float
    """How long new admissions wait after a loss of data; 0 where there was none."""
    warnings: list[str]


class Liveness(_Answer):
    """The process is up."""

    status: Literal["alive"] = "alive"


class LegacyCheck(_Answer):
    """What the service before this one answered."""

    can_add_stream: bool | None
    errors: str | None


def _playback(stream: results.Stream) -> dict[str, Any]:
    return {
        "stream_ref": stream.stream_ref,
        "user_id": stream.user_id,
        "seat": stream.seat,
        "device_id": stream.device_id,
        "device_name": stream.device_name,
        "content_id": stream.content_id,
        "started_at": timestamp(stream.started_at_ms),
    }
