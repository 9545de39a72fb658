"""Players' tokens: JSON Web Tokens (RFC 7519) whose `sub` is the user. They are made elsewhere, and verified here."""

from typing import Any, Final

from jwt import PyJWT
from jwt.api_jws import PyJWS
from jwt.exceptions import (
    ExpiredSignatureError,
    InvalidAlgorithmError,
    InvalidKeyError,
    InvalidSignatureError,
    PyJWTError,
)

from streamlimit.callers import Caller, NotAuthenticated, Role
from streamlimit.fields import check_user_id
from streamlimit.token_keys import TokenKeys

LIMIT_CLAIM: Final = "streams_limit"
_NOT_VALID: Final = "The token is not valid."
_REQUIRED: Final = ["exp", "aud", "iss", "sub"]


class TokenVerifier:
    """Knows whose token a token is.

    Args:
        keys: Its signature is right by one of these.
        algorithms: Those that may be used.
        issuer: Its `iss`.
        audience: In its `aud`.
        leeway_seconds: By how much the clocks of its maker and of this machine may differ.
        max_limit: The highest limit there is; a `streams_limit` above means as many streams as there can be.
    """

    def __init__(
        self,
        keys: TokenKeys,
        *,
        algorithms: tuple[str, ...],
        issuer: str,
        audience: str,
        leeway_seconds: float,
        max_limit: int,
    ) -> None:
        self.keys = keys
        self._algorithms = algorithms
        self._issuer = issuer
        self._audience = audience
        self._leeway_seconds = leeway_seconds
        self._max_limit = max_limit
        self._jws = PyJWS(algorithms)
        self._jwt = PyJWT({"require": _REQUIRED, "enforce_minimum_key_length": True})

    async def verify(self, token: str) -> Caller:
        """Return the player whose token it is.

        Raises:
            NotAuthenticated: It is nobody's.
            KeysUnavailable: Whether it is anybody's cannot be told now.
        """
        try:
            header = self._jws.get_unverified_header(token)
        except PyJWTError:
            raise NotAuthenticated("invalid", _NOT_VALID) from None
        # Before the key is looked for: what cannot be right must not make us ask for keys.
        if header.get("alg") not in self._algorithms:
            raise NotAuthenticated("invalid", _NOT_VALID)
        for key in await self.keys.find(header.get("kid")):
            try:
                claims = self._jwt.decode(
                    token,
                    key,
                    algorithms=[key.algorithm_name],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=self._leeway_seconds,
                )
            except (InvalidSignatureError, InvalidAlgorithmError, InvalidKeyError):
                continue
            # From here on the signature was right.
            except ExpiredSignatureError:
                raise NotAuthenticated("expired", "The token has expired: get a new one.") from None
            except PyJWTError as error:
                raise NotAuthenticated("invalid", f"The token is not for this service: {error}.") from None
            return self._player(claims)
        raise NotAuthenticated("invalid", _NOT_VALID)

    def _player(self, claims: dict[str, Any]) -> Caller:
        try:
            user_id = check_user_id(claims["sub"])
        except ValueError as error:
            raise NotAuthenticated("invalid", f"The token's sub {error}.") from None
        limit = claims.get(LIMIT_CLAIM)
        if isinstance(limit, float) and limit.is_integer():
            limit = int(limit)  # JSON does not tell 3.0 from 3
        if limit is not None:
            if type(limit) is not int or limit < 0:
                raise NotAuthenticated("invalid", f"The token's {LIMIT_CLAIM} must be a whole number from 0.")
            limit = min(limit, self._max_limit)
        return Caller(Role.PLAYER, Role.PLAYER, user_id, limit)
