"""Every error that HTTP callers can meet, as `application/problem+json` (RFC 9457)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import JSONResponse

from streamlimit.errors import InvalidInput

NO_STORE: Final = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of error: `type` is `urn:streamlimit:NAME`."""

    name: str
    status: int
    title: str

    @property
    def urn(self) -> str:
        """The `type` member."""
        return f"urn:streamlimit:{self.name}"


INVALID_REQUEST = ProblemType("invalid-request", 422, "A value in the request cannot be used")
NOT_FOUND = ProblemType("not-found", 404, "No such path")
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "This path has no such method")
BODY_TOO_LARGE = ProblemType("body-too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = ProblemType("unsupported-media-type", 415, "The body must be JSON")
LIMIT_REACHED = ProblemType("limit-reached", 409, "The user watches as many streams as the limit allows")
UNKNOWN_USER = ProblemType("unknown-user", 404, "There is no record of this user")
UNKNOWN_STREAM = ProblemType("unknown-stream", 404, "No such stream was ever started for this user")
STREAM_ENDED = ProblemType("stream-ended", 410, "The stream has ended")
RECOVERING = ProblemType("recovering", 503, "The store lost data; new streams wait until those that run have reported")
STORE_UNAVAILABLE = ProblemType("store-unavailable", 503, "The store cannot be reached")
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
        return JSONResponse(
            self.body, self.kind.status, headers=NO_STORE | self.headers, media_type="application/problem+json"
        )


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


def store_unavailable() -> Problem:
    """The store gave no usable answer; the cause is in the log."""
    return Problem(
        STORE_UNAVAILABLE,
        "Whether the request took effect is not known; repeat it. A stream that is playing should go on.",
        headers=retry_after(1000),
    )
