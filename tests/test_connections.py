"""What becomes of connections when something goes wrong with them."""

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from streamlimit.node import Connections, Node, command
from streamlimit.topology import _NodePool

pytestmark = pytest.mark.anyio


class Connection:
    """One whose server sends what nobody can read."""

    is_connected = True
    socket_timeout = None

    def __init__(self) -> None:
        self.is_looked_at = asyncio.Event()

    async def send_packed_command(self, _: object) -> None:
        pass

    async def read_response(self) -> Any:
        self.is_connected = False  # redis-py disconnects then
        raise InvalidResponse("Protocol error")

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait

    async def can_read(self) -> bool:
        self.is_looked_at.set()
        await asyncio.Event().wait()
        return True


class Pool:
    async def acquire(self) -> Connection:
        return Connection()

    async def release(self, _: Connection) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_an_answer_that_cannot_be_read_is_none() -> None:
    """So that the call is repeated, and in doubt."""
    node = Node("", cast("Connections", Pool()), ttl_ms=1000, budget_seconds=1)

    with pytest.raises(RedisConnectionError, match="Protocol error"):
        await node.exchange([command("PING")])


class Primary:
    """redis-py's node of a Cluster, with one connection."""

    def __init__(self) -> None:
        self.free = [Connection()]

    def acquire_connection(self) -> Connection:
        return self.free.pop()

    def release(self, connection: Connection) -> None:
        self.free.append(connection)

    async def disconnect_if_needed(self, _: Connection) -> None:
        pass


async def test_a_connection_is_not_lost_where_its_caller_is_cancelled() -> None:
    primary = Primary()
    (connection,) = primary.free
    acquiring = asyncio.create_task(_NodePool(cast("ClusterNode", primary)).acquire())
    await connection.is_looked_at.wait()
    acquiring.cancel()
    await asyncio.wait([acquiring])

    assert primary.free == [connection]
