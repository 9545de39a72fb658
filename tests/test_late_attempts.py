"""Attempts that come late, and attempts whose answers are lost: what was acknowledged since stands, and is told again.

A call that the store leaves unanswered is tried again. One connection is held, so that its request arrives only after
the second attempt and all that came after it were answered.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, get_args

import pytest
from redis.asyncio import Redis

from streamlimit import EndedStream, Lease, StoreUnavailable, StreamTracker
from streamlimit.stream_id import parse_stream_ref
from tests.conftest import RULES, SECRET
from tests.helpers import admitted, patient, refs
from tests.proxy import Fault, Kind, Proxy
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

ALL = 1_000

Operation = Callable[[StreamTracker], Awaitable[Any]]
CHANGES: dict[str, Operation] = {
    "set": lambda tracker: tracker.set_user_limit("alice", 5),
    "set and end": lambda tracker: tracker.set_user_limit("alice", 2, end_excess=True),
    "delete": lambda tracker: tracker.delete_user("alice"),
    "end all": lambda tracker: tracker.terminate_all("alice"),
}


@pytest.fixture
async def operator(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with patient(valkey_server) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def proxy(valkey_server: RedisServer, operator: Redis) -> AsyncIterator[Proxy]:
    del operator  # has emptied the store
    async with Proxy(valkey_server.port) as proxy:
        yield proxy


@pytest.fixture
async def tracker(proxy: Proxy) -> AsyncIterator[StreamTracker]:
    """One whose store knows the scripts, so that an attempt is one request."""
    async with StreamTracker.from_url(proxy.url, [SECRET], RULES) as tracker:
        await tracker.terminate_all("warm-up")
        await tracker.delete_user("warm-up")
        await admitted(tracker, "warm-up")
        yield tracker


@pytest.fixture(params=["hold", "lag"])
def late(request: pytest.FixtureRequest, proxy: Proxy) -> Callable[[], None]:
    """Makes the next request late, be it given up after a while or at once."""
    kind: Kind = request.param

    def arm() -> None:
        proxy.arm(Fault(kind, "request"))

    return arm


async def arrive(proxy: Proxy) -> None:
    """Let what is late arrive and be carried out."""
    assert proxy.hits == 1
    proxy.let_go()
    await proxy.delivered()


async def test_a_limit_that_is_set_late_leaves_the_one_set_since(
    proxy: Proxy, tracker: StreamTracker, late: Callable[[], None]
) -> None:
    late()
    await tracker.set_user_limit("alice", 5)
    await tracker.set_user_limit("alice", 1)
    await arrive(proxy)

    assert await tracker.user_limit("alice") == 1


async def test_an_end_of_all_streams_that_comes_late_spares_what_was_admitted_since(
    proxy: Proxy, tracker: StreamTracker, late: Callable[[], None]
) -> None:
    await admitted(tracker)
    late()
    await tracker.terminate_all("alice")
    since = await admitted(tracker)
    await arrive(proxy)

    assert isinstance(await tracker.heartbeat("alice", since.lease.stream_id), Lease)


async def test_an_end_of_no_streams_that_comes_late_spares_what_was_admitted_since(
    proxy: Proxy, tracker: StreamTracker, late: Callable[[], None]
) -> None:
    """It left no trace by which the store would know it again."""
    late()
    assert await tracker.terminate_all("alice") == ()
    since = await admitted(tracker)
    await arrive(proxy)

    assert isinstance(await tracker.heartbeat("alice", since.lease.stream_id), Lease)


async def test_a_deletion_that_comes_late_lets_nobody_in_who_was_barred_since(
    proxy: Proxy, tracker: StreamTracker, late: Callable[[], None]
) -> None:
    await tracker.set_user_limit("alice", 3)
    late()
    assert await tracker.delete_user("alice")
    await tracker.set_user_limit("alice", 0)
    await arrive(proxy)

    assert await tracker.user_limit("alice") == 0


@pytest.mark.parametrize("name", CHANGES)
async def test_what_was_given_up_changes_nothing_afterwards(
    proxy: Proxy, tracker: StreamTracker, valkey_server: RedisServer, name: str
) -> None:
    """Its outcome was unknown, and so another one was asked for through another process."""
    async with StreamTracker.from_url(valkey_server.url, [SECRET], RULES) as other:
        proxy.arm(Fault("hold", "request", connections=ALL))
        with pytest.raises(StoreUnavailable):
            await CHANGES[name](tracker)
        await other.set_user_limit("alice", 4)
        streams = [(await admitted(other)).stream.ref for _ in range(3)]
        proxy.let_go()
        await proxy.delivered()

        assert await other.user_limit("alice") == 4
        assert await refs(other) == streams


async def test_a_server_whose_clock_was_set_forward_is_met_again(tracker: StreamTracker) -> None:
    tracker._store._topology.node(0).clock_ahead_ms -= 60_000

    await tracker.set_user_limit("alice", 5)

    assert await tracker.user_limit("alice") == 5


# What an attempt did whose answer was lost is told by the next one.


@pytest.fixture(params=get_args(Kind))
def loss(request: pytest.FixtureRequest, proxy: Proxy) -> Callable[[], None]:
    """Makes the next answer get lost."""
    kind: Kind = request.param

    def arm() -> None:
        proxy.arm(Fault(kind, "reply"))

    return arm


@pytest.mark.parametrize(
    "wish", [{"on_limit": "evict"}, {"device_id": "tv-2"}, {"take_over": ""}, {"on_limit": "evict", "limit": 1}]
)
async def test_an_admission_whose_answer_is_lost_tells_what_it_ended(
    proxy: Proxy, tracker: StreamTracker, loss: Callable[[], None], wish: dict[str, Any]
) -> None:
    streams = [
        (await admitted(tracker, device_id=f"tv-{n}", device_name=f"TV {n}", content_id="film")).stream
        for n in (1, 2, 3)
    ]
    expected = streams if "limit" in wish else streams[:1] if "on_limit" in wish else streams[1:2]
    if "take_over" in wish:
        wish = {"take_over": expected[0].stream_ref}
    loss()
    answer = await admitted(tracker, **wish)

    assert proxy.hits == 1
    assert [told(one) for one in answer.ended] == [(one.ref, one.seat, one.device_name, "film") for one in expected]
    assert {one.reason for one in answer.ended} < {"evicted", "replaced", "taken_over"}
    assert [one.stream.started_at_ms for one in answer.ended] == [one.started_at_ms for one in expected]


@pytest.mark.parametrize("limit", [None, 1])
async def test_an_end_whose_answer_is_lost_tells_what_it_ended(
    proxy: Proxy, tracker: StreamTracker, loss: Callable[[], None], limit: int | None
) -> None:
    streams = [(await admitted(tracker, device_name=f"TV {n}", content_id="film")).stream for n in (1, 2, 3)]
    loss()
    ended = await (
        tracker.terminate_all("alice") if limit is None else tracker.set_user_limit("alice", limit, end_excess=True)
    )

    assert proxy.hits == 1
    assert [told(one) for one in ended] == [
        (one.ref, one.seat, one.device_name, "film") for one in streams[: 3 - (limit or 0)]
    ]
    assert {one.reason for one in ended} == {"terminated" if limit is None else "limit_lowered"}
    assert await tracker.user_limit("alice") == limit


async def test_a_deletion_whose_answer_is_lost_says_that_there_was_a_record(
    proxy: Proxy, tracker: StreamTracker, loss: Callable[[], None]
) -> None:
    await tracker.set_user_limit("alice", 5)
    loss()

    assert await tracker.delete_user("alice")
    assert proxy.hits == 1


def told(ended: EndedStream) -> tuple[str, int, str | None, str | None]:
    stream = ended.stream
    assert parse_stream_ref(stream.stream_ref)
    return stream.ref, stream.seat, stream.device_name, stream.content_id
