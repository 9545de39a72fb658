"""Web pages at a service without keys: those of other origins and rebound names get nothing, all else works."""

import http.client
import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from redis.asyncio import Redis

from streamlimit import browser_guard
from streamlimit.api_keys import ApiKeys
from streamlimit.authenticator import Authenticator
from streamlimit.callers import Role
from streamlimit.routes import OPERATIONS, Operation
from tests.conftest import Serve, missing
from tests.issuer import SERVICE_KEY, bearer, digest
from tests.servers import Service, serving
from tests.test_docs import CHROMIUM
from tests.web import INVENTED, STREAMS, nothing_is_stored, problem

TV: Final = "https://tv.example"
ELSEWHERE: Final = "https://evil.example"
MARKS: Final[list[dict[str, str]]] = [
    {"Origin": ELSEWHERE},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": f"{TV}.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "something-new"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "document"},
]
LINK: Final = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
OWN: Final[list[dict[str, str]]] = [
    {},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost:8080", "Host": "LocalHost:8080"},
    {"Origin": "https://127.0.0.1", "Host": "127.0.0.1"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": TV},
    {"Origin": TV, "Sec-Fetch-Site": "cross-site"},
]
LOOPBACK: Final = [
    *("localhost", "LOCALHOST:8080", "localhost.", "a.b-c.localhost:1", "127.0.0.1", "127.0.0.1:8080"),
    *("127.255.3.4:65535", "[::1]", "[::1]:8080", "localhost:"),
]
FOREIGN: Final = [
    *("evil.example", "evil.example:8080", "streamlimit", "localhost.evil.example", "127.0.0.1.evil.example", ""),
    *("notlocalhost", "0.0.0.0", "192.168.0.1", "128.0.0.1", "127.0.0.256", "127.1", "2130706433", "[::]", "[::2]"),
    *("[::1", "::1", "localhost@evil.example", "localhost:80:80", "localhost,evil.example", "localhost/", ".localhost"),
]


@pytest.fixture
async def trial(serve: Serve) -> httpx2.AsyncClient:
    """A service without keys that lists an origin."""
    return await serve(origins=[TV])


@pytest.mark.anyio
@pytest.mark.parametrize("marks", MARKS, ids=str)
async def test_a_page_of_another_origin_starts_nothing(
    trial: httpx2.AsyncClient, fake_redis: Redis, marks: dict[str, str]
) -> None:
    problem(await trial.post(STREAMS, headers=marks), 403, "cross-origin")
    assert await nothing_is_stored(fake_redis)


@pytest.mark.anyio
@pytest.mark.parametrize("marks", [{"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: f"{operation.method} {operation.path}")
async def test_a_page_of_another_origin_gets_nothing_from_any_route(
    trial: httpx2.AsyncClient, operation: Operation, marks: dict[str, str]
) -> None:
    path = operation.path.format(user_id="alice", stream_id=INVENTED)

    answer = await trial.request(operation.method, path, headers=marks)

    assert answer.status_code == (421 if "Host" in marks else 403)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/nowhere"])
async def test_nor_from_what_is_no_operation(trial: httpx2.AsyncClient, path: str) -> None:
    problem(await trial.get(path, headers=MARKS[0]), 403, "cross-origin")
    problem(await trial.get(path, headers={"Host": "evil.example"}), 421, "host-not-accepted")


@pytest.mark.anyio
@pytest.mark.parametrize("headers", OWN, ids=str)
async def test_back_ends_own_pages_and_listed_origins_notice_nothing(
    trial: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await trial.post(STREAMS, headers=headers)).status_code == 201


@pytest.mark.anyio
async def test_a_link_to_a_page_of_the_service_works(trial: httpx2.AsyncClient) -> None:
    assert (await trial.get("/docs", headers=LINK)).status_code == 200


@pytest.mark.anyio
async def test_a_form_of_another_origin_does_nothing(trial: httpx2.AsyncClient) -> None:
    problem(await trial.post(STREAMS, headers=LINK), 403, "cross-origin")


@pytest.mark.anyio
@pytest.mark.parametrize("host", LOOPBACK)
async def test_this_machine_may_be_called_by_any_of_its_names(trial: httpx2.AsyncClient, host: str) -> None:
    assert (await trial.get(STREAMS, headers={"Host": host})).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("host", FOREIGN)
async def test_no_other_host_is_answered(trial: httpx2.AsyncClient, host: str) -> None:
    problem(await trial.get(STREAMS, headers={"Host": host}), 421, "host-not-accepted")


@pytest.mark.anyio
async def test_of_two_hosts_both_must_be_this_machine(trial: httpx2.AsyncClient) -> None:
    headers = [("Host", "localhost"), ("Host", "evil.example")]

    problem(await trial.get(STREAMS, headers=headers), 421, "host-not-accepted")


@pytest.mark.anyio
async def test_the_old_check_is_refused_in_its_own_shape(trial: httpx2.AsyncClient) -> None:
    answer = await trial.get("/add-stream/user/alice", headers={"Host": "evil.example"})

    assert (answer.status_code, answer.json()["can_add_stream"]) == (421, None)


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [*MARKS, {"Host": "evil.example"}], ids=str)
async def test_with_keys_nothing_changes(serve: Serve, headers: dict[str, str]) -> None:
    guarded = await serve(Authenticator(ApiKeys({Role.SERVICE: [digest(SERVICE_KEY)]})))
    admission = await guarded.post(STREAMS, headers=headers | bearer(SERVICE_KEY))
    stream = f"{STREAMS}/{admission.json()['stream_id']}"

    assert (await guarded.post(f"{stream}/heartbeat", headers=headers)).status_code == 200
    assert (await guarded.post(f"{stream}/release", headers=headers)).status_code == 204


@pytest.mark.anyio
async def test_a_service_that_is_public_on_purpose_takes_any_host_but_no_page_of_another_origin(serve: Serve) -> None:
    public = await serve(any_host=True)

    for headers in ({"Host": "streamlimit:8080"}, {"Host": "a.example", "Origin": "https://a.example"}):
        assert (await public.post(STREAMS, headers=headers)).status_code == 201
    problem(await public.post(STREAMS, headers={"Host": "a.example", "Origin": ELSEWHERE}), 403, "cross-origin")


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [MARKS[0], {"Host": "evil.example"}], ids=str)
async def test_the_log_counts_refusals_and_does_not_have_each(
    trial: httpx2.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    now = 1000.0
    monkeypatch.setattr(browser_guard, "monotonic", lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            await trial.get(STREAMS, headers=headers)
        now += 31
        await trial.get(STREAMS, headers=headers)

    lines = [record.getMessage() for record in caplog.records if record.name == browser_guard.__name__]
    assert [line.partition("request")[0] for line in lines] == ["Refused 1 ", "Refused 100 "]
    assert all("evil.example" in line for line in lines)


@pytest.mark.anyio
async def test_an_answer_repeats_nothing_of_the_request(trial: httpx2.AsyncClient) -> None:
    for headers in ({"Origin": "https://reflected.example"}, {"Host": "reflected.example"}):
        assert "reflected" not in (await trial.get(STREAMS, headers=headers)).text


# In a browser.

DRIVE_BY: Final = """<!doctype html><title>waiting</title><script>
const streams = "URL/v1/users/alice/streams";
async function attack() {
  const sent = [];
  for (const method of ["POST", "GET"]) {
    try {
      sent.push((await fetch(streams, {method, mode: "no-cors"})).type);
    } catch (error) {
      sent.push(error.name);
    }
  }
  sent.push(navigator.sendBeacon(streams, new Blob(["{}"], {type: "text/plain"})));
  document.title = `sent ${sent.join(" ")}`;
}
attack();
</script>"""
SAME_ORIGIN: Final = """<!doctype html><title>waiting</title><script>
const streams = "/v1/users/alice/streams";
async function use() {
  const statuses = [];
  for (const method of ["POST", "GET", "DELETE"]) {
    const answer = await fetch(streams, {method});
    statuses.push(answer.status, (await answer.text()).includes("alice") ? "read" : "-");
  }
  document.title = `got ${statuses.join(" ")}`;
}
use();
</script>"""
GO_TO_DOCS: Final = """<!doctype html><script>location.href = "URL/docs#/players/admit";</script>"""


@contextmanager
def page_before(service: Service, page: str) -> Iterator[int]:
    """The port of a server of 127.0.0.1 that shows this page, and passes on whatever else it is asked to the service.

    So does a host name that is rebound to the service while the page is open.
    """

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self.answer(200, page.replace("URL", str(service.http.base_url).rstrip("/")).encode(), "text/html")
            else:
                connection = http.client.HTTPConnection("127.0.0.1", service.port)
                connection.request(self.command, self.path, headers=dict(self.headers.items()))
                answer = connection.getresponse()
                self.answer(answer.status, answer.read(), answer.headers["Content-Type"])
                connection.close()

        do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def answer(self, status: int, body: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


def browse(url: str, tmp_path: Path) -> str:
    """What the page looks like in the end; evil.example is this machine."""
    if shutil.which("chromium") is None:
        missing("chromium")
    options = [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    return subprocess.run([*CHROMIUM, *options, url], capture_output=True, text=True, timeout=60, check=True).stdout


def live(service: Service) -> Any:
    return service.http.get(STREAMS).json()["live"]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_a_browser_starts_nothing_for_a_page_of_another_origin(tmp_path: Path, host: str) -> None:
    with serving(Service(tmp_path)) as service, page_before(service, DRIVE_BY) as port:
        shown = browse(f"http://{host}:{port}/", tmp_path)
        found, said = live(service), service.log.read_text()
    assert "<title>sent opaque opaque true</title>" in shown
    assert found == 0
    assert f"the last one of origin http://{host}:{port}:" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", "got 201 read 200 read 200 read"), ("evil.example", "got 421 - 421 - 421 -")]
)
def test_a_browser_gets_nothing_by_a_rebound_name_and_everything_by_an_own_one(
    tmp_path: Path, host: str, expected: str
) -> None:
    with serving(Service(tmp_path)) as service, page_before(service, SAME_ORIGIN) as port:
        shown = browse(f"http://{host}:{port}/".replace("localhost", "127.0.0.1"), tmp_path)
        refused = "for host evil.example" in service.log.read_text()
    assert f"<title>{expected}</title>" in shown
    assert refused == (host == "evil.example")


@pytest.mark.slow
def test_a_browser_follows_a_link_to_the_page_of_the_documents(tmp_path: Path) -> None:
    with serving(Service(tmp_path)) as service, page_before(service, GO_TO_DOCS) as port:
        shown = browse(f"http://evil.example:{port}/", tmp_path)
    assert "Idempotency-Key" in shown


@pytest.mark.slow
def test_a_heartbeat_by_a_rebound_name_is_refused(tmp_path: Path) -> None:
    with serving(Service(tmp_path)) as service:
        stream = f"{STREAMS}/{service.http.post(STREAMS).json()['stream_id']}"
        for headers in ({"Host": "evil.example"}, {"Host": "evil.example", "Content-Length": "0"}):
            assert service.http.post(f"{stream}/heartbeat", headers=headers).status_code == 421
            assert service.http.get(stream, headers=headers).status_code == 421
        assert service.http.get(stream, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert service.http.post(f"{stream}/heartbeat").status_code == 200
