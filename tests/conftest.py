import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, NoReturn

import httpx2
import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from streamlimit import Rules, StreamTracker
from streamlimit.app import create_app
from streamlimit.connection import connect
from tests.documented import check_documented
from tests.servers import KEPT, RedisServer, redis7, running, valkey

SECRET = "a secret for tests, long enough to be one"
RULES = Rules(ttl_ms=3_000, heartbeat_ms=1_000)

TrackerFactory = Callable[..., Awaitable[StreamTracker]]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


def missing(tool: str) -> NoReturn:
    """Skip the test; where CI runs, everything must be there."""
    reason = f"{tool} is not installed: apt-get install redis-server redis-tools curl chromium faketime"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running(valkey(tmp_path_factory.mktemp("valkey"), *KEPT)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = redis7(tmp_path_factory.mktemp("redis"), *KEPT)
    if server is None:
        missing("redis-server")
    with running(server):
        yield server


@pytest.fixture(params=["fakeredis", "valkey", "redis"])
async def redis(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Redis]:  # noqa: ARG001 - anyio runs the fixture
    """An empty store, of each kind in turn: what the operator sees with redis-cli."""
    if request.param == "fakeredis":
        client: Redis = FakeAsyncRedis(decode_responses=True)
    else:
        client = connect(request.getfixturevalue(f"{request.param}_server").url)
    async with client:
        await client.flushall()
        yield client


@pytest.fixture
async def make_tracker(redis: Redis) -> AsyncIterator[TrackerFactory]:
    """Open another tracker on the same store, as another process of the service would."""
    async with AsyncExitStack() as stack:

        async def make(rules: Rules = RULES, *, secrets: tuple[str, ...] = (SECRET,), **options: Any) -> StreamTracker:
            if isinstance(redis, FakeAsyncRedis):
                client: Redis = FakeAsyncRedis(connection_pool=redis.connection_pool)
            else:
                client = connect("redis://{host}:{port}".format(**redis.connection_pool.connection_kwargs))
            return await stack.enter_async_context(StreamTracker(client, list(secrets), rules, **options))

        yield make


@pytest.fixture
async def tracker(make_tracker: TrackerFactory) -> StreamTracker:
    return await make_tracker()


@pytest.fixture
async def fake_redis() -> AsyncIterator[Redis]:
    async with FakeAsyncRedis(server=FakeServer(), decode_responses=True) as client:
        yield client


@pytest.fixture
async def serve(fake_redis: Redis) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(**rules: Any) -> httpx2.AsyncClient:
            client: Redis = FakeAsyncRedis(connection_pool=fake_redis.connection_pool)
            app = create_app(lambda: StreamTracker(client, [SECRET], Rules(**rules)))
            await stack.enter_async_context(app.router.lifespan_context(app))
            http = httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=app, raise_app_exceptions=False),
                base_url="http://streamlimit",
                event_hooks={"response": [check_documented]},
            )
            return await stack.enter_async_context(http)

        yield start


@pytest.fixture
async def http(serve: Serve) -> httpx2.AsyncClient:
    return await serve()
