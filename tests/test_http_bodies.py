"""Bodies are cut out of what arrives, wherever that was cut on its way."""

from itertools import combinations_with_replacement

import pytest

from streamlimit.http_bodies import ChunkedBody, SizedBody
from streamlimit.refusals import Refusal

CHUNKED = b'3;a="b";c\r\nabc\r\nA \t;\r\n0123456789\r\n0\r\nX-A: y\r\nHost: evil\r\n\r\n'
NEXT = b"GET /"


def test_chunks_in_two_and_three_pieces() -> None:
    for cuts in combinations_with_replacement(range(len(CHUNKED)), 2):
        body, arrived, content = ChunkedBody(), bytearray(), b""
        for start, end in zip((0, *cuts), (*cuts, len(CHUNKED)), strict=True):
            assert not body.is_complete
            arrived += CHUNKED[start:end]
            content += body.read(arrived)
        arrived += NEXT

        assert body.is_complete
        assert (content, bytes(arrived)) == (b"abc0123456789", NEXT)


def test_chunks_at_once_with_what_comes_next() -> None:
    body, arrived = ChunkedBody(), bytearray(CHUNKED + NEXT)

    assert (body.read(arrived), bytes(arrived)) == (b"abc0123456789", NEXT)


@pytest.mark.parametrize(
    "chunks",
    [
        b"\r\n",
        b"x\r\n",
        b" 3\r\n",
        b"3 \r\n",
        b"+3\r\n",
        b"-3\r\n",
        b"0x3\r\n",
        b"3_0\r\n",
        b"3,\r\n",
        b"3;\n\r\n",
        b"3;a\r;\r\n",
        b"3;\0\r\n",
        b"1000000000000000\r\n",
        b"3;" + b"a" * 300,
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabcd",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"0\r\nX\r\n",
        b"0\r\n a: b\r\n",
        b"0\r\nX : y\r\n",
        b"0\r\nX: \0\r\n",
        b"0\r\n" + b"X: y\r\n" * 1_100,
    ],
)
def test_what_is_not_chunked_correctly_is_refused(chunks: bytes) -> None:
    with pytest.raises(Refusal):
        ChunkedBody().read(bytearray(chunks))


def test_a_body_of_a_length() -> None:
    body, arrived = SizedBody(5), bytearray(b"abc")

    assert (body.read(arrived), body.is_complete, bytes(arrived)) == (b"abc", False, b"")
    arrived += b"de" + NEXT
    assert (body.read(arrived), body.is_complete, bytes(arrived)) == (b"de", True, NEXT)
