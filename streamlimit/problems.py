"""Every error that HTTP callers can meet, as `application/problem+json` (RFC 9457)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from streamlimit import results, wire
from streamlimit.callers import KeysUnavailable, NotAuthenticated, TooManyFailures
from streamlimit.errors import DamagedKey, InvalidInput, StoreUnavailable

NO_STORE: Final = {"Cache-Control": "no-store"}
MEDIA_TYPE: Final = "application/problem+json"


class Body(wire.Answer):
    """The members that every problem has."""

    type: str
    title: str
    status: int
    detail: str
    """What was wrong this time and what to do, for a person."""


class FieldError(wire.Answer):
    """What is wrong with one value of the request."""

    field: str
    """Its name, in a body with the way to it: `streams.0.user_id`."""
    message: str


class FieldsBody(Body):
    """Values of the request are wrong."""

    errors: list[FieldError]


class EndedBody(Body):
    """A stream has ended."""

    reason: results.Reason
    by: wire.EndedBy | None
    """The stream that replaced, took over or evicted it; null where it was none, or that is not known any more."""


class WaitBody(Body):
    """Time will help."""

    limit: wire.Count
    live: wire.Count


class LimitBody(WaitBody):
    """Ending one of the streams will help, too."""

    streams: list[wire.Stream]
    """The live streams, by seat."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of error: `type` is `urn:streamlimit:NAME`."""

    name: str
    status: int
    title: str
    body: type[Body] = Body

    @property
    def urn(self) -> str:
        """The `type` member."""
        return f"urn:streamlimit:{self.name}"


INVALID_REQUEST = ProblemType("invalid-request", 422, "A value in the request cannot be used", FieldsBody)
UNAUTHENTICATED = ProblemType("unauthenticated", 401, "Who is asking is not known")
FORBIDDEN = ProblemType("forbidden", 403, "This caller may not do this")
NOT_FOUND = ProblemType("not-found", 404, "No such path")
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "This path has no such method")
BODY_TOO_LARGE = ProblemType("body-too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = ProblemType("unsupported-media-type", 415, "The body must be JSON")
LIMIT_REACHED = ProblemType("limit-reached", 409, "The user watches as many streams as the limit allows", LimitBody)
UNKNOWN_USER = ProblemType("unknown-user", 404, "There is no record of this user", FieldsBody)
UNKNOWN_STREAM = ProblemType("unknown-stream", 404, "No such stream was ever started for this user", FieldsBody)
STREAM_ENDED = ProblemType("stream-ended", 410, "The stream has ended", EndedBody)
CROSS_ORIGIN = ProblemType("cross-origin", 403, "Web pages of other origins may not send requests")
HOST_NOT_ACCEPTED = ProblemType("host-not-accepted", 421, "The service does not answer to this host name")
PREFLIGHT_REFUSED = ProblemType("preflight-refused", 400, "Pages of this origin may not ask like this")
TOO_MANY_REQUESTS = ProblemType("too-many-requests", 429, "Too many requests in a short time")
RECOVERING = ProblemType(
    "recovering", 503, "The store lost data; new streams wait until those that run have reported", WaitBody
)
TOO_MANY_CONNECTIONS = ProblemType("too-many-connections", 503, "The service holds as many connections as it may")
DRAINING = ProblemType("draining", 503, "This process is about to stop")
STORE_UNAVAILABLE = ProblemType("store-unavailable", 503, "The store cannot be reached")
DAMAGED_KEY = ProblemType("damaged-key", 503, "A key of this user in the store was overwritten by hand")
KEYS_UNAVAILABLE = ProblemType("keys-unavailable", 503, "Whether the token is right cannot be told now")
INTERNAL_ERROR = ProblemType("internal-error", 500, "Something went wrong here")


class Problem(Exception):
    """An error on its way to the caller.

    Args:
        kind: Its type.
        detail: What was wrong this time and what to do, for a person.
        headers: Sent with it.
        members: Further members of the body.
    """

    def __init__(
        self, kind: ProblemType, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @property
    def body(self) -> dict[str, Any]:
        """The problem document."""
        kind = self.kind
        return {"type": kind.urn, "title": kind.title, "status": kind.status, "detail": self.detail, **self.members}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body, self.kind.status, headers=NO_STORE | self.headers, media_type=MEDIA_TYPE)


def invalid(errors: Sequence[tuple[str, str]], kind: ProblemType = INVALID_REQUEST) -> Problem:
    """A problem that names the fields which are wrong: pairs of name and message."""
    detail = "; ".join(f"{field}: {message}" for field, message in errors)
    return Problem(kind, detail, errors=[{"field": field, "message": message} for field, message in errors])


def invalid_input(error: InvalidInput) -> Problem:
    """The same for what the domain found."""
    return invalid([(error.field, error.message)])


def retry_after(milliseconds: int) -> dict[str, str]:
    """The header of RFC 9110 section 10.2.3: whole seconds, at least 1."""
    return {"Retry-After": str(max(1, math.ceil(milliseconds / 1000)))}


def limit_reached(refusal: results.LimitReached) -> Problem:
    """Refused: as many streams are live as the limit allows."""
    return Problem(
        LIMIT_REACHED,
        f"{refusal.live} live, limit {refusal.limit}. End one of the streams, or take one over.",
        headers={} if refusal.retry_after_ms is None else retry_after(refusal.retry_after_ms),
        limit=refusal.limit,
        live=refusal.live,
        streams=[wire.Stream.of(stream).model_dump() for stream in refusal.streams],
    )


def recovering(refusal: results.Recovering) -> Problem:
    """Not now: the store lost data."""
    return Problem(
        RECOVERING,
        "The store lost data and recovers. Try again after the time in Retry-After.",
        headers=retry_after(refusal.retry_after_ms),
        limit=refusal.limit,
        live=refusal.live,
    )


def too_many_admissions(refusal: results.TooManyAdmissions) -> Problem:
    """Not now: a user asks for admission again and again."""
    detail = "Too many admissions of this user were asked for. Wait for the time in Retry-After."
    return Problem(TOO_MANY_REQUESTS, detail, headers=retry_after(refusal.retry_after_ms))


def stream_ended(ended: results.StreamEnded) -> Problem:
    """The stream is not live any more."""
    by = None if ended.by is None else wire.EndedBy.of(ended.by).model_dump()
    whose = f", by {ended.by.device_name}" if ended.by and ended.by.device_name else ""
    detail = f"Its reason: {ended.reason}{whose}. To go on, ask for admission."
    return Problem(STREAM_ENDED, detail, reason=ended.reason, by=by)


def refused(refusal: results.Refusal) -> Problem:
    """Why no stream was started."""
    match refusal:
        case results.LimitReached():
            return limit_reached(refusal)
        case results.UnknownUser():
            return unknown_user()
        case results.Recovering():
            return recovering(refusal)
        case results.StreamEnded():
            return stream_ended(refusal)
        case results.TooManyAdmissions():
            return too_many_admissions(refusal)


def unknown_stream() -> Problem:
    """There is no such stream, and never was."""
    return invalid([("stream_id", "was never issued for this user")], UNKNOWN_STREAM)


def unknown_user() -> Problem:
    """The user has no record."""
    return invalid([("user_id", "has no record; PUT /v1/users/{user_id} makes one")], UNKNOWN_USER)


def unauthenticated(error: NotAuthenticated) -> Problem:
    """Nobody, as far as we can tell. RFC 6750 section 3.1 has an error only where something was sent."""
    what = "" if error.reason == "missing" else ', error="invalid_token"'
    return Problem(UNAUTHENTICATED, str(error), headers={"WWW-Authenticate": f'Bearer realm="streamlimit"{what}'})


def too_many_failures(error: TooManyFailures) -> Problem:
    """Nobody, as it was the last times."""
    detail = "This key or token was refused too often. Get another one, or wait for the time in Retry-After."
    return Problem(TOO_MANY_REQUESTS, detail, headers=retry_after(error.retry_after_ms))


def forbidden(detail: str) -> Problem:
    """Somebody, but another one would have to ask. Said before anything is looked up, so that it tells nothing else."""
    challenge = 'Bearer realm="streamlimit", error="insufficient_scope"'
    return Problem(FORBIDDEN, detail, headers={"WWW-Authenticate": challenge})


def cross_origin() -> Problem:
    """A web page of another origin sent it, and no key says that it may."""
    return Problem(CROSS_ORIGIN, "List the origin of the page in CORS_ORIGINS, or configure keys.")


def host_not_accepted() -> Problem:
    """The Host header names another machine (RFC 9110 sections 7.4 and 15.5.20)."""
    detail = "Without keys, use localhost or 127.0.0.1; or configure keys; or accept any host name with INSECURE."
    return Problem(HOST_NOT_ACCEPTED, detail)


def preflight_refused(parts: str) -> Problem:
    """A browser asked whether a page may send a request, and it may not."""
    return Problem(PREFLIGHT_REFUSED, f"Not allowed: {parts}. The service knows the origins that may (CORS_ORIGINS).")


def body_too_large() -> Problem:
    """More bytes than the operation reads."""
    return Problem(BODY_TOO_LARGE, "At most 16 KiB; 512 KiB for a batch of heartbeats.")


def unsupported_media_type() -> Problem:
    """The body is not declared to be JSON."""
    return Problem(UNSUPPORTED_MEDIA_TYPE, "Send the body with Content-Type: application/json.")


def store_unavailable() -> Problem:
    """The store gave no usable answer; the cause is in the log."""
    detail = "Whether the request took effect is not known; repeat it. A stream that is playing should go on."
    return Problem(STORE_UNAVAILABLE, detail, headers=retry_after(1000))


def damaged_key() -> Problem:
    """Somebody overwrote a key of the user by hand; the log names it."""
    detail = "A stream that is playing should go on. To repair it, DELETE all streams of the user, or PUT the user."
    return Problem(DAMAGED_KEY, detail, headers=retry_after(30_000))


def too_many_connections() -> Problem:
    """Not now, whatever was to be asked."""
    detail = "Try again after the time in Retry-After. A stream that is playing should go on."
    return Problem(TOO_MANY_CONNECTIONS, detail, headers=retry_after(1000))


def draining() -> Problem:
    """The process still answers everything, but is to get nothing new."""
    detail = "Send requests to another instance. This one still answers those that come, and closes each connection."
    return Problem(DRAINING, detail, headers=retry_after(1000))


def keys_unavailable() -> Problem:
    """The keys that would tell are out of reach; the cause is in the log."""
    return Problem(KEYS_UNAVAILABLE, "Try again after the time in Retry-After.", headers=retry_after(1000))


def internal_error() -> Problem:
    """A bug of ours; the cause is in the log."""
    return Problem(INTERNAL_ERROR, "It is in the log. Repeat the request; an admission with the same Idempotency-Key.")


_HTTP_PROBLEMS: Final = {
    404: (NOT_FOUND, "See /openapi.json for what there is."),
    405: (METHOD_NOT_ALLOWED, "The Allow header names those it has."),
}


def of(error: Exception) -> Problem:  # noqa: PLR0911 - one for each kind of error
    """The problem that an error is for the caller."""
    match error:
        case Problem():
            return error
        case NotAuthenticated():
            return unauthenticated(error)
        case TooManyFailures():
            return too_many_failures(error)
        case KeysUnavailable():
            return keys_unavailable()
        case InvalidInput():
            return invalid_input(error)
        case DamagedKey():
            return damaged_key()
        case StoreUnavailable():
            return store_unavailable()
        case HTTPException(status_code=status) if status in _HTTP_PROBLEMS:
            kind, detail = _HTTP_PROBLEMS[status]
            return Problem(kind, detail, headers=error.headers)
    return internal_error()
