"""Which primary some Sentinels name, where not all of them answer or agree."""

from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streamlimit.sentinels import Sentinels

pytestmark = pytest.mark.anyio

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
LATE = RedisTimeoutError("late")

Answer = tuple[tuple[str, int], int] | tuple[tuple[str, int], int, str] | Exception
"""The primary, the number of its failover, and its state where that is not well; or an error."""


class Sentinel:
    """One that names a primary, or is late."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def sentinel_masters(self) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        (ip, port), epoch, *states = self.answer
        down = {f"is_{state}": state in states for state in ("sdown", "odown")}
        told = {"ip": ip, "port": port, "config-epoch": epoch, "down-after-milliseconds": 5000, "is_master": True}
        return {"streams": told | down | {"num-other-sentinels": 2}}


async def named(sentinels: Sentinels, *answers: Answer) -> tuple[str, int]:
    sentinels.sentinels = [cast("Redis", Sentinel(answer)) for answer in answers]
    return await sentinels.discover_master("streams")


@pytest.fixture
def sentinels() -> Sentinels:
    return Sentinels([("127.0.0.1", 26379)])  # type: ignore[no-untyped-call]


async def test_the_latest_failover_that_one_of_them_knows_counts(sentinels: Sentinels) -> None:
    assert await named(sentinels, (OLD, 1), (NEW, 2), (OLD, 1)) == NEW


async def test_one_that_is_cut_off_is_not_believed_while_the_others_are_late(sentinels: Sentinels) -> None:
    await named(sentinels, (OLD, 1), (NEW, 2), (NEW, 2))

    assert await named(sentinels, (OLD, 1), LATE, LATE) == NEW


async def test_sentinels_that_were_set_up_anew_are_believed_when_all_of_them_answer(sentinels: Sentinels) -> None:
    await named(sentinels, (NEW, 7), (NEW, 7), (NEW, 7))

    assert await named(sentinels, (OLD, 0), (OLD, 0), (OLD, 0)) == OLD


async def test_one_that_is_cut_off_is_not_believed_while_the_new_primary_is_down(sentinels: Sentinels) -> None:
    with pytest.raises(MasterNotFoundError, match="down"):
        await named(sentinels, (OLD, 1), (NEW, 2, "sdown"), (NEW, 2, "sdown"))


async def test_a_new_primary_that_one_of_them_does_not_reach_is_well_if_another_one_does(sentinels: Sentinels) -> None:
    assert await named(sentinels, (NEW, 2, "sdown"), (NEW, 2), (OLD, 1)) == NEW


async def test_where_nobody_answers_there_is_no_primary(sentinels: Sentinels) -> None:
    await named(sentinels, (OLD, 1), (OLD, 1), (OLD, 1))

    with pytest.raises(MasterNotFoundError, match="late"):
        await named(sentinels, LATE, LATE, LATE)
