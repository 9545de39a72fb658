"""The proxies of docs/edge.md before the service: what they keep away, and what an edge serves for how long."""

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest
from redis import Redis

from streamlimit.handlers import CHECK_MAX_AGE_SECONDS
from tests.fronts import Caddy, Front, HAProxy, Nginx, trusting
from tests.servers import PATIENCE_SECONDS, RedisServer, Service, running, serving, valkey, wait_for
from tests.web import STREAMS

pytestmark = pytest.mark.slow

SEGMENT: Final = b"video" * 1_000
INVENTED: Final = f"1.{'A' * 19}.{'A' * 16}"
HUGE_BODY: Final = 200 * 1024 * 1024
HEAD: Final = f"POST {STREAMS} HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "store").mkdir()
    with running(valkey(tmp_path / "store")) as store:
        yield store


@pytest.fixture
def service(tmp_path: Path, store: RedisServer) -> Iterator[Service]:
    with serving(Service(tmp_path, "--redis-url", store.url)) as service:
        yield service


Start = Callable[..., Front]
each = pytest.mark.parametrize("front", [Nginx, Caddy, HAProxy], indirect=True)
either = pytest.mark.parametrize("front", [Nginx, Caddy], indirect=True)


@pytest.fixture
def front(request: pytest.FixtureRequest, tmp_path: Path, service: Service) -> Iterator[Start]:
    """Starts nginx, or what the test is parametrized with, with the named configurations."""
    kind: type[Nginx | Caddy | HAProxy] = getattr(request, "param", Nginx)
    with ExitStack() as stack:

        def start(*names: str, replace: Mapping[str, str] | None = None) -> Front:
            (tmp_path / "front").mkdir()
            front = kind(tmp_path / "front", service.port, *(names or ("api",)), replace=replace)
            stack.enter_context(running(front))
            for number in range(100):
                (front.videos / f"segment-{number}.ts").write_bytes(SEGMENT)
            return front

        yield start


@contextmanager
def client(front: Front, name: str = "api") -> Iterator[httpx2.Client]:
    with httpx2.Client(
        base_url=f"https://127.0.0.1:{front.ports[name]}", verify=trusting(front), timeout=PATIENCE_SECONDS
    ) as http:
        yield http


def started(service: Service, user_id: str = "alice") -> str:
    answer = service.http.post(f"/v1/users/{user_id}/streams")
    assert answer.status_code == 201
    return str(answer.json()["stream_id"])


@contextmanager
def connected(front: Front) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", front.ports["api"]), timeout=PATIENCE_SECONDS) as raw,
        trusting(front).wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        yield connection


def said_until_the_end(front: Front, *parts: bytes) -> bytes:
    """What it says on one connection to which these parts are sent, until it closes that."""
    said = b""
    with connected(front) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            while received := connection.recv(65_536):
                said += received
        except (ConnectionError, ssl.SSLEOFError):  # it does not read to the end of what it refuses
            pass
    return said


@either
def test_players_reach_the_api_over_tls(front: Start) -> None:
    with client(front()) as http:
        stream_id = http.post(STREAMS).json()["stream_id"]

        assert http.post(f"{STREAMS}/{stream_id}/heartbeat").status_code == 200
        assert http.get(f"{STREAMS}/{stream_id}").status_code == 200
        assert http.post(f"{STREAMS}/{stream_id}/release").status_code == 204
        assert http.post(f"{STREAMS}/{stream_id}/heartbeat").status_code == 410


@either
def test_a_path_that_is_encoded_reaches_the_service_as_it_came(front: Start) -> None:
    with client(front()) as http:
        assert http.post("/v1/users/a%7Cb/streams").status_code == 201
        assert http.post("/v1/users/alice%2Fstreams/streams").status_code == 422


@either
@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/livez", "/docs", "/openapi.json", "/", "/v2/users/alice"])
def test_what_is_for_operators_is_not_there(front: Start, path: str) -> None:
    with client(front()) as http:
        assert http.get(path).status_code == 404


@either
@pytest.mark.parametrize("path", ["/v1/heartbeats", "/add-stream/user/alice/"])
def test_what_is_for_back_ends_is_for_known_networks(front: Start, path: str) -> None:
    with client(front(replace={"allow 127.0.0.0/8;": "", "127.0.0.0/8 10": "10"})) as http:
        assert http.get(path).status_code == 403


def test_an_address_that_asks_too_often_is_told_to_wait(front: Start) -> None:
    with client(front(replace={"burst=200": "burst=5"})) as http:
        answers = [http.get(f"{STREAMS}/{INVENTED}") for _ in range(50)]
    refused = [answer for answer in answers if answer.status_code == 429]

    assert refused
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert refused[0].headers["content-type"] == "application/problem+json"
    assert refused[0].json()["status"] == 429


def test_an_address_that_opens_too_many_connections_is_told_to_wait(front: Start) -> None:
    nginx = front(replace={"limit_conn api_connections 200;": "limit_conn api_connections 1;"})
    head = f"{HEAD}Content-Length: 9\r\n\r\n".encode()
    with (
        socket.create_connection(("127.0.0.1", nginx.ports["api"])) as raw,
        trusting(nginx).wrap_socket(raw, server_hostname="127.0.0.1") as waiting,
    ):
        waiting.sendall(head)

        def refused() -> bool:
            with client(nginx) as http:
                return http.get(f"{STREAMS}/{INVENTED}").status_code == 429

        wait_for(refused, "429")


@either
def test_a_head_that_comes_slowly_is_not_waited_for(front: Start) -> None:
    nginx = front(replace={"client_header_timeout 5s": "client_header_timeout 1s", "read_header 5s": "read_header 1s"})

    assert not said_until_the_end(nginx, f"{HEAD}X-Slow: ".encode())


@either
def test_a_body_that_comes_slowly_is_not_waited_for(front: Start, store: RedisServer) -> None:
    nginx = front(replace={"client_body_timeout 5s": "client_body_timeout 1s", "read_body 10s": "read_body 1s"})
    head = f"{HEAD}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"

    assert b" 201 " not in said_until_the_end(nginx, head.encode())
    assert store.answers()


@either
def test_a_huge_body_is_refused(front: Start) -> None:
    head = f"{HEAD}Content-Length: {HUGE_BODY}\r\n\r\n".encode()

    assert said_until_the_end(front(), head).startswith(b"HTTP/1.1 413 ")


@either
def test_a_huge_body_in_chunks_is_refused(front: Start) -> None:
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
    chunks = [b"10000\r\n" + b" " * 0x10000 + b"\r\n"] * 16

    assert said_until_the_end(front(), head, *chunks).startswith(b"HTTP/1.1 413 ")


@either
def test_huge_headers_are_refused(front: Start) -> None:
    lines = [b"X-Large: " + b"a" * 1024 * 1024 + b"\r\n"] * 20

    said = said_until_the_end(front(), HEAD.encode(), *lines, b"\r\n")
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")) or not said  # it may close before it is read


@either
def test_a_token_of_the_longest_kind_goes_through(front: Start) -> None:
    with client(front()) as http:
        assert http.post(STREAMS, headers={"Authorization": f"Bearer {'x' * 8_000}"}).status_code == 201


UPGRADE: Final = "Connection: Upgrade\r\nUpgrade: h2c\r\n"
JSON: Final = "Content-Type: application/json\r\n"


def answers(front: Front, *parts: str) -> list[int]:
    """The statuses of the answers to what is sent on one connection, the last of which is asked to be the last."""
    said = said_until_the_end(front, *(part.encode() for part in parts))
    return [int(status) for status in re.findall(rb"^HTTP/1.1 (\d+) ", said, re.MULTILINE)]


@each
@pytest.mark.parametrize("sends", [1, 2])
def test_the_body_beside_an_upgrade_is_read(front: Start, service: Service, sends: int) -> None:
    body = '{"limit": 1, "device_id": "tv-1"}'
    head = f"{HEAD}{JSON}{UPGRADE}Content-Length: {len(body)}\r\n\r\n"
    last = f"GET {STREAMS} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    parts = [head + body + last] if sends == 1 else [head, body + last]

    # A proxy may take an upgrade for the end of the requests on a connection.
    assert answers(front(), *parts)[0] == 201
    (stream,) = service.http.get(STREAMS).json()["streams"]
    assert stream["device_id"] == "tv-1"


@each
@pytest.mark.parametrize("upgrade", [UPGRADE, ""], ids=["upgrade", "plain"])
def test_the_body_of_one_caller_is_no_request_of_the_next_one(front: Start, service: Service, upgrade: str) -> None:
    """Proxies share their connections to the service among all callers."""
    started(service)
    smuggled = f"DELETE {STREAMS} HTTP/1.1\r\nHost: localhost\r\nX-Rest: "
    head = f"POST {STREAMS}/{INVENTED}/heartbeat HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}"
    proxy = front()
    for _ in range(5):
        text = f"{head}Content-Length: {len(smuggled)}\r\n\r\n{smuggled}"
        with connected(proxy) as connection:
            connection.sendall(text.encode())
            assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")
        with client(proxy) as http:
            assert http.get(STREAMS).json()["live"] == 1

    assert service.http.get(STREAMS).json()["live"] == 1


@each
def test_connect_goes_nowhere(front: Start, service: Service) -> None:
    with connected(front()) as connection:
        connection.sendall(f"CONNECT 127.0.0.1:{service.port} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

        assert connection.recv(65_536).startswith(b"HTTP/1.1 4")


def segment(http: httpx2.Client, stream_id: str, number: int = 1, user_id: str = "alice") -> int:
    answer = http.get(f"/{user_id}/{stream_id}/segment-{number}.ts")
    if answer.status_code == 200:
        assert answer.content == SEGMENT
    return answer.status_code


def test_segments_are_served_for_a_live_stream_only(front: Start, service: Service) -> None:
    stream_id = started(service)
    with client(front("api", "edge"), "edge") as http:
        assert segment(http, stream_id) == 200
        assert segment(http, stream_id, user_id="bob") == 403
        assert segment(http, INVENTED) == 403
        assert http.get("/segment-1.ts").status_code == 404
        assert http.get(f"/alice/{stream_id}/../../segment-1.ts").status_code == 404
        assert http.get(f"/alice/{stream_id}/nothing.ts").status_code == 404


def test_a_player_that_ignores_the_end_of_its_stream_loses_the_video(front: Start, service: Service) -> None:
    stream_id = started(service)
    with client(front("api", "edge"), "edge") as http:
        assert segment(http, stream_id) == 200
        assert service.http.delete(f"{STREAMS}/{stream_id.rpartition('.')[0]}").status_code == 204

        wait_for(lambda: segment(http, stream_id) == 403, "a refusal")
        assert checks(service) <= 3  # so it was refused at the first check after the one that let it go on


def test_a_check_is_good_for_the_segments_of_some_seconds(front: Start, service: Service) -> None:
    stream_id = started(service)
    with client(front("api", "edge"), "edge") as http:
        found = [segment(http, stream_id, number) for number in range(100)]

    assert found == [200] * 100
    assert checks(service) <= 1 + PATIENCE_SECONDS / CHECK_MAX_AGE_SECONDS


def checks(service: Service) -> int:
    """How many the service has answered."""
    labels = 'method="GET",route="/v1/users/{user_id}/streams/{stream_id}"'
    counted = rf"^streamlimit_answers_total\{{{re.escape(labels)}.*\}} (.*)$"
    return sum(int(float(count)) for count in re.findall(counted, service.http.get("/metrics").text, re.MULTILINE))


def test_nobody_loses_the_video_when_the_store_loses_its_data(
    front: Start, service: Service, store: RedisServer
) -> None:
    stream_id = started(service)
    with Redis(port=store.port) as operator:
        operator.flushall()
    with client(front("api", "edge"), "edge") as http:
        assert segment(http, stream_id) == 200


@pytest.mark.parametrize(("on_outage", "status"), [("204 @go_on", 200), ("403 @refuse", 403)])
@pytest.mark.parametrize("away", ["store", "service"])
def test_in_an_outage_the_configuration_decides(
    request: pytest.FixtureRequest, front: Start, away: str, on_outage: str, status: int
) -> None:
    service: Service = request.getfixturevalue("service")
    stream_id = started(service)
    nginx = front("api", "edge", replace={"=204 @go_on": f"={on_outage}"})
    request.getfixturevalue(away).stop()
    with client(nginx, "edge") as http:
        assert segment(http, stream_id) == status


def logged(front: Front) -> str:
    return "".join(log.read_text() for log in front.logs.iterdir() if log.is_file())


@either
def test_no_log_of_the_proxy_has_a_stream_id(front: Start, service: Service) -> None:
    stream_id = started(service)
    proxy = front()
    with client(proxy) as http:
        assert http.post(f"{STREAMS}/{stream_id}/heartbeat").status_code == 200
        assert http.get(f"/{stream_id}").status_code == 404
        service.stop()
        assert http.post(f"{STREAMS}/{stream_id}/heartbeat").status_code == 502
    proxy.stop()

    assert logged(proxy).count("POST") == 2
    assert stream_id not in logged(proxy)


def test_no_log_of_the_edge_has_a_stream_id(front: Start, service: Service) -> None:
    stream_id = started(service)
    edge = front("api", "edge")
    with client(edge, "edge") as http:
        assert [segment(http, one) for one in (stream_id, INVENTED)] == [200, 403]
    edge.stop()

    assert " GET 200 " in logged(edge)
    assert stream_id not in logged(edge)
    assert INVENTED not in logged(edge)
