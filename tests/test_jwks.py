"""Keys that are fetched from a URL: they may change, be slow, be nonsense, or be out of reach."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamlimit import jwks
from streamlimit.callers import KeysUnavailable
from streamlimit.jwks import RemoteKeys
from streamlimit.token_settings import ASYMMETRIC
from tests.helpers import until
from tests.issuer import key_set, public_jwk
from tests.key_server import KeyServer, key_server

pytestmark = pytest.mark.anyio

OLD = public_jwk("ES256", kid="old")
NEW = public_jwk("ES256", kid="new")
NEVER = 3600

Open = Callable[..., Awaitable[RemoteKeys]]


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server(key_set(OLD)) as server:
        yield server


@pytest.fixture
async def remote(server: KeyServer) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def start(**seconds: float) -> RemoteKeys:
            options: dict[str, Any] = {"refresh_seconds": NEVER, "pause_seconds": 0} | seconds
            return await stack.enter_async_context(RemoteKeys(server.url, ASYMMETRIC, **options))

        yield start


async def knows(keys: RemoteKeys, kid: str) -> bool:
    try:
        return bool(await keys.find(kid))
    except KeysUnavailable:
        return False


async def test_known_keys_are_fetched_once(remote: Open, server: KeyServer) -> None:
    keys = await remote()

    assert [await knows(keys, "old") for _ in range(100)] == [True] * 100
    assert server.asked == 1


async def test_no_secret_is_taken_from_a_url_whatever_is_allowed(server: KeyServer) -> None:
    secret = {"kty": "oct", "kid": "secret", "alg": "HS256", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg"}
    server.body = key_set(OLD, secret).encode()
    async with RemoteKeys(server.url, ["HS256", "ES256"], refresh_seconds=NEVER, pause_seconds=0) as keys:
        assert await knows(keys, "old")
        assert not await knows(keys, "secret")


async def test_each_fetch_is_told(remote: Open, server: KeyServer) -> None:
    told: list[str] = []
    keys = await remote(refresh_seconds=0.02)
    keys.on_fetch = told.append

    async def fetched_again() -> bool:
        return "fetched" in told

    async def failed() -> bool:
        return told[-1] == "failed"

    await until(fetched_again)
    server.body = b"nonsense"
    await until(failed)


async def test_a_new_key_is_fetched_when_the_first_token_names_it(remote: Open, server: KeyServer) -> None:
    keys = await remote()
    server.body = key_set(OLD, NEW).encode()

    assert await knows(keys, "new")
    assert await knows(keys, "old")


async def test_a_key_that_was_taken_out_is_forgotten(remote: Open, server: KeyServer) -> None:
    keys = await remote(refresh_seconds=0.02)
    server.body = key_set(NEW).encode()

    async def is_forgotten() -> bool:
        return "old" not in keys._keys

    await until(is_forgotten)
    assert not await knows(keys, "old")


async def test_tokens_that_name_unknown_keys_have_them_fetched_only_once_in_a_while(
    remote: Open, server: KeyServer
) -> None:
    keys = await remote(pause_seconds=NEVER)
    found = await asyncio.gather(*(keys.find(f"invented-{number}") for number in range(100)))

    assert not any(found)
    assert server.asked == 1


async def test_all_that_wait_for_an_unknown_key_wait_for_one_fetch(remote: Open, server: KeyServer) -> None:
    keys = await remote()
    server.body = key_set(NEW).encode()

    assert all(await asyncio.gather(*(keys.find("new") for _ in range(100))))
    assert server.asked == 2


async def test_a_token_without_a_key_has_nothing_fetched(remote: Open, server: KeyServer) -> None:
    assert not await (await remote()).find(None)
    assert server.asked == 1


async def test_keys_go_on_working_while_the_server_is_gone(
    remote: Open, server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    keys = await remote()
    server.stop()

    with pytest.raises(KeysUnavailable):
        await keys.find("new")
    assert await knows(keys, "old")
    assert "those that are known go on working" in caplog.text


async def test_without_any_key_nobody_is_called_a_stranger(server: KeyServer, remote: Open) -> None:
    server.status = 503
    keys = await remote()

    with pytest.raises(KeysUnavailable):
        await keys.find("old")
    server.status = 200
    assert await knows(keys, "old")


async def test_after_a_failure_keys_come_without_a_request_that_asks_for_them(
    remote: Open, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_RETRY_SECONDS", 0.02)
    server.status = 503
    keys = await remote()
    server.status = 200

    async def is_there() -> bool:
        return "old" in keys._keys

    assert await until(is_there)


async def test_a_failure_is_told_once(remote: Open, server: KeyServer, caplog: pytest.LogCaptureFixture) -> None:
    keys = await remote()
    server.status = 500
    for _ in range(3):
        assert not await knows(keys, "new")

    assert caplog.text.count("it answers 500") == 1


async def test_nobody_waits_for_a_server_that_hangs(
    remote: Open, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await remote()
    server.may_answer.clear()
    monkeypatch.setattr(jwks, "_PATIENCE_SECONDS", 0.01)

    with pytest.raises(KeysUnavailable):  # waits that long
        await keys.find("new")
    assert not keys._fetch.done()
    assert await knows(keys, "old")  # does not wait at all
    assert not keys._fetch.done()


async def test_a_server_that_hangs_is_given_up_and_asked_again(
    remote: Open, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_FETCH_SECONDS", 0.05)
    server.may_answer.clear()
    keys = await remote()
    await until(lambda: _is_done(keys))
    server.may_answer.set()

    assert await until(lambda: knows(keys, "old"))


async def _is_done(keys: RemoteKeys) -> bool:
    return keys._fetch.done()


async def test_the_service_starts_while_the_server_hangs(
    remote: Open, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_PATIENCE_SECONDS", 0.01)
    server.may_answer.clear()
    keys = await remote()

    with pytest.raises(KeysUnavailable):
        await keys.find("old")
    server.may_answer.set()
    assert await until(lambda: knows(keys, "old"))


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, b""),
        (200, {}, b"<html>"),
        (200, {}, b"[" * 100_000),
        (200, {}, b"\xff\xfe"),
        (200, {}, b'{"keys": []}'),
        (200, {}, key_set(public_jwk("RS256", use="enc")).encode()),
        (200, {}, key_set({"kty": "oct", "kid": "new", "k": "c2VjcmV0" * 8}).encode()),
        (200, {}, key_set(NEW).encode() + b" " * 256 * 1024),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(key_set(NEW).encode())),
        (302, {"Location": "/elsewhere"}, key_set(NEW).encode()),
        (404, {}, key_set(NEW).encode()),
    ],
    ids=["nothing", "html", "deep", "no UTF-8", "empty", "no use", "a secret", "huge", "gzip", "redirect", "404"],
)
async def test_what_is_no_key_set_is_left(
    remote: Open, server: KeyServer, status: int, headers: dict[str, str], body: bytes
) -> None:
    keys = await remote()
    server.status, server.headers, server.body = status, headers, body

    assert not await knows(keys, "new")
    assert await knows(keys, "old")
    assert server.asked == 2
