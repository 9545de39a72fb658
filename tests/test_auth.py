"""Who may call what: every operation, with every kind of credential, right and wrong."""

from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from streamlimit.api_keys import ApiKeys, parse_digests
from streamlimit.authenticator import MAX_CREDENTIAL, Authenticator
from streamlimit.callers import Caller, NotAuthenticated, Role
from streamlimit.jwks import RemoteKeys
from streamlimit.routes import OPERATIONS, Operation
from streamlimit.token_keys import TokenKeys, configured_keys
from streamlimit.token_settings import ASYMMETRIC
from streamlimit.tokens import TokenVerifier
from tests.conftest import Serve
from tests.forged import forged
from tests.issuer import (
    AUDIENCE,
    ISSUER,
    OPERATOR_KEY,
    SERVICE_KEY,
    bearer,
    digest,
    key_set,
    public_jwk,
    token,
)
from tests.key_server import key_server
from tests.web import ALICE, INVENTED, JSON, STREAMS, nothing_is_stored, problem, started

pytestmark = pytest.mark.anyio

KEYS = ApiKeys(
    {Role.SERVICE: [digest("the-next-key-of-it"), digest(SERVICE_KEY)], Role.OPERATOR: [digest(OPERATOR_KEY)]}
)
SERVICE = bearer(SERVICE_KEY)
OPERATOR = bearer(OPERATOR_KEY)
FORGED = forged()

NOBODY, PLAYER, BACK_END, OPERATORS = "anybody", "its player", "back ends", "operators"
MAY: dict[str, str] = {
    "admit": PLAYER,
    "heartbeat": NOBODY,
    "release": NOBODY,
    "get_stream": NOBODY,
    "end": PLAYER,
    "list_streams": PLAYER,
    "end_all": OPERATORS,
    "check_admission": PLAYER,
    "get_user": BACK_END,
    "put_user": BACK_END,
    "delete_user": BACK_END,
    "heartbeats": BACK_END,
    "legacy_check": BACK_END,
    "livez": NOBODY,
    "readyz": NOBODY,
    "get_metrics": OPERATORS,
}
"""From whom on: each takes those below it, too."""
BODIES: dict[str, Any] = {"put_user": {"limit": 1}, "heartbeats": {"streams": []}}


def make_authenticator(keys: TokenKeys | None = None) -> Authenticator:
    members = key_set(*(public_jwk(algorithm) for algorithm in ASYMMETRIC))
    verifier = TokenVerifier(
        keys or configured_keys(members, ASYMMETRIC),
        algorithms=ASYMMETRIC,
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway_seconds=10,
        max_limit=10,
    )
    return Authenticator(KEYS, verifier)


@pytest.fixture
async def guarded(serve: Serve) -> httpx2.AsyncClient:
    return await serve(make_authenticator())


def name(operation: Operation) -> str:
    return operation.handler.__name__


async def ask(http: httpx2.AsyncClient, operation: Operation, headers: Any = None) -> httpx2.Response:
    path = operation.path.format(user_id="alice", stream_id=INVENTED)
    return await http.request(operation.method, path, headers=headers, json=BODIES.get(name(operation)))


each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
each_locked = pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if MAY[name(operation)] != NOBODY],
    ids=lambda one: f"{one.method} {one.path}",
)


def test_the_table_has_every_operation() -> None:
    assert set(MAY) == {name(operation) for operation in OPERATIONS}


@each_operation
async def test_who_may_call(guarded: httpx2.AsyncClient, operation: Operation) -> None:
    callers = {
        "nobody": {},
        "its player": bearer(token()),
        "another player": bearer(token(sub="bob")),
        "a service": SERVICE,
        "a service with its next key": bearer("the-next-key-of-it"),
        "an operator": OPERATOR,
    }
    refused = {
        NOBODY: {},
        PLAYER: {"nobody": 401, "another player": 403},
        BACK_END: {"nobody": 401, "its player": 403, "another player": 403},
        OPERATORS: {
            "nobody": 401,
            "its player": 403,
            "another player": 403,
            "a service": 403,
            "a service with its next key": 403,
        },
    }[MAY[name(operation)]]
    answers = {who: (await ask(guarded, operation, headers)).status_code for who, headers in callers.items()}

    assert {who: status for who, status in answers.items() if status in (401, 403)} == refused


@each_locked
async def test_no_forged_token_opens(guarded: httpx2.AsyncClient, fake_redis: Redis, operation: Operation) -> None:
    answers = {what: await ask(guarded, operation, bearer(credential)) for what, credential in FORGED.items()}

    assert {what: answer.status_code for what, answer in answers.items() if answer.status_code != 401} == {}
    assert all("invalid_token" in answer.headers["www-authenticate"] for answer in answers.values())
    assert await nothing_is_stored(fake_redis)


CREDENTIALS: dict[str, list[str]] = {
    "none": [""],
    "no scheme": [SERVICE_KEY],
    "another scheme": [f"Basic {SERVICE_KEY}"],
    "an empty one": ["Bearer "],
    "a blank in it": [f"Bearer {SERVICE_KEY} {SERVICE_KEY}"],
    "a tab": [f"Bearer\t{SERVICE_KEY}"],
    "two": [f"Bearer {SERVICE_KEY}", f"Bearer {SERVICE_KEY}"],
    "an unknown key": ["Bearer unknown"],
    "the digest of a key": [f"Bearer {digest(SERVICE_KEY)}"],
    "a key in capitals": [f"Bearer {SERVICE_KEY.upper()}"],
    "half a key": [f"Bearer {SERVICE_KEY[:10]}"],
    "a key and more": [f"Bearer {SERVICE_KEY}x"],
    "no ASCII": ["Bearer schlüssel"],
    "one byte too many": [f"Bearer {'x' * MAX_CREDENTIAL}"],
}


@pytest.mark.parametrize("what", CREDENTIALS)
async def test_what_is_no_credential_does_not_open(guarded: httpx2.AsyncClient, what: str) -> None:
    headers = [(b"authorization", value.encode()) for value in CREDENTIALS[what]]

    answer = await guarded.get(STREAMS, headers=headers)

    problem(answer, 401, "unauthenticated")


async def test_a_caller_without_a_key_is_asked_for_one(guarded: httpx2.AsyncClient) -> None:
    answer = await guarded.get(STREAMS)

    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="streamlimit"'


async def test_the_scheme_may_be_written_in_any_case(guarded: httpx2.AsyncClient) -> None:
    assert (await guarded.get(STREAMS, headers={"Authorization": f"bearer  {SERVICE_KEY}"})).status_code == 200


async def test_the_callers_of_the_old_service_are_told_in_its_shape(guarded: httpx2.AsyncClient) -> None:
    for headers, status in ((None, 401), (bearer(token()), 403)):
        answer = await guarded.get("/add-stream/user/alice", headers=headers)
        assert answer.status_code == status
        assert answer.json()["can_add_stream"] is None
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_heartbeat_and_release_look_at_no_credential(guarded: httpx2.AsyncClient) -> None:
    stream = await guarded.post(STREAMS, headers=bearer(token()))
    path = f"{STREAMS}/{stream.json()['stream_id']}"

    for headers in ({}, bearer("unknown"), bearer(token(sub="bob"))):
        assert (await guarded.post(f"{path}/heartbeat", headers=headers)).status_code == 200
    assert (await guarded.post(f"{path}/release")).status_code == 204


async def test_a_player_is_not_told_whether_another_user_exists(guarded: httpx2.AsyncClient) -> None:
    guarded.headers = SERVICE
    await guarded.put("/v1/users/bob", json={"limit": 2})
    await started(guarded, "bob")
    guarded.headers = bearer(token())

    answers = {user: await guarded.get(f"/v1/users/{user}/streams") for user in ("bob", "nobody", "%7Bbob%7D")}

    assert {answer.status_code for answer in answers.values()} == {403}
    assert len({answer.content for answer in answers.values()}) == 1
    assert len({str(sorted(answer.headers.items())) for answer in answers.values()}) == 1


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_stranger_is_not_told_whether_a_user_exists(guarded: httpx2.AsyncClient, method: str) -> None:
    guarded.headers = SERVICE
    await started(guarded, "bob")
    guarded.headers = {}

    answers = [await guarded.request(method, f"/v1/users/{user}/streams") for user in ("bob", "nobody", "%7Bbob%7D")]

    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1


async def test_a_refused_body_is_not_looked_at(guarded: httpx2.AsyncClient) -> None:
    problem(await guarded.post(STREAMS, content=b"{", headers=JSON), 401, "unauthenticated")


# Limits.


async def test_a_player_cannot_raise_its_limit(guarded: httpx2.AsyncClient, fake_redis: Redis) -> None:
    for limit in (10, 0):
        answer = await guarded.post(STREAMS, json={"limit": limit}, headers=bearer(token(streams_limit=1)))
        problem(answer, 403, "forbidden")
    assert await nothing_is_stored(fake_redis)


@pytest.mark.parametrize("headers", [SERVICE, OPERATOR])
async def test_a_back_end_may_say_the_limit(guarded: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    assert (await guarded.post(STREAMS, json={"limit": 7}, headers=headers)).json()["limit"] == 7


@pytest.mark.parametrize(("claim", "limit"), [(5, 5), (None, 2), (64, 10)])
async def test_the_limit_in_a_token_goes_before_the_record(
    guarded: httpx2.AsyncClient, claim: int | None, limit: int
) -> None:
    await guarded.put(ALICE, json={"limit": 2}, headers=SERVICE)

    answer = await guarded.post(STREAMS, headers=bearer(token(streams_limit=claim)), json={"limit": None})

    assert answer.json()["limit"] == limit


async def test_the_limit_0_in_a_token_refuses(guarded: httpx2.AsyncClient) -> None:
    assert (await guarded.post(STREAMS, headers=bearer(token(streams_limit=0)))).status_code == 409


async def test_the_check_of_an_admission_heeds_the_limit_in_a_token(guarded: httpx2.AsyncClient) -> None:
    answer = await guarded.get(f"{ALICE}/admission", headers=bearer(token(streams_limit=0)))

    assert answer.json() == {"admissible": False, "live": 0, "limit": 0, "reason": "limit_reached"}


# Keys.


async def test_while_the_keys_are_out_of_reach_a_token_is_neither_right_nor_wrong(serve: Serve) -> None:
    with key_server("") as server:
        http = await serve(make_authenticator(RemoteKeys(server.url, ASYMMETRIC, pause_seconds=0)))
        problem(await http.get(STREAMS, headers=bearer(token())), 503, "keys-unavailable")
        assert (await http.get(STREAMS, headers=SERVICE)).status_code == 200

        server.body = key_set(public_jwk("RS256")).encode()
        assert (await http.get(STREAMS, headers=bearer(token()))).status_code == 200


async def test_without_any_key_everybody_may_do_everything(http: httpx2.AsyncClient) -> None:
    for operation in OPERATIONS:
        assert (await ask(http, operation)).status_code not in (401, 403)


async def test_with_api_keys_alone_a_token_opens_nothing() -> None:
    with pytest.raises(NotAuthenticated):
        await Authenticator(KEYS).identify([f"Bearer {token()}"])


async def test_with_tokens_alone_an_api_key_opens_nothing() -> None:
    authenticator = Authenticator(None, make_authenticator()._tokens)

    assert (await authenticator.identify([f"Bearer {token()}"])).user_id == "alice"
    with pytest.raises(NotAuthenticated):
        await authenticator.identify([f"Bearer {SERVICE_KEY}"])


def test_the_log_names_a_key_by_the_beginning_of_its_digest() -> None:
    assert KEYS.find(SERVICE_KEY) == Caller(Role.SERVICE, f"service key {digest(SERVICE_KEY)[:8]}")


def test_all_keys_are_compared_each_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    monkeypatch.setattr("hmac.compare_digest", compare)

    for key in ("the-next-key-of-it", OPERATOR_KEY, "unknown"):
        compared.clear()
        KEYS.find(key)
        assert len(compared) == 3


def test_digests_are_separated_by_commas_or_blanks() -> None:
    assert parse_digests(f" {digest('x').upper()} ,\n{digest('y')},") == (digest("x"), digest("y"))
    assert parse_digests("") == ()


@pytest.mark.parametrize("text", ["x", ",", "0" * 63, "0" * 65, "g" * 64, f"{digest('x')} -", SERVICE_KEY])
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        parse_digests(text)
