"""What one client may hold: the number of connections, the time that each has, and what waits to be sent on it.

A connection has one deadline at a time, for what it waits for: the head or the body of a request, the next request, or
a client that does not read its answers. While the service is at work on a request there is none.
"""

import asyncio
import math
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from streamlimit import problems
from streamlimit.deadlines import Deadlines
from streamlimit.metrics import RefusedRequests
from streamlimit.problems import Problem
from streamlimit.refusals import RefusalLog, answer, reason_of, too_slow

_WRITE_BUFFER_BYTES: Final = 16 * 1024
"""Of answers that a client does not read; then nothing more is written until it does."""
_LINGER_SECONDS: Final = 2
"""How long a refused client may go on sending. Closed at once, its system could drop the answer before it was read."""


class Flow(FlowControl):
    """uvicorn's, which lets the application ask for more; but not while what comes belongs to another request."""

    is_held = False

    def pause_reading(self) -> None:
        """Let nothing more arrive."""
        if not self._transport.is_closing():
            super().pause_reading()

    def resume_reading(self) -> None:
        """Let more arrive."""
        if not self.is_held and not self._transport.is_closing():
            super().resume_reading()


class _Shared(NamedTuple):
    """What the connections of one server have together."""

    deadlines: Deadlines
    refusal_log: RefusalLog


_shared: WeakKeyDictionary[ServerState, _Shared] = WeakKeyDictionary()


class LimitedConnection(HttpToolsProtocol):
    """One connection; what arrives on it is for `HttpConnection`."""

    deadline = math.inf
    """By the clock of the event loop: when `overdue` is to be called."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        shared = _shared.get(self.server_state)
        if shared is None:
            connections: Any = self.connections
            shared = _shared[self.server_state] = _Shared(Deadlines(connections, self.loop), RefusalLog())
        self._deadlines, self._refusal_log = shared
        self._is_refused = False
        """Nothing is read any more."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Take a new connection, or answer 503 and close it where there are too many.

        uvicorn's own limit counts connections, too, but refuses the requests of those that are there already.
        """
        super().connection_made(transport)
        self.flow = self._flow = Flow(transport)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._deadlines.watch()
        self.deadline = self._deadlines.after(self._request_seconds)
        if len(self.connections) > self.app.state.max_connections and not self._is_operators():
            self._is_refused = True
            self._count("too_many_connections")
            self._write_refusal(problems.too_many_connections())
            transport.close()

    def pause_writing(self) -> None:
        """Give a client that does not read its answers some time to do so."""
        super().pause_writing()
        self.deadline = self._deadlines.after(self._request_seconds)

    def resume_writing(self) -> None:
        """Go on; the time for what is waited for begins anew."""
        super().resume_writing()
        self.deadline = self._deadlines.after(
            self._request_seconds if self._is_receiving() else self.timeout_keep_alive
        )

    def overdue(self) -> None:
        """End a connection whose time is over, unless it waits for us."""
        if self.transport.is_closing():
            self.transport.abort()  # it would stay open until the client has read everything
        elif self.flow.write_paused:
            self._count("not_reading")
            self._disconnect()
            self.transport.abort()
        elif self._is_refused:
            self.transport.close()
        elif self._is_receiving():
            self._refuse(too_slow(self._request_seconds))
        elif not self._is_under_way():
            self.transport.close()

    @property
    def _request_seconds(self) -> int:
        seconds: int = self.app.state.request_seconds
        return seconds

    def _is_operators(self) -> bool:
        """Whether it came by the port of operators, to whom the other one is not to be in the way."""
        port = self.app.state.operator_port
        return port is not None and self.server is not None and self.server[1] == port

    def _is_receiving(self) -> bool:
        """Whether a head or a body has arrived in part."""
        raise NotImplementedError

    def _is_under_way(self) -> bool:
        """Whether a request is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, refusal: Problem, *, is_answered: bool = False) -> None:
        """Answer, unless the request has been answered, and close the connection."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._disconnect()
        if reason := reason_of(refusal):
            self._count(reason)
        if not is_answered:
            self._write_refusal(refusal)
        self._flow.is_held = False
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.deadline = self._deadlines.after(_LINGER_SECONDS)
        else:
            self.transport.close()

    def _write_refusal(self, refusal: Problem) -> None:
        self.transport.write(answer(refusal, self.server_state.default_headers))

    def _count(self, reason: RefusedRequests) -> None:
        state = self.app.state
        state.metrics.request_refused(reason)
        self._refusal_log.add(reason, state.max_connections)

    def _disconnect(self) -> None:
        """Tell the request under way that its client is not there any more."""
        if self._is_under_way():
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False  # it would be written behind the refusal
            self.cycle.message_event.set()
