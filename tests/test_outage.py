"""What the operator chooses for the time in which the store is out of reach."""

import dataclasses
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from redis.asyncio import Redis

from streamlimit import DamagedKey, Lease, Stream, StreamEnded, StreamTracker, UnknownStream
from streamlimit.errors import StoreOverloaded, StoreUnavailable
from streamlimit.lane import Lane
from tests.conftest import RULES, SECRET
from tests.helpers import admitted, refs, until
from tests.servers import KEPT, RedisServer, Service, running, serving, valkey

pytestmark = pytest.mark.anyio

ALLOW = dataclasses.replace(RULES, ttl_ms=30_000, heartbeat_ms=10_000, on_outage="allow")
OTHERS_ID = f"1.{'A' * 19}.{'A' * 16}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running(valkey(tmp_path, *KEPT)) as server:
        yield server


@pytest.fixture
async def tracker(server: RedisServer) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(server.url, [SECRET], ALLOW, budget_seconds=0.3) as tracker:
        yield tracker


async def back(server: RedisServer, tracker: StreamTracker) -> None:
    server.start()
    await until(tracker.health)


async def test_new_streams_are_let_in_provisionally_and_take_a_seat_afterwards(
    tracker: StreamTracker, server: RedisServer
) -> None:
    server.stop()
    admission = await admitted(tracker, device_name="Living-room \u202eTV")
    assert admission.stream.provisional
    assert admission.live is None
    assert admission.stream.device_name == "Living-room TV"
    await back(server, tracker)

    assert isinstance(await tracker.heartbeat("alice", admission.lease.stream_id), Lease)
    assert await refs(tracker) == [admission.stream.ref]


async def test_those_for_whom_there_is_no_seat_are_told_that_the_limit_is_reached(
    tracker: StreamTracker, server: RedisServer
) -> None:
    for _ in range(2):
        await admitted(tracker)
    server.stop()
    provisional = [(await admitted(tracker)).lease.stream_id for _ in range(3)]
    await back(server, tracker)

    beats = [await tracker.heartbeat("alice", stream_id) for stream_id in provisional]
    assert [type(beat) for beat in beats] == [Lease, StreamEnded, StreamEnded]
    assert beats[1:] == [StreamEnded("limit_reached")] * 2
    assert len(await refs(tracker)) == 3


async def test_who_was_told_so_is_told_so_again(tracker: StreamTracker, server: RedisServer) -> None:
    server.stop()
    stream_id = (await admitted(tracker, limit=1)).lease.stream_id
    await back(server, tracker)
    first = await admitted(tracker, limit=1)
    assert await tracker.heartbeat("alice", stream_id) == StreamEnded("limit_reached")
    await tracker.release("alice", first.lease.stream_id)

    assert await tracker.heartbeat("alice", stream_id) == StreamEnded("limit_reached")


async def test_streams_that_play_are_told_to_go_on(tracker: StreamTracker, server: RedisServer) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    server.stop()

    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
    state = await tracker.get("alice", stream_id)
    assert isinstance(state, Stream)
    assert state.provisional


async def test_who_has_no_genuine_id_is_not_told_so(tracker: StreamTracker, server: RedisServer) -> None:
    await admitted(tracker)
    server.stop()

    with pytest.raises(StoreUnavailable):
        await tracker.heartbeat("alice", OTHERS_ID)
    with pytest.raises(StoreUnavailable):
        await tracker.get("alice", OTHERS_ID)


async def test_a_limit_of_none_is_kept_to(tracker: StreamTracker, server: RedisServer) -> None:
    server.stop()

    with pytest.raises(StoreUnavailable):
        await tracker.admit("alice", limit=0)


async def test_the_seat_of_a_lost_try_is_not_held_besides(
    tracker: StreamTracker, server: RedisServer, operator: Redis
) -> None:
    """The outage begins in the middle of the admission: what it was answered is not what may still be carried out."""
    server.signal(signal.SIGSTOP)
    admission = await admitted(tracker)
    assert admission.stream.provisional
    server.signal(signal.SIGCONT)
    await until(lambda: operator.exists("ended:{alice}"))
    assert isinstance(await tracker.heartbeat("alice", admission.lease.stream_id), Lease)

    assert await refs(tracker) == [admission.stream.ref]


async def test_by_default_new_streams_are_denied(server: RedisServer) -> None:
    rules = dataclasses.replace(ALLOW, on_outage="deny")
    async with StreamTracker.from_url(server.url, [SECRET], rules, budget_seconds=0.3) as tracker:
        stream_id = (await admitted(tracker)).lease.stream_id
        server.stop()

        with pytest.raises(StoreUnavailable):
            await tracker.admit("alice")
        with pytest.raises(StoreUnavailable):
            await tracker.heartbeat("alice", stream_id)
        with pytest.raises(StoreUnavailable):
            await tracker.get("alice", stream_id)


async def test_an_error_that_is_no_outage_lets_nobody_in(tracker: StreamTracker, operator: Redis) -> None:
    """A key of a wrong type, made by hand."""
    await operator.set("user:{alice}", "3")

    with pytest.raises(DamagedKey):
        await tracker.admit("alice")


async def test_too_many_calls_of_our_own_are_no_outage(tracker: StreamTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(*_: object) -> NoReturn:
        raise StoreOverloaded("too many")

    monkeypatch.setattr(Lane, "submit", submit)

    with pytest.raises(StoreOverloaded):
        await tracker.admit("alice")


async def test_an_invented_id_takes_no_seat_afterwards(tracker: StreamTracker, server: RedisServer) -> None:
    server.stop()
    with pytest.raises(StoreUnavailable):
        await tracker.heartbeat("alice", OTHERS_ID)
    await back(server, tracker)

    assert await tracker.heartbeat("alice", OTHERS_ID) == UnknownStream()


@pytest.mark.slow
@pytest.mark.parametrize("on_outage", ["deny", "allow"])
def test_over_http_as_the_setting_says(tmp_path: Path, server: RedisServer, on_outage: str) -> None:
    options = ("--redis-url", server.url, "--on-outage", on_outage, "--budget-seconds", "0.3")
    with serving(Service(tmp_path, *options)) as service:
        playing = service.http.post("/v1/users/alice/streams").json()
        path = f"/v1/users/alice/streams/{playing['stream_id']}"
        assert playing["provisional"] is False
        server.stop()
        admission = service.http.post("/v1/users/alice/streams")
        beat = service.http.post(f"{path}/heartbeat")
        state = service.http.get(path)
        if on_outage == "deny":
            assert [admission.status_code, beat.status_code, state.status_code] == [503, 503, 503]
            assert "go on" in beat.json()["detail"]
            assert beat.headers["retry-after"] == "1"
        else:
            assert [admission.status_code, beat.status_code, state.status_code] == [201, 200, 200]
            assert admission.json()["provisional"] is True
            assert admission.json()["live"] is None
            assert state.json()["provisional"] is True
