"""The embedded store after crashes: damaged files, orphans, a killed supervisor, a full disk, two on one directory."""

import contextlib
import fcntl
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from streamlimit.supervisor import command_of
from tests.servers import PATIENCE_SECONDS, Service, answers, free_port, serving, wait_for
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


def test_an_unreadable_manifest_is_set_aside(service: Service) -> None:
    with serving(service):
        set_limit(service, "alice", 7)
    (manifest,) = files(service, "appendonlydir/*.manifest")
    manifest.write_bytes(bytes(100))

    with serving(service):
        assert limit_of(service, "alice") is None
    assert "nothing of them can be read" in service.log.read_text()


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
