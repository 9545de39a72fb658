"""The part that measures what it costs to know who is asking: nothing for a heartbeat, whose stream id says enough."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench import streams
from bench.run import Run
from bench.servers import BARE, STREAMLIMIT, Server
from bench.stores import KEPT, VALKEY, connect, start_store
from bench.targets import CREDENTIALS, KEYED, NO_KEYS, NOBODY, WITH_KEYS

API_KEY: Final = "an-api-key-for-measurements"
ISSUER, AUDIENCE = "https://issuer.example", "streamlimit"


def credentials(run: Run) -> None:
    """Heartbeats with keys configured and a token sent, and without; then admissions with each kind of credential."""
    keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
        "RS256": rsa.generate_private_key(65_537, 2_048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
    }
    user = streams.user_id(0)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "exp": int(time.time()) + 86_400}
    tokens = {name: jwt.encode(claims, key, name) for name, key in keys.items()}
    public = "".join(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() for key in keys.values()
    )
    configured = {
        "STREAMLIMIT_SERVICE_KEYS": sha256(API_KEY.encode()).hexdigest(),
        "STREAMLIMIT_JWT_KEY": public,
        "STREAMLIMIT_JWT_ALGORITHMS": ",".join(keys),
        "STREAMLIMIT_JWT_ISSUER": ISSUER,
        "STREAMLIMIT_JWT_AUDIENCE": AUDIENCE,
    }
    with run.directory() as name, ExitStack() as stack:
        directory = Path(name)
        store = start_store(VALKEY, run.cores.store, directory, stack, *KEPT)
        both = [_streamlimit(NO_KEYS, {}), _streamlimit(WITH_KEYS, configured)]
        started = run.start([BARE, *both], store, directory, stack)
        with connect(store) as client:
            lines = streams.heartbeats(streams.fill(client, run.plan.streams))
        requests = streams.write(lines, directory / "heartbeats.txt")
        token = bearer(tokens["RS256"])
        run.measure(
            KEYED,
            [
                run.full_load(who, started[who], store, requests, headers=headers)
                for who, headers in ((BARE.name, token), (NO_KEYS, {}), (WITH_KEYS, token))
            ],
        )
        requests = streams.write(streams.admissions(1, 1), directory / "admissions.txt")
        sent = {"an API key": bearer(API_KEY)} | {f"a token, {name}": bearer(one) for name, one in tokens.items()}
        contenders = [run.full_load(NOBODY, started[NO_KEYS], store, requests)]
        contenders += [
            run.full_load(what, started[WITH_KEYS], store, requests, headers=headers) for what, headers in sent.items()
        ]
        run.measure(CREDENTIALS, contenders)


def _streamlimit(name: str, env: Mapping[str, str]) -> Server:
    # One user asks for all admissions.
    return replace(STREAMLIMIT, name=name, env={"STREAMLIMIT_ADMISSIONS_PER_MINUTE": "0", **env})


def bearer(credential: str) -> Mapping[str, str]:
    """As it is sent."""
    return {"Authorization": f"Bearer {credential}"}
