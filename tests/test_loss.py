"""The loss of everything under load: nobody is interrupted and no limit exceeded, which takes the epoch."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from streamlimit import StreamTracker
from tests.audience import Streamlimit
from tests.conftest import SECRET
from tests.cuts import patient
from tests.figures import report
from tests.helpers import single
from tests.loss import LOSSES, RULES, USERS, Outcome, PlainPexpire, trial, without_epoch
from tests.servers import RedisServer, running, valkey

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STREAMS = USERS * RULES.limit
PROCESSES = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """It keeps no file: a restart loses everything."""
    with running(valkey(tmp_path)) as server:
        yield server


@pytest.fixture
async def operator(server: RedisServer) -> AsyncIterator[Redis]:
    async with patient(server) as client:
        yield client


@pytest.fixture
async def streamlimit(server: RedisServer) -> AsyncIterator[Streamlimit]:
    async with AsyncExitStack() as stack:
        trackers = [StreamTracker.from_url(server.url, [SECRET], RULES) for _ in range(PROCESSES)]
        yield Streamlimit([await stack.enter_async_context(tracker) for tracker in trackers])


def reported(case: str, outcome: Outcome) -> Outcome:
    figures = dataclasses.asdict(dataclasses.replace(outcome, violations=()))
    del figures["violations"]
    report("loss", case=case, losses=LOSSES, **figures)
    assert outcome.streams == STREAMS, outcome
    return outcome


async def test_the_loss_of_everything_interrupts_nobody_and_exceeds_no_limit(
    streamlimit: Streamlimit, operator: Redis
) -> None:
    outcome = reported("FLUSHALL", await trial(streamlimit, operator.flushall))

    assert (outcome.interrupted, outcome.users_over, outcome.violations) == (0, 0, ())


async def test_a_restart_with_no_data_interrupts_nobody_and_exceeds_no_limit(
    streamlimit: Streamlimit, server: RedisServer
) -> None:
    async def restart() -> None:
        server.stop()
        await asyncio.to_thread(server.start)

    outcome = reported("restart with no data", await trial(streamlimit, restart))

    assert (outcome.interrupted, outcome.users_over, outcome.violations) == (0, 0, ())


async def test_without_the_epoch_the_same_loss_interrupts_streams_and_exceeds_limits(
    streamlimit: Streamlimit, operator: Redis
) -> None:
    with without_epoch():
        outcome = reported("FLUSHALL, without the epoch", await trial(streamlimit, operator.flushall))

    assert outcome.interrupted
    assert outcome.users_over


async def test_plain_pexpire_interrupts_streams_and_exceeds_limits_too(server: RedisServer, operator: Redis) -> None:
    async with single(server.url) as client:
        outcome = reported("FLUSHALL, plain PEXPIRE", await trial(PlainPexpire(client), operator.flushall))

    assert outcome.interrupted
    assert outcome.users_over
