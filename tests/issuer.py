"""Whoever gives tokens to players, in tests: its keys, its tokens, and the tokens that others forge."""

import json
import time
from base64 import urlsafe_b64encode
from functools import cache
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

ISSUER: Final = "https://id.example"
AUDIENCE: Final = "streamlimit"
SECRET: Final = "a secret of the issuer that is long enough"
SERVICE_KEY: Final = "the-key-of-a-service"
OPERATOR_KEY: Final = "the-key-of-an-operator"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def private_key(algorithm: str, name: str = "") -> PrivateKey:  # noqa: ARG001 - it is what the cache goes by
    """A key for an algorithm; another one for each name."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public_pem(algorithm: str, name: str = "") -> str:
    public = private_key(algorithm, name).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_jwk(algorithm: str, name: str = "", **members: Any) -> dict[str, Any]:
    """The public key as a member of a set; its kid is the algorithm and the name."""
    found: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(
        private_key(algorithm, name).public_key(), as_dict=True
    )
    return found | {"kid": algorithm + name, "use": "sig"} | members


def private_jwk(algorithm: str) -> dict[str, Any]:
    """A private key, as it must not stand in a set."""
    found: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(private_key(algorithm), as_dict=True)
    return found | {"kid": "private", "use": "sig"}


def key_set(*members: dict[str, Any]) -> str:
    return json.dumps({"keys": members})


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token of alice; a change to None takes one out."""
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 3600} | changes
    return {name: value for name, value in found.items() if value is not None}


def token(algorithm: str = "RS256", name: str = "", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token, signed with the key of this algorithm and name, which it names in its header.

    Made by hand: PyJWT refuses to make many of those that it must not take either.
    """
    header = {"alg": algorithm, "typ": "JWT", "kid": algorithm + name} | (headers or {})
    signed = f"{part({name: value for name, value in header.items() if value is not None})}.{part(claims(**changes))}"
    key: Any = SECRET.encode() if algorithm == "HS256" else private_key(algorithm, name)
    return f"{signed}.{base64url(get_default_algorithms()[algorithm].sign(signed.encode(), key))}"


def part(value: Any) -> str:
    """A header or claims, as they stand in a token."""
    return base64url(json.dumps(value).encode())


def base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()
