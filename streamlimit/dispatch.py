"""From the table of operations to the routes: who may call, what is too large, how it went and how long it took."""

from time import perf_counter
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamlimit import handlers, metrics, problems
from streamlimit.audit import Audit
from streamlimit.callers import Caller, KeysUnavailable, NotAuthenticated, TooManyFailures
from streamlimit.counters import Counters
from streamlimit.errors import StoreUnavailable
from streamlimit.metrics import Metrics
from streamlimit.ports import is_operators, is_public
from streamlimit.problems import Problem
from streamlimit.routes import OPERATIONS, Operation

_CHANGES: Final = ("PUT", "DELETE")

HEARTBEAT, GET_STREAM = (
    next(number for number, one in enumerate(OPERATIONS) if one.handler is handler)
    for handler in (handlers.heartbeat, handlers.get_stream)
)
"""What these are counted by."""


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
        if OPERATIONS[number].private and is_public(request):
            raise _not_here(numbers)
        # A heartbeat that the protocol has tried before came earlier.
        started = request.scope.setdefault(handlers.SINCE, perf_counter())
        counted: Metrics = request.app.state.metrics
        try:
            response = await _answer(request, OPERATIONS[number])
        except Exception as error:
            count_error(counted, error)
            counted.answered(number, problems.of(error).kind.status, perf_counter() - started)
            raise
        counted.answered(number, response.status_code, perf_counter() - started)
        return response

    return Route(path, endpoint, methods=list(numbers))


def _not_here(numbers: dict[str, int]) -> HTTPException:
    methods = [method for method, number in numbers.items() if not OPERATIONS[number].private]
    if not methods:
        return HTTPException(404)
    return HTTPException(405, headers={"Allow": ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])})


async def _answer(request: Request, operation: Operation) -> Response:
    if operation.roles and not (operation.needs_no_key_there and is_operators(request)):
        request.state.caller = await _permitted(request, operation)
    # Starlette's own limit answers in plain text, and where no body is read only after the handler has run.
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > operation.max_body_bytes:
        raise problems.body_too_large()
    request.state.max_body_bytes = operation.max_body_bytes
    response = await operation.handler(request, request.app.state.tracker)
    # Only now is the user id in the path known to be one, and no line of its own making.
    if operation.method in _CHANGES and request.app.state.audit:
        audit: Audit = request.app.state.audit
        audit.record(request.state.caller, operation.method, operation.path, request.path_params["user_id"])
    return response


async def _permitted(request: Request, operation: Operation) -> Caller:
    """Return who is asking, where it may call this operation. Nothing is looked up for one who may not."""
    caller: Caller = await request.app.state.authenticator.identify(request.headers.getlist("authorization"))
    if caller.role not in operation.roles:
        raise problems.forbidden(f"This is for {' and '.join(f'{role}s' for role in sorted(operation.roles))} only.")
    if not caller.may_act_for(request.path_params.get("user_id", "")):
        raise problems.forbidden("A player acts for the user that its token names, and for no other.")
    return caller


def count_error(counted: Metrics, error: Exception) -> None:
    """Count what went wrong."""
    match error:
        case StoreUnavailable():
            counted.store_error(handlers.kind_of(error))
        case NotAuthenticated(reason=reason):
            counted.refused(reason)
        case TooManyFailures():
            counted.refused("repeated")
        case KeysUnavailable():
            counted.refused("keys_unavailable")
        case Problem(kind=problems.FORBIDDEN):
            counted.refused("forbidden")
