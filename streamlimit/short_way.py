"""The short way of a heartbeat: straight on ASGI, past routing, middleware and Request, which cost several heartbeats.

It takes what 99 of 100 requests look like, and leaves the rest to the route of the same path: an id that is not
well-formed, a body, a path that is percent-encoded, a web page that is to be told whether it may read the answer.
"""

import re
from time import perf_counter
from typing import Final

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from streamlimit import dispatch, handlers, problems, results, wire
from streamlimit.errors import StreamlimitError
from streamlimit.fields import USER_ID_PATTERN
from streamlimit.problems import NO_STORE
from streamlimit.stream_id import STREAM_ID_PATTERN

_PATH: Final = re.compile(rf"/v1/users/({USER_ID_PATTERN.replace('$', '/')})/streams/({STREAM_ID_PATTERN})/heartbeat")
_HEADERS: Final = [
    (name.lower().encode(), value.encode()) for name, value in {"Content-Type": "application/json", **NO_STORE}.items()
]
_LEFT_ALONE: Final = frozenset((b"origin", b"transfer-encoding", b"expect"))


class ShortWay(Starlette):
    """The application, with a short way for heartbeats."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the application's start and end."""
        match = _heartbeat(scope)
        if match is None:
            await super().__call__(scope, receive, send)
        else:
            await self._beat(match[1], match[2], scope, receive, send)

    async def _beat(self, user_id: str, stream_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        counted = self.state.metrics
        try:
            beat = await self.state.tracker.heartbeat(user_id, stream_id)
        except Exception as error:
            counted_error = problems.of(error)
            dispatch.count_error(counted, error)
            counted.answered(dispatch.HEARTBEAT, counted_error.kind.status, perf_counter() - started)
            await counted_error.response()(scope, receive, send)
            if not isinstance(error, StreamlimitError):
                raise  # for the server's log
            return
        if isinstance(beat, results.Lease):
            body = wire.lease_json(beat)
            counted.answered(dispatch.HEARTBEAT, 200, perf_counter() - started)
            length = (b"content-length", b"%d" % len(body))
            await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, length]})
            await send({"type": "http.response.body", "body": body})
        else:
            problem = handlers.ended_problem(beat)
            counted.answered(dispatch.HEARTBEAT, problem.kind.status, perf_counter() - started)
            await problem.response()(scope, receive, send)


def _heartbeat(scope: Scope) -> re.Match[str] | None:
    if scope["type"] != "http" or scope["method"] != "POST" or scope.get("root_path"):
        return None
    match = _PATH.fullmatch(scope["path"])
    # An encoded slash would be a part of the path here.
    if match is None or b"%" in scope["raw_path"]:
        return None
    for name, value in scope["headers"]:
        if name in _LEFT_ALONE or (name == b"content-length" and value != b"0"):
            return None
    return match
