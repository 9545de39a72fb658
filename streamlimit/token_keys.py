"""The keys that players' tokens are verified with: as configured, or as read from a JSON Web Key Set (RFC 7517).

Each key is bound to the one algorithm that its kind has, so that no token chooses how it is verified: a public RSA key
is never taken for the secret of an HMAC.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from streamlimit.metrics import Fetches
from streamlimit.token_settings import SYMMETRIC

MAX_KEYS: Final = 100
"""In one set; more are not looked at."""
MIN_SECRET_LENGTH: Final = 32

_PEM: Final = re.compile("-----BEGIN ([A-Z ]+)-----.*?-----END \\1-----", re.DOTALL)


def ignore_fetch(_: Fetches) -> None:
    """Let nobody know how it went."""


class TokenKeys(Protocol):
    """Where a verifier finds keys. A context, since some of them do something meanwhile."""

    on_fetch: Callable[[Fetches], None]
    """Called with how it went, where they were fetched."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def find(self, kid: str | None) -> Sequence[PyJWK]:
        """Return the keys that a token with this `kid` may be signed with.

        Raises:
            KeysUnavailable: They may be there, but cannot be asked for.
        """


class ConfiguredKeys:
    """Keys that stay the same while the process runs.

    Args:
        keys: Tried one after the other; or, by their `kid`, a set, out of which a token has to name its own.
    """

    def __init__(self, keys: Sequence[PyJWK] | Mapping[str, PyJWK]) -> None:
        self.on_fetch: Callable[[Fetches], None] = ignore_fetch
        self._keys = keys

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def find(self, kid: str | None) -> Sequence[PyJWK]:
        """Return the keys for this `kid`."""
        if not isinstance(self._keys, Mapping):
            return self._keys
        key = self._keys.get(kid) if kid is not None else None
        return () if key is None else (key,)


def configured_keys(text: str, algorithms: Sequence[str]) -> ConfiguredKeys:
    """Read keys: public ones as PEM, one after the other, or as a set; with HS256 secrets, separated by commas.

    Raises:
        ValueError: They cannot be used; the message does not show them.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            keys = read_key_set(text, algorithms)
        except ValueError as error:
            raise ValueError(f"as a JSON Web Key Set {error}") from None
        return ConfiguredKeys(keys)
    if SYMMETRIC in algorithms:
        return ConfiguredKeys([_secret(part.strip()) for part in text.split(",")])
    blocks = list(_PEM.finditer(text))
    if not blocks or _PEM.sub("", text).strip():
        raise ValueError("must be public keys in PEM, or a JSON Web Key Set")
    return ConfiguredKeys([_public_key(block[0], block[1], algorithms) for block in blocks])


def read_key_set(text: str | bytes, algorithms: Iterable[str]) -> dict[str, PyJWK]:
    """Read a JSON Web Key Set: those of its keys that verify signatures by these algorithms, by their `kid`.

    Raises:
        ValueError: It has none.
    """
    try:
        found = json.loads(text)
        members = found["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError('is no JSON object with "keys"') from None
    keys: dict[str, PyJWK] = {}
    for member in members[:MAX_KEYS] if isinstance(members, list) else ():
        key = _usable(member, algorithms)
        if key is not None and key.key_id is not None:
            keys.setdefault(key.key_id, key)
    if not keys:
        raise ValueError(f"has no key with a kid for {', '.join(algorithms)}")
    return keys


def _usable(member: Any, algorithms: Iterable[str]) -> PyJWK | None:
    # "d" is half of a private key, which has no business here.
    if not isinstance(member, dict) or "d" in member or member.get("use", "sig") != "sig":
        return None
    try:
        if not isinstance(member.get("kid"), str) or "verify" not in member.get("key_ops", ["verify"]):
            return None
        if "alg" in member and member["alg"] not in algorithms:
            return None
        key = PyJWK(member)
    except (PyJWTError, ValueError, TypeError):
        return None
    return key if key.algorithm_name in algorithms and not key.Algorithm.check_key_length(key.key) else None


def _secret(secret: str) -> PyJWK:
    if len(secret) < MIN_SECRET_LENGTH:
        raise ValueError(f"each secret must have at least {MIN_SECRET_LENGTH} characters: openssl rand -hex 32")
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except PyJWTError:
        raise ValueError(f"a public key is no secret, and {SYMMETRIC} takes secrets") from None
    return PyJWK(HMACAlgorithm.to_jwk(secret, as_dict=True), SYMMETRIC)


def _public_key(pem: str, label: str, algorithms: Sequence[str]) -> PyJWK:
    if label != "PUBLIC KEY":
        raise ValueError(f"must be public keys in PEM, not {label}: openssl pkey -pubout, openssl x509 -pubkey")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("a PEM block is no public key") from None
    match key:
        case RSAPublicKey():
            member, algorithm = RSAAlgorithm.to_jwk(key, as_dict=True), "RS256"
        case EllipticCurvePublicKey():
            member, algorithm = ECAlgorithm.to_jwk(key, as_dict=True), "ES256"
        case Ed25519PublicKey():
            member, algorithm = OKPAlgorithm.to_jwk(key, as_dict=True), "EdDSA"
        case _:
            raise ValueError("keys must be RSA, EC P-256 or Ed25519")
    if algorithm not in algorithms:
        raise ValueError(f"a key is for {algorithm}, which JWT_ALGORITHMS does not name")
    try:
        found = PyJWK(member, algorithm)
    except PyJWTError:
        raise ValueError("keys must be RSA, EC P-256 or Ed25519") from None
    if found.Algorithm.check_key_length(found.key):
        raise ValueError("RSA keys must have at least 2048 bits")
    return found
