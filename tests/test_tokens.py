"""Players' tokens: which are taken, and which of the many that look like one are not."""

import re
import time
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK

from streamlimit.callers import Caller, NotAuthenticated, Role
from streamlimit.token_keys import configured_keys, read_key_set
from streamlimit.token_settings import ASYMMETRIC
from streamlimit.tokens import TokenVerifier
from tests.forged import forged
from tests.issuer import AUDIENCE, ISSUER, SECRET, base64url, key_set, private_jwk, public_jwk, public_pem, token

pytestmark = pytest.mark.anyio

KEY_SET = key_set(*(public_jwk(algorithm) for algorithm in ASYMMETRIC))
FORGED = forged()
OTHER_SECRET = "another secret that is long enough as well"


def verifier(keys: str = KEY_SET, algorithms: Sequence[str] = ASYMMETRIC) -> TokenVerifier:
    return TokenVerifier(
        configured_keys(keys, algorithms),
        algorithms=tuple(algorithms),
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway_seconds=10,
        max_limit=10,
    )


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_token_names_its_player(algorithm: str) -> None:
    assert await verifier().verify(token(algorithm)) == Caller(Role.PLAYER, "player", "alice")


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_key_may_be_configured_as_pem(algorithm: str) -> None:
    assert (await verifier(public_pem(algorithm), [algorithm]).verify(token(algorithm))).user_id == "alice"


async def test_with_one_algorithm_after_the_other_keys_can_be_changed() -> None:
    keys = verifier(public_pem("RS256", " of last year") + public_pem("ES256"))

    for made in (token("RS256", " of last year"), token("ES256")):
        assert (await keys.verify(made)).user_id == "alice"
    with pytest.raises(NotAuthenticated):
        await keys.verify(token("RS256"))


async def test_a_secret_signs_with_hs256() -> None:
    for keys in (SECRET, f"{OTHER_SECRET}, {SECRET}"):
        assert (await verifier(keys, ["HS256"]).verify(token("HS256"))).user_id == "alice"


@pytest.mark.parametrize("what", [what for what in FORGED if what != "huge"])  # which comes not as far as this
async def test_a_token_is_not_taken_with(what: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        await verifier().verify(FORGED[what])

    assert caught.value.reason == ("expired" if what == "expired" else "invalid")


@pytest.mark.parametrize("what", [what for what in FORGED if "HS256" in what or "alg" in what])
async def test_where_the_key_is_a_pem_a_token_is_not_taken_with(what: str) -> None:
    with pytest.raises(NotAuthenticated):
        await verifier(public_pem("RS256")).verify(FORGED[what])


@pytest.mark.parametrize("algorithm", [*ASYMMETRIC, "HS256"])
async def test_an_algorithm_that_is_not_allowed_is_not_taken_though_the_key_is_there(algorithm: str) -> None:
    allowed = [other for other in ASYMMETRIC if other != algorithm]

    with pytest.raises(NotAuthenticated):
        await verifier(algorithms=allowed).verify(token(algorithm))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exp": 1}, "The token has expired: get a new one."),
        ({"aud": "another"}, "The token is not for this service: Audience doesn't match."),
        ({"sub": "*"}, "The token's sub must be 1 to 128 of"),
    ],
)
async def test_who_has_a_genuine_token_is_told_what_is_wrong_with_it(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        await verifier().verify(token(**changes))

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("what", ["another key", "another sub under the signature", "another kid", "alg 'none'"])
async def test_who_has_a_forged_token_is_told_nothing(what: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        await verifier().verify(FORGED[what])

    assert str(caught.value) == "The token is not valid."


@pytest.mark.parametrize(("claim", "limit"), [(None, None), (0, 0), (5, 5), (3.0, 3), (11, 10), (10**30, 10)])
async def test_a_token_may_have_the_limit_of_its_user(claim: Any, limit: int | None) -> None:
    assert (await verifier().verify(token(streams_limit=claim))).limit == limit


async def test_clocks_may_differ_by_the_leeway() -> None:
    now = int(time.time())

    assert await verifier().verify(token(exp=now - 5, iat=now + 5, nbf=now + 5))


async def test_an_audience_may_be_one_of_several() -> None:
    assert await verifier().verify(token(aud=["others", AUDIENCE]))


@pytest.mark.parametrize(
    ("keys", "algorithms", "message"),
    [
        ("x", ASYMMETRIC, "must be public keys in PEM, or a JSON Web Key Set"),
        (public_pem("RS256") + "x", ASYMMETRIC, "must be public keys in PEM, or a JSON Web Key Set"),
        (public_pem("RS256"), ["ES256"], "a key is for RS256, which JWT_ALGORITHMS does not name"),
        (public_pem("RS256"), ["HS256"], "a public key is no secret, and HS256 takes secrets"),
        ("short", ["HS256"], "each secret must have at least 32 characters"),
        (f"{SECRET},short", ["HS256"], "each secret must have at least 32 characters"),
        ("{}", ASYMMETRIC, 'as a JSON Web Key Set is no JSON object with "keys"'),
        ("{" * 9999, ASYMMETRIC, 'as a JSON Web Key Set is no JSON object with "keys"'),
        ('{"keys": 1}', ASYMMETRIC, "as a JSON Web Key Set has no key with a kid for RS256, ES256, EdDSA"),
        (
            "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----",
            ASYMMETRIC,
            "must be public keys in PEM, not PRIVATE KEY",
        ),
        ("-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----", ASYMMETRIC, "a PEM block is no public key"),
    ],
)
async def test_keys_that_cannot_be_used_are_told(keys: str, algorithms: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        configured_keys(keys, algorithms)

    assert "short" not in str(caught.value)  # a secret is not shown


@pytest.mark.parametrize(
    "member",
    [
        1,
        {},
        {"kty": "RSA"},
        public_jwk("RS256", kid=None),
        public_jwk("RS256", kid=1),
        public_jwk("RS256", use="enc"),
        public_jwk("RS256", key_ops=["encrypt"]),
        public_jwk("RS256", key_ops=1),
        public_jwk("RS256", alg="HS256"),
        public_jwk("RS256", alg="PS256"),
        public_jwk("RS256", alg="none"),
        public_jwk("RS256", n="AQAB"),
        public_jwk("RS256", n=base64url(b"\xc1" * 128)),
        public_jwk("RS256", d="AQAB"),
        private_jwk("ES256"),
        public_jwk("ES256", crv="P-384"),
        public_jwk("ES256", x="AQAB"),
        public_jwk("EdDSA", crv="Ed448"),
        {"kty": "oct", "kid": "x", "k": "c2VjcmV0" * 8},
        {"kty": "oct", "kid": "x", "k": "c2VjcmV0" * 8, "alg": "RS256"},
    ],
)
async def test_a_member_of_a_set_is_left_out_where_it_is_no_key_for_signatures(member: Any) -> None:
    assert set(read_key_set(key_set(public_jwk("EdDSA", kid="good"), member), ASYMMETRIC)) == {"good"}


async def test_keys_that_are_too_short_are_refused() -> None:
    key = rsa.generate_private_key(65537, 1024).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    with pytest.raises(ValueError, match="at least 2048 bits"):
        configured_keys(pem, ASYMMETRIC)


async def test_the_first_of_two_keys_with_the_same_name_counts() -> None:
    keys = verifier(key_set(public_jwk("ES256", kid="x"), public_jwk("EdDSA", kid="x")))

    assert await keys.verify(token("ES256", headers={"kid": "x"}))
    with pytest.raises(NotAuthenticated):
        await keys.verify(token("EdDSA", headers={"kid": "x"}))


async def test_what_cannot_be_right_has_no_key_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not known would be fetched."""
    checked = verifier()
    sought: list[str | None] = []

    async def find(kid: str | None) -> Sequence[PyJWK]:
        sought.append(kid)
        return ()

    monkeypatch.setattr(checked.keys, "find", find)
    for made in (token("HS256"), token(headers={"alg": None}), token(headers={"alg": "none"}), "no.token.at-all"):
        with pytest.raises(NotAuthenticated):
            await checked.verify(made)
    assert sought == []

    with pytest.raises(NotAuthenticated):
        await checked.verify(token())
    assert sought == ["RS256"]


@pytest.mark.parametrize("claim", [-1, 1.5, True, "3", [3], {}])
async def test_a_limit_that_is_no_whole_number_is_told(claim: Any) -> None:
    with pytest.raises(NotAuthenticated, match="streams_limit must be a whole number from 0"):
        await verifier().verify(token(streams_limit=claim))


async def test_clocks_may_differ_by_no_more_than_the_leeway() -> None:
    now = int(time.time())

    wrong: list[dict[str, Any]] = [{"exp": now - 20}, {"nbf": now + 20}]
    for claims in wrong:
        with pytest.raises(NotAuthenticated):
            await verifier().verify(token(**claims))


@pytest.mark.parametrize("claim", ["exp", "aud", "iss", "sub"])
async def test_a_token_must_say(claim: str) -> None:
    missing: dict[str, Any] = {claim: None}

    with pytest.raises(NotAuthenticated, match=claim):
        await verifier().verify(token(**missing))


def test_a_secret_has_at_least_32_characters() -> None:
    assert configured_keys("x" * 32, ["HS256"])
    with pytest.raises(ValueError, match="at least 32"):
        configured_keys("x" * 31, ["HS256"])


def test_of_a_set_no_more_keys_are_looked_at_than_100() -> None:
    members = [public_jwk("EdDSA", kid=str(number)) for number in range(101)]

    assert set(read_key_set(key_set(*members), ASYMMETRIC)) == {str(number) for number in range(100)}
