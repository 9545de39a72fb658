"""`streamlimit serve` as a process, over real HTTP: what a new user does first, signals, crashes and workers."""

import itertools
import os
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from redis import Redis

from tests.conftest import missing
from tests.servers import Service, answers, connects, free_port, redis7, running, serving, valkey, wait_for

pytestmark = pytest.mark.slow

SHORT = ("--ttl-seconds", "3", "--heartbeat-seconds", "1")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(Service(tmp_path, *SHORT)) as service:
        yield service


@pytest.fixture
def store(service: Service) -> Iterator[Any]:
    with Redis(port=service.embedded_port, decode_responses=True) as client:
        yield client


def admit(service: Service, user_id: str = "alice", **body: Any) -> httpx2.Response:
    return service.http.post(f"/v1/users/{user_id}/streams", json=body)


def beat(service: Service, stream_id: str, user_id: str = "alice") -> httpx2.Response:
    return service.http.post(f"/v1/users/{user_id}/streams/{stream_id}/heartbeat")


def embedded_pid(service: Service) -> int:
    with Redis(port=service.embedded_port) as client:
        return int(client.info("server")["process_id"])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def all_stopped(service: Service) -> bool:
    return not answers(service.embedded_port) and not any(connects(port) for port in (service.port,))


def test_the_first_quarter_of_an_hour_of_a_new_user(service: Service, store: Any) -> None:
    streams = [admit(service, device_id=f"tv-{number}") for number in range(3)]
    assert [answer.status_code for answer in streams] == [201, 201, 201]
    refused = admit(service)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:streamlimit:limit-reached")
    assert [one["device_id"] for one in refused.json()["streams"]] == ["tv-0", "tv-1", "tv-2"]
    assert int(refused.headers["retry-after"]) >= 1
    assert not any(answer.json()["stream_id"].rpartition(".")[2] in refused.text for answer in streams)
    assert set(store.keys("stream:*")) == {f"stream:{{alice}}:{seat}" for seat in (1, 2, 3)}

    # Two of them play on past their TTL, the third says nothing more.
    first, second, third = (answer.json() for answer in streams)
    started = time.monotonic()

    def third_is_gone() -> bool:
        leases = [beat(service, one["stream_id"]) for one in (first, second)]
        assert [lease.status_code for lease in leases] == [200, 200]
        time.sleep(0.2)
        return not store.exists("stream:{alice}:3")

    wait_for(third_is_gone, "the end of a stream without heartbeats")
    assert time.monotonic() - started > 2
    gone = beat(service, third["stream_id"])
    assert (gone.status_code, gone.json()["reason"]) == (410, "expired")
    assert admit(service, device_id="tv-2").status_code == 201

    # A crashed device gets its seat back; take over and evict end the right stream.
    again = admit(service, device_id="tv-0").json()
    assert (again["seat"], again["ended"][0]["reason"]) == (1, "replaced")
    assert beat(service, first["stream_id"]).json()["reason"] == "replaced"
    taken = admit(service, device_id="phone", take_over=second["stream_ref"]).json()
    assert taken["seat"] == 2
    assert beat(service, second["stream_id"]).json()["reason"] == "taken_over"
    evicted = admit(service, device_id="tablet", on_limit="evict").json()["ended"]
    assert [(one["device_id"], one["reason"]) for one in evicted] == [("tv-2", "evicted")]

    # Release frees at once.
    url = f"/v1/users/alice/streams/{taken['stream_id']}"
    assert service.http.post(f"{url}/release").status_code == 204
    assert beat(service, taken["stream_id"]).json()["reason"] == "released"
    assert admit(service).status_code == 201


def test_after_the_loss_of_everything_running_streams_go_on_and_new_ones_wait(service: Service, store: Any) -> None:
    stream_id = admit(service).json()["stream_id"]
    store.flushall()

    assert beat(service, stream_id).status_code == 200
    waiting = admit(service)
    assert (waiting.status_code, waiting.json()["type"]) == (503, "urn:streamlimit:recovering")
    assert int(waiting.headers["retry-after"]) >= 1
    # Each attempt is another user's: one who asks this often would be told that it is too often.
    newcomers = (f"newcomer-{number}" for number in itertools.count())
    wait_for(lambda: admit(service, next(newcomers)).status_code == 201, "the end of recovery")
    assert admit(service).status_code == 201


def test_in_a_rolling_restart_nobody_waits_and_nobody_is_interrupted(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "two")]
    with running(valkey(tmp_path)) as server, ExitStack() as stack:
        services = []
        for path in paths:
            path.mkdir()
            service = Service(path, "--redis-url", server.url, env={"STREAMLIMIT_SECRET": "s" * 32})
            services.append(stack.enter_context(serving(service)))
        stream_ids = [admit(services[0], f"user-{number}").json()["stream_id"] for number in range(3)]

        def all_go_on(service: Service, newcomer: str) -> None:
            for number, stream_id in enumerate(stream_ids):
                assert beat(service, stream_id, f"user-{number}").status_code == 200
            assert admit(service, newcomer).status_code == 201

        for restarted, other in (services, services[::-1]):
            restarted.stop()
            all_go_on(other, "while-it-is-away")
            restarted.start()
            restarted.wait_until(200)
            all_go_on(restarted, "when-it-is-back")


def test_the_first_command_of_the_readme_serves_from_any_directory(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.command[:4] = [str(Path(__file__).parent.parent / "scripts" / "serve")]
    with serving(service):
        assert admit(service).status_code == 201
        assert (tmp_path / "data" / "secret").exists()
    assert service.process.returncode == 0


def test_limits_and_streams_survive_a_restart(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with serving(service):
        service.http.put("/v1/users/alice", json={"limit": 7})
        stream_id = admit(service).json()["stream_id"]
    with serving(service):
        assert service.http.get("/v1/users/alice").json()["limit"] == 7
        assert beat(service, stream_id).status_code == 200
        assert admit(service).status_code == 201


@pytest.mark.parametrize("moment", ["at once", "later"])
def test_a_crashed_store_is_started_again(service: Service, moment: str) -> None:
    stream_id = admit(service).json()["stream_id"]
    if moment == "later":
        time.sleep(1.1)  # a server that dies young is treated with suspicion
    os.kill(embedded_pid(service), signal.SIGKILL)

    # Within the second that a request may take, or right after.
    wait_for(lambda: beat(service, stream_id).status_code == 200, "the store to come back")
    assert "started again" in service.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    with serving(Service(tmp_path, "--workers", str(workers))) as service:
        assert service.stop(number) == 0
        assert all_stopped(service)
        assert service.log.read_text().splitlines()[-1].endswith("INFO Stopped")
        assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_reaches_the_whole_process_group_and_stops_everything(tmp_path: Path, workers: int) -> None:
    with serving(Service(tmp_path, "--workers", str(workers))) as service:
        os.killpg(service.process.pid, signal.SIGINT)

        assert service.process.wait(20) == 0
        assert all_stopped(service)
        assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_when_the_parent_is_killed_nothing_is_left_behind(tmp_path: Path, workers: int) -> None:
    service = Service(tmp_path, "--workers", str(workers))
    with serving(service):
        service.stop(signal.SIGKILL)
        wait_for(lambda: all_stopped(service), "the end of the store and the workers")
    with serving(service):
        assert admit(service).status_code == 201


def test_requests_under_way_are_finished(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        body = b'{"device_id": "tv-1"}'
        head = f"POST /v1/users/alice/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body[:5])
        wait_for(lambda: service.http.get("/livez").status_code == 200, "the request to be under way")
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not connects(service.port), "the service to accept no more")
        client.sendall(body[5:])

        assert client.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert service.process.wait(20) == 0


def test_a_taken_store_port_is_told(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with socket.create_server(("127.0.0.1", service.embedded_port)):
        service.start()
        assert service.process.wait(20) == 1
        service.stop()
    (line,) = service.log.read_text().splitlines()
    assert f"port {service.embedded_port} of 127.0.0.1 is taken" in line
    assert "--embedded-port" in line


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with socket.create_server(("127.0.0.1", service.port)):
        service.start()
        assert service.process.wait(20) == 1
        service.stop()
    (line,) = service.log.read_text().splitlines()
    assert f"cannot listen on 127.0.0.1:{service.port} (Address already in use)" in line
    assert not answers(service.embedded_port)


def test_the_secret_is_made_once_and_is_its_owners(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}", path.read_text())
    assert path.read_text() not in service.log.read_text()


def test_a_store_of_ones_own_may_come_late_and_go(tmp_path: Path) -> None:
    server = valkey(tmp_path)
    service = Service(tmp_path, "--redis-url", server.url)
    service.start()
    try:
        service.wait_until(200, "/livez")
        service.wait_until(503)
        server.start()
        service.wait_until(200)
        assert admit(service).status_code == 201
        server.stop()
        away = admit(service)
        assert (away.status_code, away.json()["type"]) == (503, "urn:streamlimit:store-unavailable")
        assert int(away.headers["retry-after"]) >= 1
    finally:
        service.stop()
        server.stop()


def test_a_store_behind_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "valkey.sock"
    server = valkey(tmp_path, "--unixsocket", str(path))
    server.start()
    try:
        with serving(Service(tmp_path, "--redis-url", f"unix://{path}")) as service:
            assert admit(service).status_code == 201
    finally:
        server.stop()


def test_a_store_behind_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    port = free_port()
    tls = {"port": str(port), "auth-clients": "no"} | {
        f"{name}-file": str(tmp_path / file)
        for name, file in {"cert": "server.pem", "key": "server.pem", "ca-cert": "ca.pem"}.items()
    }
    server = redis7(tmp_path, *(word for name, value in tls.items() for word in (f"--tls-{name}", value)))
    if server is None:
        missing("redis-server")
    with running(server):
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}"
        with serving(Service(tmp_path, "--redis-url", url)) as service:
            assert admit(service).status_code == 201
            assert f"store rediss://127.0.0.1:{port}/0," in service.log.read_text()


def test_a_store_in_the_process_for_a_trial(tmp_path: Path) -> None:
    with serving(Service(tmp_path, "--redis-url", "memory://")) as service:
        assert [admit(service).status_code for _ in range(4)] == [201, 201, 201, 409]
        assert not answers(service.embedded_port)


def test_a_public_address_is_refused(tmp_path: Path) -> None:
    service = Service(tmp_path, "--host", "0.0.0.0")
    service.start()

    assert service.process.wait(20) == 2
    service.stop()
    assert "0.0.0.0 is public" in service.log.read_text()


def test_an_huge_header_does_not_stop_the_service(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
        client.recv(4096)

    assert service.http.get("/livez").status_code == 200


@pytest.mark.parametrize("script", ["--keep", "--remove"])
def test_the_users_of_the_old_service_can_be_seeded(service: Service, script: str) -> None:
    path = Path(__file__).parent.parent / "scripts" / "seed_users.py"
    command = [str(path), "--url", f"http://127.0.0.1:{service.port}"]

    def may_add(user_id: str) -> Any:
        return service.http.get(f"/add-stream/user/{user_id}/").json()

    subprocess.run(command, check=True)
    assert may_add("user-1") == {"can_add_stream": True, "errors": None}
    assert may_add("user-2") == {"can_add_stream": False, "errors": None}
    assert [service.http.get(f"/v1/users/user-{n}/streams").json()["live"] for n in (1, 2)] == [2, 3]

    if script == "--remove":
        subprocess.run([*command, "--remove"], check=True)
        assert service.http.get("/add-stream/user/user-2/").status_code == 404
        subprocess.run([*command, "--remove"], check=True)
        return
    with subprocess.Popen([*command, "--keep"]) as keeping:
        started = service.http.get("/v1/users/user-2/streams").json()["streams"][0]["started_at"]
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:  # past the TTL of 3 s
            assert may_add("user-2") == {"can_add_stream": False, "errors": None}
            time.sleep(0.1)
        assert service.http.get("/v1/users/user-2/streams").json()["streams"][0]["started_at"] >= started
        keeping.send_signal(signal.SIGINT)
        assert keeping.wait(10) == 0


def test_seeding_without_a_service_is_one_line(tmp_path: Path) -> None:
    path = Path(__file__).parent.parent / "scripts" / "seed_users.py"
    command = [str(path), "--url", f"http://127.0.0.1:{Service(tmp_path).port}"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "does not answer" in done.stderr
