"""What strangers may send to the port: each is refused, or does what it may do, and nothing breaks, stays or grows."""

import contextlib
import gzip
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest
from redis import Redis

from tests.conftest import missing
from tests.servers import PATIENCE_SECONDS, Service, free_port, running, serving, wait_for
from tests.web import INVENTED, STREAMS

pytestmark = pytest.mark.slow

MIB: Final = 1024 * 1024
HUGE: Final = 200
"""MiB"""
HOST: Final = "Host: localhost\r\n"
BODY: Final = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
ADMISSION: Final = f"POST {STREAMS} HTTP/1.1\r\n{HOST}"
HEARTBEAT: Final = f"POST {STREAMS}/{INVENTED}/heartbeat HTTP/1.1\r\n{HOST}"
BOMB: Final = gzip.compress(b'{"device_id": "' + b"a" * 10 * MIB + b'"}')

REFUSED: Final = {
    "no HTTP": "*1\r\n$8\r\nFLUSHALL\r\n\r\n",
    "inline commands of Redis": "EVAL \"return redis.call('FLUSHALL')\" 0\r\n\r\n",
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": f"POST {STREAMS} HTTP/9.9\r\n{HOST}{BODY}",
    "a made-up method": f"FROB {STREAMS} HTTP/1.1\r\n{HOST}{BODY}",
    "a method in small letters": f"post {STREAMS} HTTP/1.1\r\n{HOST}{BODY}",
    "CONNECT": f"CONNECT x:6379 HTTP/1.1\r\n{HOST}\r\n",
    "an asterisk": f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n",
    "two lengths": f"{ADMISSION}Content-Length: 3\r\n{BODY}",
    "a negative length": f"{ADMISSION}Content-Length: -2\r\n\r\n{{}}",
    "a length with a sign": f"{ADMISSION}Content-Length: +2\r\n\r\n{{}}",
    "a length that is no number": f"{ADMISSION}Content-Length: 0x2\r\n\r\n{{}}",
    "a length beyond 64 bits": f"{ADMISSION}Content-Length: {2**64}\r\n\r\n{{}}",
    "a length and chunks": f"{ADMISSION}Transfer-Encoding: chunked\r\n{BODY}\r\n0\r\n\r\n",
    "chunks that are not the last coding": f"{ADMISSION}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a made-up coding": f"{ADMISSION}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": f"{ADMISSION}Transfer-Encoding: chunked\r\n\r\nx\r\n{{}}\r\n0\r\n\r\n",
    "a folded header": f"{ADMISSION}X-A: a\r\n b\r\n{BODY}",
    "a header without a name": f"{ADMISSION}: a\r\n{BODY}",
    "a blank before the colon": f"{ADMISSION}Content-Length : 2\r\n\r\n{{}}",
    "NUL in a header": f"{ADMISSION}X-A: \0\r\n{BODY}",
    "a bare carriage return in a header": f"{ADMISSION}X-A: a\rb\r\n{BODY}",
    "NUL in the path": f"POST /v1/users/al\0ice/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a blank in the path": f"POST /v1/users/al ice/streams HTTP/1.1\r\n{HOST}{BODY}",
    "no UTF-8 in the path": f"POST /v1/users/al%ff%feice/streams HTTP/1.1\r\n{HOST}{BODY}",
    "overlong UTF-8 in the path": f"POST /v1/users/a%c0%afb/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a slash encoded once": f"POST /v1/users/bob%2Fstreams%2Fx/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a slash encoded twice": f"POST /v1/users/bob%252Fx/streams HTTP/1.1\r\n{HOST}{BODY}",
    "dots": f"POST /v1/users/../users/bob/streams HTTP/1.1\r\n{HOST}{BODY}",
    "encoded dots": f"POST /v1/users/%2e%2e/streams HTTP/1.1\r\n{HOST}{BODY}",
    "braces": f"POST /v1/users/%7Bbob%7D/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a glob": f"POST /v1/users/*/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a look-alike": f"POST /v1/users/%D0%B0lice/streams HTTP/1.1\r\n{HOST}{BODY}",
    "letters that turn the direction": f"POST /v1/users/%E2%80%AEbob/streams HTTP/1.1\r\n{HOST}{BODY}",
    "letters that nobody sees": f"POST /v1/users/bob%E2%80%8B/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a command in the path": f"POST /v1/users/bob%0D%0AFLUSHALL%0D%0A/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a script in the path": f"POST /v1/users/')%20redis.call('FLUSHALL')/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a long path": f"POST /v1/users/{'a' * 100_000}/streams HTTP/1.1\r\n{HOST}{BODY}",
    "a body that is packed": f"{ADMISSION}Content-Encoding: gzip\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BOMB)}\r\n\r\n",
    "an invented stream": f"{HEARTBEAT}\r\n",
    "HTTP/0.9": f"GET {STREAMS}\r\n",
    "HTTP/2.0": f"GET {STREAMS} HTTP/2.0\r\n{HOST}\r\n",
    "no host": f"GET {STREAMS} HTTP/1.1\r\n\r\n",
    "two hosts": f"GET {STREAMS} HTTP/1.1\r\n{HOST}Host: y\r\n\r\n",
    "chunks beside an upgrade": f"{ADMISSION}Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n",
    "CONNECT to a path": f"CONNECT {STREAMS} HTTP/1.1\r\n{HOST}\r\n",
    "101 headers": f"{ADMISSION}" + "a:\r\n" * 100 + "\r\n",
    "a resource of nobody": f"GET /..;/metrics HTTP/1.1\r\n{HOST}\r\n",
}
"""Heads and bodies that are no request which might do anything."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(Service(tmp_path_factory.mktemp("hostile"))) as service:
        yield service


@pytest.fixture(scope="module")
def store(service: Service) -> Iterator[Redis]:
    with Redis(port=service.embedded_port) as store:
        yield store


def send(service: Service, parts: Iterable[bytes]) -> bytes:
    """Send parts, and return the beginning of the answer; empty where the service closes before we have read it."""
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_SECONDS) as connection,
    ):
        with contextlib.suppress(ConnectionError):  # it need not read what it refuses
            for part in parts:
                connection.sendall(part)
        return connection.recv(65_536)
    return b""


def send_and_go(service: Service, part: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(part)


@contextmanager
def at_most(mebibytes: int, service: Service) -> Iterator[None]:
    """The service needs no more memory than this beyond what it has, not even for a moment."""
    (Path("/proc") / str(service.process.pid) / "clear_refs").write_text("5")
    before = peak_bytes(service)
    yield
    assert peak_bytes(service) - before < mebibytes * MIB


def peak_bytes(service: Service) -> int:
    status = (Path("/proc") / str(service.process.pid) / "status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_request_of_ours_is_refused(service: Service, store: Redis, what: str) -> None:
    before = store.dbsize()
    content = BOMB if "packed" in what else b""
    said = send(service, [REFUSED[what].encode("latin-1"), content])
    first_line = said.partition(b"\r\n")[0]

    assert first_line.startswith(b"HTTP/1.1 4"), said
    assert store.dbsize() == before
    assert service.http.get("/livez").status_code == 200


def test_connections_that_say_nothing_are_bounded_and_in_nobodys_way_who_is_there(tmp_path: Path) -> None:
    operators = free_port()
    options = ("--max-connections", "20", "--operator-port", str(operators))
    service = Service(tmp_path, *options)
    with running(service), contextlib.ExitStack() as stack:
        service.wait_until(200, "/livez")
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_SECONDS))
            for _ in range(100)
        ]
        answers = [one.recv(65_536) for one in silent[-50:]]

        assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 503 Service Unavailable"}
        assert service.http.get("/livez").status_code == 200, "its connection was there before"
        assert httpx2.get(f"http://127.0.0.1:{operators}/readyz").status_code == 200
        assert service.log.read_text().count("MAX_CONNECTIONS (20)") == 1


@pytest.mark.parametrize("end", range(1, len(ADMISSION + BODY), 7))
def test_a_client_may_go_at_any_moment(service: Service, store: Redis, end: int) -> None:
    before = store.dbsize()
    send_and_go(service, (ADMISSION + BODY)[:end].encode())

    assert service.http.get("/readyz").status_code == 200
    assert store.dbsize() == before


@pytest.mark.parametrize("head", [ADMISSION, HEARTBEAT])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_not_kept(service: Service, store: Redis, head: str, *, chunked: bool) -> None:
    block = b" " * MIB
    head += "Transfer-Encoding: chunked\r\n\r\n" if chunked else f"Content-Length: {HUGE * MIB}\r\n\r\n"
    parts = [b"%x\r\n%b\r\n" % (MIB, block)] * HUGE + [b"0\r\n\r\n"] if chunked else [block] * HUGE
    keys = store.dbsize()
    with at_most(8, service):
        said = send(service, [head.encode(), *parts])

    assert not said or said.startswith(b"HTTP/1.1 4"), said[:100]
    assert store.dbsize() == keys


@pytest.mark.parametrize("head", [ADMISSION, HEARTBEAT, "POST /"], ids=["admission", "heartbeat", "path"])
@pytest.mark.parametrize("one_line", [False, True])
def test_a_huge_head_is_not_kept(service: Service, store: Redis, head: str, *, one_line: bool) -> None:
    block = b"a" * MIB if one_line or head == "POST /" else b"X-A: " + b"a" * MIB + b"\r\n"
    start = head + ("X-A: " if one_line and head != "POST /" else "")
    keys = store.dbsize()
    with at_most(2, service):
        said = send(service, [start.encode(), *[block] * 20])

    assert not said or said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), said[:100]
    assert store.dbsize() == keys


SILENT: Final = {
    "nothing": b"",
    "half a head": f"{HEARTBEAT}X-Slow: ".encode(),
    "half a head of tiny headers": HEARTBEAT.encode() + b"ab:\r\n" * 6_000,
    "half a body": f"{ADMISSION}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode(),
    "half a body of which the answer has been sent": f"{HEARTBEAT}Content-Length: 9\r\n\r\n{{".encode(),
    "an answer that was read": f"{HEARTBEAT}\r\n".encode(),
}
ANSWERED: Final = {
    "nothing": (),
    "half a body of which the answer has been sent": (404,),
    "an answer that was read": (404,),
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits for a second only."""
    with serving(Service(tmp_path_factory.mktemp("hasty"), "--request-seconds", "1")) as service:
        yield service


@pytest.mark.parametrize("what", SILENT)
def test_a_client_that_says_no_more_is_not_waited_for(hasty: Service, what: str) -> None:
    """But for one that was answered, which may keep its connection for a while."""
    said = b""
    is_kept = what == "an answer that was read"
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=4 if is_kept else PATIENCE_SECONDS) as connection:
        connection.sendall(SILENT[what])
        with contextlib.suppress(TimeoutError) if is_kept else contextlib.nullcontext():
            while received := connection.recv(65_536):
                said += received

    statuses = tuple(int(status) for status in re.findall(rb"^HTTP/1.1 (\d+) ", said, re.MULTILINE))
    assert statuses == ANSWERED.get(what, (408,))


def test_an_honest_client_that_is_slow_gets_through(hasty: Service) -> None:
    """A byte at a time, but all of the head within the time for it, and so the body."""
    request = f"{ADMISSION}{BODY}"
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(request)):
            connection.sendall(request[number : number + 1].encode())
            time.sleep(0.001)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 201 ")


CROWD: Final = 300
PIPELINED: Final = f"{HEARTBEAT}\r\n".encode() * 2_000
"""About 300 KB"""


@pytest.mark.parametrize("what", [*SILENT, "requests of which no answer is read"])
def test_a_crowd_of_strangers_holds_little_and_goes(hasty: Service, what: str) -> None:
    content = SILENT.get(what, PIPELINED)
    files = open_files(hasty)
    # What is pipelined is work, too, until the answers fill the buffers.
    crowd = CROWD // 10 if content is PIPELINED else CROWD
    with at_most(max(10, crowd // 10), hasty), contextlib.ExitStack() as stack:  # 10,000: less than 1 GiB
        for _ in range(crowd):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", hasty.port)))
            connection.settimeout(0)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                connection.send(content)
        if what != "an answer that was read":
            # Some may be connections to the store, which it keeps.
            wait_for(lambda: open_files(hasty) <= files + crowd // 3, "connections to be closed")

    assert hasty.http.get("/readyz").status_code == 200
    assert "Traceback" not in hasty.log.read_text()


def test_complaints_about_strangers_are_counted_and_not_all_logged(service: Service) -> None:
    before = len(service.log.read_text())
    for _ in range(300):
        send(service, [b"x\r\n\r\n"])
    log = service.log.read_text()[before:]
    metrics = service.http.get("/metrics").text
    counted = re.search(r'^streamlimit_requests_refused_total\{reason="malformed"\} (\S+)$', metrics, re.MULTILINE)

    assert counted
    assert float(counted[1]) >= 300
    assert log.count("\n") <= 2, log


MESSAGE: Final = f"{ADMISSION}Content-Type: application/json\r\nContent-Length: 12\r\n\r\n" + '{"limit": 0}'


@pytest.mark.parametrize("cut", [*range(1, len(MESSAGE), 9), len(MESSAGE) - 1])
@pytest.mark.parametrize("upgrade", ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["", "upgrade"])
def test_a_request_in_pieces_is_answered_as_at_once(service: Service, cut: int, upgrade: str) -> None:
    text = MESSAGE.replace(HOST, HOST + upgrade).encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (text[:cut], text[cut:]):
            connection.sendall(part)
            time.sleep(0.01)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 409 ")


def test_a_client_that_offers_http_2_is_answered_in_http_1(service: Service) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    url = f"http://127.0.0.1:{service.port}/v1/users/curl/streams"
    command = ["curl", "-s", "--http2", url, "-H", "Content-Type: application/json", "-d", '{"device_id": "tv"}']
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert answer["device_id"] == "tv"


JAVA: Final = Path(__file__).with_name("Client.java")


def test_the_http_client_of_java_is_understood(service: Service) -> None:
    """It asks for an upgrade to h2c with each request, unless told to use HTTP/1.1."""
    if shutil.which("java") is None or shutil.which("javac") is None:
        missing("javac")
    command = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(JAVA), f"http://127.0.0.1:{service.port}"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["201", "409", "200", "204", "400", "201", "409"]


def test_all_of_it_leaves_the_service_as_it_was(service: Service, store: Redis) -> None:
    """A thousand and more bad requests, of all kinds, and nothing is left of them."""
    samples = [text.encode("latin-1") for what, text in REFUSED.items() if "packed" not in what]

    def all_of_them() -> None:
        for sample in samples:
            send(service, [sample])

    all_of_them()  # fills caches
    keys, files = store.dbsize(), open_files(service)
    with at_most(4, service):
        for _ in range(25):
            all_of_them()

    assert store.dbsize() == keys
    wait_for(lambda: open_files(service) <= files, "connections to be closed")
    assert "Traceback" not in Path(service.log).read_text()


def open_files(service: Service) -> int:
    return len(list((Path("/proc") / str(service.process.pid) / "fd").iterdir()))
