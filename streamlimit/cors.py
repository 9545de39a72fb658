"""Which web pages may read the answers (CORS): those of the origins that are listed, and no others.

Heartbeats and releases are what browsers call simple requests and beacons: they are sent without asking first, from any
page. What a page of another origin must not do it cannot do, since there are no cookies: a page has the keys and stream
ids that it was given, and no others. Without keys `browser_guard` refuses such requests.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from streamlimit.problems import preflight_refused

_ORIGIN: Final = r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?"
_MAX_AGE_SECONDS: Final = 7200  # browsers keep it no longer


class _Cors(CORSMiddleware):
    """Starlette's, which refuses in plain text."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == HTTPStatus.OK:
            return answer
        parts = bytes(answer.body).decode().removeprefix("Disallowed CORS ")
        refused = preflight_refused(parts).response()
        for name, value in answer.headers.items():
            refused.headers.setdefault(name, value)
        return refused


def parse_origins(text: str) -> tuple[str, ...]:
    """Read the origins, which are separated by commas, or raise ValueError."""
    origins = tuple(part for part in (part.strip() for part in text.split(",")) if part)
    if not all(re.fullmatch(_ORIGIN, origin) for origin in origins):
        raise ValueError("must be origins as browsers send them, such as https://tv.example; no path, and no *")
    return origins


def check_origins(text: str) -> str:
    """Return the text if it is a list of origins, or raise ValueError."""
    parse_origins(text)
    return text


def middleware(origins: Sequence[str]) -> list[Middleware]:
    """What lets pages of these origins read the answers; nothing where there are none."""
    if not origins:
        return []
    return [
        Middleware(
            _Cors,
            allow_origins=origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("Authorization", "Idempotency-Key"),
            expose_headers=("Location", "Retry-After", "WWW-Authenticate"),
            max_age=_MAX_AGE_SECONDS,
        )
    ]
