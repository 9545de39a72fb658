"""From a URL to a Redis client with deadlines of its own."""

from typing import Final
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from streamlimit.fields import checked

CONNECT_TIMEOUT_SECONDS: Final = 0.3
SOCKET_TIMEOUT_SECONDS: Final = 0.5
POOL_TIMEOUT_SECONDS: Final = 0.9
"""How long a crowd queues for a connection: nearly the whole budget of an operation, but told apart from an outage."""

MAX_CONNECTIONS: Final = 64

MEMORY_URL: Final = "memory://"


def connect(url: str) -> Redis:
    """Make a client; nothing is sent yet.

    redis-py's own retries are off, since they would send a script again without our knowing; `Store` repeats what
    may be repeated. The pool blocks when it is exhausted, where the default one would report an outage at once.

    Args:
        url: `redis://`, `rediss://`, `unix://` as redis-py reads them, or `memory://` for fakeredis.

    Raises:
        InvalidInput: The URL is of no known form.
    """
    if url == MEMORY_URL:
        # Only here: it takes longer to import than the rest of the package.
        from fakeredis import FakeAsyncRedis  # noqa: PLC0415

        memory: Redis = FakeAsyncRedis(decode_responses=True)
        return memory
    return Redis.from_pool(_make_pool(checked("redis_url", check_url, url)))


def check_url(url: str) -> str:
    """Return the URL, or raise ValueError. An empty one stands for the embedded store."""
    if url in ("", MEMORY_URL):
        return url
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must begin with redis://, rediss:// or unix://, or be memory://")
    try:
        _ = parts.port
    except ValueError:
        # urllib's own message shows what it took for the port, which may be a piece of the password.
        raise ValueError("the port must be a number; in a password write # as %23, / as %2F, @ as %40") from None
    if parts.scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValueError("the path must be a database number, as in redis://127.0.0.1:6379/0")
    try:
        # It reports options that redis-py does not know.
        _make_pool(url).make_connection()  # type: ignore[no-untyped-call]
    except TypeError as error:
        # redis-py hands the options on to a constructor, which says: … unexpected keyword argument 'name'
        raise ValueError(f"has an option that redis-py does not know: {str(error).rpartition(' ')[2]}") from None
    return url


def _make_pool(url: str) -> BlockingConnectionPool:
    return BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_TIMEOUT_SECONDS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        # What an operator wrote by hand must not break a listing.
        encoding_errors="replace",
        # RESP2 is what every server and proxy speaks, and it has no push messages to handle.
        protocol=2,
        legacy_responses=False,
        # Shown to operators by CLIENT LIST.
        client_name="streamlimit",
    )
