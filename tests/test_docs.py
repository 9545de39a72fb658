"""`/docs`: the OpenAPI document in a browser, without a word to any other host."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from streamlimit.routes import OPERATIONS
from tests.conftest import missing
from tests.servers import Service, serving
from tests.web import problem

CHROMIUM = [
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
    # What the browser itself wants to tell its makers is not to be waited for.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    *("--virtual-time-budget=8000", "--dump-dom"),
]


@pytest.fixture
async def files(http: httpx2.AsyncClient) -> list[str]:
    """What the page asks for."""
    page = (await http.get("/docs")).text
    return re.findall(r'(?:href|src)="([^"]*)"', page.replace("data:,", "openapi.json"))


@pytest.mark.anyio
async def test_all_files_of_the_page_are_there_and_have_relative_addresses(
    http: httpx2.AsyncClient, files: list[str]
) -> None:
    assert {file.rpartition(".")[2] for file in files} == {"css", "js", "json"}
    for file in files:
        assert not re.match("/|[a-z]+:", file)
        assert (await http.get(f"/{file}")).status_code == 200


@pytest.mark.anyio
async def test_a_browser_may_keep_the_files_that_have_a_version_for_ever(
    http: httpx2.AsyncClient, files: list[str]
) -> None:
    kept = {file: "immutable" in (await http.get(f"/{file}")).headers["cache-control"] for file in files}

    assert kept == {file: "swagger-ui" in file for file in files}
    assert all(re.search(r"/\d+\.\d+\.\d+/", file) for file in files if kept[file])


@pytest.mark.anyio
async def test_the_page_and_its_files_may_ask_no_other_host(http: httpx2.AsyncClient, files: list[str]) -> None:
    for file in ["docs", *files]:
        if file != "openapi.json":
            policy = (await http.get(f"/{file}")).headers["content-security-policy"]
            sources = {source for part in policy.split("; ") for source in part.split(" ")[1:]}
            assert policy.startswith("default-src 'none'; ")
            assert sources == {"'none'", "'self'", "data:"}


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/docs/swagger-ui.css", "/docs/0.0.0/swagger-ui.css", "/docs/../pyproject.toml"])
async def test_no_other_file_is_served(http: httpx2.AsyncClient, path: str) -> None:
    problem(await http.get(path), 404, "not-found")


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "/limits"])
def test_a_browser_shows_every_operation_and_asks_no_other_host(tmp_path: Path, prefix: str) -> None:
    if shutil.which("chromium") is None:
        missing("chromium")
    log = tmp_path / "net.json"
    with serving(Service(tmp_path)) as service, proxied(service, prefix) as url:
        options = [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}"]
        command = [*CHROMIUM, *options, f"{url}/docs#/players/admit"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    shown = re.findall(r'data-path="([^"]*)"', done.stdout.replace("<wbr>", ""))
    assert sorted(shown) == sorted(operation.path for operation in OPERATIONS)
    assert "Idempotency-Key" in done.stdout  # of the operation that the address opens
    assert "urn:streamlimit:limit-reached" in done.stdout
    assert "CONSOLE" not in done.stderr
    asked = asked_for(log, by=url.removesuffix(prefix))
    assert f"{url}/openapi.json" in asked
    assert all(address.startswith(f"{url}/") for address in asked)


def asked_for(log: Path, by: str) -> set[str]:
    """What pages of this origin asked for; the browser asks for more on its own behalf."""
    events = json.loads(log.read_text())["events"]
    requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
    return {request["url"] for request in requests if request["initiator"] == by}


@contextmanager
def proxied(service: Service, prefix: str) -> Iterator[str]:
    """The address of the service behind a proxy that takes a prefix off its paths."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            taken_off = self.path.startswith(f"{prefix}/")
            answer = service.http.get(self.path.removeprefix(prefix) if taken_off else "/nowhere")
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
        server.shutdown()
