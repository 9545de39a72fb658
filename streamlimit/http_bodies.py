"""Request bodies, cut out of what arrives on a connection: of a given length, or in chunks (RFC 9112 section 7.1)."""

import re
from typing import Final

from streamlimit.refusals import malformed

_CRLF: Final = b"\r\n"
_MAX_LINE_BYTES: Final = 256
"""Of a chunk's size and its extensions, which mean nothing to us."""
_MAX_TRAILER_BYTES: Final = 4 * 1024
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")


class SizedBody:
    """A body of `Content-Length`.

    Args:
        length: In bytes, at least 1.
    """

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def is_complete(self) -> bool:
        """Whether all of it was read."""
        return not self._left

    def read(self, arrived: bytearray) -> bytes:
        """Take from the front of `arrived` what belongs to the body, and return it."""
        content = bytes(arrived[: self._left])
        del arrived[: len(content)]
        self._left -= len(content)
        return content


class ChunkedBody:
    """A body in chunks, of which extensions and trailers are dropped.

    Merged into the headers, as uvicorn would do it, a trailer could replace one that has been checked already.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self._left = 0
        """Bytes of the current chunk that have not arrived, its CRLF aside."""
        self._is_at_end_of_chunk = False
        self._is_in_trailer = False
        self._trailer_bytes = 0

    def read(self, arrived: bytearray) -> bytes:
        """Take from the front of `arrived` what belongs to the body, and return its content.

        Raises:
            Refusal: It is not chunked correctly.
        """
        content = bytearray()
        position = 0
        while not self.is_complete:
            if self._left:
                piece = arrived[position : position + self._left]
                content += piece
                position += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._is_at_end_of_chunk = True
            end = arrived.find(_CRLF, position, position + _MAX_LINE_BYTES)
            if end < 0:
                self._check_beginning(arrived[position : position + _MAX_LINE_BYTES])
                break
            self._read_line(bytes(arrived[position:end]))
            position = end + len(_CRLF)
        del arrived[:position]
        return bytes(content)

    def _check_beginning(self, line: bytearray) -> None:
        """A line must not be too long, and a chunk must end where its size says."""
        if len(line) == _MAX_LINE_BYTES or (self._is_at_end_of_chunk and bytes(line) not in (b"", b"\r")):
            raise _malformed()

    def _read_line(self, line: bytes) -> None:
        if self._is_at_end_of_chunk:
            if line:
                raise _malformed()
            self._is_at_end_of_chunk = False
        elif self._is_in_trailer:
            self._read_trailer(line)
        else:
            size = _SIZE_LINE.fullmatch(line)
            if not size:
                raise _malformed()
            self._left = int(size[1], 16)
            self._is_in_trailer = not self._left

    def _read_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        self.is_complete = not line
        if line and (self._trailer_bytes > _MAX_TRAILER_BYTES or not _TRAILER.fullmatch(line)):
            raise _malformed()


def _malformed() -> Exception:
    return malformed("The body is not chunked correctly.")
