"""What is owed stays owed until the store answers. What becomes of it over a true store is in test_store.py."""

import asyncio
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from streamlimit import StoreUnavailable, debts
from streamlimit.debts import Debts
from streamlimit.scripts import Call

pytestmark = pytest.mark.anyio


class Store:
    """Answers with what it is told, or not at all."""

    def __init__(self) -> None:
        self.tried: list[object] = []
        self.cause: Exception | None = None
        """Why it gives no usable answer."""
        self.is_stuck = False
        self.begun = asyncio.Event()

    async def run(self, call: object) -> None:
        self.tried.append(call)
        self.begun.set()
        if self.is_stuck:
            await asyncio.Event().wait()
        if self.cause:
            raise StoreUnavailable("no usable answer") from self.cause

    def owing(self, *calls: int) -> Debts:
        owed = Debts(cast("Any", self.run))
        assert all(owed.add(cast("Call", call)) for call in calls)
        return owed


async def test_what_is_answered_is_no_longer_owed() -> None:
    owed = Store().owing(1, 2)
    await owed.pay()

    assert not owed


async def test_what_gets_no_answer_stays_owed() -> None:
    store = Store()
    owed = store.owing(1, 2)
    store.cause = RedisConnectionError("away")
    await owed.pay()
    assert owed
    store.cause = None
    await owed.pay()

    assert store.tried == [1, 2, 1, 2]
    assert not owed


async def test_what_is_refused_is_left(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    owed = store.owing(1)
    store.cause = ResponseError("WRONGTYPE")
    await owed.pay()

    assert not owed
    assert caplog.messages[0].startswith("Left 1 admissions in doubt")


async def test_what_is_interrupted_stays_owed_in_its_order() -> None:
    store = Store()
    owed = store.owing(1, 2)
    store.is_stuck = True
    paying = asyncio.create_task(owed.pay())
    await store.begun.wait()
    paying.cancel()
    await asyncio.wait([paying])
    store.is_stuck = False
    store.tried.clear()
    await owed.pay()

    assert store.tried == [1, 2]


async def test_only_so_many_are_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debts, "_MAX_OWED", 1)
    owed = Store().owing(1)

    assert not owed.add(cast("Call", 2))


async def test_the_last_try_takes_no_longer_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    owed = store.owing(1)
    store.is_stuck = True
    await owed.settle(0.01)

    assert caplog.messages[0].startswith("Left 1 admissions in doubt")
