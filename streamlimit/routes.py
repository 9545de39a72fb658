"""The table of all HTTP operations. What `dispatch` does and what the OpenAPI document says is made from it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from streamlimit import handlers, metrics, problems, wire
from streamlimit.callers import Role
from streamlimit.parameters import (
    ANY_STREAM_ID,
    DEVICE_ID,
    IDEMPOTENCY_KEY,
    STREAM_ID,
    STREAM_ID_OR_REF,
    USER_ID,
    Parameter,
)
from streamlimit.problems import ProblemType
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
    private: bool = False
    """Where operators have a port of their own, only that one has it."""
    needs_no_key_there: bool = False
    """Whoever reaches that port may call it."""
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
        "that stream is the answer, `ended` says what its admission ended, and the body is ignored.\n\n"
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
        private=True,
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
        description="Answers as an admission would, and changes nothing. Only an admission holds a seat.",
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
        item_problems=(*_STREAM_PROBLEMS, problems.INVALID_REQUEST, problems.STORE_UNAVAILABLE, problems.DAMAGED_KEY),
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
        description="A process that is about to stop answers 200, too: it does what it should. Load balancers and "
        "readiness probes ask `/readyz`.",
        answers={200: wire.Liveness},
    ),
    Operation(
        method="GET",
        path="/readyz",
        handler=handlers.readyz,
        private=True,
        roles=ANYBODY,
        tag=OPERATORS,
        summary="Is the store usable?",
        description="Runs a script that reads and writes, as an admission does; 503 `draining` where the process is "
        "about to stop. Warnings are for operators: where "
        "callers are asked for keys, only a port of their own shows them.",
        answers={200: wire.Readiness},
        problems=(problems.DRAINING,),
    ),
    Operation(
        method="GET",
        path="/metrics",
        handler=handlers.get_metrics,
        private=True,
        needs_no_key_there=True,
        roles=OPERATOR,
        tag=OPERATORS,
        summary="Counts, for Prometheus",
        description="Of all workers of this service. No user is named.",
        answers={200: wire.Metrics},
        media_type=metrics.CONTENT_TYPE,
    ),
)
