"""The short way of a heartbeat answers as the long way does, which one with a body takes."""

from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from streamlimit import StoreOverloaded, StoreUnavailable, StreamTracker, wire
from streamlimit.results import Lease
from streamlimit.short_way import _heartbeat
from tests.web import INVENTED, STREAMS, problem, started

pytestmark = pytest.mark.anyio

PATH = f"{STREAMS}/{INVENTED}/heartbeat"


async def both_ways(http: httpx2.AsyncClient, stream_id: str) -> list[httpx2.Response]:
    path = f"{STREAMS}/{stream_id}/heartbeat"
    return [await http.post(path), await http.post(path, content=b" ")]


def told(answer: httpx2.Response) -> Any:
    """All of an answer, but for what chance and the clock add to it."""
    body = {name: value for name, value in answer.json().items() if name not in ("heartbeat_seconds", "expires_at")}
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return answer.status_code, [*answer.json()], body, headers


async def test_a_live_stream(http: httpx2.AsyncClient) -> None:
    short, long = await both_ways(http, (await started(http))["stream_id"])

    assert short.status_code == 200
    assert told(short) == told(long)


async def test_a_stream_that_the_store_lost(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    stream_id = (await started(http))["stream_id"]
    await fake_redis.delete("stream:{alice}:1")
    short = await http.post(f"{STREAMS}/{stream_id}/heartbeat")

    assert short.json()["stream_id"] == stream_id


async def test_a_stream_that_ended(http: httpx2.AsyncClient) -> None:
    stream_id = (await started(http))["stream_id"]
    await http.post(f"{STREAMS}/{stream_id}/release")
    short, long = await both_ways(http, stream_id)

    assert problem(short, 410, "stream-ended")["reason"] == "released"
    assert told(short) == told(long)


async def test_a_stream_that_was_never_issued(http: httpx2.AsyncClient) -> None:
    short, long = await both_ways(http, INVENTED)

    assert short.status_code == 404
    assert told(short) == told(long)


@pytest.mark.parametrize("error", [StoreUnavailable("down"), StoreOverloaded("busy"), RuntimeError("a bug")])
async def test_an_error(http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def fail(*_: object) -> Lease:
        raise error

    monkeypatch.setattr(StreamTracker, "heartbeat", fail)
    short, long = await both_ways(http, INVENTED)

    assert short.status_code == (500 if isinstance(error, RuntimeError) else 503)
    assert told(short) == told(long)


async def test_both_are_counted_alike(http: httpx2.AsyncClient) -> None:
    await both_ways(http, (await started(http))["stream_id"])
    await both_ways(http, INVENTED)
    metrics = (await http.get("/metrics")).text

    for count in ('heartbeats_total{result="live"} 2.0', 'heartbeats_total{result="unknown"} 2.0'):
        assert count in metrics


@pytest.mark.parametrize("heartbeat_ms", [27_000, 27_600, 25_501, 1])
def test_a_lease_is_written_as_its_model_is(heartbeat_ms: int) -> None:
    lease = Lease("10.AaIK2yA_A-26iN4Z5RI.ync0fIc30MlWgRcO", 1_763_949_752_007, 90_000, heartbeat_ms)

    assert wire.lease_json(lease) == wire.Lease.of(lease).model_dump_json().encode()


def scope(path: str = PATH, *headers: tuple[bytes, bytes], **other: Any) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": headers} | other


@pytest.mark.parametrize(
    "request_",
    [
        scope(),
        scope(PATH, (b"host", b"x"), (b"content-length", b"0"), (b"content-type", b"text/plain")),
        scope(PATH.replace("alice", "a@b.example|c:+=~-_.")),
        scope(PATH.replace("alice", "...")),
    ],
)
def test_a_plain_heartbeat_takes_it(request_: dict[str, Any]) -> None:
    assert _heartbeat(request_)


@pytest.mark.parametrize(
    "request_",
    [
        scope(method="GET"),
        scope(type="websocket"),
        scope(root_path="/limits"),
        scope(f"{PATH}/"),
        scope(f"{PATH}\n"),
        scope(f"/x{PATH}"),
        scope(PATH.replace("alice", "a b")),
        scope(PATH.replace("alice", "..")),
        scope(PATH.replace("alice", "a" * 129)),
        scope(PATH.replace(INVENTED, "1.x.y")),
        scope(PATH, raw_path=PATH.replace("alice/", "alice%2F").encode()),
        scope(PATH, (b"content-length", b"1")),
        scope(PATH, (b"transfer-encoding", b"chunked")),
        scope(PATH, (b"origin", b"https://tv.example")),
        scope(PATH, (b"expect", b"100-continue")),
    ],
)
def test_anything_else_does_not(request_: dict[str, Any]) -> None:
    assert not _heartbeat(request_)
