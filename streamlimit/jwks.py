"""The key set of an identity provider, fetched from a URL and kept.

No request waits for it whose key is known: it is fetched again in the background, and where that fails the keys that
are there go on working. A token that names another key has it fetched at once, but not again and again.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import httpx2
from jwt import PyJWK

from streamlimit.callers import KeysUnavailable
from streamlimit.metrics import Fetches
from streamlimit.token_keys import ignore_fetch, read_key_set
from streamlimit.token_settings import ASYMMETRIC
from streamlimit.urls import origin_of

_MAX_BYTES: Final = 256 * 1024
_FETCH_SECONDS: Final = 5
_RETRY_SECONDS: Final = 10
_PATIENCE_SECONDS: Final = 1
"""How long a request waits for a key that is not known yet."""

_MAX_SHOWN: Final = 500
"""Characters of the names of keys in the log: a set of 256 KiB may consist of names."""

_logger = logging.getLogger(__name__)


class RemoteKeys:
    """Keys from a URL, as a context in whose time they are fetched again and again.

    Args:
        url: Where the set is.
        algorithms: Keys for other ones are left out.
        refresh_seconds: How often it is fetched.
        pause_seconds: How long after a fetch it is not fetched again for a token that names an unknown key.
    """

    def __init__(
        self, url: str, algorithms: Sequence[str], *, refresh_seconds: float = 300, pause_seconds: float = 10
    ) -> None:
        self.on_fetch: Callable[[Fetches], None] = ignore_fetch
        self._url = url
        # A secret that is fetched is none.
        self._algorithms = tuple(name for name in algorithms if name in ASYMMETRIC)
        self._refresh_seconds = refresh_seconds
        self._pause_seconds = pause_seconds
        self._keys: Mapping[str, PyJWK] = {}
        self._complaint = "it has not answered yet"

    async def __aenter__(self) -> Self:
        """Begin; where the first fetch takes long, go on without it."""
        self._client = httpx2.AsyncClient(follow_redirects=False, timeout=_FETCH_SECONDS)
        self._start()
        self._refresher = asyncio.create_task(self._refresh(), name="streamlimit-jwks")
        await asyncio.wait({self._fetch}, timeout=_PATIENCE_SECONDS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (self._refresher, self._fetch):
            task.cancel()
        await asyncio.wait({self._refresher, self._fetch}, timeout=_PATIENCE_SECONDS)
        await self._client.aclose()

    async def find(self, kid: str | None) -> Sequence[PyJWK]:
        """Return the key of this name; where it is not known, ask for it first."""
        if kid is None:
            return ()
        if kid not in self._keys:
            await self._ask_again()
        key = self._keys.get(kid)
        if key is None and (self._complaint or not self._fetch.done()):
            raise KeysUnavailable("the keys that would tell are out of reach")
        return () if key is None else (key,)

    async def _ask_again(self) -> None:
        if self._fetch.done():
            if asyncio.get_running_loop().time() - self._asked_at < self._pause_seconds:
                return
            self._start()
        await asyncio.wait({self._fetch}, timeout=_PATIENCE_SECONDS)

    async def _refresh(self) -> None:
        while True:
            await asyncio.wait({self._fetch})
            # Spread, so that the workers of a deployment do not ask all at once.
            await asyncio.sleep(
                _RETRY_SECONDS if self._complaint else self._refresh_seconds * random.uniform(0.85, 0.95)
            )
            if self._fetch.done():
                self._start()

    def _start(self) -> None:
        self._asked_at = asyncio.get_running_loop().time()
        self._fetch = asyncio.create_task(self._fetch_and_keep(), name="streamlimit-jwks-fetch")

    async def _fetch_and_keep(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                keys = read_key_set(await self._read(), self._algorithms)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            complaint = str(error) or type(error).__name__
            if complaint != self._complaint:
                what = "those that are known go on working" if self._keys else "players are not let in"
                _logger.warning("No keys from %s (%s): %s", origin_of(self._url), complaint, what)
            self._complaint = complaint
            self.on_fetch("failed")
        else:
            if self._complaint or keys.keys() != self._keys.keys():
                _logger.info("Keys for players' tokens, from %s: %s", origin_of(self._url), _shown(keys))
            self._keys, self._complaint = keys, ""
            self.on_fetch("fetched")

    async def _read(self) -> bytes:
        # What is compressed may unfold to any size.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        async with self._client.stream("GET", self._url, headers=headers) as answer:
            if answer.status_code != httpx2.codes.OK:
                raise ValueError(f"it answers {answer.status_code}")
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise ValueError("it sends more than 256 KiB")
        return bytes(body)


def _shown(names: Iterable[str]) -> str:
    text = ", ".join(sorted(names))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
