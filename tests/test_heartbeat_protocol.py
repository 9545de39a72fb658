"""The protocol answers heartbeats and checks of live streams as the application does, which some of them reach."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

import pytest
import uvicorn
from redis.asyncio import Redis

from streamlimit import StoreOverloaded, StoreUnavailable, StreamTracker, wire
from streamlimit.browser_guard import is_loopback
from streamlimit.drain import let_go
from streamlimit.heartbeat_protocol import _plain
from streamlimit.results import Lease, Undecided
from streamlimit.store import Store
from tests.clients import NO_BODY, Answer, Connection, served
from tests.web import INVENTED, STREAMS

pytestmark = pytest.mark.anyio

PATH = f"{STREAMS}/{INVENTED}/heartbeat"
A_BODY: Final = "Content-Length: 1\r\n\r\n "
FROM_A_PAGE: Final = "Origin: http://x\r\n\r\n"  # of the service itself


Connect = Callable[[], Connection]


@pytest.fixture
async def server(fake_redis: Redis) -> AsyncIterator[uvicorn.Server]:
    async with served(fake_redis) as server:
        yield server


@pytest.fixture
def connect(server: uvicorn.Server) -> Connect:
    return partial(Connection.to, server)


@pytest.fixture
def connection(connect: Connect) -> Connection:
    return connect()


@pytest.fixture
async def path(connection: Connection) -> str:
    """Where a live stream has its heartbeats."""
    answer = await connection.post(STREAMS)
    return f"{STREAMS}/{answer.body['stream_id']}/heartbeat"


@pytest.fixture
def unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application has nothing to do."""

    async def fail(*_: object, **__: object) -> Lease:
        raise AssertionError

    monkeypatch.setattr(StreamTracker, "heartbeat", fail)


def told(answer: Answer) -> Any:
    """All of an answer, but for what chance and the clock add to it."""
    body = {name: value for name, value in answer.body.items() if name not in ("heartbeat_seconds", "expires_at")}
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return answer.status, [*answer.body], body, headers


async def both_ways(connection: Connection, path: str) -> list[Answer]:
    return [await connection.post(path, rest) for rest in (NO_BODY, A_BODY)]


async def test_a_live_stream(connection: Connection, path: str) -> None:
    short, long = await both_ways(connection, path)

    assert short.status == 200
    assert told(short) == told(long)


@pytest.mark.usefixtures("unused")
async def test_a_live_stream_needs_no_application(connection: Connection, path: str) -> None:
    assert (await connection.post(path)).status == 200


async def test_a_stream_that_the_store_lost(connection: Connection, path: str, fake_redis: Redis) -> None:
    await fake_redis.delete("stream:{alice}:1")

    assert (await connection.post(path)).status == 200


async def test_a_stream_that_ended(connection: Connection, path: str) -> None:
    connection.send(f"POST {path.removesuffix('heartbeat')}release HTTP/1.1\r\nHost: x\r\n\r\n")
    await connection.answer()
    short, long = await both_ways(connection, path)

    assert (short.status, short.body["reason"]) == (410, "released")
    assert told(short) == told(long)


async def test_a_stream_that_was_never_issued(connection: Connection) -> None:
    short, long = await both_ways(connection, PATH)

    assert short.status == 404
    assert told(short) == told(long)


@pytest.fixture
async def lost_path(path: str, fake_redis: Redis) -> str:
    """Where a stream that the store lost has its heartbeats: more is to be asked than its seat."""
    await fake_redis.delete("stream:{alice}:1")
    return path


@pytest.fixture
def one_look(server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be asked of the store but whether a seat holds a stream."""
    del server  # its tracker has them
    monkeypatch.delattr(Store, "run")
    monkeypatch.delattr(Store, "heartbeat")


@pytest.mark.usefixtures("unused", "one_look")
async def test_a_forged_id_needs_no_application_and_one_look_at_the_store(connection: Connection) -> None:
    assert (await connection.post(PATH)).status == 404


@pytest.mark.usefixtures("one_look")
async def test_the_check_of_a_forged_id_needs_no_application_and_one_look_at_the_store(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(StreamTracker, "get")

    assert (await connection.get(PATH.removesuffix("/heartbeat"))).status == 404


async def test_an_id_that_has_just_been_found_to_have_ended_needs_neither(
    connection: Connection, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection.post(f"{path.removesuffix('heartbeat')}release")
    first = await connection.post(path)
    for name in ("run", "heartbeat", "soon"):
        monkeypatch.delattr(Store, name)
    monkeypatch.delattr(StreamTracker, "heartbeat")
    again, check = await connection.post(path), await connection.get(path.removesuffix("/heartbeat"))

    assert (first.status, first.body["reason"]) == (410, "released")
    assert told(first) == told(again) == told(check)


async def test_many_heartbeats_of_an_ended_stream_in_one_packet_are_answered(connection: Connection, path: str) -> None:
    await connection.post(f"{path.removesuffix('heartbeat')}release")
    await connection.post(path)
    connection.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000)

    assert {(await connection.answer()).status for _ in range(2_000)} == {410}


async def test_the_application_does_not_ask_again_what_the_protocol_has_asked(
    connection: Connection, lost_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Store, "heartbeat")

    assert (await connection.post(lost_path)).status == 200


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnavailable("down"), 503), (StoreOverloaded("busy"), 503), (RuntimeError("a bug"), 500)]
)
async def test_an_error(
    connection: Connection, lost_path: str, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def fail(*_: object, **__: object) -> Lease:
        raise error

    monkeypatch.setattr(StreamTracker, "heartbeat", fail)
    short, long = await both_ways(connection, lost_path)

    assert short.status == status
    assert told(short) == told(long)


async def test_the_application_is_told_how_much_of_the_budget_is_gone(
    connection: Connection, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = []

    async def heartbeat(*_: object, spent_seconds: float, seat_checked: bool) -> Lease:
        assert not seat_checked
        spent.append(spent_seconds)
        raise StoreUnavailable("down")

    def keep_live(_: object, __: str, ___: str, answer: Callable[[Undecided], None]) -> None:
        asyncio.get_running_loop().call_later(0.05, answer, Undecided.UNANSWERED)

    monkeypatch.setattr(StreamTracker, "heartbeat", heartbeat)
    monkeypatch.setattr(StreamTracker, "keep_live", keep_live)
    await connection.post(path)

    assert spent[0] >= 0.05


async def test_both_are_counted_alike(connection: Connection, path: str) -> None:
    await both_ways(connection, path)
    await both_ways(connection, PATH)
    connection.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    metrics = await connection.end()

    for count in ('heartbeats_total{result="live"} 2.0', 'heartbeats_total{result="unknown"} 2.0'):
        assert count in metrics


@pytest.fixture
async def checked(connection: Connection) -> str:
    """Where a live stream is checked, whose names JSON has to escape."""
    body = json.dumps({"device_id": 'tv "1"', "device_name": "Zoë's \\ <TV>", "content_id": "📺"})
    head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await connection.post(STREAMS, head + body)
    return f"{STREAMS}/{answer.body['stream_id']}"


async def checked_both_ways(connection: Connection, path: str) -> list[Answer]:
    return [await connection.get(path, rest) for rest in (NO_BODY, FROM_A_PAGE)]


async def test_a_check_of_a_live_stream(connection: Connection, checked: str) -> None:
    short, long = await checked_both_ways(connection, checked)

    assert (short.status, short.headers["cache-control"]) == (200, "max-age=5")
    assert told(short) == told(long)


async def test_a_check_of_a_live_stream_needs_no_application(
    connection: Connection, checked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(StreamTracker, "get")

    assert (await connection.get(checked)).status == 200


async def test_a_check_of_a_stream_that_the_store_lost(connection: Connection, checked: str, fake_redis: Redis) -> None:
    await fake_redis.delete("stream:{alice}:1")
    short, long = await checked_both_ways(connection, checked)

    assert (short.status, short.body["provisional"]) == (200, True)
    assert told(short) == told(long)


async def test_a_check_of_a_stream_that_ended_or_never_was(connection: Connection, checked: str) -> None:
    await connection.post(f"{checked}/release")
    for path, status in ((checked, 410), (PATH.removesuffix("/heartbeat"), 404)):
        short, long = await checked_both_ways(connection, path)

        assert short.status == status
        assert told(short) == told(long)


async def test_checks_are_counted(connection: Connection, checked: str) -> None:
    await checked_both_ways(connection, checked)
    connection.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    counted = 'streamlimit_answers_total{method="GET",route="/v1/users/{user_id}/streams/{stream_id}",status="200"} 2.0'
    assert counted in await connection.end()


@pytest.mark.usefixtures("unused")
async def test_many_in_one_packet_are_answered_in_their_order(connection: Connection, path: str) -> None:
    heartbeat = f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n"
    connection.send(f"{heartbeat}GET /livez HTTP/1.1\r\nHost: x\r\n\r\n{heartbeat}{heartbeat}")
    answers = [await connection.answer() for _ in range(4)]

    assert [answer.status for answer in answers] == [200] * 4
    assert ["stream_id" in answer.body for answer in answers] == [True, False, True, True]


@pytest.mark.usefixtures("unused")
@pytest.mark.parametrize("version", ["HTTP/1.0\r\n", "HTTP/1.1\r\nConnection: close\r\n"])
async def test_a_client_that_wants_no_more_is_let_go(connection: Connection, path: str, version: str) -> None:
    connection.send(f"POST {path} {version}\r\n")
    answer = await connection.answer()

    assert answer.headers["connection"] == "close"
    assert connection.closed


@pytest.mark.usefixtures("unused")
async def test_a_client_that_went_away_gets_no_answer(connect: Connect, path: str) -> None:
    gone, other = connect(), connect()
    gone.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    gone.protocol.connection_lost(None)
    await other.post(path)

    assert not gone.received


async def test_a_client_that_does_not_read_is_left_to_the_application_which_waits(
    connection: Connection, path: str
) -> None:
    connection.protocol.pause_writing()
    connection.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert len(connection.protocol.tasks) == 1
    connection.protocol.resume_writing()

    assert (await connection.answer()).status == 200


@pytest.mark.usefixtures("unused")
async def test_a_heartbeat_under_way_is_answered_before_the_service_stops(connection: Connection, path: str) -> None:
    connection.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    let_go(connection.protocol)

    assert (await connection.answer()).headers["connection"] == "close"
    assert connection.closed


@pytest.mark.parametrize("age", ["old", "new"])
@pytest.mark.parametrize("kind", ["heartbeat", "livez"])
async def test_in_a_drain_an_answer_closes_the_connection(
    server: uvicorn.Server, connect: Connect, path: str, *, age: str, kind: str
) -> None:
    connection = connect()
    server.config.loaded_app.state.draining = True
    if age == "old":
        connection.protocol.draining = True
    else:
        connection = connect()
    answer = await (connection.post(path) if kind == "heartbeat" else connection.get("/livez"))

    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert connection.closed


@pytest.mark.parametrize("last", ["heartbeat", "livez"])
async def test_in_a_drain_all_that_was_pipelined_is_answered(connection: Connection, path: str, last: str) -> None:
    connection.protocol.draining = True
    heartbeat, livez = f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    connection.send(f"{heartbeat}{livez}{heartbeat}{heartbeat if last == 'heartbeat' else livez}")
    answers = [await connection.answer() for _ in range(4)]

    assert [answer.status for answer in answers] == [200] * 4
    assert ["connection" in answer.headers for answer in answers] == [False, False, False, True]
    assert connection.closed


@pytest.fixture
def full(server: uvicorn.Server, path: str) -> str:
    """The path of a live stream, where the one connection that there is is all that there may be."""
    server.config.loaded_app.state.max_connections = 1
    return path


async def test_a_connection_too_many_is_refused_and_closed(
    connect: Connect, full: str, caplog: pytest.LogCaptureFixture
) -> None:
    refused = connect()
    answer = await refused.answer()

    assert full
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    assert answer.body["type"] == "urn:streamlimit:too-many-connections"
    assert refused.closed
    assert "MAX_CONNECTIONS (1)" in caplog.text


async def test_the_connections_that_are_there_go_on(connection: Connection, connect: Connect, full: str) -> None:
    connect()

    assert (await connection.post(full)).status == 200


async def test_when_one_has_gone_another_may_come(connection: Connection, connect: Connect, full: str) -> None:
    connection.protocol.connection_lost(None)

    assert (await connect().post(full)).status == 200


async def test_operators_come_by_their_port_however_many_there_are(
    server: uvicorn.Server, connect: Connect, full: str
) -> None:
    server.config.loaded_app.state.operator_port = 2

    assert (await connect().post(full)).status == 200


@pytest.mark.parametrize("heartbeat_ms", [27_000, 27_600, 25_501, 1])
def test_a_lease_is_written_as_its_model_is(heartbeat_ms: int) -> None:
    lease = Lease("10.AaIK2yA_A-26iN4Z5RI.ync0fIc30MlWgRcO", 1_763_949_752_007, 90_000, heartbeat_ms)

    assert wire.lease_json(lease) == wire.Lease.of(lease).model_dump_json().encode()


def scope(path: str = PATH, *headers: tuple[bytes, bytes], **other: Any) -> dict[str, Any]:
    return {"method": "POST", "path": path, "raw_path": path.encode(), "root_path": "", "headers": headers} | other


@pytest.mark.parametrize(
    "request_",
    [
        scope(),
        scope(PATH, (b"host", b"x"), (b"content-length", b"0"), (b"content-type", b"text/plain")),
        scope(PATH.replace("alice", "a@b.example|c:+=~-_.")),
        scope(PATH.replace("alice", "...")),
        scope(PATH.removesuffix("/heartbeat"), method="GET"),
    ],
)
def test_a_plain_request_is_known(request_: dict[str, Any]) -> None:
    assert _plain(request_)


@pytest.mark.parametrize(
    "request_",
    [
        scope(method="GET"),
        scope(method="PUT"),
        scope(PATH.removesuffix("/heartbeat")),
        scope(PATH.removesuffix("/heartbeat"), method="HEAD"),
        scope(PATH.removesuffix("/heartbeat"), method="DELETE"),
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
def test_anything_else_is_left_to_the_application(request_: dict[str, Any]) -> None:
    assert not _plain(request_)


@pytest.mark.parametrize(
    ("header", "is_plain"),
    [
        ((b"host", b"localhost:8080"), True),
        ((b"host", b"evil.example"), False),
        ((b"sec-fetch-site", b"cross-site"), False),
        ((b"origin", b"http://localhost:8080"), False),
    ],
)
def test_without_keys_what_a_web_page_may_have_sent_is_left_to_the_application(
    header: tuple[bytes, bytes], *, is_plain: bool
) -> None:
    assert bool(_plain(scope(PATH, header), is_loopback)) == is_plain


@pytest.mark.parametrize("header", [(b"host", b"limits.example"), (b"sec-fetch-site", b"cross-site")])
def test_with_keys_neither_host_nor_site_makes_a_request_dearer(header: tuple[bytes, bytes]) -> None:
    assert _plain(scope(PATH, header), None)
