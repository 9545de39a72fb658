"""The stores that the contract is tested on, and what an operator sees of any of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Final, cast

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot

from streamlimit import Rules, StreamTracker
from streamlimit.connection import MEMORY_URL, connect
from tests.cluster import Cluster
from tests.nodes import PORT
from tests.sentinels import Sentinels
from tests.servers import HAVE_SUBNETS

TOPOLOGIES: Final = ("sentinel", "cluster")

QUICK_EVERYWHERE: Final = {
    "test_a_process_that_starts_in_recovery_waits_too",
    "test_a_stream_is_terminated_by_its_ref",
    "test_a_stream_resumes_after_the_loss_of_everything",
    "test_a_users_record_is_set_read_and_deleted",
    "test_all_streams_are_terminated",
    "test_many_heartbeats_are_answered_in_order",
    "test_streams_are_admitted_up_to_the_limit",
    "test_the_keys_are_those_of_the_contract",
}
"""The tests of the contract that are quick on the second engine and on topologies, too. The rules are the same scripts
there; what differs is how these get to their server, and what is said of the whole store: a test of each script, and
some of loss, tell."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A store: where the service finds it, and how an operator connects."""

    url: str
    connect: Callable[[], Any]


def backend_of(kind: str, request: pytest.FixtureRequest) -> Backend:
    """Return the store of this kind; the servers are fixtures that start with the first test that wants them."""
    if kind in TOPOLOGIES and not HAVE_SUBNETS:
        pytest.skip("without an address of its own for each server")
    match kind:
        case "fakeredis":
            return Backend(MEMORY_URL, lambda: FakeAsyncRedis(server=FakeServer(), decode_responses=True))
        case "sentinel":
            sentinels: Sentinels = request.getfixturevalue("sentinels")
            return Backend(sentinels.url(), lambda: connect(f"redis://{sentinels.primary.announced}:{PORT}/0"))
        case "cluster":
            cluster: Cluster = request.getfixturevalue("cluster")
            return Backend(cluster.url(), lambda: _cluster_client(cluster))
        case _:
            url = request.getfixturevalue(f"{kind}_server").url
            return Backend(url, lambda: connect(url))


def open_tracker(redis: Redis, url: str, secrets: Sequence[str], rules: Rules, **options: Any) -> StreamTracker:
    """Make a tracker on the store that an operator's client sees, as another process of the service would."""
    if isinstance(redis, FakeAsyncRedis):
        return StreamTracker(FakeAsyncRedis(connection_pool=redis.connection_pool), secrets, rules, **options)
    return StreamTracker.from_url(url, secrets, rules, **options)


async def stored(redis: Redis) -> set[str]:
    """The names of all keys but the epochs, which are 16,384 on a Cluster."""
    return {name for name in await _names(redis) if "epoch:{" not in name}


async def epochs(redis: Redis) -> list[str]:
    """The names of all epoch keys."""
    return [name for name in await _names(redis) if "epoch:{" in name]


def epoch_of(redis: Redis, user_id: str = "alice") -> str:
    """The name of the epoch key that the scripts of a user look at."""
    return f"epoch:{{{_tag(key_slot(user_id.encode())) if is_cluster(redis) else 0}}}"


def is_cluster(redis: Redis) -> bool:
    return isinstance(redis, RedisCluster)


async def _names(redis: Redis) -> list[str]:
    # Without being told, a Cluster's client asks one node only.
    names: Any = await (redis.keys(target_nodes=RedisCluster.PRIMARIES) if is_cluster(redis) else redis.keys())
    return cast("list[str]", names)


@cache
def _tag(slot: int) -> int:
    return next(number for number in count() if key_slot(str(number).encode()) == slot)


def _cluster_client(cluster: Cluster) -> RedisCluster:
    return RedisCluster(
        host=cluster.nodes[0].announced, port=PORT, decode_responses=True, protocol=2, legacy_responses=False
    )
