"""The ASGI application: routes, errors, and the tracker's life."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from streamlimit import cors, docs, problems
from streamlimit.audit import Audit
from streamlimit.authenticator import Authenticator
from streamlimit.browser_guard import BrowserGuard, is_any, is_loopback
from streamlimit.counters import Counters
from streamlimit.dispatch import new_counters, new_metrics, routes
from streamlimit.errors import StreamlimitError
from streamlimit.handlers import is_legacy, legacy_problem
from streamlimit.openapi import API_VERSION, document
from streamlimit.ports import private
from streamlimit.problems import NO_STORE, Problem
from streamlimit.readiness import Readiness
from streamlimit.tracker import StreamTracker

_logger = logging.getLogger(__name__)

# Exception is what Starlette's outermost layer looks for, the others its inner one.
_HANDLED = (Problem, StreamlimitError, HTTPException, ClientDisconnect, Exception)


def create_app(
    make_tracker: Callable[[], StreamTracker],
    authenticator: Authenticator | None = None,
    *,
    counters: Counters | None = None,
    operator_port: int | None = None,
    origins: Sequence[str] = (),
    audit: Audit | None = None,
    any_host: bool = False,
) -> Starlette:
    """Build the application.

    Args:
        make_tracker: Called at start-up, in the event loop; the app opens the tracker and closes it at shutdown.
        authenticator: Tells who is asking; without one nobody is asked, and everybody may do everything.
        counters: Shared with the other workers of the service, where there are any.
        operator_port: The port by which operators come, where they have one of their own.
        origins: Of web pages that may read the answers.
        audit: Writes who changed what.
        any_host: Where nobody is asked, accept any Host header, not only loopback ones.
    """
    authenticator = authenticator or Authenticator()
    metrics = new_metrics(counters or new_counters())
    authenticator.count_fetches(metrics.key_set_fetch)
    accepts_host = is_any if any_host else is_loopback
    guard = Middleware(BrowserGuard, origins=origins, accepts_host=accepts_host, respond=_respond)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with make_tracker() as tracker, Readiness(tracker) as readiness, authenticator:
            app.state.tracker = tracker
            app.state.readiness = readiness
            app.state.authenticator = authenticator
            app.state.metrics = metrics
            app.state.operator_port = operator_port
            app.state.audit = audit
            app.state.accepts_host = None if authenticator.asks else accepts_host
            app.state.openapi = JSONResponse(document(API_VERSION, tracker.rules.max_limit), headers=NO_STORE)
            yield

    async def get_openapi(request: Request) -> Response:
        openapi: Response = request.app.state.openapi
        return openapi

    app = Starlette(
        routes=[*routes(), *map(private, [Route("/openapi.json", get_openapi), *docs.routes()])],
        middleware=[
            *cors.middleware(origins),
            *([] if authenticator.asks else [guard]),
            Middleware(EncodedSlashGuard),
        ],
        exception_handlers=dict.fromkeys(_HANDLED, _on_error),
        lifespan=lifespan,
    )
    # A redirect would lead players to whatever the Host header says.
    app.router.redirect_slashes = False
    app.state.draining = False
    return app


class EncodedSlashGuard:
    """Refuses %2F in a path: decoded before routing, it would let a user id reach another user's path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and b"%2f" in (scope.get("raw_path") or b"").lower():
            response = _respond(Request(scope), problems.invalid([("path", "must not contain an encoded slash (%2F)")]))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _respond(request: Request, problem: Problem) -> Response:
    return legacy_problem(problem) if is_legacy(request.url.path) else problem.response()


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        _logger.debug("A client went away in the middle of its request")
        return Response(status_code=400)  # nobody reads it
    # What is no error of ours Starlette raises again for the server's log, which gets the traceback; callers do not.
    return _respond(request, problems.of(error))
