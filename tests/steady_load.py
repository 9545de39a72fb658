"""Heartbeats at a steady rate, from a client that goes to another instance only where a connection is refused."""

import asyncio
import contextlib
import itertools
import ssl
from collections import Counter
from collections.abc import Sequence
from threading import Thread
from typing import Final, Self

_CLIENTS: Final = 16
"""So many wait for an answer at the same time, at most."""

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SteadyLoad:
    """A context in whose time heartbeats are sent, by a thread of its own, over connections that are kept alive.

    Args:
        ports: Of the instances on 127.0.0.1, which are asked in turn.
        paths: What is posted to, in turn.
        rate: Requests a second.
        tls: How to speak TLS, where the instances do.
    """

    def __init__(
        self, ports: Sequence[int], paths: Sequence[str], rate: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self.answered: Counter[int] = Counter()
        """How many, by their status."""
        self.failed: Counter[str] = Counter()
        """Requests that got no answer, by what happened."""
        self.refused = 0
        """Connections, each of which led to the other instance."""
        self._ports = list(ports)
        self._turns = itertools.cycle(range(len(ports)))
        self._paths = itertools.cycle(paths)
        self._interval = _CLIENTS / rate
        self._tls = tls
        self._idle: dict[int, list[_Connection]] = {port: [] for port in ports}
        self._ended = False
        self._thread = Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(_CLIENTS)))
        for _, writer in itertools.chain(*self._idle.values()):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _client(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + number * self._interval / _CLIENTS
        while not self._ended:
            await asyncio.sleep(due - loop.time())
            due = max(due + self._interval, loop.time() - 1)  # a client that is late catches up, but not for ever
            try:
                self.answered[await self._post(next(self._paths))] += 1
            except (OSError, EOFError, ValueError) as error:
                self.failed[repr(error)] += 1

    async def _post(self, path: str) -> int:
        """The status of the answer."""
        port, (reader, writer) = await self._connection()
        try:
            writer.write(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            status = int(head.split(" ", 2)[1])
            _, _, length = head.partition("content-length: ")
            await reader.readexactly(int(length.partition("\r\n")[0]))
        except BaseException:
            writer.transport.abort()
            raise
        if "connection: close" in head:
            writer.close()
        else:
            self._idle[port].append((reader, writer))
        return status

    async def _connection(self) -> tuple[int, _Connection]:
        first = next(self._turns)
        *others, last = self._ports[first:] + self._ports[:first]
        for port in others:
            try:
                return port, await self._connect(port)
            except ConnectionRefusedError:
                self.refused += 1
        return last, await self._connect(last)

    async def _connect(self, port: int) -> _Connection:
        idle = self._idle[port]
        while idle:
            reader, writer = idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", port, ssl=self._tls)
