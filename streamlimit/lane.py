"""What many callers want of one server, sent in few round trips."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from streamlimit.errors import StoreOverloaded

_Item = TypeVar("_Item")
Answer = Callable[[Any], None]
"""Takes a reply, or the exception in its place."""


@dataclass(slots=True)
class _Waiting(Generic[_Item]):
    items: Sequence[_Item]
    until: float
    """When it has waited long enough, in the event loop's time."""
    replies: asyncio.Future[list[Any]] | None
    answer: Answer | None = None
    """Instead of a future, for one item."""

    def fail(self, error: Exception) -> None:
        """Tell whoever waits that there is no reply."""
        if self.answer:
            _call(self.answer, error)
        elif self.replies and not self.replies.done():
            self.replies.set_exception(error)


class Lane(Generic[_Item]):
    """Sends together what is handed in during one tick of the event loop, and what has come while all lines were busy.

    A caller that is cancelled harms no other. What comes to an idle lane leaves in the same tick.

    Args:
        send: Carries out a batch and returns the replies in order; an error that concerns all of it, it raises.
        max_batch: Items in a batch.
        max_in_flight: Batches under way at once.
        max_waiting: Items that may wait; more are refused.
        patience_seconds: How long an item may wait to be sent.
    """

    def __init__(
        self,
        send: Callable[[Sequence[_Item]], Awaitable[list[Any]]],
        *,
        max_batch: int,
        max_in_flight: int,
        max_waiting: int,
        patience_seconds: float,
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._patience_seconds = patience_seconds
        self._queue: deque[_Waiting[_Item]] = deque()
        self._waiting = 0
        self._flushing = False
        self._batches: set[asyncio.Task[None]] = set()
        self._impatience: asyncio.TimerHandle | None = None

    def submit(self, items: Sequence[_Item]) -> asyncio.Future[list[Any]]:
        """Hand in what is to be sent together, at most `max_batch`; the future has the replies, in order.

        Raises:
            StoreOverloaded: Too many wait already. In the future: it waited too long, and was not sent.
        """
        replies = asyncio.get_running_loop().create_future()
        self._put(items, replies, None)
        return replies

    def submit_one(self, item: _Item, answer: Answer) -> None:
        """The same for one item and without a future, which would cost more than all of its way through here.

        Args:
            item: What is to be sent.
            answer: Called once.

        Raises:
            StoreOverloaded: Too many wait already.
        """
        self._put((item,), None, answer)

    async def drain(self) -> None:
        """Wait until all that was handed in is answered."""
        while self._flushing or self._batches or self._queue:
            if self._batches:
                await asyncio.wait(self._batches)
            else:
                await asyncio.sleep(0)

    def _put(self, items: Sequence[_Item], replies: asyncio.Future[list[Any]] | None, answer: Answer | None) -> None:
        if self._waiting + len(items) > self._max_waiting:
            raise StoreOverloaded("too many calls wait for the store")
        loop = asyncio.get_running_loop()
        self._queue.append(_Waiting(items, loop.time() + self._patience_seconds, replies, answer))
        self._waiting += len(items)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._queue and len(self._batches) < self._max_in_flight:
            if batch := self._next_batch():
                task = asyncio.create_task(self._carry_out(batch))
                self._batches.add(task)
                task.add_done_callback(self._on_done)
        if self._queue and self._impatience is None:
            self._impatience = asyncio.get_running_loop().call_at(self._queue[0].until, self._give_up)

    def _next_batch(self) -> list[_Waiting[_Item]]:
        batch: list[_Waiting[_Item]] = []
        queue, room = self._queue, self._max_batch
        while queue:
            size = len(queue[0].items)
            if size > room and batch:
                break
            waiting = queue.popleft()
            self._waiting -= size
            if waiting.replies is None or not waiting.replies.done():  # else nobody waits for it any more
                batch.append(waiting)
                room -= size
        return batch

    async def _carry_out(self, batch: list[_Waiting[_Item]]) -> None:
        try:
            replies = await self._send([item for waiting in batch for item in waiting.items])
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            for waiting in batch:
                waiting.fail(error)
            return
        start = 0
        for waiting in batch:
            end = start + len(waiting.items)
            if waiting.answer:
                _call(waiting.answer, replies[start])
            elif waiting.replies and not waiting.replies.done():
                waiting.replies.set_result(replies[start:end])
            start = end

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        if self._queue and not self._flushing:
            self._flush()

    def _give_up(self) -> None:
        self._impatience = None
        now = asyncio.get_running_loop().time()
        while self._queue and self._queue[0].until <= now:
            waiting = self._queue.popleft()
            self._waiting -= len(waiting.items)
            waiting.fail(StoreOverloaded("all connections to the store are busy"))
        self._flush()


def _call(answer: Answer, reply: Any) -> None:
    try:
        answer(reply)
    except Exception as error:  # noqa: BLE001 - it must not keep the others from their replies
        told = {"message": "a reply of the store was not taken", "exception": error}
        asyncio.get_running_loop().call_exception_handler(told)
