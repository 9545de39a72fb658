"""Where an exchange of bytes is cut, and what became of the seats.

PROVE_CUT_STEP is how many bytes lie between two cuts; 1 cuts at every byte and takes many minutes.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from redis.asyncio import Redis

from tests.figures import Figures
from tests.proxy import Direction

STEP: Final = int(os.environ.get("PROVE_CUT_STEP", "17"))
_AT_ONCE: Final = 12

Client = Mapping[str, Any]
"""What a client that repeats its admission sends with it."""


Case = tuple[str, Direction, int, Client]


def product(sizes: Mapping[Direction, int], clients: Mapping[str, Client], step: int) -> list[Case]:
    """Every kind of client, cut at every step of an exchange of these sizes. Each is a user of its own."""
    return [
        (f"{name}-{direction}-{at}", direction, at, client)
        for direction, size in sizes.items()
        for at in range(0, size, step)
        for name, client in clients.items()
    ]


async def crowd(
    run: Callable[[str, Direction, int, Client], Awaitable[None]], cases: list[Case], measured: Figures
) -> None:
    """Run all cases, some at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(case: Case) -> None:
        async with limit:
            await run(*case)
        measured.cases += 1

    async with asyncio.TaskGroup() as tasks:
        for case in cases:
            tasks.create_task(one(case))


async def seats(operator: Redis, user_id: str) -> list[str]:
    """The REFs in a user's seats, of ten; each has a TTL of at most the usual one."""
    refs = []
    for seat in range(1, 11):
        key = f"stream:{{{user_id}}}:{seat}"
        async with operator.pipeline(transaction=True) as moment:
            moment.pttl(key)
            moment.hget(key, "ref")
            ttl, ref = await moment.execute()
        if ref is not None:
            assert 0 < ttl <= 90_000
            refs.append(str(ref))
    return refs
