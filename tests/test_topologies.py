"""Whether the topologies of the tests do what the tests rely on: where they lied, so would the tests."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    MovedError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tests.cluster import Cluster
from tests.conftest import missing
from tests.network import Clients
from tests.nodes import PORT, Node, Security
from tests.sentinels import Sentinels
from tests.servers import HAVE_SUBNETS, wait_for
from tests.topologies import Topology

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]

KEY, OTHER = "stream:{alice}:1", "stream:{alice}:2"
SLOT = 749
"""Of both."""

PATIENT = 30_000
"""Milliseconds in which no restart is taken for a failure."""


@pytest.fixture(scope="module")
def partitionable_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("sentinels"), partitionable=True) as sentinels:
        yield sentinels


@pytest.fixture(scope="module")
def partitionable_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), partitionable=True) as cluster:
        yield cluster


@pytest.fixture
def sentinels(partitionable_sentinels: Sentinels) -> Iterator[Sentinels]:
    yield partitionable_sentinels
    partitionable_sentinels.mend()


@pytest.fixture
def cluster(partitionable_cluster: Cluster) -> Iterator[Cluster]:
    yield partitionable_cluster
    partitionable_cluster.mend()


@pytest.fixture(params=["sentinels", "cluster"])
def topology(request: pytest.FixtureRequest) -> Topology:
    found: Topology = request.getfixturevalue(request.param)
    return found


def caller(node: Node, **options: Any) -> Redis:
    """A client that comes as all clients do, and does not wait for long."""
    return Redis(
        host=node.announced,
        port=PORT,
        protocol=2,
        decode_responses=True,
        socket_timeout=0.3,
        retry=Retry(NoBackoff(), 0),
        **options,
    )


def answers(node: Node) -> bool:
    with caller(node) as client:
        try:
            return bool(client.ping())
        except RedisTimeoutError:
            return False


def write(topology: Topology, value: str) -> Node:
    """Set the key, on a replica too, and return the primary."""
    primary = topology.primary_of(KEY)
    primary.command("SET", KEY, value)
    wait_for(lambda: primary.command("WAIT", 1, 100), "a replica to have it")
    return primary


@pytest.mark.parametrize("fault", [Node.stop, Node.freeze])
def test_a_replica_with_the_data_replaces_a_primary_that_fails(
    topology: Topology, fault: Callable[[Node], None]
) -> None:
    before = write(topology, "kept")
    fault(before)

    after = topology.wait_for_another_primary(KEY, before)

    assert after.command("GET", KEY) == "kept"
    topology.mend()
    assert topology.primary_of(KEY) is after
    assert before.is_linked_replica_of(after)


def test_a_failover_can_be_asked_for(topology: Topology) -> None:
    before = write(topology, "kept")

    after = topology.fail_over(KEY)

    assert after.command("GET", KEY) == "kept"
    topology.wait_until_whole()
    assert before.is_linked_replica_of(after)


@pytest.mark.parametrize(("empty", "found"), [(False, "kept"), (True, None)])
def test_a_restart_keeps_the_data_or_loses_it(tmp_path: Path, *, empty: bool, found: str | None) -> None:
    with Sentinels(tmp_path, down_after_ms=PATIENT) as sentinels:
        primary = write(sentinels, "kept")
        primary.restart(empty=empty)
        sentinels.wait_until_whole()

        assert sentinels.primary is primary
        assert primary.command("GET", KEY) == found


def test_a_node_that_restarts_empty_keeps_its_slots_and_the_others_their_data(tmp_path: Path) -> None:
    with Cluster(tmp_path, node_timeout_ms=PATIENT) as cluster:
        primary = write(cluster, "lost")
        other = cluster.primary_of("{bob}")
        other.command("SET", "{bob}", "kept")
        assert other is not primary
        primary.restart(empty=True)
        cluster.wait_until_whole()

        assert cluster.primary_of(KEY) is primary
        assert primary.command("GET", KEY) is None
        assert other.command("GET", "{bob}") == "kept"


def test_a_primary_that_sentinels_do_not_reach_takes_writes_and_loses_them(sentinels: Sentinels) -> None:
    before = write(sentinels, "kept")
    sentinels.partition(before)
    after = sentinels.wait_for_another_primary(KEY, before)

    with caller(before) as client:
        assert client.set(KEY, "lost")

    assert after.command("GET", KEY) == "kept"
    sentinels.mend()
    assert before.is_linked_replica_of(after)
    assert before.command("GET", KEY) == "kept"


def test_a_primary_that_the_majority_does_not_reach_stops_to_take_writes(cluster: Cluster) -> None:
    before = write(cluster, "kept")
    cluster.partition(before)
    after = cluster.wait_for_another_primary(KEY, before)

    wait_for(lambda: before.command("CLUSTER INFO")["cluster_state"] == "fail", "the old primary to know")

    cluster.mend()
    assert before.is_linked_replica_of(after)


def test_primary_and_sentinel_on_one_side_are_a_minority(sentinels: Sentinels) -> None:
    before = sentinels.primary
    sentinels.partition(before, sentinels.sentinels[0])

    wait_for(lambda: sentinels.primary is not before, "the majority to choose another")

    assert sentinels.sentinels[0].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "streams")[0] == before.announced


@pytest.mark.parametrize(
    ("clients", "reached"), [("everywhere", [True, True]), ("inside", [True, False]), ("outside", [False, True])]
)
def test_clients_reach_the_side_where_they_are(topology: Topology, clients: Clients, reached: list[bool]) -> None:
    inside = topology.primary_of(KEY)
    outside = topology.replicas_of(inside)[0]
    topology.partition(inside, clients=clients)

    assert [answers(inside), answers(outside)] == reached
    topology.heal()
    assert [answers(inside), answers(outside)] == [True, True]


def test_each_key_is_taken_only_by_its_primary(cluster: Cluster) -> None:
    right = cluster.primary_of(KEY)
    wrong = next(node for node in cluster.primaries if node is not right)

    assert right.command("SET", KEY, "x")
    with pytest.raises(MovedError) as moved:
        wrong.command("SET", KEY, "x")
    assert (moved.value.slot_id, moved.value.host) == (SLOT, right.announced)


def test_a_migration_holds_asking_and_trying_again_open_until_it_is_finished(cluster: Cluster) -> None:
    source = cluster.primary_of(KEY)
    for key in (KEY, OTHER):
        source.command("SET", key, "x")
    target = next(node for node in cluster.primaries if node is not source)
    migration = cluster.migration(SLOT, target)
    migration.move(KEY)

    with pytest.raises(AskError) as asked:
        source.command("EXISTS", KEY)
    assert (asked.value.slot_id, asked.value.host) == (SLOT, target.announced)
    with pytest.raises(TryAgainError):
        source.command("EXISTS", KEY, OTHER)
    with target.operator() as client, client.pipeline(transaction=False) as pipeline:
        asking = [("ASKING",), ("EXISTS", KEY), ("ASKING",), ("EXISTS", KEY, OTHER)]
        for words in asking:
            pipeline.execute_command(*words)  # type: ignore[no-untyped-call]
        one, both = pipeline.execute(raise_on_error=False)[1::2]
    assert one == 1
    assert isinstance(both, TryAgainError)
    migration.finish()
    assert cluster.primary_of(KEY) is target
    assert target.command("EXISTS", KEY, OTHER) == 2
    with pytest.raises(MovedError):
        source.command("EXISTS", KEY)


SECURED = Security(
    password="an operator's",
    users=("streamlimit on >secret ~* +@all",),
    sentinel_password="a watcher's",
    sentinel_users=("streamlimit on >eyes +@all",),
)


@pytest.mark.parametrize("kind", [Sentinels, Cluster])
def test_passwords_are_asked_for_and_users_known(tmp_path: Path, kind: type[Sentinels | Cluster]) -> None:
    with kind(tmp_path, security=SECURED) as topology:
        passwords = [(node, "secret") for node in topology.nodes]
        if isinstance(topology, Sentinels):
            passwords += [(node, "eyes") for node in topology.sentinels]
        for node, password in passwords:
            with caller(node) as stranger, pytest.raises(AuthenticationError):
                stranger.ping()
            with caller(node, username="streamlimit", password=password) as user:
                assert user.ping()


@pytest.mark.parametrize("kind", [Sentinels, Cluster])
def test_with_tls_nothing_is_said_in_the_clear(tmp_path: Path, kind: type[Sentinels | Cluster]) -> None:
    binary = shutil.which("redis-server") or missing("redis-server")
    with kind(tmp_path, binary=binary, security=Security(tls=True)) as topology:
        nodes = [*topology.nodes, *(topology.sentinels if isinstance(topology, Sentinels) else ())]
        for node in nodes:
            with caller(node) as plain, pytest.raises(RedisConnectionError):
                plain.ping()
            with caller(node, ssl=True, ssl_ca_certs=str(tmp_path / "ca.pem")) as client:
                assert client.ping()


def test_a_url_names_all_that_a_client_needs(tmp_path: Path) -> None:
    sentinels = Sentinels(tmp_path, security=Security(tls=True))
    addresses = ",".join(f"{sentinel.announced}:6379" for sentinel in sentinels.sentinels)
    login, authority = "a:b%3A%2F%40@", str(tmp_path / "ca.pem").replace("/", "%2F")

    url = sentinels.url("a", "b:/@", sentinel_password="c")

    assert url == f"rediss+sentinel://{login}{addresses}/streams?sentinel_password=c&ssl_ca_certs={authority}"
