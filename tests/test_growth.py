"""Nothing grows without bounds, and nothing costs more for what is not there."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from streamlimit import Admission, StreamTracker
from streamlimit.fields import MAX_SEATS
from tests import faketime
from tests.conftest import RULES, SECRET
from tests.faketime import with_a_clock_of_its_own
from tests.helpers import admitted, patient, until
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

HOUR_SECONDS: Final = 3_600
USERS_AN_HOUR: Final = 200
COUNTED: Final = ("exists", "pttl", "hmget", "hset", "del")
SEATS: Final = dataclasses.replace(RULES, max_limit=MAX_SEATS)


async def churn(tracker: StreamTracker, user_id: str) -> None:
    """What a user may do in an evening: start, end, be replaced, be refused, and walk away."""
    first = await admitted(tracker, user_id, device_id="tv")
    await tracker.heartbeat(user_id, first.lease.stream_id)
    for _ in range(3):
        await admitted(tracker, user_id, device_id="tv")  # replaces its own
    for _ in range(RULES.limit):
        await tracker.admit(user_id)  # the last is refused
    await admitted(tracker, user_id, on_limit="evict", idempotency_key="again")
    streams = (await tracker.list(user_id)).streams
    await tracker.terminate(user_id, streams[0].stream_ref)
    last = await tracker.admit(user_id, content_id="film")
    if isinstance(last, Admission):
        await tracker.release(user_id, last.lease.stream_id)


@pytest.mark.slow
async def test_after_a_day_of_coming_and_going_the_store_is_as_it_was(tmp_path: Path) -> None:
    with with_a_clock_of_its_own(tmp_path) as server:
        async with patient(server) as operator:

            async def hour(number: int) -> None:
                users = [f"user-{number}-{user}" for user in range(USERS_AN_HOUR)]
                async with StreamTracker.from_url(server.url, [SECRET], RULES) as tracker:
                    await asyncio.gather(*(churn(tracker, user) for user in users))
                sizes = [await operator.hlen(f"ended:{{{user}}}") for user in users]
                assert 0 < max(sizes) <= MAX_SEATS
                assert await operator.dbsize() <= len(users) * (1 + RULES.limit) + 1
                faketime.step(tmp_path, (number + 1) * HOUR_SECONDS)
                await until(all_expired)

            async def all_expired() -> bool:
                return bool(await operator.dbsize() == 1)  # the epoch

            await hour(0)  # loads the scripts, and makes what every connection has
            before = await used_bytes(operator)
            for number in range(1, 25):
                await hour(number)

            assert await used_bytes(operator) < 1.1 * before


async def used_bytes(operator: Redis) -> int:
    found: dict[str, Any] = await operator.info("memory")
    return int(found["used_memory"])


async def commands(operator: Redis, call: Any) -> dict[str, int]:
    """What the store did meanwhile, by its own count."""
    await operator.config_resetstat()
    await call
    stats: dict[str, Any] = await operator.info("commandstats")
    return {name: int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in COUNTED}


@pytest.mark.parametrize("live", [0, 3, MAX_SEATS - 1])
async def test_free_seats_cost_nothing(valkey_server: RedisServer, live: int) -> None:
    """Each live stream is looked at once; how many more the user might have makes no difference."""
    async with patient(valkey_server) as operator:
        await operator.flushall()
        await operator.hset("user:{alice}", "limit", str(MAX_SEATS))
        async with StreamTracker.from_url(valkey_server.url, [SECRET], SEATS) as tracker:
            streams = [await admitted(tracker) for _ in range(live + 1)]
            await tracker.release("alice", streams[-1].lease.stream_id)

            listing = await commands(operator, tracker.list("alice"))
            admission = await commands(operator, admitted(tracker, limit=MAX_SEATS))
            ending = await commands(operator, tracker.terminate_all("alice"))

    # The epoch is read, too, by what decides about seats; and HSET records why a stream ended.
    assert listing == {"exists": 1, "pttl": live, "hmget": live, "hset": 0, "del": 0}
    assert admission == {"exists": 1, "pttl": live, "hmget": live + 1, "hset": 1, "del": 0}
    assert ending == {"exists": 1, "pttl": live + 1, "hmget": live + 1, "hset": live + 1, "del": live + 1}
