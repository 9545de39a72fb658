"""The measurements: their arithmetic, what they refuse to say, and that they run."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from redis import Redis

from bench import chart, in_the_store, machine, native, paced, report, streams
from bench.__main__ import PAGE, choose
from bench.plan import BATCH, SECRET, BenchError, choose_cores
from bench.servers import (
    ADMISSIONS,
    BARE,
    BATCHES,
    FASTAPI,
    FASTIFY_PIPELINED,
    HEARTBEATS,
    SERVERS,
    STREAMLIMIT,
    TWO_WORKERS,
    check,
    start,
)
from bench.stores import VALKEY, start_store
from bench.stores import connect as connect_to
from bench.targets import LATENCY, Found
from bench.verdicts import Summary, Turn, cpu_ratio, not_at_peak, not_kept, rate_ratio, spread, summarise
from streamlimit.connection import connect
from streamlimit.scripts import ADMIT
from streamlimit.tracker import StreamTracker
from tests.conftest import missing
from tests.documents import ROOT
from tests.helpers import admitted
from tests.servers import RedisServer

sys.path.insert(0, str(ROOT / "scripts"))

from marked import marked

TURN = Turn(
    requests=10_000,
    errors=0,
    seconds=1.0,
    server_cpu_seconds=0.97,
    store_cpu_seconds=0.1,
    load_cpu_seconds=0.3,
    others_busy=0.5,
    disturbed=0.01,
    others_disturbed=0.01,
    stolen=0.0,
    p50_ms=5.0,
    p99_ms=9.0,
)
SLOW = replace(TURN, requests=1_000, p50_ms=50.0, p99_ms=400.0)


def found(loads: dict[str, dict[str, Summary]] | None = None, cores: int = 2, **figures: float) -> Found:
    return Found(loads or {}, figures, cores)


def row(table: str, begins: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {begins}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_figure_is_the_median_of_its_rounds_beside_the_lowest_and_the_highest() -> None:
    summary = summarise([replace(TURN, requests=requests) for requests in (9_000, 12_000, 10_000)])

    assert summary.rate == spread([9_000, 10_000, 12_000])
    assert summary.cpu_us.median == pytest.approx(97)
    assert (summary.failed, summary.refused) == ("", "")


def test_a_ratio_is_that_of_the_medians() -> None:
    fast, slow = summarise([TURN]), summarise([SLOW])

    assert rate_ratio(slow, fast).value == pytest.approx(0.1)
    assert cpu_ratio(slow, fast).value == pytest.approx(0.1)


def test_one_failed_request_leaves_no_ratio() -> None:
    broken = summarise([TURN, TURN, replace(TURN, errors=1)])

    for ratio in (rate_ratio, cpu_ratio):
        assert ratio(broken, summarise([TURN])).value is None
        assert ratio(summarise([TURN]), broken).reason == "1 of 10,000 requests failed"


def test_a_rate_that_the_load_generator_bounded_is_compared_with_nothing() -> None:
    idle = summarise([replace(TURN, server_cpu_seconds=0.7, others_busy=0.99)])
    ratio = rate_ratio(idle, summarise([TURN]))

    assert ratio.value is None
    assert ratio.reason.startswith("the load generator was the bottleneck: the server used 71% of its core")
    assert cpu_ratio(idle, summarise([TURN])).value is not None


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (replace(TURN, server_cpu_seconds=0.7), "the server was not under full load: the server used 71% of its core"),
        (replace(TURN, server_cpu_seconds=0.7, disturbed=0.3), "other processes used 30% of the server's core"),
        (
            replace(TURN, server_cpu_seconds=0.7, others_disturbed=0.3, others_busy=1.0),
            "the server used 71% of its core, and other processes used 30% of that of wrk and the store",
        ),
        (replace(TURN, server_cpu_seconds=0.7, stolen=0.3), "the hypervisor took 30% of the server's core"),
        (replace(TURN, server_cpu_seconds=0.88, stolen=0.09), ""),
        (replace(TURN, others_busy=1.0), ""),
        (replace(TURN, server_cpu_seconds=0.97, cores=2), "the server was not under full load: the server used 49% of"),
    ],
)
def test_the_peak_of_a_server_is_where_it_used_the_core_that_it_had(turn: Turn, reason: str) -> None:
    assert not_at_peak(turn).startswith(reason)
    assert bool(not_at_peak(turn)) == bool(reason)


def test_disturbed_rounds_are_left_out_as_long_as_they_are_few() -> None:
    disturbed = replace(TURN, requests=5_000, disturbed=0.4)

    assert summarise([TURN, disturbed]).rate == spread([10_000])
    assert summarise([TURN, disturbed, disturbed]).refused == "other processes used 40% of the server's core"


PACED = replace(TURN, requests=990, planned=1_000, late_p99_ms=0.5)


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (PACED, ""),
        (replace(PACED, requests=900), "900 of 1,000 planned requests were answered"),
        (replace(PACED, late_p99_ms=5), "the load generator itself was late"),
        (replace(PACED, load_cpu_seconds=0.9), "the load generator was the bottleneck"),
    ],
)
def test_a_latency_counts_where_the_generator_kept_its_plan(turn: Turn, reason: str) -> None:
    assert not_kept(turn).startswith(reason)
    assert bool(not_kept(turn)) == bool(reason)


def test_targets_say_what_was_measured_and_whether_it_is_met() -> None:
    loads = {
        HEARTBEATS: {
            STREAMLIMIT.name: summarise([replace(TURN, requests=6_000)]),
            BARE.name: summarise([TURN]),
            FASTIFY_PIPELINED.name: summarise([replace(TURN, requests=7_500)]),
            FASTAPI.name: summarise([replace(SLOW, errors=3)]),
        },
        LATENCY: {STREAMLIMIT.name: summarise([replace(PACED, p50_ms=2, p99_ms=6)], not_kept)},
    }
    table = report.targets(found(loads, Valkey_stream_bytes=231.0, start_seconds=0.7))

    assert row(table, "heartbeats/s, over bare")[2:] == ["0.60; 0.60 by CPU time", "yes"]
    assert row(table, "… over Fastify + ioredis with auto")[2:] == ["0.80; 0.80 by CPU time", "no"]
    assert row(table, "… over FastAPI")[2:] == ["3 of 1,000 requests failed", "—"]
    assert row(table, "admissions/s, over bare")[2:] == ["not measured", "—"]
    assert row(table, "p99 of a heartbeat")[2:] == ["3.0 (6.00 over 2.00 ms)", "yes"]
    assert row(table, "… Valkey")[2:] == ["231 bytes", "no"]
    assert row(table, "start-up")[2:] == ["0.70 s", "yes"]
    assert row(table, "heartbeats/s of two workers")[2:] == ["not measured", "—"]


def test_where_the_rate_is_no_peak_the_cpu_time_is_judged() -> None:
    idle = summarise([replace(TURN, server_cpu_seconds=0.7)])
    table = report.targets(found({HEARTBEATS: {STREAMLIMIT.name: idle, BARE.name: summarise([TURN])}}))

    words, met = row(table, "heartbeats/s, over bare")[2:]
    assert words.startswith("1.39 by CPU time; rate: the server was not under full load")
    assert met == "yes"


def test_two_workers_on_two_cores_are_not_judged() -> None:
    loads = {"workers": {"one": summarise([TURN]), "two": summarise([replace(TURN, requests=9_000)])}}

    words = "on one core 0.90 of one, by CPU time; four cores are needed, there are 2"
    assert row(report.targets(found(loads)), "heartbeats/s of two workers")[2:] == [words, "—"]
    assert row(report.targets(found(loads, cores=4)), "heartbeats/s of two workers")[2:] == ["0.90 on 4 cores", "no"]


def test_the_report_says_why_a_ratio_is_missing() -> None:
    bottleneck = replace(TURN, server_cpu_seconds=0.7, others_busy=1.0)
    text = report.loads(found({HEARTBEATS: {BARE.name: summarise([TURN]), STREAMLIMIT.name: summarise([bottleneck])}}))

    assert row(text, "**streamlimit**")[2] == "—"
    assert "- **streamlimit**, as deployed: the load generator was the bottleneck" in text


def test_the_columns_of_a_table_are_aligned() -> None:
    assert report.table([("what", "n"), ("a", "1,000")]) == "| what | n     |\n| ---- | ----- |\n| a    | 1,000 |\n"


def test_the_chart_is_valid_and_has_no_bar_for_what_is_not_compared() -> None:
    failed = replace(TURN, errors=1)
    servers = {BARE.name: summarise([TURN]), STREAMLIMIT.name: summarise([replace(TURN, requests=7_000)])}
    servers[FASTAPI.name] = summarise([failed])
    drawing = ET.fromstring(chart.draw(found({HEARTBEATS: servers, ADMISSIONS: servers}), "2 cores, <A & B>"))
    svg = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.get("width", "")) for bar in drawing.iter(f"{svg}rect")][1:4]
    words = [text.text for text in drawing.iter(f"{svg}text")]

    assert widths == [pytest.approx(widths[0]), pytest.approx(widths[0] * 0.7, abs=0.1), 0]
    assert words[1:7] == [BARE.title, "1.00", "streamlimit, as deployed", "0.70", FASTAPI.title, "not compared"]


def test_the_page_has_room_for_the_figures() -> None:
    assert "figures" in marked(PAGE.read_text(), "scripts/bench --write", "figures")


def test_nothing_in_the_report_names_the_host() -> None:
    cores = os.sched_getaffinity(0)
    described = machine.describe(choose_cores(cores))

    assert socket.gethostname() not in " ".join(described.values()).split()
    assert described["cores"] == str(len(cores))


def test_names_choose_parts_and_servers() -> None:
    parts, chosen = choose("heartbeats,bare,streamlimit")

    assert parts == {HEARTBEATS}
    assert chosen == (BARE, STREAMLIMIT)
    with pytest.raises(BenchError, match="there is no falcon; there is heartbeats"):
        choose("falcon")


@pytest.mark.parametrize(
    ("cores", "roles"), [([3, 5], (3, 5, 5, None)), ([0, 1, 2], (0, 1, 2, None)), (range(8), (0, 1, 2, 3))]
)
def test_load_and_store_share_a_core_only_where_there_are_two(cores: Any, roles: tuple[int, ...]) -> None:
    chosen = choose_cores(cores)

    assert (chosen.server, chosen.store, chosen.load, chosen.second_server) == roles


def test_one_core_is_not_enough() -> None:
    with pytest.raises(BenchError, match="one core only"):
        choose_cores([0])


@pytest.mark.parametrize(
    ("answer", "success"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", None),
        (b"HTTP/1.1 200 OK\r\ncontent-le", None),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", False),
    ],
)
def test_the_paced_generator_knows_a_whole_answer(answer: bytes, success: object) -> None:
    assert paced.success(answer) is success


@pytest.mark.slow
def test_the_paced_generator_sends_its_plan_and_counts_what_failed(tmp_path: Path) -> None:
    answers = itertools.cycle([200, 200, 503])

    class Server(ThreadingHTTPServer):
        request_queue_size = paced.MAX_CONNECTIONS

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(next(answers))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    requests = streams.write(["/a", "/b\t{}"], tmp_path / "requests.txt")
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        command = [sys.executable, "-m", "bench.paced", str(server.server_port), str(requests), "0.5", "200"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        server.shutdown()
    ready, measured = done.stdout.splitlines()
    counts = json.loads(measured)

    assert ready == "ready"
    assert counts["planned"] > 0
    assert counts["errors"] == counts["planned"] // 3
    assert counts["requests"] == counts["planned"] - counts["errors"]


@pytest.mark.anyio
async def test_what_is_filled_in_is_what_an_admission_writes(valkey_server: RedisServer) -> None:
    with Redis(port=valkey_server.port, decode_responses=True) as client:
        client.flushall()
        (user, stream), *_ = streams.fill(client, 3)
        async with StreamTracker(connect(valkey_server.url), [SECRET]) as tracker:
            await admitted(tracker, "other", device_id=streams.device_id(0), device_name=streams.DEVICE_NAME)
            beat = await tracker.heartbeat(user, stream)
        shapes: list[dict[str, int]] = []
        for key in (f"stream:{{{user}}}:1", "stream:{other}:1"):
            fields: Any = client.hgetall(key)
            shapes.append({name: len(value) for name, value in fields.items()})
            assert int(str(client.pttl(key))) > 0

    assert getattr(beat, "stream_id", None) == stream
    assert list(shapes[0].items()) == list(shapes[1].items())


def test_the_admissions_whose_scripts_are_timed_are_three_and_a_refusal(valkey_server: RedisServer) -> None:
    with Redis(port=valkey_server.port, decode_responses=True) as client:
        client.flushall()
        client.hset("epoch:{0}", mapping={"id": "bench", "recovering_until": 0})
        answers: list[Any] = []
        for number in range(4):
            keys, args = in_the_store.admission(1, number)
            answers.append(client.eval(ADMIT.source, len(keys), *keys, *args))
        keys, args = in_the_store.counting(2)
        counted = client.eval(in_the_store.COUNT, len(keys), *keys, *args)
        written: Any = client.hgetall(keys[0])

    assert [answer[0] for answer in answers] == ["admitted", "admitted", "admitted", "refused"]
    assert (counted, written["device_name"]) == (1, streams.DEVICE_NAME)


def test_the_native_pipelines_set_the_ttl_of_what_was_filled_in(valkey_server: RedisServer) -> None:
    with Redis(port=valkey_server.port, decode_responses=True) as client:
        client.flushall()
        filled = streams.fill(client, native.PIPELINED)
    with socket.create_connection(("127.0.0.1", valkey_server.port)) as connection:
        connection.sendall(native.pipelines(filled)[0])
        answer = b""
        while len(answer) < 4 * native.PIPELINED:
            answer += connection.recv(65536)

    assert answer == b":1\r\n" * native.PIPELINED


def test_the_options_are_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--write" in done.stdout


def test_what_is_not_measured_in_full_is_not_published() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--write"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "what is published is measured in full" in done.stderr


@pytest.fixture(scope="module")
def installed() -> None:
    """All that the measurements need, which the script installs."""
    for tool in ("wrk", "node", "npm"):
        if shutil.which(tool) is None:
            missing(tool)
    subprocess.run(["scripts/bench", "--help"], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_every_server_answers_what_is_measured(tmp_path: Path) -> None:
    with ExitStack() as stack:
        store = start_store(VALKEY, 0, tmp_path, stack)
        started = [(server, start(server, store.port, (0,), tmp_path, stack)) for server in (*SERVERS, TWO_WORKERS)]
        with connect_to(store) as client:
            filled = streams.fill(client, BATCH)
            streams.fill_sorted_sets(client, filled)
        for server, process in started:
            process.wait()
            for kind, (line, *_) in {
                HEARTBEATS: streams.heartbeats(filled),
                BATCHES: streams.batches(filled),
                ADMISSIONS: [f'/v1/users/{server.name}/streams\t{{"device_id": "tv-1"}}'],
            }.items():
                if kind in server.answers:
                    path, _, body = line.partition("\t")
                    check(server, process.port, path, body)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_run_measures_what_it_is_told_to(tmp_path: Path) -> None:
    figures, drawing = tmp_path / "figures.json", tmp_path / "chart.svg"
    servers = {"bare", "streamlimit", "fastify-pipelined"}
    only = ",".join([HEARTBEATS, LATENCY, ADMISSIONS, "scripts", *servers])
    command = ["scripts/bench", "--quick", "--only", only, "--json", str(figures), "--chart", str(drawing)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    measured = json.loads(figures.read_text())
    assert set(measured["turns"]) == {HEARTBEATS, LATENCY, ADMISSIONS}
    for load, turns in measured["turns"].items():
        assert set(turns) == servers
        for server, (turn,) in turns.items():
            assert turn["requests"] > 0, (load, server)
            assert turn["server_cpu_seconds"] > 0, (load, server)
    for turns in (measured["turns"][HEARTBEATS], measured["turns"][ADMISSIONS]):
        assert [turn["errors"] for (turn,) in turns.values()] == [0, 0, 0]
    assert f"{VALKEY}_third_us" in measured["figures"]
    assert ET.fromstring(drawing.read_text()).tag.endswith("svg")
    assert "| **streamlimit**, as deployed" in done.stdout
