"""Keeps web pages out where no keys are asked for: whoever reaches the service may do everything then.

A page of any origin can make the browser of somebody on this machine send requests to 127.0.0.1. It cannot read the
answers, but starts streams (a drive-by request). A page whose host name suddenly resolves to 127.0.0.1 can read them,
too: for the browser it talks to its own origin (DNS rebinding).

For example, `fetch("http://127.0.0.1:8080/v1/users/a/streams", {mode: "no-cors", method: "POST"})` at
https://evil.example has `Sec-Fetch-Site: cross-site` and `Origin: https://evil.example`, which pages can neither leave
out nor change; and `http://evil.example:8080/`, once rebound, has `Host: evil.example:8080`. Both are refused. curl and
back ends send neither header, and their `Host` is the address that they were given.

With keys all of this is off: a page has the tokens and stream ids that it was given, and may use them from any origin.
"""

import logging
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import monotonic
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streamlimit import problems
from streamlimit.problems import Problem

_COMPLAINT_SECONDS: Final = 30
_MAX_SHOWN: Final = 200
_BYTE: Final = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LOOPBACK: Final = re.compile(
    rf"(([a-z0-9_-]+\.)*localhost\.?|127(\.{_BYTE}){{3}}|\[::1\])(:[0-9]{{0,5}})?".encode(), re.IGNORECASE
)
_OWN_SITE: Final = (b"same-origin", b"none")
"""none: somebody typed the address, or opened a bookmark."""

AcceptsHost = Callable[[bytes], bool]
"""Whether the value of a Host header is taken."""

_logger = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def is_loopback(host: bytes) -> bool:
    """Whether the value of a Host header names this machine, with any port: these names cannot be rebound."""
    return _LOOPBACK.fullmatch(host) is not None


def is_any(_: bytes) -> bool:
    """Take every Host header."""
    return True


class BrowserGuard:
    """ASGI middleware that refuses what pages of other origins send.

    Args:
        app: What answers all other requests.
        origins: Of pages that may use the service all the same.
        accepts_host: Which Host headers are taken.
        respond: Makes the answer from a request and its problem.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        origins: Iterable[str],
        accepts_host: AcceptsHost,
        respond: Callable[[Request, Problem], Response],
    ) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}
        self._accepts_host = accepts_host
        self._respond = respond
        self._hosts, self._pages = _Refusals(), _Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        problem = self._problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await self._respond(Request(scope), problem)(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        if not all(map(self._accepts_host, hosts)):
            if count := self._hosts.note():
                _logger.warning(
                    "Refused %d request(s), the last one for host %s: without keys only localhost and 127.0.0.1 are "
                    "accepted. Set SERVICE_KEYS, OPERATOR_KEYS or JWT_KEY, or accept any host with --insecure",
                    count,
                    _shown(b", ".join(hosts)),
                )
            return problems.host_not_accepted()
        # As often as they are sent, browsers send each once.
        found = dict(headers)
        if self._is_from_another_site(scope["method"], found):
            if count := self._pages.note():
                _logger.warning(
                    "Refused %d request(s) of web pages, the last one of origin %s: without keys only pages listed in "
                    "CORS_ORIGINS may send requests",
                    count,
                    _shown(found.get(b"origin", b"unknown")),
                )
            return problems.cross_origin()
        return None

    def _is_from_another_site(self, method: str, headers: dict[bytes, bytes]) -> bool:
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin in self._origins:
            return False
        if site is not None:
            return site not in _OWN_SITE and not _is_link(method, headers)
        # Older browsers, and http:// addresses other than loopback, have no Sec-Fetch-Site.
        host = headers.get(b"host", b"").lower()
        return origin is not None and origin not in (b"http://" + host, b"https://" + host)


def _is_link(method: str, headers: dict[bytes, bytes]) -> bool:
    """Whether somebody followed a link, say to /docs: the answer is shown, and no page learns it."""
    return (
        method in ("GET", "HEAD")
        and headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
    )


def _shown(value: bytes) -> str:
    return value[:_MAX_SHOWN].decode("latin-1")


class _Refusals:
    """Counts them, so that the log need not have a line for each."""

    def __init__(self) -> None:
        self._count = 0
        self._told_at: float | None = None

    def note(self) -> int:
        """Return how many there were since the last line, this one included, or 0 while it is not time for another."""
        self._count += 1
        now = monotonic()
        if self._told_at is not None and now - self._told_at < _COMPLAINT_SECONDS:
            return 0
        count, self._count, self._told_at = self._count, 0, now
        return count
