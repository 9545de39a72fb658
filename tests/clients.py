"""Clients of the HTTP protocol, without sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Self

import uvicorn
from redis.asyncio import Redis

from streamlimit import Rules, StreamTracker
from streamlimit.app import create_app
from streamlimit.heartbeat_protocol import HeartbeatProtocol
from tests.conftest import SECRET
from tests.servers import PATIENCE_SECONDS

NO_BODY: Final = "\r\n"


@asynccontextmanager
async def served(fake_redis: Redis) -> AsyncIterator[uvicorn.Server]:
    """The application behind our protocol, in this process."""
    app = create_app(lambda: StreamTracker(fake_redis, [SECRET], Rules()), any_host=True)
    app.state.max_connections = 100
    app.state.request_seconds = 20
    options: dict[str, Any] = {"proxy_headers": False, "lifespan": "off", "log_config": None, "timeout_keep_alive": 75}
    config = uvicorn.Config(app, http=HeartbeatProtocol, **options)
    config.load()
    server = uvicorn.Server(config)
    await server.on_tick(0)  # writes the date
    async with app.router.lifespan_context(app):
        yield server


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class Connection(asyncio.Transport):
    """A client's connection, without a socket."""

    def __init__(self, protocol: HeartbeatProtocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.protocol = protocol
        self.received = bytearray()
        self.closed = False
        self._reads = True
        self._changed = asyncio.Event()
        protocol.connection_made(self)

    @classmethod
    def to(cls, server: uvicorn.Server) -> Self:
        return cls(HeartbeatProtocol(server.config, server.server_state, {}))

    def send(self, text: str | bytes) -> None:
        self.protocol.data_received(text.encode() if isinstance(text, str) else text)

    async def post(self, path: str, rest: str = NO_BODY) -> Answer:
        self.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n{rest}")
        return await self.answer()

    async def get(self, path: str, rest: str = NO_BODY) -> Answer:
        self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{rest}")
        return await self.answer()

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (found := self._whole_answer()) is None:
                await self._change()
        return found

    async def end(self) -> str:
        """All that comes until the service closes the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.closed:
                await self._change()
        return self.received.decode()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _whole_answer(self) -> Answer | None:
        head, end, rest = bytes(self.received).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        if not end or len(rest) < length:
            return None
        self.received = bytearray(rest[length:])
        return Answer(int(first.split()[1]), headers, json.loads(rest[:length] or "null"))

    def write(self, data: "bytes | bytearray | memoryview") -> None:
        self.received += data
        self._changed.set()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True
        self._changed.set()

    def abort(self) -> None:
        self.close()

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_reading(self) -> bool:
        return self._reads

    def pause_reading(self) -> None:
        assert not self.closed
        self._reads = False

    def resume_reading(self) -> None:
        assert not self.closed
        self._reads = True
