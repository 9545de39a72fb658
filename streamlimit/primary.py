"""The primary that Sentinels name, as long as they name it."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, cast

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.exceptions import AskError, MovedError, RedisError

from streamlimit.errors import StoreUnavailable
from streamlimit.node import Node, Pool
from streamlimit.sentinels import Sentinels

_FOLLOW_SECONDS: Final = 0.5
"""How often Sentinels are asked although all is well: what a primary takes after it was replaced is lost."""
_BETWEEN_SECONDS: Final = 0.05
_ASK_SECONDS: Final = 2

_logger = logging.getLogger(__name__)


class Primary:
    """A topology of one server at a time.

    redis-py asks the Sentinels whenever it connects. A primary that was replaced may not know it, answer as before, and
    take writes that will be lost; so they are asked now and then, too. Its successor is a node of its own: what was
    sent to the one says nothing of the other.

    Args:
        client: redis-py's; it knows the way to the Sentinels.
        make_node: Makes a node from its name and connections.
        on_replaced: Called where another primary is named than before, with for how long, at most, the old one had been
            alone, in seconds.
    """

    def __init__(self, client: Redis, make_node: Callable[..., Node], on_replaced: Callable[[float], None]) -> None:
        self._client = client
        self._pool = cast("SentinelConnectionPool", client.connection_pool)
        self._sentinels = cast("Sentinels", self._pool.sentinel_manager)
        self._make_node = make_node
        self._on_replaced = on_replaced
        self._address: tuple[str, int] | None = None
        self._node: Node | None = None
        self._in_touch = 0.0
        """Until when the primary had surely not been replaced, in the event loop's time."""
        self._unnamed = "the Sentinels have not been asked"
        """Why none is named."""
        self._following: asyncio.Task[None] | None = None
        self._doubted = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Ask the Sentinels, and go on asking."""
        await self._find()
        self._following = asyncio.create_task(self._follow(), name="streamlimit-sentinels")

    def node(self, slot: int) -> Node:  # noqa: ARG002 - it holds all
        """The primary, or raise MasterNotFoundError where none was named yet."""
        if self._node is None:
            raise MasterNotFoundError(self._unnamed)
        return self._node

    def nodes(self) -> Iterable[Node]:
        """The primary."""
        return () if self._node is None else (self._node,)

    def slots(self, node: Node) -> Sequence[int]:
        """All keys are in slot 0 here, and no longer with one that was replaced."""
        return (0,) if node is self._node else ()

    async def moved(self, error: MovedError) -> None:
        """Not said by a server that is no part of a Cluster."""
        raise StoreUnavailable(str(error)) from error

    def asked(self, error: AskError) -> Node:
        """Not said, either."""
        raise StoreUnavailable(str(error)) from error

    def look_again(self, failed: Node | None) -> None:  # noqa: ARG002 - there is one
        """Ask the Sentinels soon."""
        self._doubted.set()

    async def close(self) -> None:
        """Close all connections, to the Sentinels too."""
        while self._following is not None and not self._following.done():
            self._following.cancel()
            await asyncio.wait([self._following], timeout=_FOLLOW_SECONDS)
        await asyncio.gather(*self._leaving, *(node.close() for node in self.nodes()))
        await self._client.aclose()
        await self._sentinels.aclose()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_BETWEEN_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_FOLLOW_SECONDS):
                    await self._doubted.wait()
            self._doubted.clear()
            await self._find()

    async def _find(self) -> None:
        clock = asyncio.get_running_loop().time
        asked = clock()
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                address = await self._sentinels.discover_master(self._pool.service_name)
        except (RedisError, TimeoutError, OSError) as error:
            if str(error) != self._unnamed:
                self._unnamed = str(error)
                _logger.warning("%s", error)
            return
        self._unnamed = ""
        if address == self._address:
            self._in_touch = max(self._in_touch, asked - self._sentinels.out_of_touch_seconds)
            return
        replaced, self._node, self._address = self._node, self._make_node(*self._connections(address)), address
        now = clock()
        alone_seconds, self._in_touch = now - self._in_touch, now
        if replaced is not None:
            _logger.warning("The Sentinels name another primary: %s", self._node.name)
            self._on_replaced(alone_seconds)
            leaving = asyncio.create_task(replaced.close(), name="streamlimit-leave-primary")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _connections(self, address: tuple[str, int]) -> tuple[str, Pool]:
        """The name of a primary, and connections to it and no other."""
        host, port = address
        secure = issubclass(self._pool.connection_class, SSLConnection)
        options = {name: value for name, value in self._pool.connection_kwargs.items() if name != "connection_pool"}
        pool = ConnectionPool(SSLConnection if secure else Connection, host=host, port=port, **options)
        return f"{host}:{port}", Pool(pool)
