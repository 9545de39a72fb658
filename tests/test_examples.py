"""Every answer that the OpenAPI document tells of is one that a caller can get; its shape is checked on the way."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from streamlimit import DamagedKey, StoreUnavailable, StreamTracker, examples, handlers, wire
from streamlimit.authenticator import Authenticator
from streamlimit.callers import Caller, KeysUnavailable, NotAuthenticated, Role, TooManyFailures
from streamlimit.metrics import Metrics
from streamlimit.results import StreamEnded
from streamlimit.routes import OPERATIONS, Operation
from tests.conftest import Serve
from tests.documented import DOCUMENT
from tests.web import ALICE, INVENTED, JSON, STREAMS, app_of, raising, started

pytestmark = pytest.mark.anyio

HEADERS = {"cross-origin": {"Origin": "https://evil.example"}, "host-not-accepted": {"Host": "evil.example"}}
FAULTS = {
    "store-unavailable": StoreUnavailable("down"),
    "damaged-key": DamagedKey("user:{alice}"),
    "internal-error": RuntimeError("a bug"),
}


async def _another_player(*_: Any) -> Caller:
    return Caller(Role.PLAYER, "player", "bob")


IDENTITIES = {
    "unauthenticated": raising(NotAuthenticated("missing", "who?")),
    "too-many-requests": raising(TooManyFailures(1_000)),
    "keys-unavailable": raising(KeysUnavailable()),
    "forbidden": _another_player,
}
TRACKER_METHODS = [name for name, value in vars(StreamTracker).items() if callable(value) and not name.startswith("_")]


def documented() -> Iterator[Any]:
    for operation in OPERATIONS:
        responses = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]
        for status, answer in responses.items():
            (content,) = answer.get("content", {"": {}}).values()
            for name in content.get("examples", {}) if int(status) >= 400 else [""]:
                case = f"{operation.method} {operation.path} {status} {name}"
                yield pytest.param(operation, int(status), name, id=case)


@pytest.mark.parametrize(("operation", "status", "name"), list(documented()))
async def test_what_is_documented_can_be_got(
    serve: Serve, fake_redis: Redis, monkeypatch: pytest.MonkeyPatch, *, operation: Operation, status: int, name: str
) -> None:
    http = await serve(unknown_users="reject" if name == "unknown-user" else "admit")
    request = await _request(http, operation, name)
    await _prepare(http, fake_redis, monkeypatch, operation, name)

    answer = await http.request(operation.method, **request)

    assert answer.status_code == status
    if name and not operation.path.startswith("/add-stream/"):
        assert answer.json()["type"] == f"urn:streamlimit:{name}"


async def _request(http: httpx2.AsyncClient, operation: Operation, problem: str) -> dict[str, Any]:
    user_id, stream_id = "alice", INVENTED
    if problem == "invalid-request":
        user_id = "*"
    elif problem == "unknown-stream":
        stream_id = "x"
    elif "{stream_id}" in operation.path:
        stream_id = (await started(http))["stream_id"]
    request: dict[str, Any] = {"url": operation.path.format(user_id=user_id, stream_id=stream_id)}
    if problem in HEADERS:
        request["headers"] = HEADERS[problem]
    if problem == "body-too-large":
        request |= {"content": b" " * (operation.max_body_bytes + 1), "headers": JSON}
    elif problem == "unsupported-media-type":
        request |= {"content": b"x", "headers": {"Content-Type": "text/plain"}}
    elif problem == "invalid-request" and "{user_id}" not in operation.path:
        request["json"] = {}
    elif operation.body:
        request["json"] = next(iter(examples.REQUESTS[operation.body].values()))
    return request


async def _prepare(
    http: httpx2.AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch, operation: Operation, problem: str
) -> None:
    for method in TRACKER_METHODS if problem in FAULTS else ():
        monkeypatch.setattr(StreamTracker, method, raising(FAULTS[problem]))
    if problem in IDENTITIES:
        monkeypatch.setattr(Authenticator, "identify", IDENTITIES[problem])
    match problem:
        case "limit-reached":
            await http.put(ALICE, json={"limit": 0})
        case "stream-ended" if operation.handler is handlers.admit:
            monkeypatch.setattr(StreamTracker, "admit", _ended)
        case "stream-ended":
            await http.delete(STREAMS)
        case "recovering":
            await http.get("/readyz")
            await redis.flushall()
            await redis.hset("user:{alice}", "limit", "3")
        case "draining":
            app_of(http).state.draining = True
        case "internal-error":
            monkeypatch.setattr(wire, "Liveness", None)  # /livez asks nothing of the tracker
            monkeypatch.setattr(Metrics, "exposition", None)  # nor does /metrics
        case "":
            await http.put(ALICE, json={"limit": 3})


async def _ended(*_: Any, **__: Any) -> StreamEnded:
    return StreamEnded("terminated")
