"""The store as the tracker sees it: scripts within a time budget, in a known epoch, on servers that may fail."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import AskError, ClusterDownError, RedisError

from streamlimit.attempts import Attempts
from streamlimit.damage import Damages
from streamlimit.debts import Debts
from streamlimit.epochs import Epochs
from streamlimit.errors import DamagedKey, StoreOverloaded, StoreUnavailable
from streamlimit.health import warnings
from streamlimit.keys import Keys
from streamlimit.known_secrets import KnownSecrets
from streamlimit.lane import Lane
from streamlimit.node import MAX_CLAIMS, Claim, Command, Node, command, script_call
from streamlimit.outages import Outages
from streamlimit.results import Health
from streamlimit.scripts import HEARTBEAT, Call
from streamlimit.topology import NOBODY, find_topology

BUDGET_SECONDS: Final = 1.0
"""Unless set otherwise, every operation has answered or failed after this time."""

BEATS, LOOKS = attrgetter("beats"), attrgetter("looks")
"""The lanes of heartbeat.lua and get.lua."""

_PROBE_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 5
_MAX_MEETINGS: Final = 3
_MEET_AGAIN: Final = (["epoch"], ["late"])
"""Replies of scripts that did nothing, since the caller knows another epoch, or the server's clock is another one."""

_logger = logging.getLogger(__name__)


class Store:
    """Runs scripts.

    Every script of ours may be repeated with the same arguments, so a failed call is repeated while the budget lasts.
    A background task probes servers that are out of reach, and does what is owed when they are back. What one server of
    a Cluster does concerns the users of its slots only.

    Args:
        client: Owned by the store from now on, and closed with it.
        keys: The names of the epoch keys, one for each slot.
        ttl_ms: The stream TTL.
        outage_ms: After an outage longer than this, streams may have expired through no fault of their players, and the
            store opens recovery.
        budget_seconds: After this time every operation has answered or failed.
        name_user: What the log calls a user.
        secrets: Sign the stream ids; the store remembers their fingerprints.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        keys: Keys,
        *,
        ttl_ms: int,
        outage_ms: int,
        budget_seconds: float,
        name_user: Callable[[str], str],
        secrets: Sequence[str],
    ) -> None:
        self._budget_seconds = budget_seconds
        make_node = partial(Node, ttl_ms=ttl_ms, budget_seconds=budget_seconds)
        self._topology = find_topology(client, make_node, self._note_replaced)
        self._outages = Outages(ttl_ms=ttl_ms, long_ms=outage_ms)
        self._epochs = Epochs(self._topology, keys.epochs, ttl_ms=ttl_ms, outages=self._outages)
        self._attempts = Attempts(
            self._topology, self._outages, budget_seconds=budget_seconds, on_outage=self._start_repair
        )
        self._ttl_ms = ttl_ms
        self._debts = Debts(self.run)
        self._damages = Damages(name_user)
        slot = keys.slot("0")
        self._secrets = KnownSecrets(keys.epochs[slot], secrets, ttl_ms, lambda: self._topology.node(slot))
        self._reporting: asyncio.Task[None] | None = None
        self._repair: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Meet the store. If it is out of reach, go on all the same and meet it when it is back."""
        await self._topology.open()
        with contextlib.suppress(StoreUnavailable):  # logged, and being probed
            for warning in (await self.health()).warnings:
                if warning != self._secrets.warning:  # which is logged already
                    _logger.warning("%s", warning)
        self._reporting = asyncio.create_task(self._secrets.report_regularly(), name="streamlimit-secrets")

    async def close(self) -> None:
        """Do what is still owed, as far as the store answers, and close all connections."""
        self._closing = True
        for task in (self._reporting, self._repair):
            while task is not None and not task.done():
                # Again and again: before Python 3.12 asyncio.wait_for, in redis-py, may swallow a cancellation.
                task.cancel()
                await asyncio.wait([task], timeout=_PROBE_SECONDS)
        self._outages.close()
        await self._debts.settle(_CLOSE_SECONDS)
        await self._topology.close()

    def deadline(self, spent_seconds: float = 0) -> float:
        """When an operation that began so long ago must be done, in the event loop's time."""
        return asyncio.get_running_loop().time() + self._budget_seconds - spent_seconds

    async def run(self, call: Call, deadline: float | None = None) -> Any:
        """Run a script and return its reply.

        Where it answers that the epoch is another one, the server is met and it runs again: it decides nothing in an
        epoch that the caller does not know. So, too, where it was late by the server's clock, which a meeting tells.

        Args:
            call: What to run.
            deadline: Where it is one step of an operation: the operation's.

        Raises:
            DamagedKey: A key of the user was overwritten by hand.
            StoreUnavailable: No usable answer by then.
        """
        deadline = self.deadline() if deadline is None else deadline
        slot = call.slot

        def doubt() -> None:
            call.in_doubt = True

        for _ in range(_MAX_MEETINGS):
            if call.in_epoch and self._epochs.must_meet(slot):
                await self._attempts.make(slot, partial(self._epochs.meet_again, slot, "", 0), deadline)
            epoch = self._epochs.known(slot)
            send = partial(self._send, call, deadline)
            # It waits at most for half of the budget to be sent, and for another half to be answered.
            reply = await self._attempts.make(slot, send, deadline, doubt, ends_by_itself=True)
            if isinstance(reply, DamagedKey):
                raise reply
            if reply not in _MEET_AGAIN:
                return reply
            await self._attempts.make(slot, partial(self._epochs.meet_again, slot, epoch, call.meetings), deadline)
        raise StoreUnavailable("the store loses its data, or changes its clock, again and again")

    def soon(self, lane: Callable[[Node], Lane[Claim]], claim: Claim, answer: Callable[[Any], None]) -> None:
        """Run a script for one stream, together with those that come at the same moment, once and without a task.

        There is no timer, since `Lane` and `Node` answer in time.

        Args:
            lane: BEATS or LOOKS.
            claim: Which stream.
            answer: Called with the reply; None where there was none, or none to go by.
        """

        def on_reply(reply: Any) -> None:
            answer(None if isinstance(reply, Exception) or claim.slot in self._outages.since else reply)

        try:
            lane(self._topology.node(claim.slot)).submit_one(claim, on_reply)
        except (StoreOverloaded, *NOBODY):
            answer(None)

    async def heartbeat(self, beat: Claim, deadline: float) -> int | StoreUnavailable:
        """Run heartbeat.lua for one stream."""
        (answer,) = await self._beat((beat,), deadline)
        return answer

    async def heartbeats(self, beats: Sequence[Claim], deadline: float) -> list[int | StoreUnavailable]:
        """Run heartbeat.lua for many streams, in one round trip to each server.

        Returns:
            In order, each one's reply or the StoreUnavailable that is its own.
        """
        by_server: dict[Node | int, list[int]] = {}
        for place, beat in enumerate(beats):
            try:
                server: Node | int = self._topology.node(beat.slot)
            except NOBODY:
                server = beat.slot
            by_server.setdefault(server, []).append(place)
        parts = [
            places[at : at + MAX_CLAIMS] for places in by_server.values() for at in range(0, len(places), MAX_CLAIMS)
        ]
        answers = await asyncio.gather(*(self._beat([beats[place] for place in part], deadline) for part in parts))
        results: list[int | StoreUnavailable] = [0] * len(beats)
        for part, replies in zip(parts, answers, strict=True):
            for place, reply in zip(part, replies, strict=True):
                results[place] = reply
        return results

    async def health(self) -> Health:
        """Prove that the store runs scripts and takes writes.

        Raises:
            StoreUnavailable: No server of it does.
        """
        deadline = self.deadline()
        nodes = list(self._topology.nodes())
        if not nodes:
            self._topology.look_again(None)
            raise self._attempts.failure(ClusterDownError("no server that takes writes is known"))
        found = await asyncio.gather(*(self._examine(node, deadline) for node in nodes))
        healths = [one for one in found if isinstance(one, Health)]
        lost = [one for one in found if isinstance(one, StoreUnavailable)]
        if not healths:
            raise lost[0]
        told = [f"some users cannot be served: {one}" for one in lost]
        told += dict.fromkeys(warning for one in healths for warning in one.warnings)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._secrets.report()
        told += filter(None, [self._secrets.warning])
        return Health(max(one.recovering_ms for one in healths), tuple(told))

    def owe(self, call: Call) -> None:
        """Run a script later, as soon as the store answers."""
        if not self._debts.add(call):
            self._outages.complain("too many admissions are in doubt: some may hold their seats for a TTL")
        self._start_repair()

    async def _send(self, call: Call, deadline: float, node: Node) -> Any:
        """Run a script once; a DamagedKey is returned, since the server has answered."""
        clock = asyncio.get_running_loop().time
        if call.in_turn and call.pending_until > clock():
            await asyncio.sleep(call.pending_until - clock())
        args = [self._epochs.known(call.slot), *call.args] if call.in_epoch else call.args

        def make(given_up_at: float, on: Node = node) -> Command:
            if not (call.in_epoch or call.in_turn):
                return script_call(call.script, call.keys, args)
            call.meetings = node.meetings
            call.pending_until = min(given_up_at, deadline)
            # A node that imports its first slot has not been met.
            valid_until = int(call.pending_until * 1000) + (on.clock_ahead_ms or node.clock_ahead_ms)
            return script_call(call.script, call.keys, [*args, valid_until])

        (reply,) = await node.calls.submit([make])
        if type(reply) is AskError:  # MovedError is one, too, and is followed for good
            importer = self._topology.asked(reply)
            (reply,) = await importer.exchange([make(importer.gives_up_at(), importer)], asking=True)
        call.pending_until = 0
        if isinstance(reply, RedisError):
            return await self._damages.explain(reply, node, call.keys, deadline)
        return reply

    async def _beat(self, beats: Sequence[Claim], deadline: float) -> Sequence[int | StoreUnavailable]:
        """Send at most MAX_CLAIMS heartbeats to the server that holds them."""

        async def send(node: Node) -> list[Any]:
            return await node.beats.submit(beats)

        try:
            replies = await self._attempts.make(beats[0].slot, send, deadline)
        except StoreUnavailable as error:
            return [error] * len(beats)
        failed = [place for place, reply in enumerate(replies) if isinstance(reply, RedisError)]
        answers = await asyncio.gather(*(self._beat_alone(beats[place], deadline) for place in failed))
        for place, answer in zip(failed, answers, strict=True):
            replies[place] = answer
        return replies

    async def _beat_alone(self, beat: Claim, deadline: float) -> int | StoreUnavailable:
        """For one that the server of the others does not carry out: its slot has moved, say."""
        try:
            (end,) = await self.run(Call(HEARTBEAT, [beat.key], [self._ttl_ms, *beat[2:]], beat.slot), deadline)
        except StoreUnavailable as error:
            return error
        return int(end)

    async def _examine(self, node: Node, deadline: float) -> Health | StoreUnavailable:
        slots = self._topology.slots(node)
        if not slots:
            return Health(0)  # it has given them to others meanwhile
        try:
            recovering_ms = await self._attempts.make(slots[0], self._epochs.probe, deadline)
        except StoreUnavailable as error:
            return error
        try:
            async with asyncio.timeout_at(deadline):
                told = await node.exchange([command("INFO", "memory"), command("INFO", "persistence")])
        except (RedisError, TimeoutError, OSError) as error:
            told = [error]
        if any(isinstance(one, Exception) for one in told):
            # Some servers and users have no INFO, and fakeredis does not know it. Scripts run, which is what counts.
            _logger.debug("No INFO from %s: %s", node.name, told)
            return Health(recovering_ms)
        return Health(recovering_ms, tuple(warnings("\n".join(told))))

    def _note_replaced(self, lost_seconds: float) -> None:
        self._outages.begin_replaced(lost_seconds)
        if self._outages:
            self._start_repair()

    def _start_repair(self) -> None:
        if not self._closing and (self._repair is None or self._repair.done()):
            self._repair = asyncio.create_task(self._repair_until_well(), name="streamlimit-store-repair")

    async def _repair_until_well(self) -> None:
        while self._outages or self._debts:
            await asyncio.gather(*map(self._probe, self._down_slots()), self._debts.pay())
            if self._outages or self._debts:
                await asyncio.sleep(_PROBE_SECONDS)

    def _down_slots(self) -> Iterable[int]:
        """One slot of each server that is down, and one of those that no server holds."""
        by_server: dict[Node | None, int] = {}
        slots = list(self._outages.since)
        random.shuffle(slots)  # one that nobody serves must not hide that the rest of its server is well
        for slot in slots:
            try:
                by_server.setdefault(self._topology.node(slot), slot)
            except NOBODY:
                by_server.setdefault(None, slot)
        return by_server.values()

    async def _probe(self, slot: int) -> None:
        with contextlib.suppress(StoreUnavailable):  # logged; it is probed again
            await self._attempts.make(slot, self._epochs.probe, self.deadline())
