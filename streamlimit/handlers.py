"""The handlers of the HTTP operations: each reads a request, asks the tracker, and writes the answer."""

import logging
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Final, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from streamlimit import metrics, problems, results, wire
from streamlimit.callers import Caller, Role
from streamlimit.errors import DamagedKey, InvalidInput, StoreOverloaded, StoreUnavailable
from streamlimit.fields import check_idempotency_key
from streamlimit.metrics import Admissions, Metrics, StoreErrors
from streamlimit.ports import is_operators
from streamlimit.problems import NO_STORE, Problem
from streamlimit.readiness import Readiness
from streamlimit.stream_id import parse_stream_id, parse_stream_ref
from streamlimit.tracker import StreamTracker

CHECK_MAX_AGE_SECONDS: Final = 5
"""How long an edge may let a stream go on without asking again."""
CHECKED: Final = {"Cache-Control": f"max-age={CHECK_MAX_AGE_SECONDS}"}

SINCE: Final = "streamlimit.since"
"""In the scope: when the request came, by `perf_counter`."""
SEAT_CHECKED: Final = "streamlimit.seat_checked"
"""In the scope where the protocol has asked before: the stream is not in its seat."""

_Model = TypeVar("_Model", bound=BaseModel)
_Beat = results.Lease | results.StreamEnded | results.UnknownStream | InvalidInput | StoreUnavailable
_REFUSED: Final[Mapping[type[results.Refusal], Admissions]] = {
    results.LimitReached: "limit_reached",
    results.UnknownUser: "unknown_user",
    results.Recovering: "recovering",
    results.StreamEnded: "ended",
    results.TooManyAdmissions: "too_many",
}
"""What a refusal is counted as."""
_logger = logging.getLogger(__name__)


async def admit(request: Request, tracker: StreamTracker) -> Response:
    """`POST /v1/users/{user_id}/streams`.

    Where the client is seen to have gone, its stream is released; what the stream ended stays ended. Not so where an
    idempotency key or a device id was sent: the client may come back for its seat. It cannot be seen once the answer is
    on its way, where a further request was pipelined on the connection, or behind a reverse proxy that keeps its own
    connection open: such a seat is free after one TTL.
    """
    user_id = request.path_params["user_id"]
    body = await _read(request, wire.AdmissionRequest, empty=wire.AdmissionRequest())
    key = _idempotency_key(request)
    caller: Caller = request.state.caller
    if caller.role is Role.PLAYER:
        if body.limit is not None:
            raise problems.forbidden("limit is for back ends; a player's token may have it, as streams_limit.")
        body.limit = caller.limit
    answer = await tracker.admit(user_id, **body.model_dump(), idempotency_key=key)
    outcome = _outcome(answer)
    _metrics(request).admission(outcome)
    if outcome == "provisional":
        _metrics(request).store_error("unavailable")
    if not isinstance(answer, results.Admission):
        raise problems.refused(answer)
    if key is None and body.device_id is None and await request.is_disconnected():
        _logger.debug("A client went away before it was admitted")
        tracker.abandon(user_id, answer.lease.stream_id)
    location = f"/v1/users/{quote(user_id, safe='@:+=~')}/streams/{answer.lease.stream_id}"
    return _json(wire.Admission.of_admission(answer), 201, {"Location": location})


async def heartbeat(request: Request, tracker: StreamTracker) -> Response:
    """`POST /v1/users/{user_id}/streams/{stream_id}/heartbeat`."""
    beat = await tracker.heartbeat(
        request.path_params["user_id"],
        request.path_params["stream_id"],
        spent_seconds=perf_counter() - request.scope[SINCE],
        seat_checked=SEAT_CHECKED in request.scope,
    )
    if isinstance(beat, results.Lease):
        return _json(wire.Lease.of(beat))
    raise ended_problem(beat)


async def heartbeats(request: Request, tracker: StreamTracker) -> Response:
    """`POST /v1/heartbeats`."""
    body = await _read(request, wire.HeartbeatsRequest)
    beats = await tracker.heartbeat_many([(stream.user_id, stream.stream_id) for stream in body.streams])
    _count(_metrics(request), beats)
    items = [
        wire.HeartbeatLease.of(beat) if isinstance(beat, results.Lease) else _beat_problem(beat).body for beat in beats
    ]
    return _json(wire.HeartbeatResults(streams=items))


async def release(request: Request, tracker: StreamTracker) -> Response:
    """`POST /v1/users/{user_id}/streams/{stream_id}/release`."""
    await tracker.release(request.path_params["user_id"], request.path_params["stream_id"])
    return _no_content()


async def end(request: Request, tracker: StreamTracker) -> Response:
    """`DELETE /v1/users/{user_id}/streams/{stream_id}`."""
    user_id, text = request.path_params["user_id"], request.path_params["stream_id"]
    if parse_stream_ref(text):
        await tracker.terminate(user_id, text)
    elif parse_stream_id(text):
        await tracker.release(user_id, text)
    else:
        raise problems.invalid([("stream_id", "must be a stream_id or a stream_ref")])
    return _no_content()


async def get_stream(request: Request, tracker: StreamTracker) -> Response:
    """`GET /v1/users/{user_id}/streams/{stream_id}`."""
    stream = await tracker.get(
        request.path_params["user_id"],
        request.path_params["stream_id"],
        spent_seconds=perf_counter() - request.scope[SINCE],
        seat_checked=SEAT_CHECKED in request.scope,
    )
    if isinstance(stream, results.Stream):
        return _json(wire.StreamState.of(stream), headers=CHECKED)
    raise ended_problem(stream)


async def list_streams(request: Request, tracker: StreamTracker) -> Response:
    """`GET /v1/users/{user_id}/streams`."""
    user_id = request.path_params["user_id"]
    user = await tracker.list(user_id)
    streams = [wire.Stream.of(stream) for stream in user.streams]
    return _json(wire.UserStreams(user_id=user_id, limit=user.limit, live=len(streams), streams=streams))


async def end_all(request: Request, tracker: StreamTracker) -> Response:
    """`DELETE /v1/users/{user_id}/streams`."""
    ended = await tracker.terminate_all(request.path_params["user_id"])
    return _json(wire.EndedStreams(ended=[wire.EndedStream.of(one) for one in ended]))


async def check_admission(request: Request, tracker: StreamTracker) -> Response:
    """`GET /v1/users/{user_id}/admission`."""
    caller: Caller = request.state.caller
    check = await tracker.check(
        request.path_params["user_id"], device_id=request.query_params.get("device_id"), limit=caller.limit
    )
    return _json(
        wire.AdmissionCheck(admissible=check.admissible, live=check.live, limit=check.limit, reason=check.reason)
    )


async def get_user(request: Request, tracker: StreamTracker) -> Response:
    """`GET /v1/users/{user_id}`."""
    user_id = request.path_params["user_id"]
    limit = await tracker.user_limit(user_id)
    if limit is None:
        raise problems.unknown_user()
    return _json(wire.User(user_id=user_id, limit=limit))


async def put_user(request: Request, tracker: StreamTracker) -> Response:
    """`PUT /v1/users/{user_id}`."""
    user_id = request.path_params["user_id"]
    body = await _read(request, wire.UserRequest)
    ended = await tracker.set_user_limit(user_id, body.limit, end_excess=body.end_excess)
    return _json(wire.UserChange(user_id=user_id, limit=body.limit, ended=[wire.EndedStream.of(one) for one in ended]))


async def delete_user(request: Request, tracker: StreamTracker) -> Response:
    """`DELETE /v1/users/{user_id}`."""
    if not await tracker.delete_user(request.path_params["user_id"]):
        raise problems.unknown_user()
    return _no_content()


async def legacy_check(request: Request, tracker: StreamTracker) -> Response:
    """`GET /add-stream/user/{user_id}`, the one endpoint of the service before this one."""
    check = await tracker.check(request.path_params["user_id"], known_users_only=True)
    if check.reason == "unknown_user":
        raise problems.unknown_user()
    if check.reason == "recovering":
        raise problems.recovering(results.Recovering(check.live or 0, check.limit or 0, check.retry_after_ms or 0))
    return _json(wire.LegacyCheck(can_add_stream=check.admissible))


def is_legacy(path: str) -> bool:
    """Whether a caller of this path expects `can_add_stream` and `errors`, in errors too."""
    return path.startswith("/add-stream/")


def legacy_problem(problem: Problem) -> Response:
    """An error in the shape of the service before this one."""
    return _json(wire.LegacyError(errors=problem.detail), problem.kind.status, problem.headers)


async def livez(request: Request, tracker: StreamTracker) -> Response:  # noqa: ARG001 - every handler is called alike
    """`GET /livez`. In a drain it is no error: an orchestrator would kill a process that does what it should."""
    return _json(wire.Liveness(status="draining" if request.app.state.draining else "alive"))


async def readyz(request: Request, tracker: StreamTracker) -> Response:  # noqa: ARG001 - every handler is called alike
    """`GET /readyz`."""
    if request.app.state.draining:
        raise problems.draining()
    readiness: Readiness = request.app.state.readiness
    health = await readiness.health()
    warnings = list(health.warnings) if is_operators(request) or not request.app.state.authenticator.asks else []
    return _json(wire.Readiness(recovering_seconds=health.recovering_ms / 1000, warnings=warnings))


async def get_metrics(request: Request, tracker: StreamTracker) -> Response:  # noqa: ARG001 - every handler is called alike
    """`GET /metrics`."""
    return Response(_metrics(request).exposition(), headers=NO_STORE | {"Content-Type": metrics.CONTENT_TYPE})


def kind_of(error: StoreUnavailable) -> StoreErrors:
    """What a failure of the store is counted as."""
    match error:
        case StoreOverloaded():
            return "overloaded"
        case DamagedKey():
            return "damaged"
    return "unavailable"


def _metrics(request: Request) -> Metrics:
    found: Metrics = request.app.state.metrics
    return found


def _outcome(answer: results.Admission | results.Refusal) -> Admissions:
    if not isinstance(answer, results.Admission):
        return _REFUSED[type(answer)]
    if answer.stream.provisional:
        return "provisional"
    return "over_limit" if answer.over_limit else "admitted"


def _count(counted: Metrics, beats: Iterable[_Beat]) -> None:
    for beat in beats:
        match beat:
            case results.Lease():
                counted.heartbeat_of_batch("live")
            case results.StreamEnded():
                counted.heartbeat_of_batch("ended")
            case results.UnknownStream():
                counted.heartbeat_of_batch("unknown")
            case InvalidInput():
                counted.heartbeat_of_batch("invalid")
            case StoreUnavailable():
                counted.heartbeat_of_batch("unavailable")
                counted.store_error(kind_of(beat))


async def _read(request: Request, model: type[_Model], empty: _Model | None = None) -> _Model:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > request.state.max_body_bytes:
            raise problems.body_too_large()
    if not body and empty is not None:
        return empty
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise problems.unsupported_media_type()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise problems.invalid(
            [(".".join(map(str, one["loc"])) or "body", one["msg"].removeprefix("Value error, ")) for one in found]
        ) from None


def _idempotency_key(request: Request) -> str | None:
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    try:
        (value,) = values
        return check_idempotency_key(value)
    except ValueError as error:
        message = str(error) if len(values) == 1 else "must be sent once"
        raise problems.invalid([("Idempotency-Key", message)]) from None


def ended_problem(answer: results.StreamEnded | results.UnknownStream) -> Problem:
    """Why a stream does not go on."""
    return problems.unknown_stream() if isinstance(answer, results.UnknownStream) else problems.stream_ended(answer)


def _beat_problem(beat: results.StreamEnded | results.UnknownStream | InvalidInput | StoreUnavailable) -> Problem:
    return problems.of(beat) if isinstance(beat, Exception) else ended_problem(beat)


def _json(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(), status, headers=NO_STORE | (headers or {}), media_type="application/json")


def _no_content() -> Response:
    return Response(status_code=204, headers=NO_STORE)
