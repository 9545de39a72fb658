"""The table of all HTTP operations. The routes and the OpenAPI document are made from it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamlimit import handlers, metrics, problems, wire
from streamlimit.callers import Caller, KeysUnavailable, NotAuthenticated, Role
from streamlimit.counters import Counters
from streamlimit.errors import StoreUnavailable
from streamlimit.metrics import Metrics
from streamlimit.parameters import (
    ANY_STREAM_ID,
    DEVICE_ID,
    IDEMPOTENCY_KEY,
    STREAM_ID,
    STREAM_ID_OR_REF,
    USER_ID,
    Parameter,
)
from streamlimit.problems import Problem, ProblemType
from streamlimit.tracker import StreamTracker

MAX_BODY_BYTES: Final = 16 * 1024
MAX_BATCH_BYTES: Final = 512 * 1024

Handler = Callable[[Request, StreamTracker], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path, with all that OpenAPI says of it."""

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    body_required: bool = True
    max_body_bytes: int = MAX_BODY_BYTES
    answers: Mapping[int, type[BaseModel] | None]
    roles: frozenset[Role]
    """Who may call it; nobody is asked where none is named."""
    media_type: str = "application/json"
    cacheable: bool = False
    problems: tuple[ProblemType, ...] = ()
    """Those that are its own; openapi.py knows those that every operation has."""
    item_problems: tuple[ProblemType, ...] = ()
    """Those that stand in an item of a successful answer."""


ANYBODY: Final[frozenset[Role]] = frozenset()
"""No key is asked for: the stream id in the request says enough, or there is nothing to hide."""
BACK_END: Final = frozenset({Role.SERVICE, Role.OPERATOR})
ITS_USER: Final = frozenset(Role)
"""A player, too, but for its own user only."""
OPERATOR: Final = frozenset({Role.OPERATOR})

PLAYERS: Final = "players"
BACK_ENDS: Final = "back ends"
OPERATORS: Final = "operators"
TAGS: Final = {
    PLAYERS: "Start a stream, keep it live, end it.",
    BACK_ENDS: "Ask about users and their streams, end streams, set limits.",
    OPERATORS: "Watch the service.",
}

_USER = "/v1/users/{user_id}"
_STREAMS = f"{_USER}/streams"
_STREAM = f"{_STREAMS}/{{stream_id}}"
_STREAM_PROBLEMS = (problems.STREAM_ENDED, problems.UNKNOWN_STREAM)

OPERATIONS: Final = (
    Operation(
        method="POST",
        path=_STREAMS,
        handler=handlers.admit,
        roles=ITS_USER,
        tag=PLAYERS,
        summary="Admit: start a stream, or refuse it",
        description="Fewer live streams than the limit, and a new one starts. A device that is admitted again replaces "
        "its own stream. At the limit the refusal shows the live streams, to ask which of them is to end: `take_over` "
        'ends that one, `"on_limit": "evict"` ends a stale one, or else the oldest. Without a body a stream of an '
        "unnamed device is asked for.\n\n"
        "An admission whose answer was lost is repeated with the same `Idempotency-Key`: while its stream is live, "
        "that stream is the answer, `ended` is empty, and the body is ignored.\n\n"
        "`limit` is for back ends that know it better than the record. A player cannot send it; its token may have it, "
        "as `streams_limit`.",
        parameters=(USER_ID, IDEMPOTENCY_KEY),
        body=wire.AdmissionRequest,
        body_required=False,
        answers={201: wire.Admission},
        problems=(problems.LIMIT_REACHED, problems.UNKNOWN_USER, problems.STREAM_ENDED, problems.RECOVERING),
    ),
    Operation(
        method="POST",
        path=f"{_STREAM}/heartbeat",
        handler=handlers.heartbeat,
        roles=ANYBODY,
        tag=PLAYERS,
        summary="Keep a stream live for one more TTL",
        description="Send it after each `heartbeat_seconds`, and go on with the `stream_id` of the answer. Whoever has "
        "the `stream_id` may. No body and no special header are needed, so that players of another origin need no "
        "preflight; a body is ignored. A stream that the store lost comes back. After a 410 ask for admission; after a "
        "503, or no answer, play on and try again.",
        parameters=(USER_ID, STREAM_ID),
        answers={200: wire.Lease},
        problems=_STREAM_PROBLEMS,
    ),
    Operation(
        method="POST",
        path=f"{_STREAM}/release",
        handler=handlers.release,
        roles=ANYBODY,
        tag=PLAYERS,
        summary="End one's own stream",
        description="Whoever has the `stream_id` may, again and again; an id that names nothing is answered alike. "
        "`navigator.sendBeacon` will do: any content type, and the body is ignored.",
        parameters=(USER_ID, ANY_STREAM_ID),
        answers={204: None},
    ),
    Operation(
        method="GET",
        path=_STREAM,
        handler=handlers.get_stream,
        roles=ANYBODY,
        tag=BACK_ENDS,
        summary="May this stream go on?",
        description="For a CDN, a licence server or `auth_request`. Whoever has the `stream_id` may. Changes nothing. "
        "`provisional` is a stream that the store lost and that its next heartbeat brings back.",
        parameters=(USER_ID, STREAM_ID),
        answers={200: wire.StreamState},
        cacheable=True,
        problems=_STREAM_PROBLEMS,
    ),
    Operation(
        method="DELETE",
        path=_STREAM,
        handler=handlers.end,
        roles=ITS_USER,
        tag=BACK_ENDS,
        summary="End a stream: terminate with its stream_ref, release with its stream_id",
        description="Again and again; a stream that is not live is answered alike. The player learns the reason "
        "from its next heartbeat: `terminated` or `released`.",
        parameters=(USER_ID, STREAM_ID_OR_REF),
        answers={204: None},
    ),
    Operation(
        method="GET",
        path=_STREAMS,
        handler=handlers.list_streams,
        roles=ITS_USER,
        tag=BACK_ENDS,
        summary="The live streams of a user",
        parameters=(USER_ID,),
        answers={200: wire.UserStreams},
    ),
    Operation(
        method="DELETE",
        path=_STREAMS,
        handler=handlers.end_all,
        roles=OPERATOR,
        tag=BACK_ENDS,
        summary="Terminate all streams of a user",
        parameters=(USER_ID,),
        answers={200: wire.EndedStreams},
    ),
    Operation(
        method="GET",
        path=f"{_USER}/admission",
        handler=handlers.check_admission,
        roles=ITS_USER,
        tag=BACK_ENDS,
        summary="Would the user be admitted now?",
        description="Answers as an admission would by the record, whatever limit a request or a token has, and changes "
        "nothing. Only an admission holds a seat.",
        parameters=(USER_ID, DEVICE_ID),
        answers={200: wire.AdmissionCheck},
    ),
    Operation(
        method="GET",
        path=_USER,
        handler=handlers.get_user,
        roles=BACK_END,
        tag=BACK_ENDS,
        summary="The user's record",
        parameters=(USER_ID,),
        answers={200: wire.User},
        problems=(problems.UNKNOWN_USER,),
    ),
    Operation(
        method="PUT",
        path=_USER,
        handler=handlers.put_user,
        roles=BACK_END,
        tag=BACK_ENDS,
        summary="Set the user's limit",
        description="Nobody is ended, unless `end_excess` asks for it.",
        parameters=(USER_ID,),
        body=wire.UserRequest,
        answers={200: wire.UserChange},
    ),
    Operation(
        method="DELETE",
        path=_USER,
        handler=handlers.delete_user,
        roles=BACK_END,
        tag=BACK_ENDS,
        summary="Delete the user's record",
        description="The user has the default limit then, or is unknown. Nobody is ended.",
        parameters=(USER_ID,),
        answers={204: None},
        problems=(problems.UNKNOWN_USER,),
    ),
    Operation(
        method="POST",
        path="/v1/heartbeats",
        handler=handlers.heartbeats,
        roles=BACK_END,
        tag=BACK_ENDS,
        summary="The heartbeats of many players",
        description="Up to 1,000, as a gateway collects them. The items of the answer stand in the order of the "
        "request, each a lease or the problem that a heartbeat of its own would have met.",
        body=wire.HeartbeatsRequest,
        max_body_bytes=MAX_BATCH_BYTES,
        answers={200: wire.HeartbeatResults},
        item_problems=(*_STREAM_PROBLEMS, problems.INVALID_REQUEST, problems.STORE_UNAVAILABLE),
    ),
    *(
        Operation(
            method="GET",
            path=path,
            handler=handlers.legacy_check,
            roles=BACK_END,
            tag=BACK_ENDS,
            summary="The old check, for callers not yet moved",
            description="For callers that are still to move to `GET /v1/users/{user_id}/admission`. Only users with a "
            "record are known, and errors have this shape, too.",
            parameters=(USER_ID,),
            answers={200: wire.LegacyCheck},
            problems=(problems.UNKNOWN_USER, problems.RECOVERING),
        )
        for path in ("/add-stream/user/{user_id}", "/add-stream/user/{user_id}/")
    ),
    Operation(
        method="GET",
        path="/livez",
        handler=handlers.livez,
        roles=ANYBODY,
        tag=OPERATORS,
        summary="Is the process up?",
        answers={200: wire.Liveness},
    ),
    Operation(
        method="GET",
        path="/readyz",
        handler=handlers.readyz,
        roles=ANYBODY,
        tag=OPERATORS,
        summary="Is the store usable?",
        description="Runs a script that reads and writes, as an admission does.",
        answers={200: wire.Readiness},
    ),
    Operation(
        method="GET",
        path="/metrics",
        handler=handlers.get_metrics,
        roles=OPERATOR,
        tag=OPERATORS,
        summary="Counts, for Prometheus",
        description="Of all workers of this service. No user is named.",
        answers={200: wire.Metrics},
        media_type=metrics.CONTENT_TYPE,
    ),
)


def new_counters() -> Counters:
    """The counters of all operations, for the workers of one service."""
    return metrics.counters(len(OPERATIONS))


def new_metrics(counters: Counters) -> Metrics:
    """The metrics of one worker."""
    return Metrics([(operation.method, operation.path) for operation in OPERATIONS], counters)


def routes() -> list[Route]:
    """One route a path, so that a 405 names all methods of the path."""
    by_path: dict[str, dict[str, int]] = {}
    for number, operation in enumerate(OPERATIONS):
        by_path.setdefault(operation.path, {})[operation.method] = number
    return [_route(path, numbers) for path, numbers in by_path.items()]


def _route(path: str, numbers: dict[str, int]) -> Route:
    async def endpoint(request: Request) -> Response:
        number = numbers["GET" if request.method == "HEAD" else request.method]
        # Starlette's pattern ends in $, which overlooks a last line feed.
        if request.scope["path"].endswith("\n") and not path.endswith("}"):
            raise HTTPException(404)
        started = perf_counter()
        counted: Metrics = request.app.state.metrics
        try:
            response = await _answer(request, OPERATIONS[number])
        except Exception as error:
            _count_error(counted, error)
            counted.answered(number, problems.of(error).kind.status, perf_counter() - started)
            raise
        counted.answered(number, response.status_code, perf_counter() - started)
        return response

    return Route(path, endpoint, methods=list(numbers))


async def _answer(request: Request, operation: Operation) -> Response:
    if operation.roles:
        request.state.caller = await _permitted(request, operation)
    # Starlette's own limit answers in plain text, and where no body is read only after the handler has run.
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > operation.max_body_bytes:
        raise problems.body_too_large()
    request.state.max_body_bytes = operation.max_body_bytes
    return await operation.handler(request, request.app.state.tracker)


async def _permitted(request: Request, operation: Operation) -> Caller:
    """Return who is asking, where it may call this operation. Nothing is looked up for one who may not."""
    caller: Caller = await request.app.state.authenticator.identify(request.headers.getlist("authorization"))
    if caller.role not in operation.roles:
        raise problems.forbidden(f"This is for {' and '.join(f'{role}s' for role in sorted(operation.roles))} only.")
    if not caller.may_act_for(request.path_params.get("user_id", "")):
        raise problems.forbidden("A player acts for the user that its token names, and for no other.")
    return caller


def _count_error(counted: Metrics, error: Exception) -> None:
    match error:
        case StoreUnavailable():
            counted.store_error(handlers.kind_of(error))
        case NotAuthenticated(reason=reason):
            counted.refused(reason)
        case KeysUnavailable():
            counted.refused("keys_unavailable")
        case Problem(kind=problems.FORBIDDEN):
            counted.refused("forbidden")
