"""The store as the tracker sees it: scripts within a time budget, in a known epoch, on a server that may fail."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streamlimit.errors import StoreOverloaded, StoreUnavailable
from streamlimit.results import Health
from streamlimit.scripts import EPOCH, Script

BUDGET_SECONDS: Final = 1.0
"""Every operation has answered or failed after this time."""

_LATE_MS: Final = 1_000
"""How long after the deadline a script may still decide: the meeting that told us the store's clock took up to this."""

_FIRST_PAUSE_SECONDS: Final = 0.02
_PROBE_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 5
_COMPLAINT_SECONDS: Final = 10
_MAX_MEETINGS: Final = 3
_MAX_LOADINGS: Final = 3
_MAX_OWED: Final = 10_000
_OWED_AT_ONCE: Final = 100
_OUTAGES: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    TimeoutError,
    OSError,
    BusyLoadingError,
    ReadOnlyError,
    ClusterDownError,
)

_Reply = TypeVar("_Reply")
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Call:
    """A script with its KEYS and ARGV."""

    script: Script
    keys: Sequence[str]
    args: Sequence[str | int]
    in_epoch: bool = False
    """Its first argument, not in `args`, is the epoch, and its last one how long it may be carried out; it answers
    ['epoch'] where the epoch is another one, or it comes too late."""
    in_doubt: bool = False
    """An attempt got no answer. It may still be carried out, even after a later attempt was answered."""


class Store:
    """Runs scripts.

    Every script of ours may be repeated with the same arguments, so a failed call is repeated while the budget lasts.
    Once the store is known to be out of reach, calls fail at their first attempt, and a background task probes it.

    Args:
        client: Owned by the store from now on, and closed with it.
        epoch_key: Name of the epoch key.
        ttl_ms: The stream TTL.
        outage_ms: After an outage longer than this, streams may have expired through no fault of their players, and the
            store opens recovery.
    """

    def __init__(self, client: Redis, epoch_key: str, *, ttl_ms: int, outage_ms: int) -> None:
        self._client = client
        self._epoch_key = epoch_key
        self._ttl_ms = ttl_ms
        self._outage_seconds = outage_ms / 1000
        self._epoch = ""
        self._clock_ahead_ms = 0  # the store's clock and the event loop's
        self._meeting = asyncio.Lock()
        self._down_since: float | None = None
        self._owed: deque[Call] = deque(maxlen=_MAX_OWED)
        self._repair: asyncio.Task[None] | None = None
        self._closing = False
        self._complaint = ("", 0.0)

    async def open(self) -> None:
        """Meet the store. If it is out of reach, go on all the same and meet it when it is back."""
        try:
            health = await self.health()
        except StoreUnavailable:
            return  # logged, and being probed
        for warning in health.warnings:
            _logger.warning("%s", warning)

    async def close(self) -> None:
        """Do what is still owed, as far as the store answers, and close all connections."""
        self._closing = True
        while self._repair is not None and not self._repair.done():
            # Again and again: before Python 3.12 asyncio.wait_for, in redis-py, may swallow a cancellation.
            self._repair.cancel()
            await asyncio.wait([self._repair], timeout=_PROBE_SECONDS)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pay()
        except (StoreUnavailable, TimeoutError):
            _logger.warning("Left %d abandoned admissions to expire by themselves", len(self._owed))
        await self._client.aclose()

    def deadline(self) -> float:
        """When an operation that begins now must be done, in the event loop's time."""
        return asyncio.get_running_loop().time() + BUDGET_SECONDS

    async def run(self, call: Call, deadline: float | None = None) -> Any:
        """Run a script and return its reply.

        Args:
            call: What to run.
            deadline: Where it is one step of an operation: the operation's.

        Raises:
            StoreUnavailable: No usable answer by then.
        """
        (reply,) = await self.run_many([call], deadline)
        if isinstance(reply, StoreUnavailable):
            raise reply
        return reply

    async def run_many(self, calls: Sequence[Call], deadline: float | None = None) -> list[Any]:
        """Run many scripts in one round trip.

        Those that answer that the epoch is another one run again when the store has been met: they decide nothing in an
        epoch that the caller does not know.

        Returns:
            In order, each call's reply or the StoreUnavailable that is its own.

        Raises:
            StoreUnavailable: None was answered by the deadline.
        """
        deadline = self.deadline() if deadline is None else deadline
        results: dict[int, Any] = {}
        waiting = list(range(len(calls)))
        for _ in range(_MAX_MEETINGS):
            now = [calls[index] for index in waiting]
            if any(call.in_epoch for call in now) and self._must_meet():
                await self._within_budget(partial(self._meet_again, ""), deadline)
            epoch = self._epoch
            replies = await self._within_budget(partial(self._pipeline, now, deadline), deadline, now) if now else []
            for index, reply in zip(waiting, replies, strict=True):
                results[index] = self._failure(reply) if isinstance(reply, RedisError) else reply
            waiting = [index for index in waiting if calls[index].in_epoch and results[index] == ["epoch"]]
            if not waiting:
                return [results[index] for index in range(len(calls))]
            await self._within_budget(partial(self._meet_again, epoch), deadline)
        raise StoreUnavailable("the store loses its data again and again")

    async def health(self) -> Health:
        """Prove that the store runs scripts and takes writes.

        Raises:
            StoreUnavailable: It does not.
        """
        deadline = self.deadline()
        recovering_ms = await self._within_budget(self._meet, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                info = await self._client.info("memory", "persistence")
        except (RedisError, TimeoutError, OSError) as error:
            # Some servers and users have no INFO, and fakeredis does not know it. Scripts run, which is what counts.
            _logger.debug("No INFO from the store: %s", error)
            return Health(recovering_ms)
        warnings = []
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            warnings.append(
                f"maxmemory-policy is {policy}: short of memory, the store drops live streams; set it to noeviction"
            )
        if 0 < int(info.get("maxmemory", 0)) <= int(info.get("used_memory", 0)):
            warnings.append("the store's memory is full: streams go on, but new ones are refused; raise maxmemory")
        if not int(info.get("aof_enabled", 1)):
            warnings.append(
                "there is no append-only file: a crash loses the users' limits, and where there are snapshots it goes "
                "back to the last one, so that streams end; set appendonly to yes"
            )
        return Health(recovering_ms, tuple(warnings))

    async def delete(self, key: str) -> bool:
        """Delete a key; whether there was one."""
        return bool(await self._within_budget(lambda: self._client.delete(key)))

    def owe(self, call: Call) -> None:
        """Run a script later, as soon as the store answers."""
        self._owed.append(call)
        self._start_repair()

    async def _within_budget(
        self, attempt: Callable[[], Awaitable[_Reply]], deadline: float | None = None, calls: Sequence[Call] = ()
    ) -> _Reply:
        clock = asyncio.get_running_loop().time
        deadline = self.deadline() if deadline is None else deadline
        known_outage = self._down_since is not None and clock() - self._down_since > BUDGET_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    reply = await attempt()
            except asyncio.CancelledError:
                _doubt(calls)
                raise
            except (RedisError, TimeoutError, OSError) as error:
                failure = self._failure(error)
                if isinstance(failure, StoreOverloaded) or not isinstance(error, _OUTAGES):
                    raise failure from error
                _doubt(calls)
                if self._down_since is None:
                    self._down_since = clock()
                self._start_repair()
                if known_outage or clock() + pause >= deadline:
                    raise failure from error
            else:
                if self._down_since is not None and not self._was_out_of_reach_for_long():
                    self._down_since = None
                return reply
            await asyncio.sleep(pause)
            pause *= 2

    async def _pipeline(self, calls: Sequence[Call], deadline: float = 0) -> list[Any]:
        replies = await self._send(calls, deadline)
        for _ in range(_MAX_LOADINGS):
            answers = zip(calls, replies, strict=True)
            unloaded = {call.script for call, reply in answers if isinstance(reply, NoScriptError)}
            if not unloaded:
                break
            for script in unloaded:
                await self._client.script_load(script.source)
            replies = await self._send(calls, deadline)
        # A server that is loading, read-only or down says so to every command.
        if isinstance(replies[0], _OUTAGES):
            raise replies[0]
        return replies

    async def _send(self, calls: Sequence[Call], deadline: float) -> list[Any]:
        valid_until = round(deadline * 1000) + self._clock_ahead_ms + _LATE_MS
        async with self._client.pipeline(transaction=False) as pipeline:
            for call in calls:
                args = [self._epoch, *call.args, valid_until] if call.in_epoch else call.args
                pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *args)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies

    async def _meet_again(self, refused_epoch: str) -> None:
        """Meet the store, unless somebody else has done so while we waited for our turn."""
        async with self._meeting:
            if self._must_meet() or self._epoch == refused_epoch:
                await self._meet()

    def _must_meet(self) -> bool:
        return not self._epoch or self._was_out_of_reach_for_long()

    async def _meet(self) -> int:
        """Learn the epoch of the store; where it lost data, or was out of reach for long, open recovery.

        Returns:
            How long recovery goes on, ms; 0 where there is none.
        """
        outage = self._was_out_of_reach_for_long()
        args: list[str | int] = [self._epoch, secrets.token_hex(8), self._ttl_ms, "1" if outage else ""]
        (reply,) = await self._pipeline([Call(EPOCH, [self._epoch_key], args)])
        if isinstance(reply, RedisError):
            raise reply
        epoch, now, recovering_until = reply
        recovering_ms: int = max(0, recovering_until - now)
        if recovering_ms and (outage or (self._epoch and epoch != self._epoch)):
            cause = "The store was out of reach for long" if outage else "The store lost its data"
            _logger.warning(
                "%s: for %.1f s running streams resume and new admissions wait", cause, recovering_ms / 1000
            )
        self._epoch = epoch
        self._clock_ahead_ms = now - round(asyncio.get_running_loop().time() * 1000)
        self._down_since = None
        return recovering_ms

    def _was_out_of_reach_for_long(self) -> bool:
        if self._down_since is None:
            return False
        return asyncio.get_running_loop().time() - self._down_since > self._outage_seconds

    def _start_repair(self) -> None:
        if not self._closing and (self._repair is None or self._repair.done()):
            self._repair = asyncio.create_task(self._repair_until_well(), name="streamlimit-store-repair")

    async def _repair_until_well(self) -> None:
        while self._down_since is not None or self._owed:
            try:
                if self._down_since is not None:
                    await self._within_budget(self._meet)
                    _logger.warning("The store is back")
                await self._pay()
            except StoreUnavailable:
                await asyncio.sleep(_PROBE_SECONDS)

    async def _pay(self) -> None:
        while self._owed:
            batch = [self._owed.popleft() for _ in range(min(len(self._owed), _OWED_AT_ONCE))]
            try:
                replies = await self.run_many(batch)
            except (StoreUnavailable, asyncio.CancelledError):
                self._owed.extendleft(reversed(batch))
                raise
            refused = sum(isinstance(reply, StoreUnavailable) for reply in replies)
            if refused:
                _logger.warning("Left %d abandoned admissions to expire by themselves", refused)

    def _failure(self, error: BaseException) -> StoreUnavailable:
        """What callers are told. The log is told the cause, once in a while."""
        if isinstance(error, RedisConnectionError) and isinstance(error.__cause__, TimeoutError):
            # So says redis-py's blocking pool where no connection became free.
            failure: StoreUnavailable = StoreOverloaded("all connections to the store are busy")
        else:
            failure = StoreUnavailable(str(error) or type(error).__name__)
        now = asyncio.get_running_loop().time()
        complaint, at = self._complaint
        if str(failure) != complaint or now - at > _COMPLAINT_SECONDS:
            self._complaint = (str(failure), now)
            _logger.warning("No usable answer from the store: %s", failure)
        return failure


def _doubt(calls: Sequence[Call]) -> None:
    for call in calls:
        call.in_doubt = True
