"""What redis-py's client is made with, for each kind of URL."""

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection

from streamlimit.connection import check_url, connect


def kwargs_of(url: str, budget_seconds: float = 1.0) -> dict[str, object]:
    client = connect(url, budget_seconds)
    return (
        client.get_connection_kwargs() if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs
    )


@pytest.mark.parametrize("url", ["redis://h", "redis+sentinel://h/s"])
def test_redis_py_repeats_nothing_by_itself(url: str) -> None:
    retry = kwargs_of(url)["retry"]

    assert retry._retries == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", ["redis://u:p@h", "redis+sentinel://u:p@h/s", "redis+cluster://u:p@h"])
def test_time_outs_are_parts_of_the_budget_and_names_are_handed_on(url: str) -> None:
    options = kwargs_of(url, 2.0)

    assert options["socket_connect_timeout"] == pytest.approx(0.6)
    assert options["socket_timeout"] == pytest.approx(1.0)
    assert (options["username"], options["password"], options["protocol"]) == ("u", "p", 2)


def test_sentinels_may_ask_for_a_password_of_their_own() -> None:
    client = connect("redis+sentinel://u:p@one,two:1/s?sentinel_username=x&sentinel_password=y")
    assert isinstance(client, Redis)
    asked = [one.connection_pool.connection_kwargs for one in client.connection_pool.sentinel_manager.sentinels]  # type: ignore[attr-defined]

    assert [(one["host"], one["port"], one["username"], one["password"]) for one in asked] == [
        ("one", 26379, "x", "y"),
        ("two", 1, "x", "y"),
    ]


@pytest.mark.parametrize("url", ["redis+cluster://one,two:1", "redis+sentinel:///s", "redis+cluster://"])
def test_addresses_are_read_or_missed(url: str) -> None:
    if url.endswith("1"):
        client = connect(url)
        assert isinstance(client, RedisCluster)
        assert sorted(client.nodes_manager.startup_nodes) == ["one:6379", "two:1"]
    else:
        with pytest.raises(ValueError, match="must name at least one HOST:PORT"):
            check_url(url)


@pytest.mark.parametrize("kind", ["", "+cluster"])
def test_tls_is_asked_for_where_the_url_says_so(kind: str) -> None:
    for scheme, connection_class in (("redis", Connection), ("rediss", SSLConnection)):
        client = connect(f"{scheme}{kind}://h")
        pool = client.get_connection_kwargs() if isinstance(client, RedisCluster) else vars(client.connection_pool)
        assert pool["connection_class"] is connection_class


@pytest.mark.parametrize("url", ["redis+cluster://h/0", "redis+sentinel://h", "redis+sentinel://h/a/b", "redis://h/x"])
def test_a_path_has_a_meaning_or_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="path"):
        check_url(url)
