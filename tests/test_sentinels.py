"""Which primary the service writes to, where not everybody agrees on that."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import pytest

from streamlimit import Lease, StreamTracker
from tests.conftest import RULES, SECRET
from tests.helpers import admitted, until
from tests.nodes import Node
from tests.sentinels import Sentinels
from tests.servers import HAVE_SUBNETS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]


@pytest.fixture(scope="module")
def partitionable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("sentinels"), partitionable=True) as sentinels:
        yield sentinels


@pytest.fixture
def sentinels(partitionable: Sentinels) -> Iterator[Sentinels]:
    yield partitionable
    partitionable.mend()
    partitionable.primary.command("FLUSHALL")


@pytest.fixture
async def tracker(sentinels: Sentinels) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(sentinels.url(), [SECRET]) as tracker:
        yield tracker


async def writes_to(tracker: StreamTracker, node: Node) -> bool:
    admission = await admitted(tracker, "alice")
    await tracker.release("alice", admission.lease.stream_id)
    return bool(node.command("HEXISTS", "ended:{alice}", admission.stream.ref))


async def test_a_primary_that_was_replaced_without_knowing_it_is_left(
    sentinels: Sentinels, tracker: StreamTracker
) -> None:
    before = sentinels.primary
    assert await writes_to(tracker, before)
    sentinels.partition(before)  # we reach all of them
    after = sentinels.wait_for_another_primary("", before)

    await until(lambda: writes_to(tracker, after))
    assert before.role() == "master"


async def test_streams_that_a_replaced_primary_kept_live_in_vain_resume(
    sentinels: Sentinels, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = dataclasses.replace(RULES, ttl_ms=1_200, heartbeat_ms=400)  # over before another primary is chosen
    hour_ago = time.time_ns() - 3600 * 10**9  # a young stream would come back in any case
    async with StreamTracker.from_url(sentinels.url(), [SECRET], rules) as tracker:
        with monkeypatch.context() as patches:
            patches.setattr("streamlimit.stream_id.time", SimpleNamespace(time_ns=lambda: hour_ago))
            stream_id = (await admitted(tracker, "bob")).lease.stream_id
        before = sentinels.primary
        sentinels.partition(before)
        failing_over = asyncio.create_task(asyncio.to_thread(sentinels.wait_for_another_primary, "", before))

        async def known_to_the_new_primary() -> bool:
            answer = await tracker.heartbeat("bob", stream_id)
            assert isinstance(answer, Lease), answer
            return failing_over.done() and bool(failing_over.result().command("EXISTS", "stream:{bob}:1"))

        await until(known_to_the_new_primary)


async def test_a_failover_that_was_asked_for_is_followed_at_once(sentinels: Sentinels, tracker: StreamTracker) -> None:
    stream_id = (await admitted(tracker, "bob")).lease.stream_id
    before = sentinels.primary
    after = sentinels.fail_over("")

    await until(lambda: writes_to(tracker, after))
    assert before.role() == "master"  # for many seconds more: Sentinels take their time
    assert isinstance(await tracker.heartbeat("bob", stream_id), Lease)


async def test_a_sentinel_alone_with_the_old_primary_is_not_believed(sentinels: Sentinels) -> None:
    before = sentinels.primary
    alone = sentinels.sentinels[0]
    sentinels.partition(before, alone)
    after = sentinels.wait_for_another_primary("", before)
    assert alone.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "streams")[0] == before.announced

    async with StreamTracker.from_url(sentinels.url(), [SECRET]) as newcomer:
        assert await writes_to(newcomer, after)
