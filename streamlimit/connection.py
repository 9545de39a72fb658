"""From a URL to redis-py's client, with deadlines of its own."""

from typing import Any, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from streamlimit.fields import checked
from streamlimit.sentinels import Sentinels
from streamlimit.urls import port_of, split_url

MEMORY_URL: Final = "memory://"

_MAX_CONNECTIONS: Final = 64
"""To one server; node.py has fewer batches under way."""

_SERVERS: Final = ("redis", "rediss", "unix")
_SENTINELS: Final = ("redis+sentinel", "rediss+sentinel")
_CLUSTERS: Final = ("redis+cluster", "rediss+cluster")
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


def connect(url: str, budget_seconds: float = 1.0) -> Redis | RedisCluster:
    """Make a client; nothing is sent yet.

    redis-py's own retries are off, since they would send a script again without our knowing; `Store` repeats what
    may be repeated.

    Args:
        url: `redis://`, `rediss://`, `unix://` as redis-py reads them;
            `redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE`, the addresses of Sentinels, which may
            ask for `?sentinel_username=` and `?sentinel_password=`; `redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT`,
            some nodes of a Cluster; with TLS `rediss+sentinel://`, `rediss+cluster://`; or `memory://` for fakeredis.
        budget_seconds: How long an operation may take: connecting takes at most a third of it, an answer half.

    Raises:
        InvalidInput: The URL is of no known form.
    """
    return _make_client(checked("redis_url", check_url, url), budget_seconds)


def check_url(url: str) -> str:
    """Return the URL, or raise ValueError. An empty one stands for the embedded store."""
    if url in ("", MEMORY_URL):
        return url
    parts = split_url(url)
    if parts.scheme not in (*_SERVERS, *_SENTINELS, *_CLUSTERS):
        raise ValueError(
            "must begin with redis://, rediss:// or unix://, with redis+sentinel:// or redis+cluster:// (rediss+… for "
            "TLS), or be memory://"
        )
    _addresses(parts)
    _check_path(parts.scheme, parts.path.strip("/"))
    try:
        # It reports options that redis-py does not know.
        client = _make_client(url, 1)
        if isinstance(client, Redis):
            client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except TypeError as error:
        # redis-py hands the options on to a constructor, which says: … unexpected keyword argument 'name'
        raise ValueError(f"has an option that redis-py does not know: {str(error).rpartition(' ')[2]}") from None
    except RedisError as error:
        raise ValueError(str(error)) from None
    return url


def _check_path(scheme: str, path: str) -> None:
    if scheme in _SENTINELS:
        if not path or "/" in path:
            raise ValueError("the path must be the service's name, as in redis+sentinel://127.0.0.1:26379/mymaster")
    elif scheme in _CLUSTERS:
        if path:
            raise ValueError("a Cluster has no database numbers: leave the path out")
    elif scheme != "unix" and path and not path.isdecimal():
        raise ValueError("the path must be a database number, as in redis://127.0.0.1:6379/0")


def _make_client(url: str, budget_seconds: float) -> Redis | RedisCluster:
    if url == MEMORY_URL:
        # Only here: it takes longer to import than the rest of the package.
        from fakeredis import FakeAsyncRedis  # noqa: PLC0415

        memory: Redis = FakeAsyncRedis(decode_responses=True)
        return memory
    timeouts = {"socket_connect_timeout": 0.3 * budget_seconds, "socket_timeout": 0.5 * budget_seconds}
    options: dict[str, Any] = {
        **timeouts,
        "decode_responses": True,
        # What an operator wrote by hand must not break a listing.
        "encoding_errors": "replace",
        # RESP2 is what every server and proxy speaks, and it has no push messages to handle.
        "protocol": 2,
        "legacy_responses": False,
        # Shown to operators by CLIENT LIST.
        "client_name": "streamlimit",
    }
    never = Retry(NoBackoff(), 0)
    parts = urlsplit(url)
    if parts.scheme in _SERVERS:
        return Redis.from_pool(
            BlockingConnectionPool.from_url(url, max_connections=_MAX_CONNECTIONS, retry=never, **options)
        )
    addresses = _addresses(parts)
    options |= _options(parts)
    if parts.scheme in _CLUSTERS:
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in addresses],
            require_full_coverage=False,  # a slot that nobody holds concerns its users only
            max_connections=_MAX_CONNECTIONS,
            retry=never,
            **options,
        )
    asking = {name: value for name, value in options.items() if name.startswith("ssl")} | {
        "username": options.pop("sentinel_username", None),
        "password": options.pop("sentinel_password", None),
        # So that there is time left to connect to the one that they name.
        "socket_connect_timeout": 0.1 * budget_seconds,
        "socket_timeout": 0.1 * budget_seconds,
        "decode_responses": True,
        "retry": never,
        "protocol": 2,
    }
    sentinels = Sentinels(addresses, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    service = parts.path.strip("/")
    pool = SentinelConnectionPool(service, sentinels, retry=never, **options)  # type: ignore[no-untyped-call]
    return Redis.from_pool(pool)


def _addresses(parts: SplitResult) -> list[tuple[str, int]]:
    """The host and port of each server in a URL."""
    kind = parts.scheme.partition("+")[2]
    found = []
    for address in parts.netloc.rpartition("@")[2].split(",") if kind else [parts.netloc]:
        one = urlsplit(f"//{address}")
        port = port_of(one)
        if kind and not one.hostname:
            raise ValueError("must name at least one HOST:PORT, several with commas between them")
        found.append((one.hostname or "", port or _PORTS.get(kind, 0)))
    return found


def _options(parts: SplitResult) -> dict[str, Any]:
    """User name, password and options, as redis-py reads them from the URL of one server."""
    scheme = parts.scheme.partition("+")[0]
    credentials, at, _ = parts.netloc.rpartition("@")
    options = dict(parse_url(urlunsplit((scheme, f"{credentials}{at}localhost", "", parts.query, ""))))
    del options["host"]
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return options
