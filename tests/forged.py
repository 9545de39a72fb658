"""Tokens that must not be taken, by what is wrong with them."""

import hmac
import json
import time
from typing import Any

from tests.issuer import base64url, claims, part, public_jwk, public_pem, token


def _signed_by_hmac(secret: str, **header: Any) -> str:
    """As an attacker makes it, who knows the public key: libraries refuse to."""
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'RS256'} | header)}.{part(claims())}"
    signature = hmac.digest(secret.encode(), signed.encode(), "sha256")
    return f"{signed}.{base64url(signature)}"


def forged() -> dict[str, str]:
    """Each is refused where the issuer's keys are those of `tests.issuer` for RS256, ES256 and EdDSA."""
    now = int(time.time())
    good = token()
    header, payload, signature = good.split(".")
    unsigned = {alg: f"{part({'alg': alg, 'kid': 'RS256'})}.{part(claims())}." for alg in ("none", "None", "nOnE", "")}
    return {
        "expired": token(exp=now - 60),
        "no exp": token(exp=None),
        "exp is no number": token(exp="soon"),
        "exp is infinite": f"{header}.{part(claims(exp=float('inf')))}.{signature}",
        "not yet": token(nbf=now + 3600),
        "made in the future": token(iat=now + 3600),
        "another audience": token(aud="another"),
        "no audience": token(aud=None),
        "audience is a number": token(aud=["x", 1]),
        "another issuer": token(iss="https://id.example.evil"),
        "no issuer": token(iss=None),
        "no sub": token(sub=None),
        "an empty sub": token(sub=""),
        "sub is no user id": token(sub="{alice}"),
        "sub has a line feed": token(sub="alice\n"),
        "sub is .": token(sub="."),
        "another kid": token(headers={"kid": "unknown"}),
        "no kid": token(headers={"kid": None}),
        "kid is a path": token(headers={"kid": "../../dev/null"}),
        "the kid of another key": token("ES256", headers={"kid": "EdDSA"}),
        "another key": token(name=" of somebody else", headers={"kid": "RS256"}),
        "a key of its own in the header": token(
            name=" of somebody else", headers={"jwk": public_jwk("RS256", " of somebody else"), "kid": "RS256"}
        ),
        "a key set of its own": token(
            name=" of somebody else", headers={"jku": "http://127.0.0.1:1/keys", "kid": "RS256"}
        ),
        "RS256 to HS256, with the PEM": _signed_by_hmac(public_pem("RS256")),
        "RS256 to HS256, with the PEM in one line": _signed_by_hmac(public_pem("RS256").strip()),
        "RS256 to HS256, with the JWK": _signed_by_hmac(json.dumps(public_jwk("RS256"))),
        "RS256 to HS256, with nothing": _signed_by_hmac(""),
        "ES256 in the header of an RS256": f"{part({'alg': 'ES256', 'kid': 'RS256'})}.{payload}.{signature}",
        "RS512": f"{part({'alg': 'RS512', 'kid': 'RS256'})}.{payload}.{signature}",
        "alg is a list": f"{part({'alg': ['RS256'], 'kid': 'RS256'})}.{payload}.{signature}",
        "no alg": f"{part({'kid': 'RS256'})}.{payload}.{signature}",
        **{f"alg {alg!r}": text for alg, text in unsigned.items()},
        "alg none, and a signature": unsigned["none"] + signature,
        "another sub under the signature": f"{header}.{part(claims(sub='bob'))}.{signature}",
        "no signature": f"{header}.{payload}.",
        "half a signature": good[: -len(signature) // 2],
        "critical headers": token(headers={"crit": ["exp"], "exp": 1}),
        "a detached payload": token(headers={"crit": ["b64"], "b64": False}),
        "header is no object": f"{part([1])}.{payload}.{signature}",
        "payload is no object": f"{header}.{part([1])}.{signature}",
        "deep": f"{base64url(b'[' * 3000)}.{payload}.{signature}",
        "four parts": f"{good}.x",
        "two parts": f"{header}.{payload}",
        "dots": "..",
        "huge": token(more="x" * 8192),
        "limit is below 0": token(streams_limit=-1),
        "limit is text": token(streams_limit="5"),
        "limit is true": token(streams_limit=True),
        "limit is 1.5": token(streams_limit=1.5),
        "a signature of zeros": _signed_by_zeros(),
    }


def _signed_by_zeros() -> str:
    """Which some libraries took for a right ECDSA signature."""
    signed = ".".join(token("ES256").split(".")[:2])
    return f"{signed}.{base64url(bytes(64))}"
