"""The end of the service: what SIGTERM, Ctrl-C and SIGHUP do, and that no request is lost by it."""

import asyncio
import os
import pty
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from streamlimit.drain import DrainingServer, Phase, let_go
from streamlimit.http_connection import HttpConnection
from tests.conftest import Serve
from tests.servers import Service, answers, connects, serving, wait_for
from tests.web import STREAMS, app_of, ok, problem

ONE_AND_TWO: Final = pytest.mark.parametrize("workers", ["1", "2"])
LONG: Final = {"STREAMLIMIT_DRAIN_SECONDS": "300"}
"""A drain that only a further signal ends."""


@pytest.mark.parametrize(
    ("numbers", "phase"),
    [
        ([signal.SIGTERM], Phase.DRAINING),
        ([signal.SIGINT], Phase.STOPPING),
        ([signal.SIGTERM, signal.SIGTERM], Phase.STOPPING),
        ([signal.SIGTERM, signal.SIGINT], Phase.STOPPING),
        ([signal.SIGINT, signal.SIGTERM], Phase.GIVING_UP),
        ([signal.SIGTERM] * 3, Phase.GIVING_UP),
        ([signal.SIGINT] * 5, Phase.GIVING_UP),
    ],
)
def test_each_further_signal_leads_one_phase_on(numbers: list[int], phase: Phase) -> None:
    reached = Phase.SERVING
    for number in numbers:
        reached = reached.after(number, 5)
    assert reached is phase


def test_without_a_drain_sigterm_stops_at_once() -> None:
    assert Phase.SERVING.after(signal.SIGTERM, 0) is Phase.STOPPING


def test_a_worker_takes_a_signal_that_comes_twice_for_one() -> None:
    reached = Phase.SERVING
    for number, expected in (
        (signal.SIGTERM, Phase.DRAINING),
        (signal.SIGTERM, Phase.DRAINING),
        (signal.SIGINT, Phase.STOPPING),
        (signal.SIGINT, Phase.STOPPING),
        (signal.SIGTERM, Phase.STOPPING),
    ):
        reached = reached.after(number, 5, counts=False)
        assert reached is expected


@pytest.mark.anyio
async def test_in_a_drain_the_process_is_live_but_not_ready(serve: Serve) -> None:
    http = await serve()
    app_of(http).state.draining = True

    assert ok(await http.get("/livez"), {"status"}) == {"status": "draining"}
    answer = await http.get("/readyz")
    problem(answer, 503, "draining")
    assert answer.headers["retry-after"] == "1"
    assert (await http.post(STREAMS)).status_code == 201


def connection(*, complete: bool, has_unread: bool = False, coming: bytes = b"") -> Iterator[Any]:
    """One of a client, between two requests or in the middle of one."""
    ours, client = socket.socketpair()
    with ours, client:
        client.sendall(coming)
        transport = SimpleNamespace(
            closed=False, is_closing=lambda: False, get_extra_info=lambda _: ours, close=lambda: None
        )
        transport.close = lambda: setattr(transport, "closed", True)
        cycle = SimpleNamespace(response_complete=complete, keep_alive=True)
        is_busy = has_unread or not complete
        yield SimpleNamespace(cycle=cycle, has_unread=has_unread, is_busy=is_busy, transport=transport)


def after(**state: Any) -> Any:
    """What has become of such a connection."""
    for one in connection(**state):
        let_go(one)
        return one
    raise AssertionError


def test_an_idle_connection_is_closed() -> None:
    assert after(complete=True).transport.closed


def test_a_connection_whose_next_request_has_come_in_is_left_open() -> None:
    assert not after(complete=True, coming=b"POST").transport.closed


def test_a_connection_with_a_request_under_way_is_closed_by_its_answer() -> None:
    busy = after(complete=False)
    assert not busy.transport.closed
    assert not busy.cycle.keep_alive


def test_a_connection_with_further_requests_is_left_open() -> None:
    pipelining = after(complete=False, has_unread=True)
    assert not pipelining.transport.closed
    assert pipelining.cycle.keep_alive


def test_a_connection_in_the_middle_of_a_head_is_left_open() -> None:
    assert not after(complete=True, has_unread=True).transport.closed


@pytest.fixture
async def server() -> AsyncIterator[tuple[DrainingServer, socket.socket]]:
    """One that serves in this process, but looks at nothing by itself."""

    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    app.state.max_connections, app.state.request_seconds = 100, 20
    server = DrainingServer(uvicorn.Config(app, http=HttpConnection, proxy_headers=False, log_config=None), 0, 5)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        await server.startup([listener])
        yield server, listener


@pytest.mark.anyio
async def test_connections_that_nobody_has_accepted_yet_are_served(server: Any) -> None:
    draining, listener = server
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

        await draining.shutdown([listener])

        answer = await asyncio.to_thread(client.recv, 4096)
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.anyio
async def test_whoever_never_ends_is_cut_off(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    draining, listener = server
    draining._finish_seconds = 0.1
    with socket.create_connection(listener.getsockname()) as client, socket.create_connection(listener.getsockname()):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")

        await draining.shutdown([listener])

        assert await asyncio.to_thread(client.recv, 4096) == b""
    assert [record.getMessage() for record in caplog.records] == ["1 request(s) did not end in time and were cut off"]


def said(service: Service) -> str:
    return service.log.read_text()


@pytest.mark.slow
@ONE_AND_TWO
def test_sigterm_begins_a_drain_and_another_one_ends_it(tmp_path: Path, workers: str) -> None:
    with serving(Service(tmp_path, "--workers", workers, env=LONG)) as service:
        stream_id = service.http.post(STREAMS).json()["stream_id"]
        service.process.send_signal(signal.SIGTERM)
        service.wait_until(503)

        for _ in range(10):  # often enough that each worker answers some of them
            live, beat, ready = (
                service.http.get("/livez"),
                service.http.post(f"{STREAMS}/{stream_id}/heartbeat"),
                service.http.get("/readyz"),
            )
            assert [answer.status_code for answer in (live, beat, ready)] == [200, 200, 503]
            assert {answer.headers["connection"] for answer in (live, beat, ready)} == {"close"}
            assert ready.json()["type"] == "urn:streamlimit:draining"
        assert said(service).count("Draining for 300 s") == 1
        assert service.stop() == 0
        assert not connects(service.port)
        assert "Traceback" not in said(service)


@pytest.mark.slow
@ONE_AND_TWO
def test_a_drain_ends_by_itself(tmp_path: Path, workers: str) -> None:
    with serving(Service(tmp_path, "--workers", workers, env={"STREAMLIMIT_DRAIN_SECONDS": "0.5"})) as service:
        assert service.stop() == 0


@pytest.mark.slow
@ONE_AND_TWO
@pytest.mark.parametrize("all_of_them", [False, True])
def test_ctrl_c_skips_the_drain(tmp_path: Path, workers: str, *, all_of_them: bool) -> None:
    with serving(Service(tmp_path, "--workers", workers, env=LONG)) as service:
        (os.killpg if all_of_them else os.kill)(service.process.pid, signal.SIGINT)

        assert service.process.wait(20) == 0
        assert "Traceback" not in said(service)


@pytest.mark.slow
def test_a_supervisor_that_signals_each_process_begins_one_drain(tmp_path: Path) -> None:
    with serving(Service(tmp_path, "--workers", "2", env=LONG)) as service:
        os.killpg(service.process.pid, signal.SIGTERM)
        service.wait_until(503)

        assert [service.http.get("/livez").json()["status"] for _ in range(20)] == ["draining"] * 20
        assert service.stop() == 0


@pytest.mark.slow
@ONE_AND_TWO
@pytest.mark.parametrize("port", ["public", "operators"])
def test_the_listeners_close_at_once_and_what_is_under_way_is_finished(tmp_path: Path, workers: str, port: str) -> None:
    service = Service(tmp_path, "--workers", workers, "--operator-port", "0", "--budget-seconds", "10")
    service.start()
    try:
        service.wait_until(200, "/livez")
        operators = int(said(service).partition("Serving operators on http://127.0.0.1:")[2].split()[0])
        asked = service.port if port == "public" else operators
        with socket.create_connection(("127.0.0.1", asked)) as client:
            body = b'{"device_id": "tv-1"}'
            head = f"POST {STREAMS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            client.sendall(f"{head}Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n".encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
            service.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not connects(service.port) and not connects(operators), "the ports to be closed")
            assert answers(service.embedded_port), "the store is still needed"
            client.sendall(body)

            assert client.recv(4096).startswith(b"HTTP/1.1 201 ")
        assert service.process.wait(20) == 0
    finally:
        service.stop()


@pytest.mark.slow
@ONE_AND_TWO
def test_a_body_that_never_comes_is_not_waited_for(tmp_path: Path, workers: str) -> None:
    with serving(Service(tmp_path, "--workers", workers)) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            head = f"POST {STREAMS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            client.sendall(head.encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 100 ")

            assert service.stop() == 0
        assert "1 request(s) did not end in time and were cut off" in said(service)
        assert "Traceback" not in said(service)


@pytest.fixture
def sighup_is_not_ignored() -> Iterator[None]:
    """A process that the tests start has SIGHUP ignored where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("sighup_is_not_ignored")
@pytest.mark.slow
@ONE_AND_TWO
def test_sighup_to_a_daemon_changes_nothing_and_is_answered_in_the_log(tmp_path: Path, workers: str) -> None:
    with serving(Service(tmp_path, "--workers", workers)) as service:
        before = service.process.pid
        os.killpg(before, signal.SIGHUP)

        wait_for(lambda: "SIGHUP changes nothing" in said(service), "the line in the log")
        assert service.http.get("/readyz").status_code == 200
        assert service.process.poll() is None


IN_A_TERMINAL: Final = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"


@pytest.mark.usefixtures("sighup_is_not_ignored")
@pytest.mark.slow
@ONE_AND_TWO
@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_is_closed_stops_everything_but_under_nohup(
    tmp_path: Path, workers: str, *, nohup: bool
) -> None:
    terminal, inside = pty.openpty()
    service = Service(tmp_path, "--workers", workers, env=LONG)
    command = ["/usr/bin/nohup", *service.command] if nohup else service.command
    service.command = [sys.executable, "-c", IN_A_TERMINAL, os.ttyname(inside), *command]
    service.start()
    try:
        service.wait_until(200)
        os.close(inside)
        os.close(terminal)
        if nohup:
            service.process.send_signal(signal.SIGHUP)
            assert service.http.get("/readyz").status_code == 200
            service.process.send_signal(signal.SIGINT)
        assert service.process.wait(20) == 0
        assert said(service).splitlines()[-1].endswith("INFO Stopped")
    finally:
        service.stop()
