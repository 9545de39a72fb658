"""Many callers, few round trips."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from streamlimit import StoreOverloaded
from streamlimit.lane import Lane
from tests.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio


class Server:
    """Answers with what it is sent, as soon as it may."""

    def __init__(self, *, busy: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.may_answer = asyncio.Event()
        if not busy:
            self.may_answer.set()

    async def send(self, items: Sequence[int]) -> list[Any]:
        self.batches.append(list(items))
        await self.may_answer.wait()
        if -1 in items:
            raise ConnectionResetError
        return list(items)

    def lane(self, **options: Any) -> Lane[int]:
        usual = {"max_batch": 4, "max_in_flight": 1, "max_waiting": 100, "patience_seconds": 60}
        return Lane(self.send, **usual | options)


async def test_what_comes_in_one_tick_goes_out_together() -> None:
    server = Server()
    lane = server.lane()

    replies = await asyncio.gather(*(lane.submit([number]) for number in range(3)))

    assert replies == [[0], [1], [2]]
    assert server.batches == [[0, 1, 2]]


async def test_what_comes_alone_does_not_wait_for_others() -> None:
    server = Server()
    lane = server.lane()
    first = lane.submit([1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert server.batches == [[1]]
    assert await first == [1]


async def test_a_batch_has_an_end() -> None:
    server = Server()
    lane = server.lane(max_batch=4)

    await asyncio.gather(lane.submit([1, 2, 3]), lane.submit([4, 5]), lane.submit([6]))

    assert server.batches == [[1, 2, 3], [4, 5, 6]]


async def test_no_more_batches_are_under_way_than_allowed() -> None:
    server = Server(busy=True)
    lane = server.lane(max_in_flight=2, max_batch=1)
    calls = [lane.submit([number]) for number in range(5)]
    await asyncio.sleep(0.01)
    assert server.batches == [[0], [1]]

    server.may_answer.set()
    assert await asyncio.gather(*calls) == [[number] for number in range(5)]


async def test_an_error_is_told_to_those_of_its_batch_only() -> None:
    server = Server()
    lane = server.lane(max_batch=2)

    answers = await asyncio.gather(*(lane.submit([number]) for number in (-1, 1, 2)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [ConnectionResetError, ConnectionResetError, list]


async def test_who_is_cancelled_before_it_was_sent_is_not_sent() -> None:
    server = Server(busy=True)
    lane = server.lane()
    first = lane.submit([1])
    await asyncio.sleep(0.01)
    second, third = lane.submit([2]), lane.submit([3])
    second.cancel()
    server.may_answer.set()

    assert [await first, await third] == [[1], [3]]
    assert server.batches == [[1], [3]]


async def test_who_is_cancelled_afterwards_disturbs_nobody() -> None:
    server = Server(busy=True)
    lane = server.lane()
    first, second = lane.submit([1]), lane.submit([2])
    await asyncio.sleep(0.01)
    first.cancel()
    server.may_answer.set()

    assert await second == [2]


async def test_too_many_are_refused_at_once() -> None:
    lane = Server(busy=True).lane(max_waiting=2)
    lane.submit([1])
    lane.submit([2])

    with pytest.raises(StoreOverloaded):
        lane.submit([3])


async def test_who_waited_for_too_long_is_told_and_not_sent() -> None:
    server = Server(busy=True)
    lane = server.lane(patience_seconds=0.05)
    first = lane.submit([1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = lane.submit([2])

    with pytest.raises(StoreOverloaded):
        await second
    server.may_answer.set()
    assert await first == [1]
    assert server.batches == [[1]]


async def test_room_is_given_back() -> None:
    server = Server()
    lane = server.lane(max_waiting=1)

    for number in range(10):
        assert await lane.submit([number]) == [number]


async def test_draining_waits_for_what_is_under_way() -> None:
    server = Server(busy=True)
    lane = server.lane()
    call = lane.submit([1])
    draining = asyncio.create_task(lane.drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    server.may_answer.set()
    await draining

    assert call.done()


async def handed_in(lane: Lane[int], *items: int) -> list[Any]:
    """What those who wait without a future are told, in the order in which they are."""
    told: list[Any] = []
    for item in items:
        lane.submit_one(item, told.append)
    await lane.drain()
    return told


async def test_replies_are_handed_on_without_a_future_too() -> None:
    server = Server()
    lane = server.lane()

    assert await handed_in(lane, 1, 2) == [1, 2]
    assert server.batches == [[1, 2]]


async def test_errors_are_handed_on_without_a_future_too() -> None:
    told = await handed_in(Server().lane(), -1, 1)

    assert [type(one) for one in told] == [ConnectionResetError] * 2


async def test_who_waited_for_too_long_without_a_future_is_told() -> None:
    server = Server(busy=True)
    lane = server.lane(patience_seconds=0.05)
    first = lane.submit([1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    told = asyncio.get_running_loop().create_future()
    lane.submit_one(2, told.set_result)

    assert isinstance(await told, StoreOverloaded)
    server.may_answer.set()
    assert await first == [1]
    assert server.batches == [[1]]


async def test_too_many_are_refused_without_a_future_too() -> None:
    lane = Server(busy=True).lane(max_waiting=1)
    lane.submit_one(1, print)

    with pytest.raises(StoreOverloaded):
        lane.submit_one(2, print)


async def test_who_cannot_take_a_reply_keeps_it_from_nobody() -> None:
    failures: list[dict[str, Any]] = []

    def fail(_: Any) -> None:
        raise KeyError

    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    lane = Server().lane()
    lane.submit_one(1, fail)
    lane.submit_one(2, fail)

    assert await handed_in(lane, 3) == [3]
    assert [type(failure["exception"]) for failure in failures] == [KeyError] * 2


async def test_who_waited_for_too_long_gives_the_room_back() -> None:
    server = Server(busy=True)
    lane = server.lane(max_waiting=2, patience_seconds=0.01)
    first = lane.submit([0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE_SECONDS):
        for number in range(3):
            with pytest.raises(StoreOverloaded, match="busy"):
                await lane.submit([number, number])
        server.may_answer.set()
        assert await first == [0]
        assert await lane.submit([1, 2]) == [1, 2]


async def test_who_is_cancelled_while_it_waits_gives_the_room_back() -> None:
    server = Server(busy=True)
    lane = server.lane(max_waiting=1)
    first = lane.submit([0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    lane.submit([1]).cancel()
    server.may_answer.set()

    assert await first == [0]
    await lane.drain()
    assert await lane.submit([2]) == [2]


async def test_each_of_those_who_wait_is_told_in_its_time() -> None:
    lane = Server(busy=True).lane(patience_seconds=0.05)
    lane.submit([0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    early = lane.submit([1])
    await asyncio.sleep(0.03)
    late = lane.submit([2])

    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(StoreOverloaded):
            await early
        assert not late.done()
        with pytest.raises(StoreOverloaded):
            await late


async def test_room_is_counted_by_items() -> None:
    lane = Server(busy=True).lane(max_waiting=2)

    with pytest.raises(StoreOverloaded):
        lane.submit([1, 2, 3])


async def test_draining_waits_for_what_still_waits() -> None:
    server = Server(busy=True)
    lane = server.lane(max_batch=1)
    calls = [lane.submit([number]) for number in range(3)]
    draining = asyncio.create_task(lane.drain())
    await asyncio.sleep(0.01)
    server.may_answer.set()
    await draining

    assert all(call.done() for call in calls)


async def test_nothing_is_sent_where_all_who_waited_have_gone() -> None:
    server = Server()
    lane = server.lane()
    lane.submit([1]).cancel()
    await lane.drain()

    assert server.batches == []


async def test_who_is_cancelled_keeps_an_error_from_nobody() -> None:
    server = Server(busy=True)
    lane = server.lane()
    first, second = lane.submit([-1]), lane.submit([1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    server.may_answer.set()

    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(ConnectionResetError):
            await second
