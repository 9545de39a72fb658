"""The shapes of all bodies, in and out. OpenAPI is made from the same models."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from streamlimit import fields, results
from streamlimit.stream_id import STREAM_ID_PATTERN, STREAM_REF_PATTERN

MAX_BATCH = 1000
"""Heartbeats in one request of a gateway."""

_LAST_TIMESTAMP_MS = 253_402_300_799_999  # 9999-12-31, the last that RFC 3339 can write


def timestamp(unix_ms: int) -> str:
    """Write Unix ms as RFC 3339 in UTC with milliseconds."""
    unix_ms = min(max(unix_ms, 0), _LAST_TIMESTAMP_MS)
    return f"{_second(unix_ms // 1000)}.{unix_ms % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(unix_seconds: int) -> str:
    """Written once a second, since the streams that were heard of lately end within few seconds of each other."""
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _whole(value: object) -> object:
    """JSON does not tell 3.0 from 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _pattern(pattern: str, **more: Any) -> Any:
    """Say in the document what a string looks like; who makes or checks it knows."""
    return Field(json_schema_extra={"pattern": f"^{pattern}$", **more})


Timestamp = Annotated[str, _pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", format="date-time")]
"""RFC 3339 in UTC with milliseconds, by the store's clock."""
UserId = Annotated[str, _pattern(fields.USER_ID_PATTERN)]
StreamRef = Annotated[str, _pattern(STREAM_REF_PATTERN)]
StreamId = Annotated[str, _pattern(STREAM_ID_PATTERN)]
_LENGTH: Final = {"minLength": 1, "maxLength": fields.MAX_FIELD_BYTES}
DeviceId = Annotated[str, AfterValidator(fields.check_device_id), _pattern(fields.DEVICE_ID_PATTERN, **_LENGTH)]
Text = Annotated[str, AfterValidator(fields.visible_text), _pattern(fields.TEXT_PATTERN, **_LENGTH)]
Limit = Annotated[int, Field(ge=0, le=fields.MAX_SEATS), BeforeValidator(_whole)]
Seat = Annotated[int, Field(ge=1, le=fields.MAX_SEATS)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class AdmissionRequest(_Request):
    """All of it optional."""

    device_id: DeviceId | None = None
    """1 to 64 of printable ASCII. A device that is admitted again replaces its own stream."""
    device_name: Text | None = None
    """For people, as in "stop watching on Living-room TV?". 1 to 64 bytes of UTF-8. Format characters that do not show,
    such as U+202E, are left out, but for those that join letters and emoji."""
    content_id: Text | None = None
    """What is played. 1 to 64 bytes of UTF-8. The same characters are left out."""
    take_over: StreamRef | None = None
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
    """One heartbeat of a batch. What is wrong with it is said in its item of the answer."""

    user_id: str
    stream_id: str


class HeartbeatsRequest(_Request):
    """The heartbeats of many players, as a gateway collects them."""

    streams: list[Heartbeat] = Field(max_length=MAX_BATCH)


class _Playback(Answer):
    stream_ref: StreamRef
    """`SEAT.REF`: names the stream to `take_over` and DELETE."""
    user_id: UserId
    seat: Seat
    """The place among the user's streams that it holds."""
    device_id: str | None
    """As the admission gave it, like the next two; null where it gave none, and after the store lost data."""
    device_name: str | None
    content_id: str | None
    started_at: Timestamp


class Stream(_Playback):
    """One live stream."""

    expires_at: Timestamp
    """When it ends unless a heartbeat comes."""

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


class EndedBy(Answer):
    """The stream that ended another one."""

    stream_ref: StreamRef
    device_name: str | None
    """For people, as in "stopped, because Kids' tablet is watching"; null where its admission gave none."""

    @classmethod
    def of(cls, by: results.EndedBy) -> Self:
        """Write it."""
        return cls(stream_ref=by.stream_ref, device_name=by.device_name)


class EndedStream(_Playback):
    """A stream that this request ended, and why."""

    reason: results.Reason

    @classmethod
    def of(cls, ended: results.EndedStream) -> Self:
        """Write the end of a stream."""
        return cls(**_playback(ended.stream), reason=ended.reason)


class Admission(Stream):
    """A stream was started."""

    stream_id: StreamId
    """`SEAT.REF.SIG`. Whoever has it may heartbeat and release this stream: for its player only."""
    ttl_seconds: Count
    """How long the stream stays live without a heartbeat."""
    heartbeat_seconds: Seconds
    """Send the next heartbeat after this time. It differs from answer to answer, so that players spread out."""
    live: Count | None
    """How many streams of the user are live, this one included; null for a provisional one."""
    limit: Count
    provisional: bool
    """The store was out of reach: the stream takes a seat with its first heartbeat afterwards, or ends with
    `limit_reached`."""
    over_limit: bool
    """Let in beyond the limit, because it is not enforced."""
    ended: list[EndedStream]
    """What this admission ended. A repetition says the same, for ten minutes and the last 64 streams of the user."""

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
            provisional=admission.stream.provisional,
            over_limit=admission.over_limit,
            ended=[EndedStream.of(ended) for ended in admission.ended],
        )


class Lease(Answer):
    """The stream goes on until `expires_at`."""

    stream_id: StreamId
    """Use this one from now on: the seat in it may have changed."""
    expires_at: Timestamp
    """When the stream ends unless another heartbeat comes."""
    ttl_seconds: Count
    heartbeat_seconds: Seconds
    """Send the next heartbeat after this time. It differs from answer to answer, so that players spread out."""

    @classmethod
    def of(cls, lease: results.Lease) -> Self:
        """Write a lease."""
        return cls(
            stream_id=lease.stream_id,
            expires_at=timestamp(lease.expires_at_ms),
            ttl_seconds=lease.ttl_ms // 1000,
            heartbeat_seconds=lease.heartbeat_ms / 1000,
        )


def lease_json(lease: results.Lease) -> bytes:
    """`Lease` as it is sent for nearly every request: written at once, since no value in it needs escaping."""
    return (
        f'{{"stream_id":"{lease.stream_id}","expires_at":"{timestamp(lease.expires_at_ms)}",'
        f'"ttl_seconds":{lease.ttl_ms // 1000},"heartbeat_seconds":{lease.heartbeat_ms / 1000}}}'
    ).encode()


def state_json(stream: results.Stream) -> bytes:
    """`StreamState` as it is sent to edges."""
    return StreamState.of(stream).model_dump_json().encode()


class UserStreams(Answer):
    """The live streams of a user, by seat."""

    user_id: UserId
    limit: Count | None
    """Null for an unknown user where unknown users are rejected."""
    live: Count
    streams: list[Stream]


class AdmissionCheck(Answer):
    """Whether an admission would succeed now."""

    admissible: bool
    live: Count | None
    """Null, like the limit, for an unknown user where unknown users are rejected."""
    limit: Count | None
    reason: results.RefusalReason | None
    """Why not; null where it would succeed."""


class EndedStreams(Answer):
    """What was ended."""

    ended: list[EndedStream]


class User(Answer):
    """A user's record."""

    user_id: UserId
    limit: Count


class UserChange(User):
    """A user's record as it is now."""

    ended: list[EndedStream]
    """What `end_excess` ended."""


class HeartbeatLease(Lease):
    """A heartbeat of a batch that succeeded."""

    status: Literal[200] = 200


class HeartbeatResults(Answer):
    """In order, the answer to each heartbeat."""

    streams: list[HeartbeatLease | dict[str, Any]]
    """A lease or the problem that a heartbeat of its own would have met."""


class Readiness(Answer):
    """The store runs our scripts and takes writes."""

    status: Literal["ready"] = "ready"
    recovering_seconds: Seconds
    """How long new admissions wait after a loss of data; 0 where there was none."""
    warnings: list[str]
    """What will hurt later, for an operator."""


class Liveness(Answer):
    """The process is up."""

    status: Literal["alive", "draining"] = "alive"
    """`draining`: it is about to stop. Send nothing new."""


class Metrics(RootModel[str]):
    """The text format of Prometheus."""


class LegacyCheck(Answer):
    """What the service before this one answered."""

    can_add_stream: bool
    errors: None = None


class LegacyError(Answer):
    """How the service before this one told an error."""

    can_add_stream: None = None
    errors: str


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
