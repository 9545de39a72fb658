"""Requests and answers lost between client and app, at every point: an intended admission takes one seat."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final, get_args

import httpx2
import pytest
from redis.asyncio import Redis

from tests.cuts import STEP, Client, crowd, product, seats
from tests.figures import Figures, figures
from tests.proxy import HOST, Direction, Fault, Kind, Proxy
from tests.servers import PATIENCE_SECONDS, RedisServer, Service, serving

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PATIENCE_FOR_AN_ANSWER: Final = 0.3
CLIENTS: Final[dict[str, Client]] = {
    "key": {"headers": {"Idempotency-Key": "k"}},
    "device": {"json": {"device_id": "tv-1"}},
    "neither": {"json": {"limit": 2}},  # it leaves a stream behind that it knows nothing of
}


@pytest.fixture
def service(server: RedisServer, tmp_path: Path) -> Iterator[Service]:
    with serving(Service(tmp_path, "--redis-url", server.url, "--limit", "1")) as service:
        yield service


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """Each request has a connection of its own."""
    timeout = httpx2.Timeout(PATIENCE_SECONDS, read=PATIENCE_FOR_AN_ANSWER)
    async with httpx2.AsyncClient(timeout=timeout, headers={"Connection": "close"}) as http:
        yield http


async def persist(http: httpx2.AsyncClient, proxy: Proxy, user_id: str, measured: Figures, client: Client) -> Any:
    """Ask as a real client does: again where no answer came. The network is well then."""
    url = f"http://{HOST}:{proxy.port}/v1/users/{user_id}/streams"
    answer = None
    while answer is None:
        try:
            answer = await measured.call(http.post(url, **client), httpx2.TransportError)
        except httpx2.TransportError:
            proxy.arm(None)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.mark.parametrize("kind", ["reset", "close", "drop", "hold"])
async def test_an_admission_whose_request_or_answer_is_cut_or_late_takes_one_seat(
    http: httpx2.AsyncClient, service: Service, operator: Redis, kind: Kind
) -> None:
    async with Proxy(service.port) as proxy:
        await persist(http, proxy, "x", Figures("none"), CLIENTS["device"])
        sizes: dict[Direction, int] = {direction: proxy.passed[direction] for direction in get_args(Direction)}

    async def cut(user_id: str, direction: Direction, at: int, client: Client) -> None:
        async with Proxy(service.port) as proxy:
            proxy.arm(Fault(kind, direction, at))
            stream = await persist(http, proxy, user_id, measured, client)
            proxy.let_go()  # what was held arrives late
            await proxy.delivered()
        refs = await seats(operator, user_id)
        if client == CLIENTS["neither"]:
            assert stream["stream_ref"].partition(".")[2] in refs
            assert len(refs) <= 2
        elif kind == "hold" and client == CLIENTS["device"]:
            # The exception: the request that comes late is the device's, too, and replaces what came before it.
            assert len(refs) == 1
            if refs != [stream["stream_ref"].partition(".")[2]]:
                replaced.add(direction)
        else:
            assert [stream["stream_ref"]] == [f"1.{ref}" for ref in refs]

    replaced: set[Direction] = set()
    with figures(f"{'late' if kind == 'hold' else kind} between client and app") as measured:
        await crowd(cut, product(sizes, CLIENTS, STEP), measured)
    assert measured.unknown > measured.cases / 2
    assert replaced == ({"request"} if kind == "hold" else set())
