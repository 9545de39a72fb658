"""Web pages of other origins: which may read the answers, and what they can send without asking first."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Serve, missing
from tests.servers import Service, serving
from tests.test_docs import CHROMIUM
from tests.web import STREAMS, problem

TV = "https://tv.example"


@pytest.fixture
async def listed(serve: Serve) -> httpx2.AsyncClient:
    return await serve(origins=[TV])


async def preflight(http: httpx2.AsyncClient, origin: str = TV, method: str = "POST", headers: str = "") -> str | None:
    """The origin that may send such a request, as far as the service goes."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    asked |= {"Access-Control-Request-Headers": headers} if headers else {}
    answer = await http.options(STREAMS, headers=asked)
    return answer.headers.get("access-control-allow-origin") if answer.status_code == 200 else None


@pytest.mark.anyio
@pytest.mark.parametrize("headers", ["", "authorization, content-type, idempotency-key", "Content-Type"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_listed_origin_may_send_everything_that_is_documented(
    listed: httpx2.AsyncClient, method: str, headers: str
) -> None:
    assert await preflight(listed, method=method, headers=headers) == TV


@pytest.mark.anyio
@pytest.mark.parametrize(
    "origin",
    [
        "https://other.example",
        "https://tv.example.evil",
        "http://tv.example",
        "https://tv.example:444",
        "null",
        "*",
        "",
    ],
)
async def test_no_other_origin_is_told_anything(listed: httpx2.AsyncClient, origin: str) -> None:
    assert await preflight(listed, origin) is None
    answer = await listed.get(STREAMS, headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "headers"), [("PATCH", ""), ("POST", "x-other")])
async def test_what_is_not_documented_is_not_allowed(listed: httpx2.AsyncClient, method: str, headers: str) -> None:
    assert await preflight(listed, method=method, headers=headers) is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"Origin": "https://other.example"}, "origin"),
        ({"Access-Control-Request-Method": "PATCH"}, "method"),
        ({"Access-Control-Request-Headers": "x-other"}, "headers"),
    ],
)
async def test_a_refused_preflight_says_what_is_not_allowed(
    listed: httpx2.AsyncClient, asked: dict[str, str], named: str
) -> None:
    answer = await listed.options(STREAMS, headers={"Origin": TV, "Access-Control-Request-Method": "POST"} | asked)

    assert f"Not allowed: {named}." in problem(answer, 400, "preflight-refused")["detail"]
    assert "Origin" in answer.headers["vary"]


@pytest.mark.anyio
async def test_a_listed_origin_may_read_answers_and_errors(listed: httpx2.AsyncClient) -> None:
    for path in (STREAMS, "/v1/users/*/streams", "/nowhere", "/v1/users/a%2Fb"):
        answer = await listed.get(path, headers={"Origin": TV})
        assert answer.headers["access-control-allow-origin"] == TV
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


@pytest.mark.anyio
async def test_by_default_no_origin_is_listed(http: httpx2.AsyncClient) -> None:
    assert "access-control-allow-origin" not in (await http.get(STREAMS, headers={"Origin": TV})).headers
    answer = await http.options(STREAMS, headers={"Origin": TV, "Access-Control-Request-Method": "POST"})
    problem(answer, 403, "cross-origin")


PAGE = """<!doctype html><title>A player</title><script>
const streams = "URL/v1/users/alice/streams";
async function play() {
  try {
    const stream = await (await fetch(streams, {method: "POST"})).json();
    const beat = await fetch(`${streams}/${stream.stream_id}/heartbeat`, {method: "POST"});
    const bye = new Blob(["bye"], {type: "text/plain"});
    const sent = navigator.sendBeacon(`${streams}/${stream.stream_id}/release`, bye);
    document.title = `heartbeat ${beat.status}, beacon ${sent}`;
  } catch (error) {
    document.title = `not readable: ${error.name}`;
  }
}
play();
</script>"""


@contextmanager
def page_at(service: Service) -> Iterator[str]:
    """The origin of a page with a player that uses this service."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.replace("URL", str(service.http.base_url).rstrip("/")).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def browse(url: str, tmp_path: Path) -> tuple[str, set[str]]:
    """What the page looks like in the end, and with which methods the browser asked."""
    log = tmp_path / "net.json"
    options = [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run([*CHROMIUM, *options, url], capture_output=True, text=True, timeout=60, check=True)
    events = json.loads(log.read_text())["events"]
    return done.stdout, {event["params"]["method"] for event in events if "method" in event.get("params", {})}


@pytest.mark.slow
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_player_in_a_browser_needs_no_preflight(tmp_path: Path, *, is_listed: bool) -> None:
    if shutil.which("chromium") is None:
        missing("chromium")
    service = Service(tmp_path)
    with page_at(service) as origin:
        service.command += ["--cors-origins", origin] if is_listed else []
        with serving(service):
            shown, methods = browse(origin, tmp_path)
            metrics = service.http.get("/metrics").text
    assert {"GET", "POST"} <= methods
    assert "OPTIONS" not in methods
    released = (
        'streamlimit_answers_total{method="POST",route="/v1/users/{user_id}/streams/{stream_id}/release",status="204"}'
    )
    if is_listed:
        assert "<title>heartbeat 200, beacon true</title>" in shown
        assert f"{released} 1.0" in metrics
    else:
        assert "<title>not readable: TypeError</title>" in shown


@pytest.mark.slow
def test_every_answer_of_the_server_says_what_it_is_and_not_what_made_it(tmp_path: Path) -> None:
    with serving(Service(tmp_path)) as service:
        answers = [
            service.http.get(path) for path in ("/livez", "/docs", "/openapi.json", "/nowhere", "/metrics", STREAMS)
        ]
        answers.append(service.http.request("PATCH", STREAMS))
        answers.append(service.http.post(f"{STREAMS}/x/release"))
        answers.append(service.http.get("/", headers={"Host": "\x01"}))
    for answer in answers:
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], answer.url
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers
