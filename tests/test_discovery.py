"""Which primary some Sentinels name, where not all of them answer or agree, and how long ago they were in touch."""

import math
from dataclasses import dataclass
from typing import Any, Self, cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streamlimit.sentinels import Sentinels

pytestmark = pytest.mark.anyio

Address = tuple[str, int]

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
LATE = RedisTimeoutError("late")


@dataclass(frozen=True)
class Sentinel:
    """One that names a primary, or is late. It is its own pipeline."""

    shown: Address
    failover: int
    flags: str = "master"
    silent_ms: int = 0
    promoted: Address | None = None
    """A replica in its place, which the others do not follow yet."""
    error: Exception | None = None

    def pipeline(self, *, transaction: bool) -> Self:
        assert not transaction
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    def execute_command(self, *words: str) -> None:
        pass

    async def execute(self) -> tuple[dict[str, Any], Address]:
        if self.error:
            raise self.error
        (ip, port), flags = self.shown, self.flags.split(",")
        told = {"ip": ip, "port": port, "config-epoch": self.failover, "flags": self.flags, "is_master": True}
        told |= {"is_sdown": "s_down" in flags, "is_odown": "o_down" in flags, "last-ok-ping-reply": self.silent_ms}
        return {"streams": told | {"num-other-sentinels": 2, "quorum": 2}}, self.promoted or self.shown


LATE_ONE = Sentinel(OLD, 0, error=LATE)
DOWN = "master,s_down,o_down"
REPLACING = f"{DOWN},failover_in_progress"


async def named(sentinels: Sentinels, *asked: Sentinel) -> Address:
    sentinels.sentinels = cast("list[Redis]", list(asked))
    return await sentinels.discover_master("streams")


@pytest.fixture
def sentinels() -> Sentinels:
    return Sentinels([("127.0.0.1", 26379)])  # type: ignore[no-untyped-call]


async def test_the_latest_failover_that_one_of_them_knows_counts(sentinels: Sentinels) -> None:
    assert await named(sentinels, Sentinel(OLD, 1), Sentinel(NEW, 2), Sentinel(OLD, 1)) == NEW


async def test_one_that_is_cut_off_is_not_believed_while_the_others_are_late(sentinels: Sentinels) -> None:
    await named(sentinels, Sentinel(OLD, 1), Sentinel(NEW, 2), Sentinel(NEW, 2))

    assert await named(sentinels, Sentinel(OLD, 1), LATE_ONE, LATE_ONE) == NEW


async def test_sentinels_that_were_set_up_anew_are_believed_when_all_of_them_answer(sentinels: Sentinels) -> None:
    await named(sentinels, *[Sentinel(NEW, 7)] * 3)

    assert await named(sentinels, *[Sentinel(OLD, 0)] * 3) == OLD


async def test_one_that_is_cut_off_is_not_believed_while_the_new_primary_is_down(sentinels: Sentinels) -> None:
    with pytest.raises(MasterNotFoundError, match="down"):
        await named(sentinels, Sentinel(OLD, 1), Sentinel(NEW, 2, DOWN), Sentinel(NEW, 2, DOWN))


async def test_a_new_primary_that_one_of_them_does_not_reach_is_well_if_another_one_does(sentinels: Sentinels) -> None:
    assert await named(sentinels, Sentinel(NEW, 2, DOWN), Sentinel(NEW, 2), Sentinel(OLD, 1)) == NEW


async def test_a_promoted_replica_is_named_before_the_others_follow_it(sentinels: Sentinels) -> None:
    replacing = Sentinel(OLD, 2, REPLACING, promoted=NEW)

    assert await named(sentinels, Sentinel(OLD, 1, DOWN), replacing, Sentinel(OLD, 1)) == NEW


async def test_where_nobody_answers_there_is_no_primary(sentinels: Sentinels) -> None:
    await named(sentinels, *[Sentinel(OLD, 1)] * 3)

    with pytest.raises(MasterNotFoundError, match=r"well: late$"):
        await named(sentinels, *[LATE_ONE] * 3)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ([Sentinel(OLD, 1, silent_ms=ms) for ms in (700, 9_000, 300)], 0.7),
        ([Sentinel(OLD, 1, silent_ms=ms) for ms in (9_000, 8_000, 300)], 8),
        ([Sentinel(OLD, 1, silent_ms=700), LATE_ONE, Sentinel(OLD, 1)], 0.7),
        ([Sentinel(OLD, 1), LATE_ONE, LATE_ONE], math.inf),
        ([Sentinel(OLD, 0), Sentinel(OLD, 1), Sentinel(OLD, 1, silent_ms=700)], 0.7),
        ([Sentinel(OLD, 1), Sentinel(OLD, 1, "master,failover_in_progress"), Sentinel(OLD, 1)], math.inf),
    ],
    ids=["one hears nothing", "two", "one is late", "two are", "one is not up to date", "one replaces it"],
)
async def test_a_primary_is_in_touch_while_so_many_hear_of_it_that_no_quorum_replaces_it(
    sentinels: Sentinels, asked: list[Sentinel], seconds: float
) -> None:
    await named(sentinels, *asked)

    assert sentinels.out_of_touch_seconds == seconds
