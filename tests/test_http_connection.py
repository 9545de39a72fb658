"""What arrives on a connection is answered in step, however it was cut, and what one client may hold is bounded."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final

import pytest
import uvicorn
from redis.asyncio import Redis

from streamlimit import StoreUnavailable, StreamTracker
from streamlimit.deadlines import Deadlines
from streamlimit.http_heads import MAX_HEAD_BYTES
from streamlimit.refusals import RefusalLog
from tests.clients import Answer, Connection, served
from tests.web import ALICE, INVENTED, STREAMS

pytestmark = pytest.mark.anyio

HOST: Final = "Host: x\r\n"
JSON: Final = "Content-Type: application/json\r\n"
ADMISSION: Final = f"POST {STREAMS} HTTP/1.1\r\n{HOST}"
MANY_HEADERS: Final = "a:\r\n" * 100
LIVEZ: Final = f"GET /livez HTTP/1.1\r\n{HOST}\r\n"
HEARTBEAT: Final = f"POST {STREAMS}/{INVENTED}/heartbeat HTTP/1.1\r\n{HOST}"
UPGRADE: Final = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
ITEM: Final = {"user_id": "alice", "stream_id": INVENTED}


def request(method: str, path: str, body: Any = None, headers: str = "") -> str:
    """A message of which each is answered like the one before it."""
    content = "" if body is None else json.dumps(body)
    framed = "" if body is None else f"{JSON}Content-Length: {len(content)}\r\n"
    return f"{method} {path} HTTP/1.1\r\n{HOST}{headers}{framed}\r\n{content}"


def in_chunks(method: str, path: str, body: Any) -> str:
    content = json.dumps(body)
    chunks = "".join(f"{len(part):x};a=b\r\n{part}\r\n" for part in (content[:3], content[3:]))
    return f"{method} {path} HTTP/1.1\r\n{HOST}{JSON}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nX-A: b\r\n\r\n"


MESSAGES: Final = {
    "admission": request("POST", STREAMS, {"limit": 0}),
    "admission in chunks": in_chunks("POST", STREAMS, {"limit": 0}),
    "admission beside an upgrade": request("POST", STREAMS, {"limit": 0}, UPGRADE),
    "heartbeat": request("POST", f"{STREAMS}/{INVENTED}/heartbeat"),
    "heartbeat with a body": request("POST", f"{STREAMS}/{INVENTED}/heartbeat", {}),
    "heartbeat beside an upgrade": request("POST", f"{STREAMS}/{INVENTED}/heartbeat", headers=UPGRADE),
    "heartbeat with a body beside an upgrade": request("POST", f"{STREAMS}/{INVENTED}/heartbeat", {}, UPGRADE),
    "release": request("POST", f"{STREAMS}/{INVENTED}/release"),
    "end": request("DELETE", f"{STREAMS}/{INVENTED}"),
    "check": request("GET", f"{STREAMS}/{INVENTED}"),
    "list": request("GET", STREAMS),
    "end all": request("DELETE", STREAMS),
    "preview": request("GET", f"{ALICE}/admission"),
    "record": request("PUT", ALICE, {"limit": 2}),
    "read record": request("GET", ALICE),
    "delete record": request("DELETE", ALICE),
    "batch": request("POST", "/v1/heartbeats", {"streams": [ITEM]}),
    "old check": request("GET", "/add-stream/user/alice"),
    "too large": request("POST", STREAMS, {"device_name": "x" * 17_000}),
    "after a blank line": "\r\n" + request("GET", STREAMS),
    "absolute target": request("GET", f"http://y{STREAMS}"),
    "asked to go on": request("PUT", ALICE, {"limit": 2}, "Expect: 100-continue\r\n"),
    "not found": request("GET", "/nowhere"),
}


@pytest.fixture
async def server(fake_redis: Redis) -> AsyncIterator[uvicorn.Server]:
    async with served(fake_redis) as server:
        yield server


Connect = Callable[[], Connection]


@pytest.fixture
def connect(server: uvicorn.Server) -> Connect:
    return partial(Connection.to, server)


@pytest.fixture
def connection(connect: Connect) -> Connection:
    return connect()


async def answers(connect: Connect, pieces: Sequence[str], count: int = 2) -> list[tuple[int, Any]]:
    """The answers to what is sent on a connection of its own."""
    connection = connect()
    for piece in pieces:
        if not connection.closed:
            connection.send(piece)
            await asyncio.sleep(0)
    found = [await final_answer(connection) for _ in range(count)]
    assert not connection.received
    connection.protocol.connection_lost(None)
    return [(answer.status, answer.body) for answer in found]


async def end(connection: Connection) -> str:
    """All that comes until the service closes the connection, and has nothing more to do for it."""
    received = await connection.end()
    await asyncio.gather(*connection.protocol.tasks)
    return received + connection.received.decode()[len(received) :]


async def final_answer(connection: Connection) -> Answer:
    while (answer := await connection.answer()).status == 100:
        pass
    return answer


def pieces(text: str, *cuts: int) -> list[str]:
    return [text[start:end] for start, end in zip((0, *cuts), (*cuts, len(text)), strict=True)]


@pytest.mark.parametrize("what", MESSAGES)
async def test_a_message_in_two_pieces_is_answered_as_at_once(connect: Connect, what: str) -> None:
    text = MESSAGES[what] + LIVEZ
    await answers(connect, [text])  # there is a record after the first PUT, and none after the first DELETE
    expected = await answers(connect, [text])
    assert expected[1][0] == 200
    steps = 1 if len(text) < 1_000 else 997

    for cut in range(1, len(text), steps):
        assert await answers(connect, pieces(text, cut)) == expected, text[:cut]


@pytest.mark.parametrize("what", MESSAGES)
async def test_a_message_in_three_pieces_is_answered_as_at_once(connect: Connect, what: str) -> None:
    text = MESSAGES[what] + LIVEZ
    await answers(connect, [text])
    expected = await answers(connect, [text])
    chance = random.Random(what)

    for _ in range(40):
        cuts = sorted(chance.sample(range(1, len(text)), 2))
        assert await answers(connect, pieces(text, *cuts)) == expected, cuts


@pytest.mark.parametrize("what", MESSAGES)
async def test_a_message_byte_by_byte_is_answered_as_at_once(connect: Connect, what: str) -> None:
    text = MESSAGES[what] + LIVEZ
    await answers(connect, [text])

    assert await answers(connect, list(text)) == await answers(connect, [text])


async def test_all_messages_in_one_piece_are_answered_in_their_order(connect: Connect) -> None:
    for _ in range(2):  # the first time there is no record yet
        one_by_one = [answer for message in MESSAGES.values() for answer in await answers(connect, [message], 1)]

    assert await answers(connect, ["".join(MESSAGES.values())], len(MESSAGES)) == one_by_one


@pytest.mark.parametrize("cut", [1, 30, 160, 40_000])
async def test_a_batch_of_the_largest_kind_may_be_cut_anywhere(connect: Connect, cut: int) -> None:
    text = request("POST", "/v1/heartbeats", {"streams": [ITEM] * 1_000})

    ((status, body),) = await answers(connect, pieces(text, cut), 1)
    assert (status, len(body["streams"])) == (200, 1_000)


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0", "H2C, websocket"])
@pytest.mark.parametrize("connection_header", ["Upgrade", "keep-alive, upgrade", "UPGRADE"])
@pytest.mark.parametrize("piece", [10_000, 1])
async def test_an_upgrade_is_ignored_and_the_body_is_read(
    connect: Connect, upgrade: str, connection_header: str, piece: int
) -> None:
    headers = f"Connection: {connection_header}\r\nUpgrade: {upgrade}\r\n"
    text = request("POST", STREAMS, {"device_id": "tv-1"}, headers) + LIVEZ
    first, second = await answers(connect, [text[at : at + piece] for at in range(0, len(text), piece)])

    assert (first[0], first[1]["device_id"]) == (201, "tv-1")
    assert second == (200, {"status": "alive"})


@pytest.mark.parametrize("sends", [1, 2, 1_000])
async def test_the_body_beside_an_upgrade_is_no_request(connect: Connect, sends: int) -> None:
    smuggled = f"DELETE {STREAMS} HTTP/1.1\r\n{HOST}\r\n"
    head = f"POST {STREAMS}/{INVENTED}/heartbeat HTTP/1.1\r\n{HOST}{UPGRADE}Content-Length: {len(smuggled)}\r\n\r\n"
    text = head + smuggled + LIVEZ
    parts = {1: [text], 2: [head, smuggled + LIVEZ]}.get(sends, list(text))

    assert [status for status, _ in await answers(connect, parts)] == [404, 200]


async def test_no_upgrade_is_worth_a_line_in_the_log(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    for message in ("heartbeat beside an upgrade", "admission beside an upgrade"):
        await answers(connect, [MESSAGES[message]], 1)

    assert not caplog.records


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("target", ["x:443", STREAMS, f"{STREAMS}/{INVENTED}"])
async def test_connect_is_refused_and_the_connection_closed(
    connect: Connect, fake_redis: Redis, version: str, target: str
) -> None:
    connection = connect()
    connection.send(f"CONNECT {target} HTTP/{version}\r\n{HOST}\r\n" + request("PUT", ALICE, {"limit": 1}))

    assert (await end(connection)).count("HTTP/1.1 ") == 1
    assert not await fake_redis.keys("user:*")


TWO_READERS: Final = {
    "chunks beside an upgrade": f"{HOST}{UPGRADE}Transfer-Encoding: chunked\r\n",
    "chunks beside a length": f"{HOST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "a length beside chunks": f"{HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "chunks in a coding": f"{HOST}Transfer-Encoding: gzip, chunked\r\n",
    "chunks twice": f"{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "the same length twice": f"{HOST}Content-Length: 5\r\nContent-Length: 5\r\n",
    "a list of lengths": f"{HOST}Content-Length: 5, 5\r\n",
    "a signed length": f"{HOST}Content-Length: +5\r\n",
    "a blank before the colon": f"{HOST}Content-Length : 5\r\n",
    "a blank before a header": f" X: y\r\n{HOST}",
    "a folded header": f"{HOST}X: y\r\n z\r\n",
    "a bare line feed": f"{HOST}X: y\nContent-Length: 5\r\n",
    "a bare carriage return": f"{HOST}X: y\rContent-Length: 5\r\n",
    "NUL": f"{HOST}X: \0\r\n",
    "a header without a colon": f"{HOST}X\r\n",
    "no host": "X: y\r\n",
    "two hosts": f"{HOST}{HOST}",
    "a host that is none": "Host: a b\r\n",
}


@pytest.mark.parametrize("what", TWO_READERS)
@pytest.mark.parametrize("path", [STREAMS, f"{STREAMS}/{INVENTED}/heartbeat"], ids=["admission", "heartbeat"])
@pytest.mark.parametrize("piece", [10_000, 1])
async def test_what_two_readers_could_read_differently_is_refused(
    connection: Connection, fake_redis: Redis, what: str, path: str, piece: int
) -> None:
    text = f"POST {path} HTTP/1.1\r\n{TWO_READERS[what]}\r\n0\r\n\r\n" + request("PUT", ALICE, {"limit": 1})
    for at in range(0, len(text), piece):
        if not connection.closed:
            connection.send(text[at : at + piece])
    answer = await connection.answer()
    await end(connection)

    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.body["type"] == "urn:streamlimit:malformed-request"
    assert not connection.received
    assert not await fake_redis.keys("*:*alice*")


@pytest.mark.parametrize(
    "line", ["GET /livez", "GET /livez HTTP/0.9", "GET /livez HTTP/2.0", "GET /livez HTTP/1.2", "PRI * HTTP/2.0"]
)
async def test_another_version_is_refused_as_soon_as_it_is_seen(connection: Connection, line: str) -> None:
    connection.send(f"{line}\r\n")

    assert (await connection.answer()).status == 400
    assert connection.closed


@pytest.mark.parametrize("junk", ["\0", "x\r\n\r\n", "GET\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"])
async def test_junk_behind_a_heartbeat_does_not_swallow_its_answer(connection: Connection, junk: str) -> None:
    connection.send(f"{HEARTBEAT}\r\n{junk}")
    statuses = [(await connection.answer()).status for _ in range(2)]

    assert statuses == [404, 400]
    assert connection.closed


@pytest.mark.parametrize("target", ["http://localhost", "http://localhost?x"])
async def test_a_url_without_a_path_is_refused(
    connection: Connection, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection.send(f"GET {target} HTTP/1.1\r\n{HOST}\r\n")

    assert (await connection.answer()).status == 400
    assert "Traceback" not in caplog.text


async def test_a_body_that_is_refused_before_it_was_asked_for_is_not_asked_for(
    connection: Connection, server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "can_write_eof", lambda: True)
    monkeypatch.setattr(connection, "write_eof", lambda: None)
    connection.send(
        f"POST {STREAMS} HTTP/1.1\r\n{HOST}{JSON}Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n-\r\n"
    )
    while server.server_state.tasks:
        await asyncio.wait(server.server_state.tasks)

    assert connection.received.startswith(b"HTTP/1.1 400 ")
    assert b"100 Continue" not in connection.received


async def test_an_empty_line_in_two_pieces_begins_no_request(connection: Connection) -> None:
    connection.send("\r")
    connection.send("\n")

    assert not connection.protocol._is_receiving()


async def test_trailers_are_not_headers(connection: Connection) -> None:
    connection.send(
        f"POST {STREAMS} HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"
        f"2\r\n{{}}\r\n0\r\n{JSON}Idempotency-Key: x\r\n\r\n"
    )

    assert (await connection.answer()).status == 415


async def test_a_chunk_of_the_wrong_size_ends_the_request(connection: Connection, fake_redis: Redis) -> None:
    connection.send(f"POST {STREAMS} HTTP/1.1\r\n{HOST}{JSON}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}X")
    answer = await connection.answer()
    await end(connection)

    assert answer.status == 400
    assert not await fake_redis.keys("*alice*")


async def test_http_1_0_is_answered_and_closed(connection: Connection) -> None:
    connection.send("GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /livez HTTP/1.0\r\n\r\n")

    assert (await end(connection)).count("HTTP/1.1 200 OK") == 1


async def test_after_connection_close_nothing_is_read(connection: Connection, fake_redis: Redis) -> None:
    connection.send(f"GET /livez HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n" + request("PUT", ALICE, {"limit": 1}))

    assert (await end(connection)).count("HTTP/1.1 ") == 1
    assert not await fake_redis.keys("*alice*")


async def test_an_asterisk_is_no_resource(connection: Connection) -> None:
    connection.send(f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n")

    assert (await connection.answer()).status == 404


@pytest.mark.parametrize("body", ["{}", f"DELETE {STREAMS} HTTP/1.1\r\n{HOST}\r\n"])
async def test_a_body_that_was_not_asked_for_is_a_body_still(connect: Connect, body: str) -> None:
    """The client was to wait for 100, and was answered at once; it may send the body all the same."""
    head = f"{HEARTBEAT}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"

    assert [status for status, _ in await answers(connect, [head, body + LIVEZ])] == [404, 200]


async def test_a_client_that_closes_its_side_is_taken_for_gone(connection: Connection) -> None:
    connection.send(LIVEZ)
    told: Callable[[], object] = connection.protocol.eof_received

    assert not told(), "then the transport is closed"


# What one client may hold.


async def test_too_many_headers_are_refused(connection: Connection) -> None:
    connection.send(f"{HEARTBEAT}{MANY_HEADERS}\r\n")

    assert (await connection.answer()).status == 431
    assert connection.closed


@pytest.mark.parametrize("cut", [0, 1, 1_000, MAX_HEAD_BYTES - 1, MAX_HEAD_BYTES, MAX_HEAD_BYTES + 1])
@pytest.mark.parametrize(("more", "status"), [(0, 404), (1, 431)])
@pytest.mark.parametrize("is_line", [False, True])
async def test_a_head_may_have_so_many_bytes(
    connect: Connect, cut: int, more: int, status: int, *, is_line: bool
) -> None:
    line, rest = (f"POST {STREAMS}/", "/heartbeat HTTP/1.1\r\n" + HOST) if is_line else (HEARTBEAT + "X: ", "\r\n")
    filling = "y" * (MAX_HEAD_BYTES + more - len(line + rest) - 2)
    (answer,) = await answers(connect, pieces(f"{line}{filling}{rest}\r\n", cut), 1)

    assert answer[0] == status


async def test_what_is_sent_ahead_of_an_answer_waits_unread(connection: Connection) -> None:
    connection.send(f"{HEARTBEAT}\r\n")
    assert connection.is_reading()
    connection.send(f"{HEARTBEAT}\r\n" * 100)

    assert not connection.is_reading()
    assert not connection.protocol.pipeline
    assert [(await connection.answer()).status for _ in range(101)] == [404] * 101
    assert connection.is_reading()


async def test_an_application_that_wants_more_gets_none_of_the_next_request(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def wait(*_: object, **__: object) -> None:
        await connection.protocol.cycle.receive()
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(StreamTracker, "list", wait)
    connection.send(request("GET", STREAMS) + LIVEZ)
    await asked.wait()

    assert not connection.is_reading()


async def test_a_connection_on_which_nothing_comes_is_closed_without_an_answer(connection: Connection) -> None:
    connection.protocol.overdue()

    assert connection.closed
    assert not connection.received


@pytest.mark.parametrize("sent", ["G", f"{HEARTBEAT}X-Slow: ", f"{ADMISSION}Content-Length: 9\r\n\r\n{{"])
async def test_a_message_that_does_not_come_in_time_is_told_so(connection: Connection, sent: str) -> None:
    connection.send(sent)
    await asyncio.sleep(0)
    connection.protocol.overdue()
    answer = await connection.answer()

    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert answer.body["type"] == "urn:streamlimit:request-timeout"
    assert connection.closed


async def test_a_slow_message_has_its_time_from_its_first_byte_on(connection: Connection) -> None:
    protocol = connection.protocol
    connection.send("P")
    deadline = protocol.deadline
    protocol._deadlines.now += 5
    connection.send(f"{ADMISSION}Content-Length: 9\r\n"[1:])
    assert protocol.deadline == deadline
    connection.send("\r\n{")
    assert protocol.deadline == deadline + 5, "the body has its own"
    protocol._deadlines.now += 5
    connection.send(" ")
    assert protocol.deadline == deadline + 5


async def test_a_request_that_waits_for_the_service_is_waited_for(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def wait(*_: object, **__: object) -> None:
        await go_on.wait()
        raise StoreUnavailable("down")

    monkeypatch.setattr(StreamTracker, "list", wait)
    connection.send(request("GET", STREAMS) + HEARTBEAT[:10])
    await asyncio.sleep(0)
    connection.protocol.overdue()
    assert not connection.closed
    go_on.set()

    assert (await connection.answer()).status == 503


async def test_a_body_that_is_missing_behind_an_early_answer_is_not_answered_again(connection: Connection) -> None:
    connection.send(f"{HEARTBEAT}Content-Length: 9\r\n\r\n")
    assert (await connection.answer()).status == 404
    connection.protocol.overdue()

    assert connection.closed
    assert not connection.received


async def test_a_body_that_ends_early_ends_its_request(
    connection: Connection, fake_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    connection.send(f"{ADMISSION}{JSON}Content-Length: 9\r\n\r\n{{}}")
    await asyncio.sleep(0)
    connection.protocol.overdue()
    await asyncio.gather(*connection.protocol.tasks)

    assert not await fake_redis.keys("*alice*")
    assert [record.getMessage() for record in caplog.records] == ["Refused: 1 requests that did not arrive in time"]


async def test_a_client_that_does_not_read_is_cut_off(connection: Connection) -> None:
    connection.send(f"{HEARTBEAT}\r\n")
    await connection.answer()
    connection.protocol.pause_writing()
    connection.protocol.overdue()

    assert connection.closed


async def test_a_client_that_reads_after_all_goes_on(connection: Connection) -> None:
    connection.send(f"{HEARTBEAT}\r\n")
    await connection.answer()
    connection.protocol.pause_writing()
    waits = connection.protocol.deadline
    connection.protocol.resume_writing()

    assert connection.protocol.deadline > waits
    assert [status for status, _ in await answers(lambda: connection, [LIVEZ], 1)] == [200]


async def test_each_kind_of_refusal_is_counted(connect: Connect) -> None:
    connect().send("x\r\n\r\n")
    connect().send(f"{HEARTBEAT}{MANY_HEADERS}\r\n")
    slow, deaf, other = connect(), connect(), connect()
    slow.send("G")
    slow.protocol.overdue()
    deaf.protocol.pause_writing()
    deaf.protocol.overdue()
    other.send(f"GET /metrics HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")
    counted = dict(re.findall(r'requests_refused_total\{reason="(\w+)"\} (\S+)', await other.end()))

    assert counted.pop("too_many_connections") == "0.0"
    assert counted == dict.fromkeys(("malformed", "head_too_large", "too_slow", "not_reading"), "1.0")


async def test_many_refusals_are_one_line_in_the_log(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1_000):
        connect().send(f"evil-{number}\r\n\r\n")

    assert [record.getMessage() for record in caplog.records] == ["Refused: 1 malformed requests"]


def test_the_next_line_in_the_log_has_all_since_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    times = [0.0, 1.0, 2.0, 29.0, 30.0, 31.0, 59.0, 60.0]
    log = RefusalLog(lambda: times[0])
    while times:
        log.add("malformed" if times[0] < 40 else "too_many_connections", 10)
        del times[0]

    assert [record.getMessage() for record in caplog.records] == [
        "Refused: 1 malformed requests",
        "Refused: 4 malformed requests",
        "Refused: 1 malformed requests, 2 connections beyond MAX_CONNECTIONS (10)",
    ]


async def test_a_bug_at_the_start_of_a_request_is_no_fault_of_the_client(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(StreamTracker, "keep_live")
    connection.send(f"{HEARTBEAT}\r\n")

    assert (await connection.answer()).status == 500
    assert "AttributeError" in caplog.text


class _Timed:
    """A connection with a deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.calls = 0

    def overdue(self) -> None:
        self.calls += 1


class _Loop(asyncio.SelectorEventLoop):
    """A clock, and what is to be called when."""

    now = 100.0

    def time(self) -> float:
        return self.now


def test_connections_are_looked_at_once_a_second_while_there_are_any() -> None:
    loop = _Loop()
    early, late = _Timed(102), _Timed(200)
    connections = {early, late}
    deadlines = Deadlines(connections, loop)
    deadlines.watch()
    deadlines.watch()
    assert deadlines.after(5) == 106
    calls = []
    for loop.now in (101.0, 102.0, 103.0):
        loop.call_soon(loop.stop)
        loop.run_forever()
        calls.append(early.calls)
    assert calls == [0, 1, 2]
    assert not late.calls
    connections.clear()
    loop.now = 104.0
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert deadlines._timer is None
    loop.close()
