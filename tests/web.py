"""What tests of the HTTP contract have in common: paths, field sets, and checks of an answer."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from redis.asyncio import Redis
from starlette.applications import Starlette

from tests.stores import stored

ALICE = "/v1/users/alice"
STREAMS = f"{ALICE}/streams"
INVENTED = "1.AaIK0_JpA3awvPVL1Sg.b402MtFGMyX3vA59"
STREAM = f"{STREAMS}/{INVENTED}"
MALFORMED_IDS = ["x", "1", "1.", "0" + INVENTED[1:], INVENTED + "x", "1..", "%20", "%00", "x" * 2000, "%7B%7D"]
JSON = {"Content-Type": "application/json"}

PLAYBACK = {"stream_ref", "user_id", "seat", "device_id", "device_name", "content_id", "started_at"}
LISTED = PLAYBACK | {"expires_at"}
ENDED = PLAYBACK | {"reason"}
LEASE = {"stream_id", "expires_at", "ttl_seconds", "heartbeat_seconds"}
ADMISSION = LISTED | LEASE | {"live", "limit", "over_limit", "provisional", "ended"}
PROBLEM = {"type", "title", "status", "detail"}


async def started(http: httpx2.AsyncClient, user_id: str = "alice", key: str = "", **body: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return ok(await http.post(f"/v1/users/{user_id}/streams", json=body, headers=headers), ADMISSION, 201)


def app_of(http: httpx2.AsyncClient) -> Starlette:
    """The application that a client of this process asks."""
    assert isinstance(http._transport, httpx2.ASGITransport)
    assert isinstance(http._transport.app, Starlette)
    return http._transport.app


async def refs(http: httpx2.AsyncClient, user_id: str = "alice") -> list[str]:
    return [one["stream_ref"] for one in (await http.get(f"/v1/users/{user_id}/streams")).json()["streams"]]


def ok(answer: httpx2.Response, fields: set[str], status: int = 200) -> Any:
    """The body of a success with exactly these fields."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == fields
    return answer.json()


def no_content(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["cache-control"] == "no-store"


def problem(answer: httpx2.Response, status: int, name: str, *fields: str) -> Any:
    """The body of an error of this type that names these fields."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) >= PROBLEM
    assert (body["type"], body["status"]) == (f"urn:streamlimit:{name}", status)
    assert body["title"]
    assert body["detail"]
    assert [error["field"] for error in body.get("errors", [])] == list(fields)
    assert all(error["message"] for error in body.get("errors", []))
    if status in (409, 429, 503):
        assert re.fullmatch("[1-9][0-9]*", answer.headers["retry-after"])
    return body


def legacy_error(answer: httpx2.Response, status: int) -> None:
    body = ok(answer, {"can_add_stream", "errors"}, status)
    assert body["can_add_stream"] is None
    assert isinstance(body["errors"], str)
    assert body["errors"]


async def nothing_is_stored(redis: Redis) -> bool:
    return not await stored(redis)


def raising(error: Exception) -> Callable[..., Awaitable[Any]]:
    async def method(*_: Any, **__: Any) -> Any:
        raise error

    return method
