"""What lies between the servers of a topology and before their clients, until a partition cuts it.

Each server is announced at an address where a process of this module listens and passes everything on to it. Servers
connect from addresses of their own, so it knows who calls: whoever calls from elsewhere is a client.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, cast

import uvloop

Clients = Literal["everywhere", "inside", "outside"]
"""Which servers clients reach: all, or those on one side of the partition."""

_MAX_EARLY_BYTES: Final = 1 << 20


class Network:
    """Runs the process, and tells it what to cut.

    Args:
        doors: From the address where a server is announced to its own.
        ports: All of them at each door.
    """

    def __init__(self, doors: Mapping[str, str], ports: Sequence[int]) -> None:
        self._configuration = json.dumps([doors, ports])

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.network", self._configuration],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._acknowledged()

    def stop(self) -> None:
        self._process.communicate()

    def partition(self, hosts: Iterable[str], clients: Clients = "everywhere") -> None:
        """Cut these servers off from all others; they still reach each other.

        What is under way is held, and arrives when the partition has healed, as TCP sends again what was lost. Whoever
        connects across it meanwhile gets no answer.
        """
        self._tell(list(hosts), clients)

    def heal(self) -> None:
        self._tell([], "everywhere")

    def _tell(self, hosts: list[str], clients: Clients) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([hosts, clients]) + "\n")
        self._process.stdin.flush()
        self._acknowledged()

    def _acknowledged(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "done\n"


class _Doors:
    """All connections, and which of them are cut."""

    def __init__(self, servers: Iterable[str]) -> None:
        self.links: set[_Link] = set()
        self._servers = frozenset(servers)
        self._inside: frozenset[str] = frozenset()
        self._clients: Clients = "everywhere"

    def is_cut(self, caller: str, server: str) -> bool:
        if not self._inside:
            return False
        if caller not in self._servers:
            return self._clients != "everywhere" and (self._clients == "inside") != (server in self._inside)
        return (caller in self._inside) != (server in self._inside)

    def cut(self, inside: Iterable[str], clients: Clients) -> None:
        self._inside, self._clients = frozenset(inside), clients
        for link in list(self.links):
            link.settle()


class _Link:
    """A connection of a caller, and ours to the server that it wants."""

    def __init__(self, doors: _Doors, server: str, port: int) -> None:
        self._doors = doors
        self._server = (server, port)
        self._early = bytearray()
        self._connecting: asyncio.Task[None] | None = None
        self.to_caller = _End(self)
        self.to_server = _End(self)

    def opened(self, caller: str) -> None:
        self._caller = caller
        self._doors.links.add(self)
        self.settle()

    def settle(self) -> None:
        """Hold or pass on, as things are."""
        cut = self._doors.is_cut(self._caller, self._server[0])
        if self.to_server.transport is not None:
            for end, other in ((self.to_caller, self.to_server), (self.to_server, self.to_caller)):
                end.hold(cut or other.is_full)
        elif not cut and self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    def received(self, end: "_End", data: bytes) -> None:
        if end is self.to_server:
            self.to_caller.write(data)
        elif self.to_server.transport is not None:
            self.to_server.write(data)
        else:
            self._early += data
            if len(self._early) > _MAX_EARLY_BYTES:
                self.ended(end, abruptly=True)

    def finished(self, end: "_End") -> bool:
        """Whether this end stays open for the other one's answer."""
        other = self.to_server if end is self.to_caller else self.to_caller
        if other.transport is None:
            return False  # it gave up before it was connected
        other.transport.write_eof()
        return True

    def ended(self, end: "_End", *, abruptly: bool) -> None:
        self._doors.links.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        for one in (self.to_caller, self.to_server):
            if one.transport is not None and (one is not end or abruptly):
                (one.transport.abort if abruptly else one.transport.close)()

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.to_server, *self._server)
        except OSError:
            self.ended(self.to_caller, abruptly=True)
            return
        self.to_server.write(bytes(self._early))
        self.settle()


class _End(asyncio.Protocol):
    def __init__(self, link: _Link) -> None:
        self._link = link
        self._held = False
        self.is_full = False
        self.transport: asyncio.Transport | None = None

    def hold(self, held: bool) -> None:  # noqa: FBT001 - its only argument
        if self.transport is None or held == self._held or self.transport.is_closing():
            return
        self._held = held
        if held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self is self._link.to_caller:
            self._link.opened(transport.get_extra_info("peername")[0])

    def data_received(self, data: bytes) -> None:
        self._link.received(self, data)

    def eof_received(self) -> bool:
        return self._link.finished(self)

    def pause_writing(self) -> None:
        self.is_full = True
        self._link.settle()

    def resume_writing(self) -> None:
        self.is_full = False
        self._link.settle()

    def connection_lost(self, error: Exception | None) -> None:
        self._link.ended(self, abruptly=error is not None)


async def _run(doors: Mapping[str, str], ports: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    state = _Doors(doors.values())

    def accept(server: str, port: int) -> Any:
        return lambda: _Link(state, server, port).to_caller

    for announced, server in doors.items():
        for port in ports:
            await loop.create_server(accept(server, port), announced, port)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("done", flush=True)  # noqa: T201 - to Network
    while line := await orders.readline():
        state.cut(*json.loads(line))
        print("done", flush=True)  # noqa: T201 - to Network


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_run(*json.loads(sys.argv[1])))
