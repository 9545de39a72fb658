"""What a process knows of the servers' data: the epoch of each hash slot, and since when a slot is out of reach."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import AskError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from streamlimit.node import Command, Node, script_call
from streamlimit.scripts import EPOCH
from streamlimit.topology import Topology

_AT_ONCE: Final = 1_024
"""Epochs in one round trip: a server with all slots takes some milliseconds for each thousand."""

_logger = logging.getLogger(__name__)


class Epochs:
    """Meets servers, finds out what they lost, and opens recovery. See "Loss" in the contract and epoch.lua.

    A server is met as a whole, since what one of its slots has lost the others are likely to have lost, too: a slot
    that nobody uses for hours must not start its waiting then.

    Args:
        topology: Who holds which slot.
        keys: The epoch key of each slot.
        ttl_ms: The stream TTL.
        outage_ms: After an outage longer than this, streams may have expired through no fault of their players.
    """

    def __init__(self, topology: Topology, keys: Sequence[str], *, ttl_ms: int, outage_ms: int) -> None:
        self._topology = topology
        self._keys = keys
        self._ttl_ms = ttl_ms
        self._outage_seconds = outage_ms / 1000
        self._known = [""] * len(keys)
        self.down: dict[int, float] = {}
        """Since when a slot is out of reach, in the event loop's time; empty where all is well."""

    def known(self, slot: int) -> str:
        """The id of a slot's epoch; '' before the first meeting."""
        return self._known[slot]

    def must_meet(self, slot: int) -> bool:
        """Whether the slot's server is to be met before a decision about seats."""
        return not self._known[slot] or self._is_down_for_long(slot)

    def down_seconds(self, slot: int) -> float:
        """How long a slot has been out of reach; 0 where it is not."""
        since = self.down.get(slot)
        return 0 if since is None else asyncio.get_running_loop().time() - since

    def note_outage(self, slot: int, node: Node | None) -> None:
        """A server gave no answer, so that all of its slots are out of reach."""
        if slot not in self.down:
            now = asyncio.get_running_loop().time()
            for one in (slot, *(self._topology.slots(node) if node else ())):
                self.down.setdefault(one, now)

    def note_replaced(self, alone_seconds: float) -> None:
        """Another server has taken the place of one that was alone for so long: what that one took meanwhile is lost.

        It is an outage from when it was alone, even for those whom it answered. They do not know, and do not repeat
        their heartbeats, so that each may be on its way for an interval.
        """
        now = asyncio.get_running_loop().time()
        silent_seconds = self.down_seconds(0)
        if alone_seconds > silent_seconds:
            interval = self._ttl_ms / 1000 - self._outage_seconds
            lost_seconds = alone_seconds - silent_seconds + max(silent_seconds, interval)
            if lost_seconds > self._outage_seconds:
                self.down[0] = now - lost_seconds

    def note_success(self, slot: int, node: Node) -> None:
        """A server answered. What was out of reach for long stays so until the server is met."""
        if slot in self.down:
            for one in (slot, *self._topology.slots(node)):
                if not self._is_down_for_long(one):
                    self.down.pop(one, None)

    async def meet_again(self, slot: int, refused: str, node: Node) -> None:
        """Meet the server of a slot, unless somebody else has done so while we waited for our turn.

        Args:
            slot: The slot.
            refused: The epoch that is not the slot's, or ''.
            node: Its server.
        """
        async with node.meeting:
            if self.must_meet(slot):
                await self._meet(node, self._unmet(node))
            elif self._known[slot] == refused:
                await self._meet(node, [slot])

    async def probe(self, node: Node) -> int:
        """Prove that a server takes writes, and meet it as far as that is needed.

        Returns:
            How long recovery goes on, ms; 0 where there is none.
        """
        async with node.meeting:
            slots = self._topology.slots(node)
            if not slots:
                return 0  # it has given them to others meanwhile
            recovering_ms = await self._meet(node, self._unmet(node) or slots[:1])
        for slot in slots:
            self.down.pop(slot, None)
        return recovering_ms

    def _unmet(self, node: Node) -> Sequence[int]:
        return [slot for slot in self._topology.slots(node) if self.must_meet(slot)]

    def _is_down_for_long(self, slot: int) -> bool:
        return slot in self.down and self.down_seconds(slot) > self._outage_seconds

    async def _meet(self, node: Node, slots: Sequence[int]) -> int:
        """Meet some slots of a server, and all of them where one has lost its data.

        What was lost is noted when all of them are met: an interruption must not hide it from the next who asks.
        """
        lost: dict[int, str] = {}
        recovering_ms = await self._ask(node, slots, lost)
        if lost:
            rest = set(self._topology.slots(node)).difference(slots)
            recovering_ms = max(recovering_ms, await self._ask(node, sorted(rest), lost))
        for slot, epoch in lost.items():
            self._note(slot, epoch)
        return recovering_ms

    async def _ask(self, node: Node, slots: Sequence[int], lost: dict[int, str]) -> int:
        """Ask for epochs, note those that go on, and put those that are others than we know into `lost`."""
        fresh = secrets.token_hex(8)
        recovering_ms = 0
        causes: dict[str, int] = {}
        for at in range(0, len(slots), _AT_ONCE):
            part = slots[at : at + _AT_ONCE]
            outages = [self._is_down_for_long(slot) for slot in part]
            commands = [self._command(slot, fresh, outage=outage) for slot, outage in zip(part, outages, strict=True)]
            replies = await node.exchange(commands)
            if not self._topology.slots(node):
                raise RedisConnectionError("it was replaced meanwhile")  # what it says counts no more
            now_ms = round(asyncio.get_running_loop().time() * 1000)
            for slot, outage, wanted, found in zip(part, outages, commands, replies, strict=True):
                if not isinstance(found, RedisError):
                    node.clock_ahead_ms = found[1] - now_ms
                reply = await self._final(found, wanted)
                if reply is None:
                    continue
                epoch, now, recovering_until = reply
                is_another = epoch != self._known[slot] != ""
                left_ms = max(0, recovering_until - now)
                if left_ms and (outage or is_another):
                    causes["was out of reach for long" if outage else "lost its data"] = left_ms
                recovering_ms = max(recovering_ms, left_ms)
                if is_another:
                    lost[slot] = epoch
                else:
                    self._note(slot, epoch)
        for cause, left_ms in causes.items():
            _logger.warning(
                "%s %s: for %.1f s running streams resume and new admissions wait",
                node.name or "The store",
                cause,
                left_ms / 1000,
            )
        return recovering_ms

    def _note(self, slot: int, epoch: str) -> None:
        self._known[slot] = epoch
        self.down.pop(slot, None)

    def _command(self, slot: int, fresh: str, *, outage: bool) -> Command:
        return script_call(EPOCH, [self._keys[slot]], [self._known[slot], fresh, self._ttl_ms, "1" if outage else ""])

    async def _final(self, reply: Any, wanted: Command) -> Any:
        """The reply, where need be from the server that takes over the slot; None where it moves on meanwhile."""
        if isinstance(reply, MovedError):
            await self._topology.moved(reply)
        if isinstance(reply, AskError):  # MovedError is one
            (reply,) = await self._topology.asked(reply).exchange([wanted], asking=True)
        if isinstance(reply, AskError):
            return None
        if isinstance(reply, RedisError):
            raise reply
        return reply
