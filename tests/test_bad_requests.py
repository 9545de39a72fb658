"""The HTTP contract: errors that any request may meet."""

import re
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from streamlimit import StoreUnavailable, StreamTracker
from tests.web import (
    ALICE,
    INVENTED,
    JSON,
    PROBLEM,
    STREAM,
    STREAMS,
    nothing_is_stored,
    problem,
    raising,
)

pytestmark = pytest.mark.anyio


# Errors that any request may meet.


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/users",
        "/v1/users/",
        f"{ALICE}/",
        f"{STREAMS}/",
        f"{STREAM}/",
        f"{STREAM}/heartbeat/",
        "/livez/",
        "/V1/users/alice",
        "/v1/users//streams",
        "/v2/users/alice",
        "/add-stream",
        "/add-streams",
        "/docs/",
        "/%FF",
        f"{STREAMS}%0A",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_not_found(http: httpx2.AsyncClient, method: str, path: str) -> None:
    problem(await http.request(method, path), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (ALICE, "DELETE, GET, HEAD, PUT"),
        (STREAMS, "DELETE, GET, HEAD, POST"),
        (STREAM, "DELETE, GET, HEAD"),
        (f"{STREAM}/heartbeat", "POST"),
        (f"{STREAM}/release", "POST"),
        (f"{ALICE}/admission", "GET, HEAD"),
        ("/v1/heartbeats", "POST"),
        ("/livez", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "TRACE", "BREW"])
async def test_a_method_that_a_path_has_not_is_told_those_it_has(
    http: httpx2.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await http.request(method, path)

    problem(answer, 405, "method-not-allowed")
    assert ", ".join(sorted(answer.headers["allow"].split(", "))) == allowed


KIB = 1024


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize(
    ("method", "path", "body", "maximum", "status"),
    [
        ("POST", STREAMS, b"{}", 16 * KIB, 201),
        ("PUT", ALICE, b'{"limit": 3}', 16 * KIB, 200),
        ("POST", "/v1/heartbeats", b'{"streams": []}', 512 * KIB, 200),
    ],
)
async def test_a_body_of_the_maximum_is_read_and_one_byte_more_is_too_large(
    http: httpx2.AsyncClient, *, method: str, path: str, body: bytes, maximum: int, status: int, chunked: bool
) -> None:
    async def send(content: bytes) -> httpx2.Response:
        return await http.request(method, path, content=chunks(content) if chunked else content, headers=JSON)

    problem(await send(body.ljust(maximum + 1)), 413, "body-too-large")
    assert (await send(body.ljust(maximum))).status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", f"{STREAM}/heartbeat"), ("POST", f"{STREAM}/release"), ("DELETE", STREAM), ("DELETE", STREAMS)),
        *(("DELETE", ALICE), ("GET", ALICE), ("GET", STREAMS), ("GET", STREAM)),
    ],
)
async def test_a_body_that_nobody_asked_for_may_not_be_too_large_either(
    http: httpx2.AsyncClient, method: str, path: str
) -> None:
    problem(await http.request(method, path, content=b" " * (16 * KIB + 1)), 413, "body-too-large")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", STREAMS, b"{}"), ("PUT", ALICE, b'{"limit": 3}'), ("POST", "/v1/heartbeats", b'{"streams": []}')],
)
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "json", ""])
async def test_a_body_of_another_type_than_json_is_refused(
    http: httpx2.AsyncClient, fake_redis: Redis, *, method: str, path: str, body: bytes, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    problem(await http.request(method, path, content=body, headers=headers), 415, "unsupported-media-type")
    assert await nothing_is_stored(fake_redis)


BAD_USER_IDS = [
    "%7Balice%7D",
    "a%7B",
    "a%7D",
    "%20",
    "a%20",
    "a%0A",
    "%0Aa",
    "%00",
    "a%00",
    "%FF",
    "%C3%BC",
    "%E2%82%AC",
]
BAD_USER_IDS += ["%2561", "a%C0%AFb", "%D0%B0lice", "a%E2%80%AE", "a%E2%80%8B", "a%27%29", "a%0D%0ADEL"]
BAD_USER_IDS += ["a%2Fb", "a%2fb", "..%2Falice", "a*", "a%3F", "a%5B", "a%25", "a,b", "%2E", "%2e%2e", "x" * 129, "%5C"]
USER_ROUTES = [
    *(("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/streams"), ("GET", "/streams"), ("DELETE", "/streams")),
    *(("GET", "/admission"), ("GET", "/streams/ID"), ("DELETE", "/streams/ID"), ("DELETE", "/streams/REF")),
    *(("POST", "/streams/ID/heartbeat"), ("POST", "/streams/ID/release")),
    *(("POST", "/streams/x/heartbeat"), ("POST", "/streams/x/release"), ("GET", "/streams/x")),
]


@pytest.mark.parametrize("user_id", BAD_USER_IDS)
async def test_a_bad_user_id_is_refused_by_every_route(
    http: httpx2.AsyncClient, fake_redis: Redis, user_id: str
) -> None:
    field = "path" if "%2f" in user_id.lower() else "user_id"
    for method, rest in USER_ROUTES:
        path = f"/v1/users/{user_id}{rest}".replace("ID", INVENTED).replace("REF", INVENTED.rpartition(".")[0])
        answer = await http.request(method, path, json={"limit": 3} if method == "PUT" else None)
        problem(answer, 422, "invalid-request", field)
    assert await nothing_is_stored(fake_redis)


TEXTS = ["", "x" * 65, "ü" * 33, "a\n", "\x00", "\x7f", "\x85", 5, True, ["a"], {}]
REF = INVENTED.rpartition(".")[0]
BAD_FIELDS: list[tuple[str, Any]] = [
    *product(["device_id"], [*TEXTS, "ü", "📺", "a\u200b"]),
    *product(["device_name", "content_id"], TEXTS),
    *product(["take_over"], ["", "x", "1", "1.", INVENTED, f"0{REF[1:]}", f"{REF} ", f"{REF}\n", f"{REF}*", 1, []]),
    *product(["on_limit"], ["", "Evict", "replace", None, True, 1]),
    *product(["limit"], [-1, 11, 64, 65, 255, 256, 10**30, 1e30, "3", 2.5, True, [], {}]),
    *product(["user_id", "Device_id", "enforce"], ["x"]),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
async def test_an_admission_with_a_bad_field_is_refused(
    http: httpx2.AsyncClient, fake_redis: Redis, field: str, value: Any
) -> None:
    problem(await http.post(STREAMS, json={field: value}), 422, "invalid-request", field)
    assert await nothing_is_stored(fake_redis)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", str(2**53 + 1), "9" * 5_000])
@pytest.mark.parametrize(("method", "path"), [("POST", STREAMS), ("PUT", ALICE)])
async def test_a_number_beyond_all_bounds_is_refused(
    http: httpx2.AsyncClient, fake_redis: Redis, method: str, path: str, number: str
) -> None:
    answer = await http.request(method, path, content=f'{{"limit": {number}}}', headers=JSON)

    assert answer.json()["errors"][0]["field"] in {"limit", "body"}
    problem(answer, 422, "invalid-request", answer.json()["errors"][0]["field"])
    assert await nothing_is_stored(fake_redis)


@pytest.mark.parametrize("limit", ["3", "3.0", "3e0"])
async def test_a_whole_number_may_be_written_in_any_way(http: httpx2.AsyncClient, limit: str) -> None:
    answer = await http.put(ALICE, content=f'{{"limit": {limit}}}', headers=JSON)

    assert answer.json()["limit"] == 3


async def test_all_bad_fields_of_a_body_are_named_at_once(http: httpx2.AsyncClient) -> None:
    answer = await http.post(STREAMS, json={"device_id": "", "content_id": 5, "more": 1})
    problem(answer, 422, "invalid-request", "device_id", "content_id", "more")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *product([{}, *({"limit": limit} for limit in (None, -1, 11, 65, 10**30, "3", 2.5, True))], ["limit"]),
        *product([{"limit": 3, "end_excess": value} for value in (None, 1, "true")], ["end_excess"]),
        ({"limit": 3, "user_id": "bob"}, "user_id"),
    ],
)
async def test_a_record_with_a_bad_field_is_refused(
    http: httpx2.AsyncClient, fake_redis: Redis, body: Any, field: str
) -> None:
    problem(await http.put(ALICE, json=body), 422, "invalid-request", field)
    assert await nothing_is_stored(fake_redis)


ITEM = {"user_id": "alice", "stream_id": INVENTED}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *product([{}, {"streams": None}, {"streams": {}}, {"streams": "x"}], ["streams"]),
        ({"streams": [], "more": 1}, "more"),
        ({"streams": [ITEM, {"user_id": "alice"}]}, "streams.1.stream_id"),
        ({"streams": [ITEM | {"user_id": 5}]}, "streams.0.user_id"),
        ({"streams": [ITEM | {"more": 5}]}, "streams.0.more"),
        ({"streams": [None]}, "streams.0"),
    ],
)
async def test_a_batch_of_another_shape_is_refused(
    http: httpx2.AsyncClient, fake_redis: Redis, body: Any, field: str
) -> None:
    problem(await http.post("/v1/heartbeats", json=body), 422, "invalid-request", field)
    assert await nothing_is_stored(fake_redis)


BAD_BODIES = [b"null", b"[]", b'"x"', b"5", b"{", b'{"limit": 3,}', b"{} {}", b"\xff", b" "]
BAD_BODIES += [b"[" * 10_000, b'{"device_name": "\xff"}', b'{"device_name": "\\ud800"}', b'{"a": 1} x']


@pytest.mark.parametrize("body", BAD_BODIES)
@pytest.mark.parametrize(("method", "path"), [("POST", STREAMS), ("PUT", ALICE), ("POST", "/v1/heartbeats")])
async def test_what_is_no_json_object_is_refused(
    http: httpx2.AsyncClient, fake_redis: Redis, method: str, path: str, body: bytes
) -> None:
    answer = await http.request(method, path, content=body, headers=JSON)

    problem(answer, 422, "invalid-request", "body")
    assert await nothing_is_stored(fake_redis)


@pytest.mark.parametrize(("method", "path"), [("PUT", ALICE), ("POST", "/v1/heartbeats")])
async def test_a_body_that_is_needed_may_not_be_empty(http: httpx2.AsyncClient, method: str, path: str) -> None:
    problem(await http.request(method, path, headers=JSON), 422, "invalid-request", "body")


@pytest.mark.parametrize("keys", [[""], ["x" * 256], ["a b"], ["a\tb"], ["ü"], ["\x7f"], ["a", "a"], ["a", "b"]])
async def test_a_bad_idempotency_key_is_refused(http: httpx2.AsyncClient, fake_redis: Redis, keys: list[str]) -> None:
    answer = await http.post(STREAMS, headers=[(b"Idempotency-Key", key.encode("latin-1")) for key in keys])

    problem(answer, 422, "invalid-request", "Idempotency-Key")
    assert await nothing_is_stored(fake_redis)


@pytest.mark.parametrize("device_id", ["", "x" * 65, "%C3%BC", "%00", "a%0A", "%FF"])
async def test_the_check_of_a_bad_device_is_refused(
    http: httpx2.AsyncClient, fake_redis: Redis, device_id: str
) -> None:
    answer = await http.get(f"{ALICE}/admission?device_id={device_id}")

    problem(answer, 422, "invalid-request", "device_id")
    assert await nothing_is_stored(fake_redis)


each_call = pytest.mark.parametrize(
    ("method", "path", "called"),
    [
        ("POST", STREAMS, "admit"),
        ("POST", f"{STREAM}/heartbeat", "heartbeat"),
        ("POST", f"{STREAM}/release", "release"),
        ("DELETE", STREAM, "release"),
        ("DELETE", f"{STREAMS}/{REF}", "terminate"),
        ("GET", STREAM, "get"),
        ("GET", STREAMS, "list"),
        ("GET", f"{ALICE}/admission", "check"),
        ("DELETE", STREAMS, "terminate_all"),
        ("GET", ALICE, "user_limit"),
        ("PUT", ALICE, "set_user_limit"),
        ("DELETE", ALICE, "delete_user"),
        ("POST", "/v1/heartbeats", "heartbeat_many"),
        ("GET", "/readyz", "health"),
    ],
)
BODIES = {"PUT": {"limit": 3}, "/v1/heartbeats": {"streams": []}}


async def failing(http: httpx2.AsyncClient, method: str, path: str) -> httpx2.Response:
    return await http.request(method, path, json=BODIES.get(method, BODIES.get(path)))


@each_call
async def test_a_store_out_of_reach_is_neither_denied_nor_ended(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, method: str, path: str, called: str
) -> None:
    monkeypatch.setattr(StreamTracker, called, raising(StoreUnavailable("redis at 10.0.0.1 is down")))

    answer = await failing(http, method, path)

    assert set(problem(answer, 503, "store-unavailable")) == PROBLEM
    assert "10.0.0.1" not in answer.text


@each_call
async def test_a_bug_of_ours_reveals_nothing(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, method: str, path: str, called: str
) -> None:
    monkeypatch.setattr(StreamTracker, called, raising(RuntimeError("password=hunter2")))

    answer = await failing(http, method, path)

    assert set(problem(answer, 500, "internal-error")) == PROBLEM
    assert not re.search("hunter2|RuntimeError|Traceback|[.]py", answer.text)


async def test_the_process_is_up_while_the_store_is_out_of_reach(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StreamTracker, "health", raising(StoreUnavailable("down")))

    assert (await http.get("/livez")).status_code == 200


async def test_a_body_that_is_too_large_is_refused_before_anything_is_done(http: httpx2.AsyncClient) -> None:
    url = f"{STREAMS}/{(await http.post(STREAMS)).json()['stream_id']}"

    problem(await http.post(f"{url}/release", content=b" " * (16 * KIB + 1)), 413, "body-too-large")
    assert (await http.get(url)).status_code == 200


async def test_limit_0_has_nothing_to_wait_for(http: httpx2.AsyncClient) -> None:
    answer = await http.post(STREAMS, json={"limit": 0})

    assert answer.status_code == 409
    assert "retry-after" not in answer.headers
