"""docs/scaling.md: its commands run, its URLs lead to real sets, and its arithmetic is right."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from tests.cluster import Cluster
from tests.composed import SERVICES
from tests.conftest import missing
from tests.documents import ROOT, blocks, check_commands
from tests.nodes import PORT, Security
from tests.sentinels import Sentinels
from tests.servers import HAVE_SUBNETS, RedisServer

sys.path.insert(0, str(ROOT / "scripts"))

import capacity
from marked import between
from simulate import MARK, PAGE

COSTS = dict.fromkeys(capacity.COSTS, 0.0) | {
    "beat_us": 5.0,
    "own_call_us": 10.0,
    "third_us": 30.0,
    "release_us": 24.0,
    "resume_us": 40.0,
    "stream_bytes": 260.0,
    "ended_bytes": 180.0,
    "own_call_net_bytes": 190.0,
    "beat_log_bytes": 80.0,
    "worker_beats": 20_000.0,
}
SMALL = ("--streams", "3000", "--app-seconds", "0.1")


def row(table: str, what: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {what} |")]
    return line.strip("| ").split(" | ")[1:]


def simulate(script: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)


def test_a_core_is_shared_by_heartbeats_and_what_begins_and_ends() -> None:
    # 5 µs each 27 s, and 54 µs each 2,700 s.
    assert capacity.cores(COSTS) * 27e6 == pytest.approx(5.54)


def test_a_primary_carries_what_half_a_core_does_while_a_loss_is_made_good_in_time() -> None:
    assert capacity.streams_a_primary(COSTS | {"resume_us": 1.0}) == int(0.5 * 27e6 / 5.54)
    assert capacity.streams_a_primary(COSTS) == 45_000_000 // 40


def test_what_a_deployment_needs_follows_from_its_live_streams() -> None:
    table = capacity.capacity_table(COSTS)

    assert row(table, "heartbeats/s") == ["37,037", "370,370", "3,703,704"]
    assert row(table, "admissions/s") == ["370", "3,704", "37,037"]
    assert row(table, "… is it enough?") == ["yes", "no", "no"]
    assert row(table, "… until all have resumed after a loss") == ["40 s", "400 s", "4,000 s"]
    assert row(table, "primaries of a Cluster") == ["3", "9", "89"]
    assert row(table, "keys, once") == ["0.3 GB", "3.0 GB", "30.0 GB"]
    assert row(table, "… with a replica each, and room to rewrite") == ["1.2 GB", "12.0 GB", "120.0 GB"]
    assert row(table, "network of all primaries") == ["80 Mbit/s", "800 Mbit/s", "8,000 Mbit/s"]
    assert row(table, "app processes, at least") == ["4", "38", "371"]
    assert "carries 1,100,000 live streams" in table


def test_the_figures_of_the_page_stand_beside_those_just_measured() -> None:
    claimed = capacity.claimed_by(capacity.costs_table(COSTS))
    table = capacity.costs_table(COSTS | {"beat_us": 6.0}, claimed)

    assert claimed["beat_us"] == "5.00 µs"
    assert row(table, capacity.COSTS["beat_us"][0]) == ["6.00 µs", "5.00 µs"]


def test_what_was_not_measured_is_not_made_up() -> None:
    costs = {name: value for name, value in COSTS.items() if name != "beat_log_bytes"}

    assert row(capacity.costs_table(costs), capacity.COSTS["beat_log_bytes"][0]) == ["not measured"]


def test_the_page_shows_every_cost() -> None:
    assert set(capacity.claimed_by(between(PAGE.read_text(), MARK))) == set(capacity.COSTS)


def test_a_store_that_is_in_use_is_left_alone(valkey_server: RedisServer) -> None:
    with Redis(port=valkey_server.port) as client:
        client.flushall()
        client.set("somebody's", "own")
        done = simulate(ROOT / "scripts" / "simulate.py", *SMALL, "--redis-url", valkey_server.url)
        assert client.keys() == [b"somebody's"]
        client.flushall()

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the database is not empty: choose a server that nobody uses\n"


def test_the_script_tells_its_options() -> None:
    done = subprocess.run(["scripts/simulate", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "--worker-rate" in done.stdout


@pytest.mark.slow
def test_the_simulations_of_the_page_run(tmp_path: Path, valkey_server: RedisServer) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / PAGE.name
    shutil.copy(PAGE, page)
    with Redis(port=valkey_server.port) as client:
        client.flushall()

        for line in blocks(PAGE, "sh")[0].splitlines():
            command, *options = shlex.split(line, comments=True)
            assert command == "scripts/simulate"
            here = [valkey_server.url if option.startswith("redis://") else option for option in options]
            done = simulate(tmp_path / "scripts" / "simulate.py", *here, *SMALL)
            assert (done.returncode, done.stderr) == (0, "")
            assert "not measured" not in done.stdout
            shown = capacity.claimed_by(done.stdout)
            assert (capacity.claimed_by(between(page.read_text(), MARK)) == shown) == ("--write" in options)
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("setting", "configuration", "line"),
    [
        ("down-after-milliseconds", SERVICES["sentinel-1"]["environment"]["SENTINEL"], "sentinel {} streams {}"),
        ("failover-timeout", SERVICES["sentinel-1"]["environment"]["SENTINEL"], "sentinel {} streams {}"),
        ("cluster-node-timeout", SERVICES["node-1"]["environment"]["SERVER"], "{} {}"),
        ("cluster-require-full-coverage", SERVICES["node-1"]["environment"]["SERVER"], "{} {}"),
    ],
)
def test_a_setting_for_a_failover_is_that_of_compose(setting: str, configuration: str, line: str) -> None:
    _, value, _ = row(PAGE.read_text(), f"`{setting}`")

    assert line.format(setting, value) in configuration.splitlines()


def test_the_commands_of_the_page_answer_as_it_says(valkey_server: RedisServer) -> None:
    if shutil.which("redis-cli") is None:
        missing("redis-cli")
    check_commands(PAGE, {"6379": str(valkey_server.port)})


@pytest.mark.slow
@pytest.mark.skipif(not HAVE_SUBNETS, reason="each server needs a loopback address of its own")
def test_the_urls_of_the_page_lead_to_stores_with_tls_and_users(tmp_path: Path) -> None:
    binary = shutil.which("redis-server") or missing("redis-server")
    security = Security(
        password="an operator's",
        users=("streamlimit on >PASSWORD ~* +@all",),
        sentinel_password="a watcher's",
        sentinel_users=("streamlimit on >EYES +@all",),
        tls=True,
    )
    (tmp_path / "sentinels").mkdir()
    (tmp_path / "cluster").mkdir()
    with (
        Sentinels(tmp_path / "sentinels", binary=binary, security=security) as sentinels,
        Cluster(tmp_path / "cluster", binary=binary, security=security) as cluster,
    ):
        stand_for = {"redis": sentinels.nodes[:1], "sentinel": sentinels.sentinels, "node": cluster.nodes}
        examined = []
        for line in blocks(PAGE, "sh")[1].splitlines():
            command, *options, url = shlex.split(line)
            assert command == "streamlimit"
            (kind,) = set(re.findall(r"[@,](redis|sentinel|node)", url))
            for number, node in enumerate(stand_for[kind], 1):
                url = re.sub(rf"(?<=[@,]){kind}(-{number})?:\d+", f"{node.announced}:{PORT}", url)
            authority = tmp_path / ("cluster" if kind == "node" else "sentinels") / "ca.pem"
            url = url.replace("/etc/redis-ca.pem", str(authority))
            done = subprocess.run(
                [sys.executable, "-m", command, *options, url], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            examined.append(kind)
        assert examined == ["redis", "sentinel", "node"]
