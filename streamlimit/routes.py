"""The table of all HTTP operations. The routes and the OpenAPI document are made from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamlimit import handlers, problems, wire
from streamlimit.problems import ProblemType
from streamlimit.tracker import StreamTracker

MAX_BODY_BYTES: Final = 16 * 1024
MAX_BATCH_BYTES: Final = 512 * 1024

Handler = Callable[[Request, StreamTracker], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, with all that OpenAPI says of it."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: dict[int, type[BaseModel] | None]
    problems: tuple[ProblemType, ...] = ()
    body: type[BaseModel] | None = None
    body_required: bool = True
    max_body_bytes: int = MAX_BODY_BYTES
    parameters: tuple[str, ...] = ()
    """Names of query and header parameters."""


_USER = "/v1/users/{user_id}"
_STREAMS = f"{_USER}/streams"
_STREAM = f"{_STREAMS}/{{stream_id}}"
_STREAM_PROBLEMS = (problems.STREAM_ENDED, problems.UNKNOWN_STREAM)

OPERATIONS: Final = (
    Operation(
        "POST",
        _STREAMS,
        handlers.admit,
        "Admit: start a stream, or refuse it",
        {201: wire.Admission},
        (problems.LIMIT_REACHED, problems.UNKNOWN_USER, problems.STREAM_ENDED, problems.RECOVERING),
        body=wire.AdmissionRequest,
        body_required=False,
        parameters=("Idempotency-Key",),
    ),
    Operation(
        "POST", f"{_STREAM}/heartbeat", handlers.heartbeat, "Keep a stream live", {200: wire.Lease}, _STREAM_PROBLEMS
    ),
    Operation("POST", f"{_STREAM}/release", handlers.release, "End one's own stream", {204: None}),
    Operation(
        "DELETE",
        _STREAM,
        handlers.end,
        "End a stream: release with its stream_id, terminate with its stream_ref",
        {204: None},
        (problems.UNKNOWN_STREAM,),
    ),
    Operation("GET", _STREAM, handlers.get_stream, "May this stream go on?", {200: wire.StreamState}, _STREAM_PROBLEMS),
    Operation("GET", _STREAMS, handlers.list_streams, "The live streams of a user", {200: wire.UserStreams}),
    Operation("DELETE", _STREAMS, handlers.end_all, "Terminate all streams of a user", {200: wire.EndedStreams}),
    Operation(
        "GET",
        f"{_USER}/admission",
        handlers.check_admission,
        "Would the user be admitted now?",
        {200: wire.AdmissionCheck},
        parameters=("device_id",),
    ),
    Operation("GET", _USER, handlers.get_user, "The user's record", {200: wire.User}, (problems.UNKNOWN_USER,)),
    Operation("PUT", _USER, handlers.put_user, "Set the user's limit", {200: wire.UserChange}, body=wire.UserRequest),
    Operation("DELETE", _USER, handlers.delete_user, "Delete the user's record", {204: None}, (problems.UNKNOWN_USER,)),
    Operation(
        "POST",
        "/v1/heartbeats",
        handlers.heartbeats,
        "The heartbeats of many players",
        {200: wire.HeartbeatResults},
        body=wire.HeartbeatsRequest,
        max_body_bytes=MAX_BATCH_BYTES,
    ),
    *(
        Operation(
            "GET",
            path,
            handlers.legacy_check,
            "The check of the service before this one",
            {200: wire.LegacyCheck},
            (problems.UNKNOWN_USER, problems.RECOVERING),
        )
        for path in ("/add-stream/user/{user_id}", "/add-stream/user/{user_id}/")
    ),
    Operation("GET", "/livez", handlers.livez, "Is the process up?", {200: wire.Liveness}),
    Operation("GET", "/readyz", handlers.readyz, "Is the store usable?", {200: wire.Readiness}),
)


def routes() -> list[Route]:
    """One route a path, so that a 405 names all methods of the path."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [_route(path, methods) for path, methods in by_path.items()]


def _route(path: str, operations: dict[str, Operation]) -> Route:
    async def endpoint(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        # Starlette's pattern ends in $, which overlooks a last line feed.
        if request.scope["path"].endswith("\n") and not path.endswith("}"):
            raise HTTPException(404)
        # Starlette's own limit answers in plain text, and where no body is read only after the handler has run.
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > operation.max_body_bytes:
            raise HTTPException(413)
        request.state.max_body_bytes = operation.max_body_bytes
        return await operation.handler(request, request.app.state.tracker)

    return Route(path, endpoint, methods=list(operations))
