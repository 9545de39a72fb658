"""Tells who is asking, by what it sends as `Authorization: Bearer`: an API key, or the token of a player."""

import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from streamlimit.api_keys import ApiKeys
from streamlimit.callers import Caller, NotAuthenticated, Role, TooManyFailures
from streamlimit.failed_credentials import MOST, FailedCredentials
from streamlimit.metrics import Fetches
from streamlimit.settings import Settings

if TYPE_CHECKING:
    from streamlimit.token_keys import TokenKeys
    from streamlimit.tokens import TokenVerifier

MAX_CREDENTIAL: Final = 8192
"""Tokens with more are not looked at; a proxy in front may allow less."""

_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_ANYBODY: Final = Caller(Role.OPERATOR, "anybody")


class Authenticator:
    """Tells who is asking.

    Args:
        api_keys: Of services and operators.
        tokens: Of players. With neither of the two nobody is asked, and everybody may do everything.
        failures_per_minute: So often one of them may be wrong; 0 is any number.
    """

    def __init__(
        self, api_keys: ApiKeys | None = None, tokens: "TokenVerifier | None" = None, failures_per_minute: int = MOST
    ) -> None:
        self._api_keys = api_keys
        self._tokens = tokens
        self._failed = FailedCredentials(failures_per_minute)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make one with the keys that are configured."""
        api_keys = ApiKeys(settings.digests) if any(settings.digests.values()) else None
        if not settings.verifies_tokens:
            return cls(api_keys, failures_per_minute=settings.failures_per_minute)
        # 9 MB that not everybody needs.
        from streamlimit.jwks import RemoteKeys  # noqa: PLC0415
        from streamlimit.token_keys import configured_keys  # noqa: PLC0415
        from streamlimit.tokens import TokenVerifier  # noqa: PLC0415

        algorithms = settings.algorithms
        if settings.jwt_jwks_url:
            keys: TokenKeys = RemoteKeys(settings.jwt_jwks_url, algorithms)
        else:
            keys = configured_keys(settings.jwt_key.get_secret_value(), algorithms)
        verifier = TokenVerifier(
            keys,
            algorithms=algorithms,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            leeway_seconds=settings.jwt_leeway_seconds,
            max_limit=settings.max_limit,
        )
        return cls(api_keys, verifier, settings.failures_per_minute)

    async def __aenter__(self) -> Self:
        if self._tokens:
            await self._tokens.keys.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tokens:
            await self._tokens.keys.__aexit__(kind, error, trace)

    def count_fetches(self, count: Callable[[Fetches], None]) -> None:
        """Have it called whenever keys of tokens were fetched, or could not be."""
        if self._tokens:
            self._tokens.keys.on_fetch = count

    @property
    def asks(self) -> bool:
        """Whether anybody is asked who it is."""
        return self._api_keys is not None or self._tokens is not None

    async def identify(self, authorization: Sequence[str]) -> Caller:
        """Return who is asking.

        Args:
            authorization: The header, as often as it was sent.

        Raises:
            NotAuthenticated: It has not proved who it is.
            TooManyFailures: Nor with the same credential before.
            KeysUnavailable: Whether it has cannot be told now.
        """
        if not self.asks:
            return _ANYBODY
        if not authorization:
            raise NotAuthenticated("missing", "Send an API key or a player's token as Authorization: Bearer.")
        value = authorization[0]
        match = _BEARER.fullmatch(value) if len(authorization) == 1 and len(value) <= MAX_CREDENTIAL else None
        if match is None:
            raise NotAuthenticated("invalid", f"Send Authorization: Bearer once, with at most {MAX_CREDENTIAL} bytes.")
        credential = match[1]
        if wait_ms := self._failed.wait_ms(credential):
            raise TooManyFailures(wait_ms)
        try:
            return await self._owner(credential)
        except NotAuthenticated:
            self._failed.note(credential)
            raise

    async def _owner(self, credential: str) -> Caller:
        if self._api_keys and (caller := self._api_keys.find(credential)):
            return caller
        if self._tokens:
            return await self._tokens.verify(credential)
        raise NotAuthenticated("invalid", "The API key is not known.")
