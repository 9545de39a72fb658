"""One HTTP/1.1 connection: uvicorn's protocol, with bounds on what a client can hold, and messages cut apart here.

uvicorn gives the parser whatever arrives. Then a head of any size stays in memory, pipelined requests wait as objects,
and where the parser takes the rest of a connection for another protocol (`Upgrade`, `CONNECT`), a body is lost or runs
as a request. Here, what arrives waits as bytes until it is its turn: a head goes to the parser when it is complete and
the request before it is answered, and a body goes to its request. For example, of

    POST /a HTTP/1.1 … Content-Length: 2 … {}GET /b HTTP/1.1 …

the parser reads the first head; `{}` goes to that request; and `GET /b` waits, with reading paused, until the request
is answered. So what is done does not depend on how the bytes were cut on their way.

Whatever of uvicorn is undocumented and used by the service is used here, in `connection_limits` and in
`heartbeat_protocol`.
"""

import logging
from typing import Any, Final

import httptools

from streamlimit import problems
from streamlimit.connection_limits import LimitedConnection
from streamlimit.http_bodies import ChunkedBody, SizedBody
from streamlimit.http_heads import (
    HEAD_END,
    MAX_HEAD_BYTES,
    Framing,
    check_beginning,
    check_request_line,
    frame,
)
from streamlimit.problems import Problem
from streamlimit.refusals import HEAD_TOO_LARGE, Refusal, malformed

_CRLF: Final = b"\r\n"
_END_BYTES: Final = len(HEAD_END)
_REMEMBERED_BYTES: Final = 1024
"""Of the headers of the last request, which a client mostly repeats: they need not be checked again then."""
_INVALID: Final = "The request is not valid HTTP/1.1."
_NO_PATH: Final = "The target must have a path."
_BAD_TARGET: Final = (httptools.HttpParserError, UnicodeError)

_logger = logging.getLogger(__name__)


class HttpConnection(LimitedConnection):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unread = bytearray()
        """What has arrived and waits: for its rest, or for the answer to the request before it."""
        self._is_idle = True
        """No request is under way, and nothing waits."""
        self._is_advancing = False
        self._is_in_head = False
        """A head has arrived in part."""
        self._body: SizedBody | ChunkedBody | None = None
        """That which is to come next."""
        self._fields = b""
        self._framing = Framing()
        """What follows from `_fields`, the headers of the last request."""

    @property
    def has_unread(self) -> bool:
        """Whether something has arrived whose turn has not come, or whose rest is missing."""
        return bool(self._unread)

    @property
    def is_busy(self) -> bool:
        """Whether a request has begun that was not answered yet."""
        return self._is_under_way() or self._body is not None or self.has_unread

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has not been read."""
        super().connection_lost(exc)
        self._is_refused = True
        self._is_idle = False
        self._unread.clear()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived: mostly one head and nothing else."""
        # Operators on bytes, since calls would cost more.
        if self._is_idle and data[-4:] == HEAD_END and HEAD_END not in data[:-1] and not data[MAX_HEAD_BYTES:]:
            self._read_head(data)
        elif not self._is_refused:
            self._is_idle = False
            self._unread += data
            self._advance()

    def on_message_complete(self) -> None:
        """Tell the request that it has no body. Of those that have one the parser knows nothing."""
        if self._body is None:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Go on with what has arrived meanwhile; wait for the next request where that is nothing."""
        self.server_state.total_requests += 1
        if self._body is None and not self.flow.write_paused:
            self.deadline = self._deadlines.now + self.timeout_keep_alive
            if not self._unread and not self.flow.read_paused:
                self._is_idle = True
                return
        if self.transport.is_closing():
            return
        self._flow.is_held = False
        self._advance()
        self.flow.resume_reading()

    def _is_receiving(self) -> bool:
        return self._body is not None or self._is_in_head

    def _should_upgrade(self) -> bool:
        return False

    def _advance(self) -> None:
        """Read on in what has arrived, as far as that goes."""
        if self._is_advancing:  # an answer was made within `_read_head`, which goes on by itself
            return
        self._is_advancing = True
        try:
            while self._unread and not self._is_refused and self._read_next():
                pass
        finally:
            self._is_advancing = False
        if self._is_under_way():
            if self._unread and self._body is None:
                self._flow.is_held = True
                self.flow.pause_reading()
        elif not self._unread and self._body is None:
            self._is_idle = not self._is_refused

    def _read_next(self) -> bool:
        """Read one part of a message; return whether there may be another one."""
        try:
            if self._body is not None:
                return self._read_body(self._body)
            return not self._is_under_way() and self._cut_head()
        except Refusal as refusal:
            self._refuse(refusal)
            return False

    def _read_body(self, body: SizedBody | ChunkedBody) -> bool:
        content = body.read(self._unread)
        if content:
            self.on_body(content)
        if body.is_complete:
            self._body = None
            self.on_message_complete()
            self.deadline = self._deadlines.after(self.timeout_keep_alive)
        return body.is_complete

    def _cut_head(self) -> bool:
        unread = self._unread
        while unread.startswith(_CRLF):  # RFC 9112 section 2.2
            del unread[: len(_CRLF)]
            self._is_in_head = False
        end = unread.find(HEAD_END, 0, MAX_HEAD_BYTES) + _END_BYTES
        if end >= _END_BYTES:
            head = bytes(unread[:end])
            del unread[:end]
            self._is_in_head = False
            self._read_head(head)
            return True
        if len(unread) >= MAX_HEAD_BYTES:
            raise Refusal(HEAD_TOO_LARGE, f"At most {MAX_HEAD_BYTES // 1024} KiB.")
        if unread:
            check_beginning(unread)
            if not self._is_in_head:
                self._is_in_head = True
                self.deadline = self._deadlines.after(self._request_seconds)
        return False

    def _read_head(self, head: bytes) -> None:
        """Let the parser read a head, which starts the request."""
        self._is_idle = False
        line, _, fields = head.partition(_CRLF)
        if not line:  # before a request: skipped there
            self._unread += head
            self._advance()
            return
        try:
            # What the parser lets pass and we do not, without the cost of a regular expression.
            if line[-9:] != b" HTTP/1.1" or line[:8] == b"CONNECT " or b"  " in line:
                check_request_line(line)
            framing = self._framing if fields == self._fields else self._frame(fields, line[-3:])
            if framing.length:
                self._body = SizedBody(framing.length) if framing.length > 0 else ChunkedBody()
                self.deadline = self._deadlines.after(self._request_seconds)
            self.parser.feed_data(head)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        except httptools.HttpParserUpgrade:
            pass  # ignored; the parser, which goes no further, is replaced
        except httptools.HttpParserError as error:
            self._body = None
            self._refuse(malformed(_NO_PATH) if _has_no_path(line) else _refusal_of(error))
            return
        if framing.length or framing.upgrades:
            self.parser = httptools.HttpRequestParser(self)  # this one waits for what it is not given
        elif self.cycle.more_body:
            _logger.error("The parser and the service disagree about where a request ends")
            self._refuse(malformed(_INVALID))

    def _frame(self, fields: bytes, version: bytes) -> Framing:
        found = frame(fields, version)
        if len(fields) <= _REMEMBERED_BYTES and version == b"1.1" and found.length >= 0:
            self._fields, self._framing = fields, found
        return found

    def _refuse(self, refusal: Problem, *, is_answered: bool = False) -> None:
        has_begun = self._body is not None and self.cycle.response_started
        self._is_idle = False
        self._body = None
        self._unread.clear()
        super()._refuse(refusal, is_answered=is_answered or has_begun)


def _has_no_path(line: bytes) -> bool:
    """Whether the target is a URL without a path, which uvicorn cannot take."""
    _, is_url, rest = line.partition(b"://")
    return bool(is_url) and b"/" not in rest.partition(b" ")[0]


def _refusal_of(error: httptools.HttpParserError) -> Problem:
    """What a failure of the parser means. It wraps failures of its callbacks, too, which can be our own."""
    cause = error.__context__
    if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, _BAD_TARGET):
        _logger.error("A request could not be started", exc_info=cause)
        return problems.internal_error()
    return malformed(_INVALID)
