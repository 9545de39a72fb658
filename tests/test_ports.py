"""A port for operators: what it has, and what the public one then lacks."""

import socket
from pathlib import Path

import httpx2
import pytest

from streamlimit import Health, StreamTracker
from streamlimit.routes import OPERATIONS
from tests.conftest import Serve
from tests.issuer import OPERATOR_KEY, SERVICE_KEY, bearer, digest
from tests.servers import Service, free_port, wait_for
from tests.test_auth import OPERATOR, SERVICE, ask, make_authenticator, name
from tests.web import STREAMS, problem

PRIVATE = {"end_all", "readyz", "get_metrics"}
PAGES = ("/docs", "/docs/start.js", "/openapi.json")
WARNING = "a warning for operators"


@pytest.fixture
async def public(serve: Serve) -> httpx2.AsyncClient:
    http = await serve(make_authenticator(), operator_port=9000)
    http.event_hooks = {}  # the document is that of the other port
    return http


@pytest.fixture
async def operators(public: httpx2.AsyncClient) -> httpx2.AsyncClient:
    public.base_url = httpx2.URL("http://localhost:9000")
    return public


@pytest.mark.anyio
async def test_the_public_port_lacks_what_is_for_operators(public: httpx2.AsyncClient) -> None:
    lacking = {name(one) for one in OPERATIONS if (await ask(public, one, OPERATOR)).status_code in (404, 405)}

    # These three know no such stream or user.
    assert lacking - {"get_stream", "heartbeat", "legacy_check", "get_user", "delete_user"} == PRIVATE
    for page in PAGES:
        problem(await public.get(page), 404, "not-found")


@pytest.mark.anyio
async def test_the_port_of_operators_has_everything(operators: httpx2.AsyncClient) -> None:
    found = {(one.method, one.path): (await ask(operators, one, OPERATOR)).status_code for one in OPERATIONS}

    assert {status for (_, path), status in found.items() if "{" not in path} == {200}
    assert found["DELETE", "/v1/users/{user_id}/streams"] == 200
    for page in PAGES:
        assert (await operators.get(page)).status_code == 200


@pytest.mark.anyio
async def test_a_path_that_is_partly_for_operators_names_the_rest(public: httpx2.AsyncClient) -> None:
    answer = await public.delete(STREAMS, headers=OPERATOR)

    problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.anyio
async def test_the_port_of_operators_asks_for_keys_but_for_what_it_only_reads(operators: httpx2.AsyncClient) -> None:
    assert [(await operators.get(path)).status_code for path in ("/metrics", "/readyz", "/livez")] == [200] * 3
    assert (await operators.get(STREAMS)).status_code == 401
    assert (await operators.delete(STREAMS)).status_code == 401
    assert (await operators.delete(STREAMS, headers=SERVICE)).status_code == 403
    assert (await operators.delete(STREAMS, headers=OPERATOR)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["[::1]:9000", "127.0.0.1:9000", "localhost:9000"])
async def test_the_host_header_opens_nothing(public: httpx2.AsyncClient, host: str) -> None:
    headers = {"Host": host, "X-Forwarded-Port": "9000", "X-Forwarded-Host": host}

    problem(await public.get("/metrics", headers=headers), 404, "not-found")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asks", "operator_port", "shown"), [(False, None, [WARNING]), (True, None, []), (True, 9000, [WARNING])]
)
async def test_warnings_are_shown_to_operators_only(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, *, asks: bool, operator_port: int | None, shown: list[str]
) -> None:
    async def health(_: StreamTracker) -> Health:
        return Health(0, (WARNING,))

    monkeypatch.setattr(StreamTracker, "health", health)
    http = await serve(make_authenticator() if asks else None, operator_port)

    answer = await http.get(f"http://localhost:{operator_port or 80}/readyz")

    assert answer.json()["warnings"] == shown


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_both_ports_are_served_by_every_worker(tmp_path: Path, workers: str) -> None:
    port = free_port()
    env = {"STREAMLIMIT_SERVICE_KEYS": digest(SERVICE_KEY), "STREAMLIMIT_OPERATOR_KEYS": digest(OPERATOR_KEY)}
    service = Service(tmp_path, "--operator-port", str(port), "--workers", workers, env=env)
    service.start()
    try:
        service.wait_until(200, "/livez")
        for _ in range(10):
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as operators:
                assert [operators.get(path).status_code for path in ("/metrics", "/readyz", "/docs")] == [200] * 3
                assert operators.delete(STREAMS, headers=bearer(OPERATOR_KEY)).status_code == 200
            with httpx2.Client(base_url=service.http.base_url) as public:
                assert [public.get(path).status_code for path in ("/metrics", "/readyz", "/docs")] == [404] * 3
                assert public.get(STREAMS, headers=bearer(SERVICE_KEY)).status_code == 200
        assert f"Serving operators on http://127.0.0.1:{port}" in service.log.read_text()
    finally:
        service.stop()


@pytest.mark.slow
def test_a_free_port_may_be_taken_for_operators(tmp_path: Path) -> None:
    service = Service(tmp_path, "--operator-port", "0")
    service.start()
    try:
        service.wait_until(200, "/livez")
        line = wait_for(
            lambda: next((line for line in service.log.read_text().splitlines() if "Serving operators on" in line), ""),
            "the port",
        )
        url = line.split()[-1]
        assert httpx2.get(f"{url}/metrics").status_code == 200
        assert service.http.get("/metrics").status_code == 404
    finally:
        service.stop()


@pytest.mark.slow
def test_a_taken_port_of_operators_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = Service(tmp_path, "--operator-port", str(port))
        service.start()
        assert service.process.wait(20) == 1
        service.stop()
    (line,) = service.log.read_text().splitlines()
    assert (
        f"cannot listen on 127.0.0.1:{port} (Address already in use): choose another port with --operator-port" in line
    )
