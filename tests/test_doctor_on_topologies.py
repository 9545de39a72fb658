"""`streamlimit doctor` on a Cluster and on a Sentinel set: each primary, and what joins them."""

import asyncio
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import RedisCluster

from streamlimit.findings import Finding
from streamlimit.hash_slots import tags
from tests.cluster import Cluster
from tests.conftest import missing
from tests.nodes import PORT, Node, Security
from tests.sentinels import SERVICE, Sentinels
from tests.servers import HAVE_SUBNETS, wait_for
from tests.test_acl import PASSWORD, README, contract, set_up
from tests.test_doctor import examined

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]


@pytest.fixture
def sound_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """With nothing in it, and afterwards as it was before."""
    on_all(cluster.primaries, "FLUSHALL")
    yield cluster
    cluster.mend()
    on_all(cluster.nodes, "CONFIG", "SET", "cluster-require-full-coverage", "yes")
    on_all(cluster.nodes, "ACL", "DELUSER", "streamlimit")


@pytest.fixture
def sound_sentinels(sentinels: Sentinels) -> Iterator[Sentinels]:
    yield sentinels
    sentinels.mend()
    on_all(sentinels.sentinels, "SENTINEL", "SET", SERVICE, "quorum", 2)
    on_all(sentinels.sentinels, "ACL", "DELUSER", "watcher")


def on_all(nodes: list[Node], *command: str | int) -> None:
    for node in nodes:
        node.command(*command)


def of(findings: list[Finding], check: str, node: Node | None = None) -> Finding:
    name = f"{node.announced}:{PORT}" if node else ""
    (found,) = [one for one in findings if (one.check, one.node) == (check, name)]
    return found


def refused(nodes: list[Node]) -> set[object]:
    """The commands that users were refused."""
    found: set[object] = set()
    for node in nodes:
        with node.operator() as operator:
            found |= {entry["object"] for entry in operator.acl_log()}
    return found


def rules(where: str) -> list[str]:
    """What the README adds to the rules of the user."""
    (cell,) = re.findall(rf"^\| {where} \| [^`]*`(.+?)`", README.read_text(), re.MULTILINE)
    return shlex.split(cell.replace("\\|", "|"))


def test_each_primary_of_a_cluster_is_examined(sound_cluster: Cluster) -> None:
    primaries = sound_cluster.primaries
    findings = examined(sound_cluster.url())

    assert of(findings, "cluster").found.startswith("3 primaries found")
    told = of(findings, "coverage")
    assert told.state == "ok"
    assert told.found == "16384 of 16384 hash slots are served, by 3 primaries; the state is ok"
    assert {one.node for one in findings} == {"", *(f"{node.announced}:{PORT}" for node in primaries)}
    for node in primaries:
        assert of(findings, "permissions", node).state == "ok"
        assert "of 200," in of(findings, "scripts", node).found
        assert of(findings, "replicas", node).found.startswith("1 connected")
        assert of(findings, "recovery", node).state == "ok"


def test_nothing_is_left_behind_on_a_cluster(sound_cluster: Cluster) -> None:
    examined(sound_cluster.url())

    assert [node.command("DBSIZE") for node in sound_cluster.primaries] == [0] * 3


def test_a_primary_without_a_replica_is_told(sound_cluster: Cluster) -> None:
    primary = sound_cluster.primaries[0]
    for replica in sound_cluster.replicas_of(primary):
        replica.stop()
    wait_for(lambda: not primary.command("ROLE")[2], "the primary to notice")

    told = of(examined(sound_cluster.url()), "replicas", primary)

    assert (told.state, told.advice) == ("warning", "add a replica")


def test_that_a_lost_part_of_a_cluster_stops_the_others_is_told(sound_cluster: Cluster) -> None:
    primary, *others = sound_cluster.primaries
    on_all(others, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    told = of(examined(sound_cluster.url()), "cluster-require-full-coverage")
    assert told.state == "warning"
    assert "all users are refused" in told.found

    primary.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    assert of(examined(sound_cluster.url()), "cluster-require-full-coverage").state == "ok"


def test_hash_slots_that_nobody_serves_are_a_problem(sound_cluster: Cluster) -> None:
    primary, *_ = sound_cluster.primaries
    primary.command("CLUSTER DELSLOTSRANGE", 0, 9)

    findings = examined(sound_cluster.url())

    primary.command("CLUSTER ADDSLOTSRANGE", 0, 9)
    told = of(findings, "coverage")
    assert told.state == "problem"
    assert told.found.startswith("16374 of 16384 hash slots are served")
    assert "redis-cli --cluster check" in told.advice
    told = of(findings, "scripts", primary)
    assert (told.state, told.advice) == ("problem", "hash slots are not served: see the coverage of the cluster")


def test_a_frozen_primary_hides_no_other(sound_cluster: Cluster) -> None:
    frozen, *others = sound_cluster.primaries
    frozen.freeze()

    findings = examined(sound_cluster.url())

    told = of(findings, "reachable", frozen)
    assert (told.state, told.found) == ("problem", "no answer in time")
    assert [one.check for one in findings if one.node == told.node] == ["reachable"]
    assert [of(findings, "clock", node).state for node in others] == ["ok", "ok"]


def test_the_recovery_of_one_primary_is_told(sound_cluster: Cluster) -> None:
    primaries = sound_cluster.primaries
    primaries[0].command("HSET", f"epoch:{{{tags()[0]}}}", "id", "known", "recovering_until", 9_999_999_999_999)

    findings = examined(sound_cluster.url())

    assert [of(findings, "recovery", node).state for node in primaries] == ["warning", "ok", "ok"]


def test_what_a_user_lacks_on_a_cluster_is_told(sound_cluster: Cluster) -> None:
    on_all(sound_cluster.nodes, *f"ACL SETUSER streamlimit on >{PASSWORD} ~* +@all -cluster".split())

    (told,) = examined(sound_cluster.url("streamlimit", PASSWORD))

    assert (told.check, told.state) == ("cluster", "problem")
    assert "cluster|slots" in told.found
    assert PASSWORD not in told.found


def test_the_user_of_the_readme_is_enough_for_a_cluster_and_needs_all_of_it(sound_cluster: Cluster) -> None:
    for node in sound_cluster.nodes:
        with node.operator() as operator:
            set_up(operator, README, "streamlimit")
    on_all(sound_cluster.nodes, "ACL", "SETUSER", "streamlimit", *rules("a Cluster"))
    url = sound_cluster.url("streamlimit", PASSWORD)

    with RedisCluster(sound_cluster.nodes[0].announced, PORT, decode_responses=True) as operator:
        asyncio.run(contract(operator, url))
    findings = examined(url)

    assert [of(findings, check).state for check in ("cluster", "coverage")] == ["ok", "ok"]
    assert [of(findings, "permissions", node).state for node in sound_cluster.primaries] == ["ok"] * 3
    assert refused(sound_cluster.nodes) == {"config|get"}

    lacking = {"+cluster|slots": "cluster", "+cluster|info": "coverage", "+asking": "permissions"}
    assert set(rules("a Cluster")) == lacking.keys()
    for rule, check in lacking.items():
        on_all(sound_cluster.nodes, "ACL", "SETUSER", "streamlimit", f"-{rule.removeprefix('+')}")
        told = [one for one in examined(url) if one.check == check]
        assert rule.removeprefix("+") in " ".join(one.found.lower().replace(" ", "|") for one in told), rule
        assert PASSWORD not in str(told)
        on_all(sound_cluster.nodes, "ACL", "SETUSER", "streamlimit", rule)


def test_the_primary_of_a_sentinel_set_is_examined(sound_sentinels: Sentinels) -> None:
    primary = sound_sentinels.primary
    findings = examined(sound_sentinels.url())

    told = of(findings, "sentinels")
    assert (told.state, told.found) == ("ok", "3 in the URL answer, 3 are usable, and can agree on a failover")
    assert of(findings, "permissions", primary).state == "ok"
    assert of(findings, "replicas", primary).found.startswith("2 connected")


def test_too_few_sentinels_for_a_failover_are_a_problem(sound_sentinels: Sentinels) -> None:
    sound_sentinels.sentinels[0].command("SENTINEL", "SET", SERVICE, "quorum", 4)

    findings = examined(sound_sentinels.url())

    told = of(findings, "sentinels")
    assert told.state == "problem"
    assert "NOQUORUM" in told.found
    assert "start the Sentinels again" in told.advice
    assert of(findings, "reachable", sound_sentinels.primary).state == "ok"


@pytest.mark.parametrize(("harm", "what"), [(Node.stop, "no connection"), (Node.freeze, "no answer in time")])
def test_a_sentinel_that_is_gone_is_a_warning(
    sound_sentinels: Sentinels, harm: Callable[[Node], None], what: str
) -> None:
    harmed = sound_sentinels.sentinels[0]
    harm(harmed)

    findings = examined(sound_sentinels.url())

    told = of(findings, "sentinels")
    assert told.state == "warning"
    assert re.match(rf"2 of 3 in the URL answer.*{re.escape(harmed.announced)}:{PORT}: {what}", told.found)
    assert of(findings, "reachable", sound_sentinels.primary).state == "ok"


def test_a_name_that_no_sentinel_knows_is_told(sound_sentinels: Sentinels) -> None:
    (told,) = examined(sound_sentinels.url().replace(SERVICE, "other"))

    assert (told.check, told.state) == ("sentinels", "problem")
    assert "watches no primary called other" in told.found
    assert "sentinel monitor NAME" in told.advice


def test_a_user_of_sentinels_needs_no_more_than_the_readme_says(sound_sentinels: Sentinels) -> None:
    watching = sound_sentinels.sentinels
    given = rules("the Sentinels ask for a user")
    on_all(watching, "ACL", "SETUSER", "watcher", "on", f">{PASSWORD}", "-@all", *given)
    on_all(watching, "ACL", "LOG", "RESET")
    url = sound_sentinels.url(sentinel_username="watcher", sentinel_password=PASSWORD)

    assert of(examined(url), "sentinels").state == "ok"
    assert refused(watching) == set()

    for rule in given:
        on_all(watching, "ACL", "SETUSER", "watcher", f"-{rule.removeprefix('+')}")
        told = " ".join(one.found for one in examined(url))
        assert refused(watching) == {rule.removeprefix("+")}
        assert rule == "+client|setinfo" or f"'{rule.removeprefix('+')}'" in told
        on_all(watching, "ACL", "LOG", "RESET")
        on_all(watching, "ACL", "SETUSER", "watcher", rule)


@pytest.mark.parametrize("kind", [Sentinels, Cluster])
def test_passwords_and_tls_hide_nothing(tmp_path: Path, kind: type[Sentinels | Cluster]) -> None:
    binary = shutil.which("redis-server") or missing("redis-server")
    security = Security(password="an operator's", sentinel_password="a watcher's", tls=True)
    query = {"sentinel_password": security.sentinel_password} if kind is Sentinels else {}
    with kind(tmp_path, binary=binary, security=security) as topology:
        findings = examined(topology.url("", security.password, **query))

        primary = topology.primary_of("stream:{alice}:1")
        assert of(findings, "permissions", primary).state == "ok"
        assert of(findings, "recovery", primary).state == "ok"
        assert not any(one.state in ("problem", "skipped") for one in findings)
