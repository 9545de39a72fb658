"""An admission whose client went away before the answer holds no seat, unless the client may come back for it."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from tests.figures import figures
from tests.helpers import single, until
from tests.proxy import Fault, Proxy
from tests.servers import PATIENCE_SECONDS, RedisServer, Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HOLD = Fault("hold", "reply", at=b"admitted", connections=3)


@pytest.fixture
async def operator(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with single(valkey_server.url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def proxy(valkey_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(valkey_server.port) as proxy:
        yield proxy


@pytest.fixture
async def http(proxy: Proxy, operator: Redis, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:  # noqa: ARG001 - the store is empty first
    """The service with a proxy before its store."""
    service = Service(tmp_path, "--redis-url", proxy.url)
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(service.start)
        stack.push_async_callback(asyncio.to_thread, service.stop)
        await asyncio.to_thread(service.wait_until, 200)
        base_url = f"http://127.0.0.1:{service.port}"
        yield await stack.enter_async_context(httpx2.AsyncClient(base_url=base_url, timeout=PATIENCE_SECONDS))


def send(http: httpx2.AsyncClient, key: str = "", **body: Any) -> socket.socket:
    """Send a request for admission and wait for no answer."""
    content = json.dumps(body)
    head = ["POST /v1/users/alice/streams HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head += [f"Content-Length: {len(content)}", *([f"Idempotency-Key: {key}"] if key else [])]
    client = socket.create_connection(("127.0.0.1", http.base_url.port))
    client.sendall("\r\n".join([*head, "", content]).encode())
    return client


async def go_away(http: httpx2.AsyncClient, client: socket.socket, how: str = "close") -> None:
    with figures("client gone before its answer") as measured:
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        measured.cases += 1
        measured.calls += 1
        measured.unknown += 1
        # What arrives later is answered later: the server has seen the end of the other connection.
        assert (await measured.call(http.get("/livez"))).status_code == 200


async def seats(operator: Redis) -> list[str]:
    return sorted(str(key).rpartition(":")[2] for key in await operator.keys("stream:{alice}:*"))


async def taken(operator: Redis, count: int) -> bool:
    return len(await seats(operator)) == count


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_its_seat_is_free_at_once(http: httpx2.AsyncClient, proxy: Proxy, operator: Redis, how: str) -> None:
    proxy.arm(HOLD)
    client = send(http)
    await until(lambda: seats(operator))
    await go_away(http, client, how)
    proxy.let_go()

    ended = await until(lambda: operator.hvals("ended:{alice}"))
    assert [reason.split()[0] for reason in ended] == ["released"]
    assert await seats(operator) == []


async def test_its_seat_stays_where_the_client_may_come_back_for_it(
    http: httpx2.AsyncClient, proxy: Proxy, operator: Redis
) -> None:
    proxy.arm(HOLD)
    clients = []
    for number, options in enumerate([{"key": "k"}, {"device_id": "tv-1"}, {}]):
        clients.append(send(http, **options))
        await until(partial(taken, operator, number + 1))
    for client in clients:
        await go_away(http, client)
    proxy.let_go()

    await until(lambda: operator.exists("ended:{alice}"))  # the third is undone, so the others have been decided too
    assert await seats(operator) == ["1", "2"]
    again = await http.post("/v1/users/alice/streams", headers={"Idempotency-Key": "k"})
    assert (again.json()["seat"], again.json()["live"]) == (1, 2)


async def test_what_it_ended_stays_ended(http: httpx2.AsyncClient, proxy: Proxy, operator: Redis) -> None:
    await http.put("/v1/users/alice", json={"limit": 1})
    other = (await http.post("/v1/users/alice/streams")).json()["stream_id"]
    proxy.arm(HOLD)
    client = send(http, on_limit="evict")
    await until(lambda: operator.exists("ended:{alice}"))
    await go_away(http, client)
    proxy.let_go()

    await until(partial(taken, operator, 0))
    beat = await http.post(f"/v1/users/alice/streams/{other}/heartbeat")
    assert (beat.status_code, beat.json()["reason"]) == (410, "evicted")


async def test_its_undoing_waits_for_a_store_that_is_away(
    http: httpx2.AsyncClient, proxy: Proxy, operator: Redis
) -> None:
    proxy.arm(HOLD)
    client = send(http)
    await until(lambda: seats(operator))
    await go_away(http, client)
    await operator.client_pause(1_000, all=False)  # for scripts that write
    proxy.let_go()

    await until(partial(taken, operator, 0))


async def test_its_seat_is_held_for_a_ttl_where_a_further_request_was_pipelined(
    http: httpx2.AsyncClient, proxy: Proxy, operator: Redis
) -> None:
    """The exception: behind it the end of the connection is not seen."""
    proxy.arm(HOLD)
    client = send(http)
    client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: seats(operator))
    await go_away(http, client)
    proxy.let_go()
    proxy.arm(HOLD)
    other = send(http)
    await until(partial(taken, operator, 2))
    await go_away(http, other)
    proxy.let_go()

    await until(lambda: operator.exists("ended:{alice}"))  # the other is undone, so the first has been decided too
    assert await seats(operator) == ["1"]
    assert 0 < await operator.pttl("stream:{alice}:1") <= 90_000


async def test_once_the_answer_is_on_its_way_the_seat_is_held_for_a_ttl(
    http: httpx2.AsyncClient, operator: Redis
) -> None:
    client = send(http)
    assert await asyncio.to_thread(client.recv, 1) == b"H"
    await go_away(http, client, "reset")

    assert (await http.get("/v1/users/alice/streams")).json()["live"] == 1
    assert 0 < await operator.pttl("stream:{alice}:1") <= 90_000
