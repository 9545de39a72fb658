"""`streamlimit doctor`: what it says of servers in good and in bad order, and what to do about it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ResponseError

from streamlimit import Rules, StreamTracker
from streamlimit.checks import connections, memory, min_replicas, persistence, replicas, timeout, version
from streamlimit.cli import main
from streamlimit.connection import connect
from streamlimit.doctor import examine, judged_clock, judged_recovery
from streamlimit.findings import Finding, worst
from streamlimit.probe import Timings, judged
from streamlimit.report import lines
from streamlimit.settings import ENV_PREFIX
from streamlimit.targets import Target
from tests.proxy import Fault, Proxy
from tests.servers import KEPT, RedisServer, free_port, running, valkey, wait_for

StartServer = Callable[..., RedisServer]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start a Valkey with these options."""
    with ExitStack() as stack:

        def start(*options: str) -> RedisServer:
            directory = tmp_path / str(free_port())
            directory.mkdir()
            return stack.enter_context(running(valkey(directory, *options)))

        yield start


@pytest.fixture(params=["valkey", "redis"])
def sound_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server as the README sets one up, with nothing in it."""
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    with Redis(port=server.port) as operator:
        operator.flushall()
        operator.config_set("appendfsync", "everysec")
        yield server
        operator.config_set("appendfsync", "no")


def examined(url: str, **options: Any) -> list[Finding]:
    async def run() -> list[Finding]:
        client = connect(url)
        try:
            return await examine(client, Rules(), **options)
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_a_secret_that_no_running_process_shares_is_a_problem(sound_server: RedisServer) -> None:
    async def serve() -> None:
        async with StreamTracker.from_url(sound_server.url, ["a" * 32]):
            pass

    asyncio.run(serve())

    assert finding(examined(sound_server.url, own_secrets=["a" * 32]), "secret").state == "ok"
    assert finding(examined(sound_server.url, own_secrets=["b" * 32, "a" * 32]), "secret").state == "ok"
    assert finding(examined(sound_server.url), "secret").state == "skipped"
    strange = finding(examined(sound_server.url, own_secrets=["b" * 32]), "secret")
    assert strange.state == "problem"
    assert "give all processes the same SECRET" in strange.advice


def require_password(server: RedisServer) -> None:
    with Redis(port=server.port) as operator:
        operator.config_set("requirepass", "the-password")


def finding(findings: list[Finding], check: str) -> Finding:
    (found,) = [one for one in findings if one.check == check]
    return found


Doctor = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """The command, in this process."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)

    def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        try:
            code = main(["doctor", *options])
        except SystemExit as exited:
            code = int(exited.code or 0)
        return subprocess.CompletedProcess(options, code, *capsys.readouterr())

    return run


def test_of_a_sound_server_all_is_well(sound_server: RedisServer) -> None:
    findings = examined(sound_server.url)

    # How fast it is depends on what else this machine does.
    assert {one.check: one.state for one in findings if one.check != "scripts"} == dict.fromkeys(
        (
            *("reachable", "version", "permissions", "clock", "maxmemory-policy", "maxmemory", "persistence"),
            *("appendfsync", "replicas", "min-replicas-to-write", "maxclients", "timeout", "recovery", "secret"),
        ),
        "ok",
    )
    assert "of 200," in finding(findings, "scripts").found
    assert {one.node for one in findings} == {f"127.0.0.1:{sound_server.port}"}


def test_nothing_is_left_behind(sound_server: RedisServer) -> None:
    with Redis(port=sound_server.port, decode_responses=True) as operator:
        operator.hset("epoch:{0}", mapping={"id": "known", "since": 1, "recovering_until": 0})
        before = operator.hgetall("epoch:{0}")

        examined(sound_server.url)
        examined(sound_server.url, key_prefix="tv")

        assert operator.keys() == ["epoch:{0}"]
        assert operator.hgetall("epoch:{0}") == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"],
            Finding("maxmemory-policy", "problem", "drops any key: live streams", "maxmemory-policy noeviction"),
        ),
        (
            ["--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"],
            Finding("maxmemory-policy", "problem", "those that end soonest first", "maxmemory-policy noeviction"),
        ),
        (
            ["--maxmemory-policy", "volatile-lru"],
            Finding("maxmemory-policy", "warning", "it never comes to that", "maxmemory-policy noeviction"),
        ),
        (
            ["--maxmemory", "1"],
            Finding("maxmemory", "problem", "of 1 B in use: new streams are refused", "raise maxmemory"),
        ),
        (["--maxmemory", "1"], Finding("scripts", "problem", "command not allowed", "the memory is full")),
        (["--appendonly", "no"], Finding("persistence", "warning", "a restart loses everything", "appendonly yes")),
        (
            ["--appendonly", "no", "--save", "3600 1"],
            Finding("persistence", "warning", "save 3600 1", "appendonly yes"),
        ),
        (
            ["--appendfsync", "no"],
            Finding("appendfsync", "warning", "when the machine crashes", "appendfsync everysec"),
        ),
        (["--appendfsync", "always"], Finding("appendfsync", "ok", "a crash loses nothing")),
        (
            ["--min-replicas-to-write", "1"],
            Finding("min-replicas-to-write", "problem", "heartbeats, too", "min-replicas-to-write 0"),
        ),
        (["--min-replicas-to-write", "1"], Finding("scripts", "problem", "NOREPLICAS", "too few replicas")),
        (["--timeout", "45"], Finding("timeout", "warning", "45 s", "the heartbeat interval of 30 s")),
        (["--maxclients", "60"], Finding("maxclients", "warning", "of 60 connections", "raise maxclients")),
    ],
)
def test_a_bad_setting_is_told_with_what_to_do(
    start_server: StartServer, options: list[str], expected: Finding
) -> None:
    server = start_server("--appendonly", "yes", "--appendfsync", "everysec", *options)
    told = finding(examined(server.url), expected.check)

    assert told.state == expected.state
    assert expected.found in told.found
    assert expected.advice in told.advice


def test_a_replica_takes_no_writes(start_server: StartServer) -> None:
    primary = start_server(*KEPT)
    replica = start_server(*KEPT, "--replicaof", "127.0.0.1", str(primary.port))
    findings = examined(replica.url)

    told = finding(findings, "replicas")
    assert (told.state, told.advice) == ("problem", "connect to the primary")
    assert f"a replica of 127.0.0.1:{primary.port}" in told.found
    told = finding(findings, "scripts")
    assert (told.state, told.advice) == ("problem", "a replica takes no writes: connect to the primary")


def test_a_recovery_is_told_with_the_seconds_left(valkey_server: RedisServer) -> None:
    with Redis(port=valkey_server.port) as operator:
        operator.flushall()
        seconds, _ = operator.time()
        mapping = {"id": "known", "since": seconds * 1000, "recovering_until": (seconds + 500) * 1000}
        operator.hset("epoch:{0}", mapping=mapping)

    told = finding(examined(valkey_server.url), "recovery")

    assert told.state == "warning"
    assert told.found.startswith(("for 49", "for 500"))


def test_the_prefix_of_the_keys_is_kept(valkey_server: RedisServer) -> None:
    with Redis(port=valkey_server.port) as operator:
        operator.flushall()
        operator.hset("tv:epoch:{0}", mapping={"id": "known", "since": 0, "recovering_until": 0})

    assert "1970-01-01T00:00:00Z" in finding(examined(valkey_server.url, key_prefix="tv"), "recovery").found


def test_a_server_that_is_not_there_is_told_in_one_finding() -> None:
    (told,) = examined(f"redis://127.0.0.1:{free_port()}")

    assert (told.check, told.state) == ("reachable", "problem")
    assert "Connect call failed" in told.found
    assert "whether the server runs" in told.advice


@pytest.mark.slow
def test_a_frozen_server_is_told_in_one_finding(start_server: StartServer) -> None:
    server = start_server()
    server.signal(signal.SIGSTOP)

    (told,) = examined(server.url)

    assert (told.check, told.state, told.found) == ("reachable", "problem", "no answer in time")
    assert "frozen" in told.advice


@pytest.mark.slow
def test_a_server_that_freezes_in_the_middle_is_told(valkey_server: RedisServer) -> None:
    async def run() -> list[Finding]:
        async with Proxy(valkey_server.port) as proxy:
            proxy.arm(Fault("drop", at=b"redis_version", connections=1_000))
            async with connect(proxy.url) as client:
                return await examine(client, Rules())

    first, second = asyncio.run(run())

    assert (first.check, first.state) == (second.check, "ok") == ("reachable", "ok")
    assert (second.state, second.found) == ("problem", "it stopped answering: no answer in time")


def test_what_is_no_redis_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1_000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (told,) = examined(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()

    assert (told.check, told.state) == ("reachable", "problem")
    assert "this is no Redis" in told.found


def test_a_server_that_is_busy_with_a_script_is_told(start_server: StartServer) -> None:
    server = start_server("--busy-reply-threshold", "1")
    with Redis(port=server.port, decode_responses=True) as operator:

        def stay() -> None:
            with Redis(port=server.port) as client, pytest.raises(ResponseError):
                client.eval("while true do end", 0)

        thread = threading.Thread(target=stay)
        thread.start()
        wait_for(lambda: is_busy(operator), "the script")
        (told,) = examined(server.url)
        operator.script_kill()
        thread.join()

    assert (told.check, told.state) == ("reachable", "problem")
    assert "BUSY" in told.found


def is_busy(operator: Redis) -> bool:
    try:
        operator.ping()
    except ResponseError:
        return True
    return False


def test_a_database_that_is_not_there_is_told(valkey_server: RedisServer) -> None:
    (told,) = examined(valkey_server.url.replace("/0", "/99"))

    assert (told.check, told.state) == ("reachable", "problem")
    assert "DB index is out of range" in told.found


def test_what_a_strange_server_tells_is_skipped(monkeypatch: pytest.MonkeyPatch, valkey_server: RedisServer) -> None:
    async def settings(*_: object) -> dict[str, str]:
        return {"timeout": "to be done"}

    monkeypatch.setattr(Target, "settings", settings)

    told = finding(examined(valkey_server.url), "timeout")

    assert told.state == "skipped"
    assert "to be done" in told.found


@pytest.mark.parametrize("user", ["", "nobody:wrong-word@", ":wrong-word@"])
def test_a_refused_password_is_told_and_not_shown(doctor: Doctor, start_server: StartServer, user: str) -> None:
    server = start_server()
    require_password(server)

    done = doctor("--redis-url", f"redis://{user}127.0.0.1:{server.port}/0")

    assert done.returncode == 1
    assert "it lets us not in" in done.stdout
    assert "redis://USER:PASSWORD@HOST:PORT" in done.stdout
    assert "wrong-word" not in done.stdout + done.stderr


def test_no_password_is_shown(doctor: Doctor, start_server: StartServer) -> None:
    server = start_server()
    require_password(server)
    url = f"redis://:the-password@127.0.0.1:{server.port}/0"

    text, as_json = doctor("--redis-url", url), doctor("--json", STREAMLIMIT_REDIS_URL=url)

    assert finding([Finding(**one) for one in json.loads(as_json.stdout)["findings"]], "permissions").state == "ok"
    assert "the-password" not in text.stdout + text.stderr + as_json.stdout + as_json.stderr


def test_json_has_all_that_the_lines_have(doctor: Doctor, start_server: StartServer) -> None:
    server = start_server("--appendonly", "no", "--maxmemory-policy", "allkeys-lru")

    done = doctor("--redis-url", server.url, "--json")
    told = json.loads(done.stdout)

    assert (told["store"], told["state"]) == (server.url, "warning")
    findings = [Finding(**one) for one in told["findings"]]
    assert {one.check for one in findings if one.state == "warning"} >= {"persistence", "maxmemory-policy"}
    assert "noeviction" in finding(findings, "maxmemory-policy").advice


def test_warnings_fail_only_where_they_are_to(doctor: Doctor, start_server: StartServer) -> None:
    server = start_server("--appendonly", "no")

    assert doctor("--redis-url", server.url).returncode == 0
    assert doctor("--redis-url", server.url, "--strict").returncode == 1


def test_a_problem_fails(doctor: Doctor, start_server: StartServer) -> None:
    server = start_server("--min-replicas-to-write", "1")

    assert doctor("--redis-url", server.url).returncode == 1


@pytest.mark.parametrize("options", [["--redis-url", "http://x"], ["--jsn"], ["--secret", "x" * 32], ["--limit", "x"]])
def test_bad_usage_is_one_line(doctor: Doctor, options: list[str]) -> None:
    done = doctor(*options)

    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("streamlimit: ")
    assert "x" * 32 not in line


def test_the_settings_are_those_of_the_service(doctor: Doctor, valkey_server: RedisServer) -> None:
    with Redis(port=valkey_server.port) as operator:
        operator.hset("tv:epoch:{0}", mapping={"id": "known", "since": 0, "recovering_until": 0})

    done = doctor("--key-prefix", "tv", STREAMLIMIT_REDIS_URL=valkey_server.url)

    assert "1970-01-01T00:00:00Z" in done.stdout


def test_without_a_url_the_embedded_store_is_examined(doctor: Doctor, valkey_server: RedisServer) -> None:
    done = doctor("--embedded-port", str(valkey_server.port))

    assert done.stdout.startswith(f"redis://127.0.0.1:{valkey_server.port}/0\n")
    assert "Valkey" in done.stdout


def test_an_embedded_store_that_does_not_run_is_told_with_how_to_start_it(doctor: Doctor) -> None:
    done = doctor("--embedded-port", str(free_port()))

    assert done.returncode == 1
    assert "streamlimit serve" in done.stdout
    assert "Traceback" not in done.stderr


def test_in_memory_there_is_nothing_to_examine(doctor: Doctor) -> None:
    done = doctor("--redis-url", "memory://", "--strict")

    assert done.returncode == 0
    assert "there is nothing to examine" in done.stdout


def test_a_terminal_without_arrows_gets_lines_too() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "streamlimit", "doctor", "--embedded-port", str(free_port())],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )

    assert (done.returncode, done.stderr) == (1, "")
    assert "? start it with `streamlimit serve`" in done.stdout


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("streamlimit.report.report", interrupted)

    assert main(["doctor"]) == 130


def test_help_tells_of_the_exit_codes(doctor: Doctor) -> None:
    text = " ".join(doctor("--help").stdout.split())

    for part in ("--json", "--strict", "--redis-url", "0: no problem, 1: a problem, 2: bad usage"):
        assert part in text


@pytest.mark.parametrize(
    ("info", "state", "found"),
    [
        ({"redis_version": "7.0.15"}, "ok", "Redis 7.0.15"),
        ({"redis_version": "8.10.1"}, "ok", "Redis 8.10.1"),
        ({"redis_version": "6.2.14"}, "problem", "Redis 6.2.14, with which streamlimit is not tested"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}, "ok", "Valkey 9.1.2"),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.40.1"}, "warning", "no append-only file"),
        ({"redis_version": "6.3.4", "executable": "/data/keydb-server"}, "warning", "two servers take writes"),
        ({"redis_version": "7.4.3", "garnet_version": "1.0.90"}, "warning", "garnet 1.0.90"),
        ({}, "problem", "Redis unknown"),
        (None, "skipped", "does not tell"),
    ],
)
def test_servers_are_told_apart(info: dict[str, Any] | None, state: str, found: str) -> None:
    told = version(info)

    assert told.state == state
    assert found in told.found


@pytest.mark.parametrize(
    ("info", "state", "found"),
    [
        ({"used_memory": 50 * 2**20, "maxmemory": 100 * 2**20}, "ok", "50 MiB of 100 MiB"),
        ({"used_memory": 95 * 2**20, "maxmemory": 100 * 2**20}, "warning", "soon new streams will be refused"),
        ({"used_memory": 100 * 2**20, "maxmemory": 100 * 2**20}, "problem", "new streams are refused"),
        (
            {"used_memory": 2**30, "maxmemory": 0, "total_system_memory": 2**34},
            "ok",
            "the machine is the bound, 16 GiB",
        ),
        ({"used_memory": 2**34, "maxmemory": 0, "total_system_memory": 2**34}, "warning", "on a machine of 16 GiB"),
    ],
)
def test_memory_is_judged_by_what_is_left(info: dict[str, Any], state: str, found: str) -> None:
    told = memory(info)

    assert told.state == state
    assert found in told.found


@pytest.mark.parametrize(
    ("failed", "save", "states"),
    [
        ({"aof_last_write_status": "err"}, "", ["problem", "ok", "ok"]),
        ({"rdb_last_bgsave_status": "err"}, "3600 1", ["problem", "ok", "ok"]),
        ({"rdb_last_bgsave_status": "err"}, "", ["warning", "ok", "ok"]),
    ],
)
def test_a_disk_that_takes_nothing_is_told(failed: dict[str, Any], save: str, states: list[str]) -> None:
    told = persistence({"aof_enabled": 1, **failed}, {"appendfsync": "everysec", "save": save})

    assert [one.state for one in told] == states
    assert "failed" in told[0].found
    assert "disk" in told[0].advice


def test_replicas_are_told_with_their_lag() -> None:
    fresh = {"ip": "10.0.0.2", "port": 6379, "state": "online", "offset": 1, "lag": 1}
    late = fresh | {"ip": "10.0.0.3", "lag": 60}

    assert replicas({"role": "master", "slave0": fresh}, expected=True).found == "1 connected, at most 1 s behind"
    told = replicas({"role": "master", "slave0": fresh, "slave1": late}, expected=True)
    assert told.state == "warning"
    assert "1 of 2 are not up to date: 10.0.0.3:6379 (online, 60 s behind)" in told.found
    assert replicas({"role": "master", "slave0": fresh | {"state": "wait_bgsave"}}, expected=True).state == "warning"


def test_a_lacking_replica_matters_where_one_would_be_promoted() -> None:
    assert replicas({"role": "master"}, expected=False).state == "ok"
    assert replicas({"role": "master"}, expected=True).state == "warning"


def test_enough_replicas_for_min_replicas_to_write_are_a_warning() -> None:
    assert min_replicas({"min_slaves_good_slaves": 2}, {"min-replicas-to-write": "1"}).state == "warning"
    assert min_replicas({"min_slaves_good_slaves": 1}, None).state == "warning"
    assert min_replicas({"min_slaves_good_slaves": 0}, None).state == "problem"
    assert min_replicas({}, None).state == "ok"


def test_what_is_not_told_is_skipped_with_what_to_look_at_by_hand() -> None:
    untold = [*persistence(None, None), *persistence({"aof_enabled": 1}, None)[1:], replicas(None, expected=False)]
    untold += [min_replicas(None, None), connections(None), timeout(None, 30), memory(None), version(None)]

    for told in untold:
        assert told.state == "skipped"
        assert "redis-cli" in told.advice


def test_the_connections_of_a_process_are_those_of_its_client() -> None:
    client = connect("redis://127.0.0.1")
    assert isinstance(client, AsyncRedis)
    pool = client.connection_pool

    assert f"up to {pool.max_connections}" in connections({"maxclients": 10_000}).found


@pytest.mark.parametrize(
    ("ahead_ms", "uncertainty_ms", "state", "found"),
    [
        (0.2, 0.1, "ok", "0.2 ms ahead of this machine's, ± 0.1 ms"),
        (-900, 0.1, "ok", "900.0 ms behind"),
        (1_100, 200, "ok", "± 200.0 ms"),
        (2_000, 0.1, "warning", "looks older than it is"),
        (-2_000, 0.1, "warning", "as if it came from the future"),
    ],
)
def test_clocks_may_differ_by_a_second(ahead_ms: float, uncertainty_ms: float, state: str, found: str) -> None:
    told = judged_clock(ahead_ms, uncertainty_ms)

    assert told.state == state
    assert found in told.found


@pytest.mark.parametrize(
    ("milliseconds", "state", "advice"),
    [
        ([0.2] * 100, "ok", ""),
        ([0.2] * 99 + [400], "ok", ""),
        ([0.2] * 98 + [400] * 2, "warning", "SLOWLOG GET"),
        ([8.0] * 100, "warning", "a slow network, or a busy server"),
    ],
)
def test_scripts_are_judged_by_the_median_and_the_slowest_hundredth(
    milliseconds: list[float], state: str, advice: str
) -> None:
    told = judged([Timings("heartbeat", 100, [one / 1000 for one in milliseconds])])

    assert told.state == state
    assert advice in told.advice


def test_times_are_shown_as_median_and_slowest() -> None:
    timings = Timings("heartbeat", 200, [number / 1000 for number in range(1, 201)])

    assert str(timings) == "heartbeat 100.00 / 198.00 / 200.00 of 200"


@pytest.mark.parametrize(
    ("epochs", "state", "found"),
    [
        ([[None] * 3] * 2, "ok", "no service has met this store yet"),
        ([["id", "1000", "0"], ["id", "2000", "0"]], "ok", "since 1970-01-01T00:00:02Z"),
        ([["id", "1000", "0"], ["id", "1000", "99000"]], "warning", "for 60 s yet"),
        ([["id", "1000", "0"], [None] * 3], "warning", "1 of 2 epochs are not there"),
        ([["id", "by hand", None]], "ok", "since 1970-01-01T00:00:00Z"),
    ],
)
def test_the_state_of_recovery_is_that_of_the_worst_slot(
    epochs: list[list[str | None]], state: str, found: str
) -> None:
    told = judged_recovery(epochs, 39_000)

    assert told.state == state
    assert found in told.found


def test_the_worst_finding_is_the_state_of_the_whole() -> None:
    def state(*states: Any) -> str:
        return worst([Finding("check", one, "") for one in states])

    assert state("ok", "skipped") == "ok"
    assert state("ok", "warning", "skipped") == "warning"
    assert state("warning", "problem") == "problem"
    assert state("skipped") == "skipped"


def test_lines_stand_under_their_server_and_are_counted_at_the_end() -> None:
    findings = [
        Finding("coverage", "ok", "16384 of 16384 hash slots are served"),
        Finding(
            "timeout",
            "warning",
            "20 s: idle connections are cut",
            "CONFIG SET timeout 0, or well above the interval",
            "a:1",
        ),
        Finding("timeout", "skipped", "the server does not tell us", "", "b:1"),
    ]

    assert lines(findings, 60) == [
        "ok       coverage  16384 of 16384 hash slots are served",
        "",
        "a:1",
        "warning  timeout   20 s: idle connections are cut",
        "                   → CONFIG SET timeout 0, or well above the",
        "                     interval",
        "",
        "b:1",
        "skipped  timeout   the server does not tell us",
        "",
        "warnings: 1, skipped: 1",
    ]
