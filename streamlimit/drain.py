"""How a process that serves comes to its end without losing a request.

SIGTERM begins a drain of `DRAIN_SECONDS`: everything is still accepted and answered, but `/readyz` is a 503, and each
answer carries `Connection: close`, so that clients and load balancers move to another instance by themselves. Then the
listeners close, what is under way is finished, and the rest is closed. Ctrl-C skips the drain. A second signal ends the
drain early; a third one waits for nothing.
"""

import asyncio
import fcntl
import logging
import multiprocessing
import signal
import socket
import struct
import termios
from collections.abc import Iterator
from enum import IntEnum
from time import monotonic
from types import FrameType
from typing import Any, Final

import uvicorn

_POLL_SECONDS: Final = 0.05
_logger = logging.getLogger(__name__)


class Phase(IntEnum):
    """Of the life of a process; it only goes on, never back."""

    SERVING = 0
    DRAINING = 1
    """All is answered, but clients are sent away."""
    STOPPING = 2
    """Nothing new is accepted; what is under way is finished."""
    GIVING_UP = 3
    """Nothing is waited for."""

    def after(self, number: int, drain_seconds: float, *, counts: bool = True) -> "Phase":
        """The phase that a signal leads to.

        Args:
            number: SIGTERM or SIGINT.
            drain_seconds: How long a drain takes; without one it is left out.
            counts: Whether each further signal leads one phase on.
        """
        wanted = Phase.DRAINING if number == signal.SIGTERM and drain_seconds else Phase.STOPPING
        if counts and self:
            wanted = max(wanted, Phase(min(self + 1, Phase.GIVING_UP)))
        return max(self, wanted)


def say_that_it_drains(drain_seconds: float) -> None:
    """Tell the log why the process goes on for a while."""
    _logger.info("Draining for %g s: /readyz is a 503, and answers close their connections", drain_seconds)


class DrainingServer(uvicorn.Server):
    """uvicorn's server, with an end of its own.

    Args:
        config: uvicorn's; its application is Starlette's, and learns by `app.state.draining` that it drains.
        drain_seconds: How long clients are sent away before the listeners close.
        finish_seconds: What is under way then is given up after this time.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float, finish_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._finish_seconds = finish_seconds
        self._phase = Phase.SERVING
        self._drain_ends = 0.0
        # A terminal, or a supervisor such as systemd, signals all processes of a group, and the parent signals its
        # workers, too: they would take one signal for two. So only the parent counts.
        self._counts = multiprocessing.parent_process() is None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as uvicorn calls it
        """Take SIGTERM or SIGINT. uvicorn would raise it again when it has shut down; here `run` just returns."""
        self._enter(self._phase.after(sig, self._drain_seconds if self.started else 0, counts=self._counts))

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether it is time to stop."""
        if self._phase is Phase.DRAINING and monotonic() >= self._drain_ends:
            self._enter(Phase.STOPPING)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, finish what is under way, and close the application."""
        self._enter(max(self._phase, Phase.STOPPING))
        await self._close_listeners(sockets or [])
        deadline = monotonic() + self._finish_seconds
        connections: set[Any] = self.server_state.connections
        while connections and monotonic() < deadline and not self.force_exit:
            for connection in list(connections):
                let_go(connection)
            await asyncio.sleep(_POLL_SECONDS)
        if unfinished := sum(connection.is_busy for connection in connections):
            _logger.warning("%d request(s) did not end in time and were cut off", unfinished)
        for connection in list(connections):
            connection.transport.abort()
        # All calls have a budget. What waits for the rest of a body is told by the aborted connection that none comes.
        if self.server_state.tasks and not self.force_exit:
            await asyncio.wait(self.server_state.tasks, timeout=self._finish_seconds)
        await self.lifespan.shutdown()

    def _enter(self, phase: Phase) -> None:
        if self._phase is Phase.SERVING is not phase:
            self._drain_ends = monotonic() + self._drain_seconds
            if phase is Phase.DRAINING and self._counts:
                say_that_it_drains(self._drain_seconds)
            if self.started:
                self.config.loaded_app.state.draining = True
                connections: set[Any] = self.server_state.connections
                for connection in connections:
                    connection.draining = True
        self._phase = phase
        self.should_exit = phase >= Phase.STOPPING
        self.force_exit = phase >= Phase.GIVING_UP

    async def _close_listeners(self, sockets: list[socket.socket]) -> None:
        """Close them, and take all connections that were made before: the system would reset those."""
        queues = [listener.dup() for listener in sockets]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        loop = asyncio.get_running_loop()
        for queue in queues:
            with queue:
                accepted = list(_accept_all(queue))
            for connection in accepted:
                await loop.connect_accepted_socket(self._new_protocol, connection)

    def _new_protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _accept_all(queue: socket.socket) -> Iterator[socket.socket]:
    while True:
        try:
            connection, _ = queue.accept()
        except OSError:  # there is none any more, or it cannot be had
            return
        connection.settimeout(0)
        yield connection


def let_go(connection: Any) -> None:
    """Close a connection between two requests; let the answer to the last request that is there close any other.

    One that was just made has not got to its first request yet, and is left alone, too.
    """
    cycle = connection.cycle
    if cycle is None or connection.has_unread or connection.transport.is_closing():
        return
    if not cycle.response_complete:
        cycle.keep_alive = False
    elif not connection.is_busy and not _unread_bytes(connection.transport):
        connection.transport.close()


def _unread_bytes(transport: asyncio.Transport) -> int:
    """What has come in since the event loop last looked: the request that would be lost by closing now."""
    try:
        found = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    count: int = struct.unpack("i", found)[0]
    return count
