import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import pytest
from redis.asyncio import Redis

from streamlimit import Rules, StreamTracker
from streamlimit.app import create_app
from streamlimit.audit import Audit
from streamlimit.authenticator import Authenticator
from tests.cluster import Cluster
from tests.documented import check_documented
from tests.helpers import patient
from tests.sentinels import Sentinels
from tests.servers import KEPT, RedisServer, redis7, running, valkey
from tests.stores import QUICK_EVERYWHERE, TOPOLOGIES, Backend, backend_of, open_tracker

SECRET = "a secret for tests, long enough to be one"
RULES = Rules(ttl_ms=3_000, heartbeat_ms=1_000)

BOUND_SECONDS = 120
"""Of a quick test; the slowest takes some seconds on an idle machine."""

UNDISTURBED = 30_000
"""Milliseconds in which a server that is slow, under the load of all tests, is not taken for one that fails."""

TrackerFactory = Callable[..., Awaitable[StreamTracker]]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


def missing(tool: str) -> NoReturn:
    """Skip the test; where CI runs, everything must be there."""
    tools = "redis-server redis-tools curl chromium faketime wrk nginx caddy haproxy default-jdk-headless"
    reason = f"{tool} is not installed: apt-get install {tools}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname not in QUICK_EVERYWHERE:
            given = item.callspec.params if hasattr(item, "callspec") else {}
            if given.get("backend") in ("redis", *TOPOLOGIES):
                item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Let a quick test that waits for what never comes fail: a defect must not hang all others."""
    if item.get_closest_marker("slow"):
        return (yield)

    def give_up(*_: object) -> NoReturn:
        pytest.fail(f"it has not ended within {BOUND_SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(BOUND_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pytest_collection_finish() -> None:
    """To look through all that was imported, at a collection of garbage, takes a tenth of the time that a call has."""
    gc.freeze()


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


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("sentinels"), down_after_ms=UNDISTURBED) as sentinels:
        yield sentinels


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), node_timeout_ms=UNDISTURBED) as cluster:
        yield cluster


@pytest.fixture
def empty_cluster(cluster: Cluster) -> Iterator[Cluster]:
    for node in cluster.primaries:
        node.command("FLUSHALL")
    yield cluster
    cluster.mend()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One of the test's own, to break. It keeps no file: a restart loses everything."""
    with running(valkey(tmp_path)) as server:
        yield server


@pytest.fixture
async def operator(server: RedisServer) -> AsyncIterator[Redis]:
    """What an operator sees on it with redis-cli."""
    async with patient(server) as client:
        yield client


@pytest.fixture(params=["fakeredis", "valkey", "redis", *TOPOLOGIES])
def backend(request: pytest.FixtureRequest) -> Backend:
    return backend_of(request.param, request)


@pytest.fixture
async def redis(backend: Backend, anyio_backend: str) -> AsyncIterator[Redis]:  # noqa: ARG001 - anyio runs the fixture
    """An empty store, of each kind in turn: what the operator sees with redis-cli."""
    async with backend.connect() as client:
        await client.flushall()
        yield client


@pytest.fixture
async def make_tracker(redis: Redis, backend: Backend) -> AsyncIterator[TrackerFactory]:
    """Open another tracker on the same store, as another process of the service would."""
    async with AsyncExitStack() as stack:

        async def make(rules: Rules = RULES, *, secrets: tuple[str, ...] = (SECRET,), **options: Any) -> StreamTracker:
            return await stack.enter_async_context(open_tracker(redis, backend.url, list(secrets), rules, **options))

        yield make


@pytest.fixture
async def tracker(make_tracker: TrackerFactory) -> StreamTracker:
    return await make_tracker()


@pytest.fixture
def app_backend(request: pytest.FixtureRequest) -> Backend:
    """Where the app keeps its streams; tests/test_app_on_topologies.py puts other ones here."""
    return backend_of("fakeredis", request)


@pytest.fixture
async def fake_redis(app_backend: Backend) -> AsyncIterator[Redis]:
    async with app_backend.connect() as client:
        await client.flushall()
        yield client


@pytest.fixture
async def serve(fake_redis: Redis, app_backend: Backend) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(
            authenticator: Authenticator | None = None,
            operator_port: int | None = None,
            origins: Sequence[str] = (),
            audit: Audit | None = None,
            *,
            any_host: bool = False,
            **rules: Any,
        ) -> httpx2.AsyncClient:
            app = create_app(
                lambda: open_tracker(fake_redis, app_backend.url, [SECRET], Rules(**rules)),
                authenticator,
                operator_port=operator_port,
                origins=origins,
                audit=audit,
                any_host=any_host,
            )
            await stack.enter_async_context(app.router.lifespan_context(app))
            http = httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=app, raise_app_exceptions=False),
                base_url="http://localhost",
                event_hooks={"response": [check_documented]},
            )
            return await stack.enter_async_context(http)

        yield start


@pytest.fixture
async def http(serve: Serve) -> httpx2.AsyncClient:
    return await serve()
