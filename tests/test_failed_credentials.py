"""A key or token that was wrong again and again is not looked at for a while, and no other one suffers from it."""

import httpx2
import pytest

from streamlimit import failed_credentials
from streamlimit.api_keys import ApiKeys
from streamlimit.authenticator import Authenticator
from streamlimit.callers import Role
from streamlimit.failed_credentials import MOST, FailedCredentials
from tests.conftest import Serve
from tests.issuer import OPERATOR_KEY, SERVICE_KEY, bearer, digest
from tests.web import ALICE, STREAMS, problem

pytestmark = pytest.mark.anyio

WRONG = bearer("no-key-of-anybody")


@pytest.fixture
async def guarded(serve: Serve) -> httpx2.AsyncClient:
    keys = {Role.SERVICE: [digest(SERVICE_KEY)], Role.OPERATOR: [digest(OPERATOR_KEY)]}
    return await serve(Authenticator(ApiKeys(keys)))


@pytest.fixture
async def wrong_too_often(guarded: httpx2.AsyncClient) -> httpx2.AsyncClient:
    for _ in range(MOST):
        problem(await guarded.get(STREAMS, headers=WRONG), 401, "unauthenticated")
    return guarded


async def test_it_is_told_to_wait(wrong_too_often: httpx2.AsyncClient) -> None:
    answer = await wrong_too_often.get(STREAMS, headers=WRONG)

    problem(answer, 429, "too-many-requests")
    assert 0 < int(answer.headers["retry-after"]) <= 60


async def test_it_is_told_so_whatever_it_asks_for(wrong_too_often: httpx2.AsyncClient) -> None:
    problem(await wrong_too_often.put(ALICE, json={"limit": 1}, headers=WRONG), 429, "too-many-requests")


async def test_others_are_let_in(wrong_too_often: httpx2.AsyncClient) -> None:
    assert (await wrong_too_often.get(STREAMS, headers=bearer(SERVICE_KEY))).status_code == 200
    problem(await wrong_too_often.get(STREAMS, headers=bearer("another-wrong-key")), 401, "unauthenticated")
    problem(await wrong_too_often.get(STREAMS), 401, "unauthenticated")


async def test_it_is_counted_by_itself(wrong_too_often: httpx2.AsyncClient) -> None:
    await wrong_too_often.get(STREAMS, headers=WRONG)

    counts = (await wrong_too_often.get("/metrics", headers=bearer(OPERATOR_KEY))).text
    assert f'streamlimit_callers_refused_total{{reason="invalid"}} {MOST}.0\n' in counts
    assert 'streamlimit_callers_refused_total{reason="repeated"} 1.0\n' in counts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that it is now."""
    now = [1000.0]
    monkeypatch.setattr(failed_credentials, "monotonic", lambda: now[0])
    return now


def test_after_a_minute_it_is_looked_at_again(clock: list[float]) -> None:
    failed = FailedCredentials()
    for _ in range(MOST):
        assert failed.wait_ms("token") == 0
        failed.note("token")
        clock[0] += 1

    assert failed.wait_ms("token") == 50_000
    clock[0] += 50
    assert failed.wait_ms("token") == 0


def test_where_any_number_may_be_wrong_nobody_waits() -> None:
    failed = FailedCredentials(0)
    for _ in range(3 * MOST):
        failed.note("token")

    assert failed.wait_ms("token") == 0


def test_failures_that_are_long_ago_do_not_count(clock: list[float]) -> None:
    failed = FailedCredentials()
    for _ in range(3 * MOST):
        failed.note("token")
        clock[0] += 7

    assert failed.wait_ms("token") == 0


def test_strangers_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_credentials, "_REMEMBERED", 100)
    failed = FailedCredentials()
    for number in range(1_000):
        failed.note(f"token-{number}")

    assert len(failed._failures) == 100
