"""Answers that are lost or late, at every point of an exchange: an intended admission takes one seat.

STREAMLIMIT_CUT_STEP is how many bytes lie between two cuts; 1 cuts at every byte and takes minutes.
"""

import asyncio
import dataclasses
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, Lease, StoreUnavailable, StreamTracker
from tests.conftest import RULES, SECRET
from tests.figures import Figures, figures
from tests.proxy import Direction, Fault, Kind, Proxy
from tests.servers import RedisServer, running, valkey

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STEP: Final = int(os.environ.get("STREAMLIMIT_CUT_STEP", "17"))
AT_ONCE: Final = 12
LONG_RULES: Final = dataclasses.replace(RULES, ttl_ms=90_000)
ALL: Final = 1_000
Client = Mapping[str, Any]
CLIENTS: Final[dict[str, Client]] = {
    "key": {"idempotency_key": "k"},
    "device": {"device_id": "tv-1"},
    "neither": {},
}
"""How a client that repeats its admission makes itself known."""


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost answer is given up soon, so that many are lost in little time. The budget of a call stays."""
    monkeypatch.setattr("streamlimit.connection.SOCKET_TIMEOUT_SECONDS", 0.2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running(valkey(tmp_path)) as server:
        yield server


@pytest.fixture
async def operator(server: RedisServer) -> AsyncIterator[Redis]:
    async with patient(server) as client:
        yield client


def patient(server: RedisServer) -> Redis:
    client: Redis = Redis.from_url(server.url, decode_responses=True)
    return client


Case = tuple[str, Direction, int, Client]


def product(sizes: Mapping[Direction, int], step: int) -> list[Case]:
    """Every kind of client, cut at every step of an exchange of these sizes. Each is a user of its own."""
    return [
        (f"{name}-{direction}-{at}", direction, at, client)
        for direction, size in sizes.items()
        for at in range(0, size, step)
        for name, client in CLIENTS.items()
    ]


async def crowd(
    run: Callable[[str, Direction, int, Client], Awaitable[None]], cases: list[Case], measured: Figures
) -> None:
    """Run all cases, some at a time."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> None:
        async with limit:
            await run(*case)
        measured.cases += 1

    async with asyncio.TaskGroup() as tasks:
        for case in cases:
            tasks.create_task(one(case))


async def exchange(server: RedisServer, operator: Redis) -> dict[Direction, int]:
    """How many bytes an admission moves in each direction, of a user whose limit the app has to learn first."""
    async with Proxy(server.port) as proxy, StreamTracker.from_url(proxy.url, [SECRET], LONG_RULES) as tracker:
        await operator.hset("user:{x}", "limit", "1")
        await tracker.admit("y")  # loads the script
        proxy.arm(None)
        assert isinstance(await tracker.admit("x", **CLIENTS["device"]), Admission)
        return {"request": proxy.passed["request"], "reply": proxy.passed["reply"]}


async def persist(proxy: Proxy, tracker: StreamTracker, user_id: str, measured: Figures, client: Client) -> Admission:
    """Ask as a real client does: again after an unknown outcome. From then on the network is well."""
    answer = None
    while answer is None:
        try:
            answer = await measured.call(tracker.admit(user_id, **client))
        except StoreUnavailable:
            proxy.arm(None)
            if not client:  # it waits, as Retry-After says; its first try is undone by then
                await paid(tracker)
    proxy.arm(None)
    assert isinstance(answer, Admission), answer
    return answer


async def paid(tracker: StreamTracker) -> None:
    """Wait until the app has undone what it left behind."""
    if tracker._store._repair:
        await tracker._store._repair


async def taken(operator: Redis, user_id: str) -> list[str]:
    """The REFs in a user's seats; each has a TTL."""
    keys = [f"stream:{{{user_id}}}:{seat}" for seat in range(1, LONG_RULES.max_limit + 1)]
    live = [key for key in keys if await operator.exists(key)]
    for key in live:
        assert 0 < await operator.pttl(key) <= LONG_RULES.ttl_ms
    return [str(await operator.hget(key, "ref")) for key in live]


@pytest.mark.parametrize("connections", [1, ALL])
@pytest.mark.parametrize("kind", ["reset", "close", "drop"])
async def test_an_admission_whose_exchange_with_the_store_is_cut_takes_one_seat(
    server: RedisServer, operator: Redis, kind: Kind, connections: int
) -> None:
    sizes = await exchange(server, operator)

    async def cut(user_id: str, direction: Direction, at: int, client: Client) -> None:
        await operator.hset(f"user:{{{user_id}}}", "limit", "1")
        async with (
            Proxy(server.port) as proxy,
            StreamTracker.from_url(proxy.url, [SECRET], LONG_RULES) as tracker,
        ):
            proxy.arm(Fault(kind, direction, at, connections))
            answer = await persist(proxy, tracker, user_id, measured, client)
            await paid(tracker)
            assert isinstance(await tracker.heartbeat(user_id, answer.lease.stream_id), Lease)
        assert await taken(operator, user_id) == [answer.stream.ref]

    with figures(f"{kind} between app and store, {'once' if connections == 1 else 'again and again'}") as measured:
        await crowd(cut, product(sizes, STEP if connections == 1 else 5 * STEP), measured)
    assert measured.unknown > 0 or connections == 1


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("connections", [1, ALL])
async def test_an_admission_that_arrives_late_takes_no_further_seat(
    server: RedisServer, operator: Redis, connections: int, *, released: bool
) -> None:
    sizes = await exchange(server, operator)

    async def delay(user_id: str, direction: Direction, at: int, client: Client) -> None:
        await operator.hset(f"user:{{{user_id}}}", "limit", "1")
        async with (
            Proxy(server.port) as proxy,
            StreamTracker.from_url(proxy.url, [SECRET], LONG_RULES) as tracker,
        ):
            proxy.arm(Fault("hold", direction, at, connections))
            answer = await persist(proxy, tracker, user_id, measured, client)
            await paid(tracker)
            if released:
                await tracker.release(user_id, answer.lease.stream_id)
            proxy.let_go()
            await proxy.delivered()
        assert await taken(operator, user_id) == ([] if released else [answer.stream.ref])

    with figures(f"late between app and store, {'once' if connections == 1 else 'again and again'}") as measured:
        await crowd(delay, product(sizes, 5 * STEP), measured)


async def test_a_first_meeting_that_is_cut_leads_to_one_seat(server: RedisServer, operator: Redis) -> None:
    """From the connecting on, and with the scripts not loaded yet."""

    async def meet(user_id: str, fault: Fault | None) -> Counter[str]:
        await operator.script_flush()
        async with Proxy(server.port) as proxy:
            proxy.arm(fault)
            async with StreamTracker.from_url(proxy.url, [SECRET], LONG_RULES) as tracker:
                passed = proxy.passed
                answer = await persist(proxy, tracker, user_id, measured, {})
            assert await taken(operator, user_id) == [answer.stream.ref]
            return passed

    with figures("cut at the first meeting of app and store") as measured:
        passed = await meet("x", None)
        for direction in get_args(Direction):
            for at in range(0, passed[direction], 60 * STEP if direction == "request" else 3 * STEP):
                for kind in ("reset", "drop"):
                    await meet(f"{kind}-{direction}-{at}", Fault(kind, direction, at))
                    measured.cases += 1
