"""When an outage is over, and what the log says of it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal

import pytest
from redis.asyncio import Redis, RedisCluster

from streamlimit import Lease, StoreUnavailable, StreamTracker, outages
from streamlimit.outages import Outages
from tests.conftest import RULES, TrackerFactory
from tests.helpers import admitted, until
from tests.stores import TOPOLOGIES, is_cluster

pytestmark = pytest.mark.anyio

KEY: Final = "stream:{alice}:1"
READS: Final[dict[str, Callable[[StreamTracker, str], Awaitable[object]]]] = {
    "list": lambda tracker, _: tracker.list("alice"),
    "get": lambda tracker, stream_id: tracker.get("alice", stream_id),
    "check": lambda tracker, _: tracker.check("alice"),
    "health": lambda tracker, _: tracker.health(),
}


@asynccontextmanager
async def writes_refused(redis: Redis) -> AsyncIterator[None]:
    """Let the servers answer reads only, as they do with too few replicas, after a failed snapshot, on a full disk."""
    everywhere: dict[str, Any] = {"target_nodes": RedisCluster.PRIMARIES} if is_cluster(redis) else {}
    try:
        await redis.execute_command("CONFIG SET", "min-replicas-to-write", 9, **everywhere)  # type: ignore[no-untyped-call]
        yield
    finally:
        await redis.execute_command("CONFIG SET", "min-replicas-to-write", 0, **everywhere)  # type: ignore[no-untyped-call]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "read", "on_outage"),
    [
        *(("valkey", read, "deny") for read in READS),
        *((backend, "get", "allow") for backend in ("valkey", "redis", *TOPOLOGIES)),
    ],
    indirect=["backend"],
)
async def test_a_stream_resumes_after_an_outage_of_writes_though_reads_were_answered(
    make_tracker: TrackerFactory, redis: Redis, read: str, on_outage: Literal["deny", "allow"]
) -> None:
    tracker = await make_tracker(dataclasses.replace(RULES, on_outage=on_outage))
    stream_id = (await admitted(tracker)).lease.stream_id
    async with writes_refused(redis), asyncio.timeout(20):
        while await redis.exists(KEY):
            with suppress(StoreUnavailable):
                await tracker.heartbeat("alice", stream_id)
            with suppress(StoreUnavailable):
                await READS[read](tracker, stream_id)

    assert isinstance(await until(lambda: tracker.heartbeat("alice", stream_id)), Lease)
    assert await until(lambda: redis.exists(KEY))


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Wait until all has been well for long enough to say so."""
    monkeypatch.setattr(outages, "_CALM_SECONDS", 0.05)

    async def wait() -> None:
        await asyncio.sleep(0.1)

    return wait


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(" after ")[0] for record in caplog.records]


async def test_an_outage_began_with_the_first_failure() -> None:
    noted = Outages(ttl_ms=900, long_ms=600)
    noted.since[5] = 1.0
    noted.begin((4, 5))

    assert noted.since[5] == 1
    assert noted.since[4] > 1


@pytest.mark.parametrize(
    ("silent_seconds", "alone_seconds", "down_seconds"),
    [(0, 0, 0), (0, 0.1, 0.6), (0, 2, 2.5), (0.2, 2, 2.3), (1, 2, 2), (3, 2, 3)],
)
async def test_what_a_replaced_server_took_while_it_was_alone_counts_as_an_outage(
    monkeypatch: pytest.MonkeyPatch, silent_seconds: float, alone_seconds: float, down_seconds: float
) -> None:
    monkeypatch.setattr(outages, "_now", lambda: 1000.0)
    noted = Outages(ttl_ms=1000, long_ms=500)
    if silent_seconds:
        noted.since[0] = 1000 - silent_seconds

    noted.begin_replaced(alone_seconds)

    assert noted.seconds(0) == pytest.approx(down_seconds)


REFUSED, BACK = "No usable answer from the store: refused", "The store is back"


async def test_the_log_is_told_of_an_outage_once_and_of_its_end_with_its_length(
    calm: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    noted = Outages(ttl_ms=900, long_ms=600)
    for _ in range(5):  # connections that fail now and then
        noted.begin((0, 1))
        noted.complain("refused")
        noted.end((0, 1))
    noted.begin((0,))
    noted.since[0] -= 12
    assert noted.is_long(0)
    await calm()
    assert lines(caplog) == [REFUSED]
    noted.end((0,))
    await calm()

    assert lines(caplog) == [REFUSED, BACK]
    assert caplog.messages[-1].endswith("after 0.1 s")


async def test_the_next_outage_is_told_at_once_though_its_cause_is_the_same(
    calm: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    noted = Outages(ttl_ms=900, long_ms=600)
    for _ in range(2):
        noted.begin((0,))
        noted.complain("refused")
        noted.end((0,))
        await calm()

    assert lines(caplog) == [REFUSED, BACK] * 2


async def test_an_outage_that_no_caller_noticed_is_not_told(
    calm: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    noted = Outages(ttl_ms=900, long_ms=600)
    noted.begin((0,))
    noted.end((0,))
    await calm()

    assert caplog.messages == []


async def test_it_is_over_when_the_last_slot_is_well(
    calm: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    noted = Outages(ttl_ms=900, long_ms=600)
    noted.begin((0, 1))
    noted.complain("refused")
    noted.end((0,))
    await calm()
    assert lines(caplog) == [REFUSED]
    noted.end((1,))
    await calm()

    assert lines(caplog) == [REFUSED, BACK]


async def test_after_the_end_of_the_service_nothing_is_told(
    calm: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    noted = Outages(ttl_ms=900, long_ms=600)
    noted.begin((0,))
    noted.complain("refused")
    noted.end((0,))
    noted.close()
    await calm()

    assert lines(caplog) == [REFUSED]
