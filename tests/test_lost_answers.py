"""Answers that are lost or late between app and store, at every point: an intended admission takes one seat."""

import asyncio
import dataclasses
from collections import Counter
from typing import Final, get_args

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, Lease, StoreUnavailable, StreamTracker
from tests.conftest import RULES, SECRET
from tests.cuts import STEP, Client, crowd, product, seats
from tests.figures import Figures, figures
from tests.helpers import until
from tests.proxy import Direction, Fault, Kind, Proxy
from tests.servers import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LONG_RULES: Final = dataclasses.replace(RULES, ttl_ms=90_000)
ALL: Final = 1_000
CLIENTS: Final[dict[str, Client]] = {
    "key": {"idempotency_key": "k"},
    "device": {"device_id": "tv-1"},
    "neither": {},
}
"""How a client that repeats its admission makes itself known."""


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost answer is given up soon, so that many are lost in little time. The budget of a call stays."""
    monkeypatch.setattr("streamlimit.node.PATIENCE", 0.2)


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
            beat = await until(lambda: tracker.heartbeat(user_id, answer.lease.stream_id))
            assert isinstance(beat, Lease), beat
        assert await seats(operator, user_id) == [answer.stream.ref]

    with figures(f"{kind} between app and store, {'once' if connections == 1 else 'again and again'}") as measured:
        await crowd(cut, product(sizes, CLIENTS, STEP if connections == 1 else 5 * STEP), measured)
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
            await tracker._store._topology.node(0).calls.drain()  # what waits for its answer has given up
            proxy.let_go()
            await proxy.delivered()
        assert await seats(operator, user_id) == ([] if released else [answer.stream.ref])

    with figures(f"late between app and store, {'once' if connections == 1 else 'again and again'}") as measured:
        await crowd(delay, product(sizes, CLIENTS, 5 * STEP), measured)


CHANGES: Final[dict[str, Client]] = {
    "end all": {"end_all": True},
    "set": {"limit": 1},
    "set and end": {"limit": 1, "end_excess": True},
    "delete": {},
}


async def change(
    tracker: StreamTracker, user_id: str, *, end_all: bool = False, limit: int | None = None, end_excess: bool = False
) -> object:
    if end_all:
        return await tracker.terminate_all(user_id)
    if limit is None:
        return await tracker.delete_user(user_id)
    return await tracker.set_user_limit(user_id, limit, end_excess=end_excess)


@pytest.mark.parametrize("by_more_than_the_budget", [False, True])
@pytest.mark.parametrize("kind", ["hold", "lag"])
async def test_an_end_or_a_limit_that_arrives_late_undoes_nothing_that_was_acknowledged_since(
    server: RedisServer, operator: Redis, kind: Kind, *, by_more_than_the_budget: bool
) -> None:
    async with Proxy(server.port) as proxy, StreamTracker.from_url(proxy.url, [SECRET], LONG_RULES) as tracker:
        for options in CHANGES.values():
            proxy.arm(None)
            await change(tracker, "x", **options)  # loads the script
        proxy.arm(None)
        await change(tracker, "set-and-end-request-100", limit=1, end_excess=True)
        sizes: dict[Direction, int] = {direction: proxy.passed[direction] for direction in get_args(Direction)}

    async def delay(user_id: str, direction: Direction, at: int, options: Client) -> None:
        user_id = user_id.replace(" ", "-")
        await operator.hset(f"user:{{{user_id}}}", "limit", "2")
        async with (
            Proxy(server.port) as proxy,
            StreamTracker.from_url(proxy.url, [SECRET], LONG_RULES) as tracker,
        ):
            await tracker.admit(user_id)
            proxy.arm(Fault(kind, direction, at))
            await measured.call(change(tracker, user_id, **options))
            await tracker.set_user_limit(user_id, 4)
            since = await measured.call(tracker.admit(user_id))
            assert isinstance(since, Admission)
            if by_more_than_the_budget:
                await asyncio.sleep(1.5)  # the time is what is tested
            proxy.let_go()
            await proxy.delivered()
            assert isinstance(await tracker.heartbeat(user_id, since.lease.stream_id), Lease)
        assert await operator.hgetall(f"user:{{{user_id}}}") == {"limit": "4"}

    lateness = "by more than the budget" if by_more_than_the_budget else "by less"
    with figures(f"ends and limits between app and store, {kind}, late {lateness}") as measured:
        await crowd(delay, product(sizes, CHANGES, 3 * STEP), measured)


async def test_a_first_meeting_that_is_cut_leads_to_one_seat(server: RedisServer, operator: Redis) -> None:
    """From the connecting on, and with the scripts not loaded yet."""

    async def meet(user_id: str, fault: Fault | None) -> Counter[str]:
        await operator.script_flush()
        async with Proxy(server.port) as proxy:
            proxy.arm(fault)
            async with StreamTracker.from_url(proxy.url, [SECRET], LONG_RULES) as tracker:
                passed = proxy.passed
                answer = await persist(proxy, tracker, user_id, measured, {})
            assert await seats(operator, user_id) == [answer.stream.ref]
            return passed

    with figures("cut at the first meeting of app and store") as measured:
        passed = await meet("x", None)
        for direction in get_args(Direction):
            for at in range(0, passed[direction], 60 * STEP if direction == "request" else 3 * STEP):
                for kind in ("reset", "drop"):
                    await meet(f"{kind}-{direction}-{at}", Fault(kind, direction, at))
                    measured.cases += 1


@pytest.mark.parametrize("options", [{"device_id": "tv-1"}, {"on_limit": "evict"}])
async def test_an_admission_that_arrives_late_ends_no_stream_that_was_admitted_since(
    server: RedisServer, operator: Redis, options: Client
) -> None:
    """Its app is cut off and cannot undo it, so the client came back through another one."""
    async with (
        Proxy(server.port) as proxy,
        StreamTracker.from_url(proxy.url, [SECRET], LONG_RULES) as cut_off,
        StreamTracker.from_url(server.url, [SECRET], LONG_RULES) as other,
    ):
        await other.set_user_limit("alice", 1)
        await cut_off.check("alice")  # the script is loaded
        proxy.arm(Fault("hold", "request", connections=ALL))
        with pytest.raises(StoreUnavailable):
            await cut_off.admit("alice", limit=1, **options)
        answer = await other.admit("alice", **options)
        assert isinstance(answer, Admission)
        await asyncio.sleep(1.5)  # it is late now: the time is what is tested
        proxy.let_go()
        await until(lambda: operator.exists("ended:{alice}"))  # it came first, and then what bars it

        assert isinstance(await other.heartbeat("alice", answer.lease.stream_id), Lease)
