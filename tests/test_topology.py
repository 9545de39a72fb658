"""Which server is asked, without any server."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import Connection
from redis.exceptions import ClusterDownError

from streamlimit import primary
from streamlimit.connection import connect
from streamlimit.primary import Primary
from streamlimit.topology import Cluster, MakeNode
from tests.servers import PATIENCE_SECONDS


def test_a_slot_that_nobody_holds_is_one_that_cannot_be_reached() -> None:
    client = connect("redis+cluster://127.0.0.1")
    assert isinstance(client, RedisCluster)

    with pytest.raises(ClusterDownError, match="hash slot 5"):
        Cluster(client, cast("MakeNode", None)).node(5)


class Named:
    """Sentinels that name one primary."""

    def __init__(self) -> None:
        self.address = ("10.0.0.1", 6379)
        self.asked = asyncio.Semaphore(0)
        self.out_of_touch_seconds = 0.0

    async def discover_master(self, _: str) -> tuple[str, int]:
        self.asked.release()
        return self.address

    async def aclose(self) -> None:
        pass

    def client(self) -> Redis:
        pool = SimpleNamespace(
            sentinel_manager=self, service_name="streams", connection_class=Connection, connection_kwargs={}
        )
        return cast("Redis", SimpleNamespace(connection_pool=pool, aclose=self.aclose))


class Server:
    """As much of a node as a topology needs."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name

    async def close(self) -> None:
        pass


@pytest.mark.anyio
async def test_a_primary_stays_as_long_as_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(primary, "_FOLLOW_SECONDS", 0.001)
    monkeypatch.setattr(primary, "_BETWEEN_SECONDS", 0)
    named = Named()
    replaced: asyncio.Queue[float] = asyncio.Queue()
    topology = Primary(named.client(), cast("Any", Server), replaced.put_nowait)

    async with asyncio.timeout(PATIENCE_SECONDS):
        await topology.open()
        first = topology.node(0)
        for _ in range(3):
            await named.asked.acquire()
        assert topology.node(0) is first
        assert replaced.empty()

        named.address = ("10.0.0.2", 6379)
        await replaced.get()
        assert topology.node(0).name == "10.0.0.2:6379"
        assert not topology.slots(first)
        await topology.close()
