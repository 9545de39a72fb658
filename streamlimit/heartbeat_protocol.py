"""The HTTP protocol, which answers the heartbeats of live streams itself, and the checks of edges.

99 of 100 requests of players are heartbeats, and an edge checks for every few seconds of video. It takes what such
requests look like, and leaves the rest to the application: a stream that is not live, an id that is not well-formed, a
body, a path that is percent-encoded, a web page that is to be told whether it may read the answer. A task, routing and
two messages to send would cost more than the answer itself.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from operator import attrgetter
from time import perf_counter
from typing import Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from streamlimit import dispatch, handlers, problems, wire
from streamlimit.browser_guard import AcceptsHost
from streamlimit.fields import USER_ID_PATTERN
from streamlimit.http_connection import HttpConnection
from streamlimit.problems import NO_STORE
from streamlimit.results import Lease, Stream, StreamEnded, Undecided, UnknownStream
from streamlimit.stream_id import STREAM_ID_PATTERN
from streamlimit.tracker import StreamTracker

_PATH: Final = re.compile(
    rf"/v1/users/({USER_ID_PATTERN.replace('$', '/')})/streams/({STREAM_ID_PATTERN})(?P<heartbeat>/heartbeat)?"
)
_CLOSE: Final = (b"connection", b"close")
_LEFT_ALONE: Final = frozenset((b"origin", b"transfer-encoding", b"expect"))
_LOOKED_AT: Final = _LEFT_ALONE | {b"content-length", b"host", b"sec-fetch-site"}


class HeartbeatProtocol(HttpConnection):
    """One connection."""

    draining = False
    """Whether an answer closes the connection, since the process is about to stop. The server sets it, too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Take a new connection, as the service is now."""
        super().connection_made(transport)
        state = self.app.state
        self._accepts_host: AcceptsHost | None = state.accepts_host
        self.draining = state.draining

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Handle one request, whose head was read; the answer to the one before it is on its way."""
        start = super()._start_asgi_task
        if self.draining:
            self.loop.call_soon(self._close_after, cycle)  # when all that came with it was read
        # Where the client reads no answers, the application waits until it does.
        match = None if self.flow.write_paused else _plain(cycle.scope, self._accepts_host)
        if match is None:
            start(cycle, app)
            return
        started = perf_counter()
        state = app.state
        kind = _HEARTBEAT if match["heartbeat"] else _CHECK

        def answer(result: Any) -> None:
            if type(result) is kind.result:
                self._answer(cycle, kind.ok, kind.body(result))
                state.metrics.answered(kind.number, 200, perf_counter() - started)
            elif isinstance(result, Undecided):
                scope: Any = cycle.scope
                scope[handlers.SINCE] = started
                if result is Undecided.NOT_IN_ITS_SEAT:
                    scope[handlers.SEAT_CHECKED] = True
                start(cycle, app)
            else:
                refusal = _refusal(result)
                self._answer(cycle, _REFUSED[refusal.status], refusal.body)
                state.metrics.answered(kind.number, refusal.status, perf_counter() - started)

        kind.ask(state.tracker)(match[1], match[2], answer)

    def _close_after(self, cycle: RequestResponseCycle) -> None:
        """Let the answer close the connection, unless further requests wait for theirs."""
        if not self.has_unread:
            cycle.keep_alive = False

    def _answer(self, cycle: RequestResponseCycle, start: "_Start", body: bytes) -> None:
        """Send an answer, as `RequestResponseCycle.send` does."""
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        head = _head(start, tuple(self.server_state.default_headers), cycle.keep_alive)
        self.transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        cycle.on_response = _nothing  # it is the protocol's, which has the cycle


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """The status line of an answer, and the headers of its own."""

    status_line: bytes
    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """Of requests that are answered here."""

    number: int
    """What they are counted by."""
    ask: Callable[[StreamTracker], Callable[[str, str, Callable[[Any], None]], None]]
    result: type
    """What the tracker answers where all is well."""
    body: Callable[[Any], bytes]
    ok: _Start


class _Refusal(NamedTuple):
    status: int
    body: bytes


def _start(status: HTTPStatus, media_type: str, headers: Mapping[str, str]) -> _Start:
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    line = f"HTTP/1.1 {status.value} {status.phrase}".encode()
    return _Start(line, ((b"content-type", media_type.encode()), *encoded))


_JSON: Final = "application/json"
_HEARTBEAT: Final = _Kind(
    *(dispatch.HEARTBEAT, attrgetter("keep_live"), Lease, wire.lease_json),
    _start(HTTPStatus.OK, _JSON, NO_STORE),
)
_CHECK: Final = _Kind(
    *(dispatch.GET_STREAM, attrgetter("get_live"), Stream, wire.state_json),
    _start(HTTPStatus.OK, _JSON, handlers.CHECKED),
)
_REFUSED: Final = {
    status.value: _start(status, problems.MEDIA_TYPE, NO_STORE) for status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
}


@lru_cache(maxsize=1024)
def _refusal(result: StreamEnded | UnknownStream) -> _Refusal:
    """What those are told whose stream does not go on; made once for each reason."""
    response = handlers.ended_problem(result).response()
    return _Refusal(response.status_code, bytes(response.body))


def _plain(scope: Any, accepts_host: AcceptsHost | None = None) -> "re.Match[str] | None":
    method = scope["method"]
    match = None if scope["root_path"] else _PATH.fullmatch(scope["path"])
    # An encoded slash would be a part of the path here.
    if match is None or method != ("POST" if match["heartbeat"] else "GET") or b"%" in scope["raw_path"]:
        return None
    for name, value in scope["headers"]:
        if name in _LOOKED_AT and (
            name in _LEFT_ALONE
            or (name == b"content-length" and value != b"0")
            or (accepts_host and (name == b"sec-fetch-site" or (name == b"host" and not accepts_host(value))))
        ):
            return None
    return match


@lru_cache(maxsize=8)
def _head(start: _Start, default_headers: tuple[tuple[bytes, bytes], ...], keep_alive: bool) -> bytes:  # noqa: FBT001 - the cache is quicker so
    """All up to the value of Content-Length; made once a second, since the date is in it."""
    headers = [*default_headers, *start.headers]
    if not keep_alive:
        headers.append(_CLOSE)
    return _lines(start.status_line, (*headers, (b"content-length", b"")))


def _lines(status: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"\r\n".join((status, *(name + b": " + value for name, value in headers)))


def _nothing() -> None:
    pass
