"""Which request heads are refused before the parser sees them, and how the bodies of the others are framed."""

import pytest

from streamlimit.http_heads import MAX_HEADERS, Framing, check_beginning, check_request_line, frame
from streamlimit.refusals import Refusal

HOST = b"Host: x\r\n"


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        (HOST, Framing()),
        (b"Host:\r\n", Framing()),
        (b"host:\tA.example:8080 \r\n", Framing()),
        (b"Host: [::1]:8080\r\n", Framing()),
        (HOST + b"Content-Length: 0\r\n", Framing()),
        (HOST + b"content-length:\t012 \r\n", Framing(12)),
        (b"Content-Length: 2\r\n" + HOST, Framing(2)),
        (HOST + b"X-Content-Length: 2\r\nX-Host: Content-Length: 2\r\n", Framing()),
        (HOST + b"TRANSFER-ENCODING: Chunked\r\n", Framing(-1)),
        (HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n", Framing(0, upgrades=True)),
        (HOST + b"UPGRADE: h2c\r\nContent-Length: 2\r\n", Framing(2, upgrades=True)),
        (HOST + b"A:\r\n" * (MAX_HEADERS - 1), Framing()),
    ],
)
def test_the_framing_of_a_body(fields: bytes, framing: Framing) -> None:
    assert frame(fields + b"\r\n", b"1.1") == framing


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"X: Host: x\r\n",
        HOST + HOST,
        HOST + b"X: y\r\nhost: y\r\n",
        b"Host: a b\r\n",
        b"Host: a,b\r\nHost: a\r\n",
        b"Host: a/b\r\n",
        b"Host: me@a\r\n",
        b"Host: a:b\r\n",
        b"Host: http://a\r\n",
        HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n",
        HOST + b"Content-Length: 2, 2\r\n",
        HOST + b"Content-Length: +2\r\n",
        HOST + b"Content-Length: -2\r\n",
        HOST + b"Content-Length: 0x2\r\n",
        HOST + b"Content-Length: 2 2\r\n",
        HOST + b"Content-Length:\r\n",
        HOST + b"Content-Length: 1000000000000000\r\n",
        HOST + "Content-Length: ²\r\n".encode(),
        HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        HOST + b"Transfer-Encoding: gzip, chunked\r\n",
        HOST + b"Transfer-Encoding: chunked, identity\r\n",
        HOST + b"Transfer-Encoding: identity\r\n",
        HOST + b"Transfer-Encoding: xchunked\r\n",
        HOST + b'Transfer-Encoding: "chunked"\r\n',
        HOST + b"Transfer-Encoding:\r\n",
        HOST + b"Transfer-Encoding: chunked\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
    ],
)
def test_a_host_or_a_framing_in_doubt_is_refused(fields: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        frame(fields + b"\r\n", b"1.1")

    assert refused.value.kind.status == 400


def test_more_headers_than_the_maximum_are_refused() -> None:
    with pytest.raises(Refusal) as refused:
        frame(HOST + b"A:\r\n" * MAX_HEADERS + b"\r\n", b"1.1")

    assert refused.value.kind.status == 431


def test_http_1_0_needs_no_host_and_has_no_chunks() -> None:
    assert frame(b"\r\n", b"1.0") == Framing()
    for fields in (HOST + HOST, HOST + b"Transfer-Encoding: chunked\r\n"):
        with pytest.raises(Refusal):
            frame(fields + b"\r\n", b"1.0")


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"M-SEARCH * HTTP/1.0", b"GET http://x/?y HTTP/1.1"])
def test_a_request_line(line: bytes) -> None:
    check_request_line(line)
    for end in range(len(line)):
        check_beginning(line[:end])
    for rest in (b"", b"\r", b"\r\n", b"\r\nHost"):
        check_beginning(line + rest)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET /",
        b"GET / HTTP/0.9",
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET / HTTP/1.10",
        b"GET / http/1.1",
        b"GET / RTSP/1.0",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET / a HTTP/1.1",
        b"GET /\n HTTP/1.1",
        b"CONNECT x:1 HTTP/1.1",
        b"CONNECT / HTTP/1.0",
    ],
)
def test_another_request_line_is_refused(line: bytes) -> None:
    with pytest.raises(Refusal):
        check_request_line(line)


@pytest.mark.parametrize(
    "beginning",
    [b"\x16\x03\x01", b"x", b"*1\r\n", b" GET", b"\n", b"GET /\r\n", b"GET / HTTP/1.1\n", b"\r\r", b"GET\n"],
)
def test_what_cannot_become_a_head_is_not_waited_for(beginning: bytes) -> None:
    with pytest.raises(Refusal):
        check_beginning(beginning)
