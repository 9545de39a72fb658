"""Which server holds the keys of a hash slot: always the same one, or on a Cluster whatever redis-py's client found."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisClusterException, RedisError

from streamlimit.errors import StoreUnavailable
from streamlimit.node import Node, Pool
from streamlimit.primary import Primary

_REFRESH_SECONDS: Final = 2
_BETWEEN_REFRESHES_SECONDS: Final = 0.25

NOBODY: Final = (ClusterDownError, MasterNotFoundError)
"""Raised where no server is known to hold a slot."""
_IS_A_CLUSTER: Final = "the server is one of a Cluster: give its address as redis+cluster://HOST:PORT"

MakeNode = Callable[..., Node]
_logger = logging.getLogger(__name__)


class Topology(Protocol):
    """Finds the server to talk to."""

    async def open(self) -> None:
        """Find the servers, as far as they answer."""

    def node(self, slot: int) -> Node:
        """The one that holds a slot, or raise one of NOBODY."""

    def nodes(self) -> Iterable[Node]:
        """All that take writes."""

    def slots(self, node: Node) -> Sequence[int]:
        """What a node holds."""

    async def moved(self, error: MovedError) -> None:
        """A server said that another one holds a slot; raise StoreUnavailable where that cannot be followed."""

    def asked(self, error: AskError) -> Node:
        """The server that takes over a slot just now."""

    def look_again(self, failed: Node | None) -> None:
        """Find out soon who holds what, since a server gave no answer."""

    async def close(self) -> None:
        """Close all connections."""


class SingleServer:
    """One server."""

    def __init__(self, client: Redis, make_node: MakeNode) -> None:
        self._client = client
        self._node = make_node("", Pool(client.connection_pool))

    async def open(self) -> None:
        """Nothing to find."""

    def node(self, slot: int) -> Node:  # noqa: ARG002 - it holds all
        """The server."""
        return self._node

    def nodes(self) -> Iterable[Node]:
        """The server."""
        return (self._node,)

    def slots(self, node: Node) -> Sequence[int]:  # noqa: ARG002 - as above
        """All keys are in slot 0 here."""
        return (0,)

    async def moved(self, error: MovedError) -> None:
        """Not said by a server that is no part of a Cluster."""
        raise StoreUnavailable(_IS_A_CLUSTER) from error

    def asked(self, error: AskError) -> Node:
        """Not said, either."""
        raise StoreUnavailable(_IS_A_CLUSTER) from error

    def look_again(self, failed: Node | None) -> None:
        """Nothing to find."""

    async def close(self) -> None:
        """Close all connections."""
        await self._node.close()
        await self._client.aclose()


class Cluster:
    """A Redis Cluster. redis-py's client knows the nodes, and makes the connections to each."""

    def __init__(self, client: RedisCluster, make_node: MakeNode) -> None:
        self._manager = client.nodes_manager
        self._make_node = make_node
        self._nodes: dict[str, Node] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._refresh: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Ask the nodes of the URL for all nodes and their slots."""
        await self._find(None)

    def node(self, slot: int) -> Node:
        """The primary that holds a slot, or raise ClusterDownError."""
        try:
            primary = self._manager.slots_cache[slot][0]
        except KeyError:
            raise ClusterDownError(f"no node is known to hold hash slot {slot}") from None
        return self._known(primary)

    def nodes(self) -> Iterable[Node]:
        """All primaries that hold slots."""
        return {self._known(holders[0]) for holders in _distinct(self._manager.slots_cache.values())}

    def slots(self, node: Node) -> Sequence[int]:
        """The slots that a primary holds."""
        return [slot for slot, holders in self._manager.slots_cache.items() if holders[0].name == node.name]

    async def moved(self, error: MovedError) -> None:
        """Note where one slot has gone; others are likely to have, too."""
        if error.slot_id in self._manager.slots_cache:
            await self._manager.move_slot(error)
        self.look_again(None)

    def asked(self, error: AskError) -> Node:
        """The node that imports the slot."""
        found = self._manager.get_node(host=error.host, port=error.port)
        if found is None:
            found = ClusterNode(error.host, error.port, "primary", **self._manager.connection_kwargs)
            self._manager.nodes_cache[found.name] = found
        return self._known(found)

    def look_again(self, failed: Node | None) -> None:
        """Ask all nodes soon who holds what; the one that failed last."""
        if not self._closing and self._refresh is None:
            self._refresh = asyncio.create_task(self._find_soon(failed), name="streamlimit-cluster-refresh")

    async def close(self) -> None:
        """Close all connections."""
        self._closing = True
        while self._refresh is not None and not self._refresh.done():
            self._refresh.cancel()
            await asyncio.wait([self._refresh], timeout=_BETWEEN_REFRESHES_SECONDS)
        await asyncio.gather(*self._leaving, *(node.close() for node in self._nodes.values()))
        await self._manager.aclose()
        await self._manager.aclose("startup_nodes")

    async def _find_soon(self, failed: Node | None) -> None:
        try:
            await self._find(failed)
            await asyncio.sleep(_BETWEEN_REFRESHES_SECONDS)
        finally:
            self._refresh = None

    async def _find(self, failed: Node | None) -> None:
        try:
            async with asyncio.timeout(_REFRESH_SECONDS):
                await self._manager.initialize(last_failed_node_name=failed.name if failed else None)
        except (RedisError, RedisClusterException, IndexError, TimeoutError, OSError) as error:
            # IndexError: redis-py meets nodes that hold no slots yet.
            _logger.warning("No node tells who is in the Cluster: %s", error)
        else:
            self._keep_connections()
            for name in self._nodes.keys() - self._manager.nodes_cache.keys():
                # redis-py closes its free connections only.
                leaving = asyncio.create_task(self._nodes.pop(name).close(), name=f"streamlimit-leave-{name}")
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)

    def _keep_connections(self) -> None:
        """Undo that redis-py marks every connection to be renewed: while one node fails, that would slow all others.

        It does so for those that were told to read from a replica, which none of ours is.
        """
        for node in self._manager.nodes_cache.values():
            for connection in node._connections:  # noqa: SLF001 - there is no other way to them
                connection.reset_should_reconnect()  # type: ignore[no-untyped-call]

    def _known(self, primary: ClusterNode) -> Node:
        node = self._nodes.get(primary.name)
        if node is None:
            node = self._nodes[primary.name] = self._make_node(primary.name, _NodePool(primary), one_user_scripts=True)
        return node


@dataclass(frozen=True, slots=True)
class _NodePool:
    node: ClusterNode

    async def acquire(self) -> AbstractConnection:
        connection = self.node.acquire_connection()
        try:
            await self.node.disconnect_if_needed(connection)
            if connection.is_connected and await connection.can_read():
                await connection.disconnect()  # the server has closed it
        except BaseException:
            self.node.release(connection)
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        self.node.release(connection)  # type: ignore[arg-type] # whatever it gave

    async def close(self) -> None:
        await self.node.disconnect()


def find_topology(client: Redis | RedisCluster, make_node: MakeNode, on_replaced: Callable[[float], None]) -> Topology:
    """The one that a client was made for.

    Args:
        client: The client.
        make_node: Makes a node from its name and connections.
        on_replaced: Called where Sentinels have replaced the primary, with for how long, in seconds, the old one may
            have taken writes that are lost.
    """
    if isinstance(client, RedisCluster):
        return Cluster(client, make_node)
    if isinstance(client.connection_pool, SentinelConnectionPool):
        return Primary(client, make_node, on_replaced)
    return SingleServer(client, make_node)


def _distinct(lists: Iterable[list[ClusterNode]]) -> Iterable[list[ClusterNode]]:
    """A node's slots share one list, which is looked at once."""
    return {id(one): one for one in lists}.values()
