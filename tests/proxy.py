"""A TCP proxy that breaks what passes through it, at a chosen byte."""

import asyncio
import contextlib
import socket
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

from tests.servers import PATIENCE_SECONDS

HOST: Final = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Of its own where that needs no setting up: proxies are many, and one must not listen where a server of another test
has stopped and its clients still try."""

Direction = Literal["request", "reply"]
Kind = Literal["reset", "close", "drop", "hold", "lag"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a connection once `at` bytes of one direction have passed, or where the bytes `at` begin.

    `reset` and `close` end it, for the client with RST or FIN; what had passed still arrives. `drop` swallows the rest
    of this direction and keeps the connection open. `hold` delivers the rest when the proxy is told to `let_go`, even
    if the client has gone by then. `lag` is both: the client meets a reset at once, and the rest is delivered then.
    """

    kind: Kind
    direction: Direction = "reply"
    at: int | bytes = 0
    connections: int = 1
    """How many connections it hits, each once."""


@dataclass(slots=True, eq=False)
class _Link:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    passed: Counter[str] = field(default_factory=Counter)
    hit: bool = False
    held: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """What was held has been delivered and, if it was a request, answered; or the connection has ended."""


class Proxy:
    """Listens on a free loopback port and connects to another one; use it as an async context manager."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._fault: Fault | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._go_on = asyncio.Event()
        self._held: list[_Link] = []
        self.hits = 0
        """How many connections the fault has hit since it was armed."""
        self.passed: Counter[str] = Counter()
        """Bytes by direction since then."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://{HOST}:{self.port}/0"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.let_go()
        while self._tasks:
            for link in self._links:
                link.client.transport.abort()
                link.server.transport.abort()
            await asyncio.wait(self._tasks, timeout=0.1)
        await self._server.wait_closed()

    def arm(self, fault: Fault | None) -> None:
        """Count from here, and break what comes; None for nothing. What is held stays held."""
        self._fault, self.hits, self.passed = fault, 0, Counter()
        self._go_on.clear()
        for link in self._links:
            link.passed.clear()
            link.hit = False

    def let_go(self) -> None:
        """Deliver what is held, and hold no more."""
        self._fault = None
        self._go_on.set()

    async def delivered(self) -> None:
        """Wait, after `let_go`, until all that was held has been delivered and carried out."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(link.settled.wait() for link in self._held))

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, "request", reader, server))
                pumps.create_task(self._pump(link, "reply", answers, client))
        finally:
            self._links.discard(link)
            link.settled.set()
            client.close()
            server.close()

    async def _pump(
        self, link: _Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        dropping = False
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                fault, passing = self._due(link, direction, data)
                link.passed[direction] += len(data)
                self.passed[direction] += len(data)
                if not dropping:
                    writer.write(data[:passing])
                if direction == "reply" and link.held and self._go_on.is_set():
                    link.settled.set()
                if fault is None:
                    continue
                link.hit = True
                self.hits += 1
                if fault.kind in ("reset", "lag"):
                    _reset(link.client)
                match fault.kind:
                    case "reset" | "close":
                        break
                    case "drop":
                        dropping = True
                    case _:
                        self._held.append(link)
                        link.held = True
                        await self._go_on.wait()
                        writer.write(data[passing:])
                        if direction == "reply":
                            link.settled.set()
            else:
                writer.write_eof()
                return
        link.client.close()
        link.server.close()

    def _due(self, link: _Link, direction: Direction, data: bytes) -> tuple[Fault | None, int]:
        """The fault that hits this connection now, if any, and how much of the data passes before."""
        fault = self._fault
        if fault is None or fault.direction != direction or link.hit or self.hits == fault.connections:
            return None, len(data)
        passing = data.find(fault.at) if isinstance(fault.at, bytes) else fault.at - link.passed[direction]
        return (fault, passing) if 0 <= passing < len(data) else (None, len(data))


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
