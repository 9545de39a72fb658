"""Count what a heartbeat costs, honest or hostile, and fail where that is clearly more than it was.

Times differ from run to run and from machine to machine; counts do not. A heartbeat goes through uvicorn's parser and
the application that `streamlimit serve` builds to a real store; only the client's socket is made up. Counted are the
bytecode instructions that Python executes meanwhile and the C functions that it calls, over those of a bare application
on the same uvicorn, since other versions of Python and uvicorn change both; writes to the client's socket; how often
the store has something to read; and the commands that the store carries out, those in scripts included. What a C
function does inside is not seen: that is what scripts/bench measures.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final

import uvicorn
import uvloop
from starlette.applications import Starlette

from bench import stores, streams
from bench.plan import CONNECTIONS, SECRET
from bench.processes import HOST
from streamlimit.dispatch import new_counters
from streamlimit.heartbeat_protocol import HeartbeatProtocol
from streamlimit.server import worker_app
from streamlimit.settings import Settings

BUDGET: Final = {
    "instructions, alone, over bare": 3.6,
    "instructions, in a crowd, over bare": 1.4,
    "C functions, alone, over bare": 2.8,
    "C functions, in a crowd, over bare": 1.15,
    "writes to the client": 1.0,
    "reads of the store, in a crowd": 0.05,
    "commands in the store, alone": 5.0,
    "commands in the store, in a crowd": 3.1,
    "instructions of a forged id, alone, over honest": 1.2,
    "instructions of a forged id, in a crowd, over honest": 1.2,
    "C functions of a forged id, in a crowd, over honest": 1.2,
    "commands in the store of a forged id, alone, over honest": 1.2,
    "commands in the store of a forged id, in a crowd, over honest": 1.2,
    "instructions of an ended stream, alone, over honest": 1.5,
    "instructions of an ended stream, in a crowd, over honest": 1.5,
    "C functions of an ended stream, in a crowd, over honest": 1.5,
    "commands in the store of an ended stream, in a crowd, over honest": 1.5,
}
"""What a heartbeat may cost. Where the path became cheaper, write down what it costs now and a few per cent, for other
versions of Python; where it must cost more, say why in the commit that raises this."""

FORGED: Final = " of a forged id"
ENDED: Final = " of an ended stream"
"""Kinds of heartbeats that strangers may send as well as players: they must not cost much more than honest ones."""

ROUNDS: Final = 5
_BARE: Final = "bench.peers.bare:app"


@dataclass
class Counts:
    """What was counted while something ran."""

    instructions: int = 0
    functions: int = 0
    """Calls of C functions."""


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what this thread executes."""
    counts = Counts()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        del frame, argument
        counts.functions += event == "c_call"

    with _tracing(counts):
        sys.setprofile(profile)
        try:
            yield counts
        finally:
            sys.setprofile(None)


if sys.version_info >= (3, 12):

    @contextmanager
    def _tracing(counts: Counts) -> Iterator[None]:
        monitoring, tool = sys.monitoring, sys.monitoring.PROFILER_ID + 1  # one that nobody has a claim to

        def count(code: object, offset: int) -> None:
            del code, offset
            counts.instructions += 1

        monitoring.use_tool_id(tool, "streamlimit-guard")
        monitoring.register_callback(tool, monitoring.events.INSTRUCTION, count)
        monitoring.set_events(tool, monitoring.events.INSTRUCTION)
        try:
            yield
        finally:
            monitoring.set_events(tool, monitoring.events.NO_EVENTS)
            monitoring.free_tool_id(tool)

else:

    @contextmanager
    def _tracing(counts: Counts) -> Iterator[None]:
        def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
            del argument
            if event == "call":
                frame.f_trace_opcodes = True
                frame.f_trace_lines = False
            elif event == "opcode":
                counts.instructions += 1
            return trace

        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(None)


class Client(asyncio.Transport):
    """A client's connection, without a socket."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": (HOST, 1), "sockname": (HOST, 2)})
        self.writes = 0
        self._answer = bytearray()
        self._answered = asyncio.Event()
        self._protocol = protocol
        protocol.connection_made(self)

    def send(self, request: bytes) -> None:
        """Let a request arrive."""
        self.writes = 0
        self._answer.clear()
        self._answered.clear()
        self._protocol.data_received(request)

    async def answer(self) -> bytes:
        """Wait for the whole answer."""
        await self._answered.wait()
        return bytes(self._answer)

    def write(self, data: "bytes | bytearray | memoryview") -> None:
        """Take a piece of the answer, whose end is that of its JSON object."""
        self.writes += 1
        self._answer += data
        if self._answer.endswith(b"}"):
            self._answered.set()

    def is_closing(self) -> bool:
        """It stays open."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Everything is taken at once."""

    def pause_reading(self) -> None:
        """Nothing more comes anyhow."""

    def resume_reading(self) -> None:
        """Nothing more comes anyhow."""


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """Requests that are answered alike."""

    lines: list[str]
    """Their paths, sent in turn."""
    status: int = 200
    kind: str = ""
    """Put behind what is counted."""


async def count(app: str | Callable[[], Starlette], all_kinds: list[Heartbeats], store: Any) -> dict[str, float]:
    """Send heartbeats to an application, one alone and many at once, and return what each of them costs."""
    config = uvicorn.Config(
        *(app, HOST),
        factory=app != _BARE,
        http=HeartbeatProtocol if app != _BARE else "httptools",
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=app == _BARE,  # as `streamlimit serve` has it, and uvicorn by itself
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.lifespan.startup()
    state = server.server_state, server.lifespan.state
    protocol: Any = config.http_protocol_class
    clients = [Client(protocol(config, *state)) for _ in range(CONNECTIONS)]
    found: dict[str, float] = {}
    for heartbeats in all_kinds:
        found |= await _count(clients, heartbeats, store)
    found["writes to the client"] = clients[0].writes
    await server.lifespan.shutdown()
    return found


async def _count(clients: list[Client], heartbeats: Heartbeats, store: Any) -> dict[str, float]:
    requests = itertools.cycle(f"POST {line} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() for line in heartbeats.lines)

    async def send(crowd: int) -> None:
        for client in clients[:crowd]:
            client.send(next(requests))
        for client in clients[:crowd]:
            answer = await client.answer()
            if not answer.startswith(b"HTTP/1.1 %d " % heartbeats.status):
                raise AssertionError(answer)

    found: dict[str, float] = {}
    for crowd, name in ((1, "alone"), (CONNECTIONS, "in a crowd")):
        await send(crowd)  # connects, loads scripts, fills caches
        for _ in range(ROUNDS):
            before = done(store)
            await send(crowd)
            after = done(store)
            with counting() as counts:
                await send(crowd)
            costs = {
                f"instructions{heartbeats.kind}, {name}": counts.instructions,
                f"C functions{heartbeats.kind}, {name}": counts.functions,
                f"reads of the store{heartbeats.kind}, {name}": after["reads"] - before["reads"] - 1,
                f"commands in the store{heartbeats.kind}, {name}": after["commands"] - before["commands"],
            }
            # The least: what comes in between, as a timer, is no part of a heartbeat.
            found |= {what: min(cost / crowd, found.get(what, cost)) for what, cost in costs.items()}
    return found


def done(store: Any) -> dict[str, int]:
    """What the store has done so far, but for telling it; this is a read of its own, at the end of which it is told."""
    info = store.info("everything")
    commands = {name: one["calls"] for name, one in info.items() if name.startswith("cmdstat_")}
    told = commands.get("cmdstat_info", 0)
    return {"reads": info["total_reads_processed"], "commands": sum(commands.values()) - told}


def measure() -> dict[str, float]:
    """What a heartbeat costs, by the names in BUDGET."""
    with TemporaryDirectory() as directory, ExitStack() as stack:
        store = stores.start_store(stores.VALKEY, min(os.sched_getaffinity(0)), Path(directory), stack, *stores.KEPT)
        client = stack.enter_context(stores.connect(store))
        # Their TTL is not the service's, so that each first heartbeat sets it, which only one within a second does not.
        live = streams.fill(client, (2 * ROUNDS + 1) * (CONNECTIONS + 1))
        honest = Heartbeats(streams.heartbeats(live))
        forged = Heartbeats(streams.heartbeats(streams.forged(live)), 404, FORGED)
        ended = Heartbeats(streams.heartbeats([streams.ended(client)]), 410, ENDED)
        os.environ |= {"STREAMLIMIT_REDIS_URL": f"redis://{HOST}:{store.port}/0", "STREAMLIMIT_SECRET": SECRET}
        service = partial(worker_app, Settings(), new_counters(), None)
        bare = uvloop.run(count(_BARE, [honest], client))
        own = uvloop.run(count(service, [honest, forged, ended], client))
    ratios = {f"{what}, over bare": own[what] / bare[what] for what in own if bare.get(what)}
    for kind in (FORGED, ENDED):
        ratios |= {
            f"{what}, over honest": own[what] / own[what.replace(kind, "")]
            for what in own
            if kind in what and own[what.replace(kind, "")]
        }
    return {what: (own | ratios)[what] for what in BUDGET}


def complaints(measured: Mapping[str, float], budget: Mapping[str, float] = BUDGET) -> list[str]:
    """What costs more than it may."""
    return [
        f"{what}: a heartbeat costs {measured[what]:.2f}, and may cost {most:.2f}"
        for what, most in budget.items()
        if measured[what] > most
    ]


def main() -> str | None:
    """Run the command; return what is wrong."""
    measured = measure()
    for what, cost in measured.items():
        print(f"{cost:8.2f} of {BUDGET[what]:.2f}  {what}")
    return "\n".join(complaints(measured)) or None


if __name__ == "__main__":
    sys.exit(main())
