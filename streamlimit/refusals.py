"""Requests that are refused before they reach the application: the answers, and the log."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from time import monotonic
from typing import Final

from streamlimit.metrics import RefusedRequests
from streamlimit.problems import Problem, ProblemType

MALFORMED_REQUEST = ProblemType("malformed-request", 400, "The request is not valid HTTP/1.1")
REQUEST_TIMEOUT = ProblemType("request-timeout", 408, "The request did not arrive in time")
HEAD_TOO_LARGE = ProblemType("head-too-large", 431, "The request line and headers are too large")

_LOG_SECONDS: Final = 30
_CLOSE: Final = (b"connection", b"close")
_REASONS: Final[Mapping[str, RefusedRequests]] = {
    MALFORMED_REQUEST.name: "malformed",
    HEAD_TOO_LARGE.name: "head_too_large",
    REQUEST_TIMEOUT.name: "too_slow",
}
_DESCRIPTIONS: Final[Mapping[RefusedRequests, str]] = {
    "malformed": "malformed requests",
    "head_too_large": "heads that were too large",
    "too_slow": "requests that did not arrive in time",
    "not_reading": "clients that did not read their answers",
    "too_many_connections": "connections beyond MAX_CONNECTIONS (%d)",
}

_logger = logging.getLogger(__name__)


class Refusal(Problem):
    """The request is refused, and its connection closed."""


def malformed(detail: str) -> Refusal:
    """Not HTTP/1.1, or a message of which two readers could disagree where it ends."""
    return Refusal(MALFORMED_REQUEST, detail)


def too_slow(seconds: int) -> Refusal:
    """A head or a body did not arrive in time."""
    detail = f"The head must arrive within {seconds} s, and the body within {seconds} s after it. Try again."
    return Refusal(REQUEST_TIMEOUT, detail)


def reason_of(refusal: Problem) -> RefusedRequests | None:
    """What a refusal is counted as; None where the fault is ours."""
    return _REASONS.get(refusal.kind.name)


def answer(refusal: Problem, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The whole answer, which says that the connection is closed."""
    response = refusal.response()
    headers = (*default_headers, *response.raw_headers, _CLOSE)
    status = HTTPStatus(response.status_code)
    lines = (b"HTTP/1.1 %d %b" % (status, status.phrase.encode()), *(name + b": " + value for name, value in headers))
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body)


class RefusalLog:
    """Writes at most one line in 30 seconds about refused requests: strangers decide how many there are.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._counts: Counter[RefusedRequests] = Counter()
        self._logged_at = -math.inf

    def add(self, reason: RefusedRequests, max_connections: int) -> None:
        """Count one, and write what was counted since the last line if that is long enough ago."""
        self._counts[reason] += 1
        if self._clock() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = self._clock()
            counts = ", ".join(f"{count} {_DESCRIPTIONS[reason]}" for reason, count in self._counts.items())
            _logger.warning("Refused: %s", counts.replace("%d", str(max_connections)))
            self._counts.clear()
