"""However many ask whether the service is ready, the store is asked once a second."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from streamlimit import Health, StoreUnavailable, StreamTracker, readiness
from streamlimit.readiness import Readiness

pytestmark = pytest.mark.anyio


class Looks:
    """A tracker whose looks take until they are told to end."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[Health]] = []

    async def health(self) -> Health:
        self.begun.append(asyncio.get_running_loop().create_future())
        return await self.begun[-1]


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
async def shared(looks: Looks) -> AsyncIterator[Readiness]:
    async with Readiness(looks) as shared:  # type: ignore[arg-type] # all that is needed of one
        yield shared


async def asked(shared: Readiness, times: int) -> list[asyncio.Task[Health]]:
    """Tasks that wait for an answer."""
    tasks = [asyncio.create_task(shared.health()) for _ in range(times)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_all_who_ask_at_once_share_one_look(shared: Readiness, looks: Looks) -> None:
    tasks = await asked(shared, 50)
    assert len(looks.begun) == 1
    looks.begun[0].set_result(Health(7))

    assert await asyncio.gather(*tasks) == [Health(7)] * 50


async def test_a_fresh_look_answers_the_next_ones(shared: Readiness, looks: Looks) -> None:
    (first,) = await asked(shared, 1)
    looks.begun[0].set_result(Health(7))
    await first

    assert await shared.health() == Health(7)
    assert len(looks.begun) == 1


async def test_an_old_one_does_not(shared: Readiness, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0)
    (first,) = await asked(shared, 1)
    looks.begun[0].set_exception(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await first
    (second,) = await asked(shared, 1)
    looks.begun[1].set_result(Health(0))

    assert await second == Health(0)


async def test_a_failure_is_told_to_all(shared: Readiness, looks: Looks) -> None:
    tasks = await asked(shared, 3)
    looks.begun[0].set_exception(StoreUnavailable("away"))

    found = await asyncio.gather(*tasks, shared.health(), return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 4


async def test_whoever_goes_away_takes_it_from_nobody(shared: Readiness, looks: Looks) -> None:
    leaving, staying = await asked(shared, 2)
    leaving.cancel()
    await asyncio.wait({leaving})
    looks.begun[0].set_result(Health(0))

    assert await staying == Health(0)


async def test_a_look_for_nobody_ends_with_the_service_and_without_a_word(looks: Looks) -> None:
    async with Readiness(looks) as shared:  # type: ignore[arg-type] # as above
        (waiting,) = await asked(shared, 1)
        waiting.cancel()
        await asyncio.wait({waiting})

    assert looks.begun[0].cancelled()


async def test_the_route_shares_them(http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    look = StreamTracker.health

    async def counted(tracker: StreamTracker) -> Health:
        calls.append(tracker)
        return await look(tracker)

    monkeypatch.setattr(StreamTracker, "health", counted)
    answers = await asyncio.gather(*(http.get("/readyz") for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert len(calls) == 1
