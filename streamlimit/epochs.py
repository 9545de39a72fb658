"""What a process knows of the servers' data: the epoch of each hash slot."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from streamlimit.node import Command, Node, script_call
from streamlimit.outages import Outages
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
        outages: Those under way; they end when a server has taken a write.
    """

    def __init__(self, topology: Topology, keys: Sequence[str], *, ttl_ms: int, outages: Outages) -> None:
        self._topology = topology
        self._keys = keys
        self._ttl_ms = ttl_ms
        self._outages = outages
        self._known = [""] * len(keys)

    def known(self, slot: int) -> str:
        """The id of a slot's epoch; '' before the first meeting."""
        return self._known[slot]

    def must_meet(self, slot: int) -> bool:
        """Whether the slot's server is to be met before a decision about seats."""
        return not self._known[slot] or self._outages.is_long(slot)

    async def meet_again(self, slot: int, refused: str, meetings: int, node: Node) -> None:
        """Meet the server of a slot, unless another caller has done so since.

        Many callers may be refused at once: all calls under way are late where the server's clock was set forward.
        If each asked in turn, the last would wait for hundreds of round trips.

        Args:
            slot: The slot.
            refused: The epoch that is not the slot's, or ''.
            meetings: How often the server had been met when the call that it refused was sent.
            node: Its server.
        """
        async with node.meeting:
            if self.must_meet(slot):
                await self._meet(node, self._unmet(node), slot)
            elif self._known[slot] == refused and node.meetings == meetings:
                await self._meet(node, [slot], slot)

    async def probe(self, node: Node) -> int:
        """Prove that a server takes writes, and meet it as far as that is needed.

        Returns:
            How long recovery goes on, ms; 0 where there is none.
        """
        async with node.meeting:
            slots = self._topology.slots(node)
            if not slots:
                return 0  # it has given them to others meanwhile
            found = await self._meet(node, self._unmet(node) or slots[:1])
        self._outages.end(slot for slot in slots if slot not in found.unserved)
        return found.recovering_ms

    def _unmet(self, node: Node) -> Sequence[int]:
        return [slot for slot in self._topology.slots(node) if self.must_meet(slot)]

    async def _meet(self, node: Node, slots: Sequence[int], needed: int | None = None) -> "_Found":
        """Meet some slots of a server, and all of them where one has lost its data.

        What was lost is noted when all of them are met: an interruption must not hide it from the next who asks.

        Args:
            node: The server.
            slots: Those to meet.
            needed: The one without which the meeting has failed; None where any will do.
        """
        found = _Found()
        await self._ask(node, slots, found)
        node.meetings += 1
        if found.lost:
            rest = set(self._topology.slots(node)).difference(slots)
            await self._ask(node, sorted(rest), found)
        for slot, epoch in found.lost.items():
            self._note(slot, epoch)
        for cause, left_ms in found.recoveries.items():
            _logger.warning(
                "%s %s: for %.1f s running streams resume and new admissions wait",
                node.name or "The store",
                cause,
                left_ms / 1000,
            )
        for slot, error in found.unserved.items():
            if slot == needed or len(found.unserved) >= len(slots):
                raise error
        return found

    async def _ask(self, node: Node, slots: Sequence[int], found: "_Found") -> None:
        """Ask for epochs, and note those that go on."""
        fresh = secrets.token_hex(8)
        for at in range(0, len(slots), _AT_ONCE):
            part = slots[at : at + _AT_ONCE]
            outages = [self._outages.is_long(slot) for slot in part]
            commands = [self._command(slot, fresh, outage=outage) for slot, outage in zip(part, outages, strict=True)]
            replies = await node.exchange(commands)
            if not self._topology.slots(node):
                raise RedisConnectionError("it was replaced meanwhile")  # what it says counts no more
            now_ms = round(asyncio.get_running_loop().time() * 1000)
            for slot, outage, wanted, reply in zip(part, outages, commands, replies, strict=True):
                if not isinstance(reply, RedisError):
                    node.clock_ahead_ms = reply[1] - now_ms
                try:
                    epoch = await self._final(reply, wanted)
                except ClusterDownError as error:
                    found.unserved[slot] = error
                else:
                    if epoch is not None:
                        self._compare(slot, epoch, found, outage=outage)

    def _compare(self, slot: int, reply: Any, found: "_Found", *, outage: bool) -> None:
        """Compare the epoch of a slot with the one that is known."""
        epoch, now, recovering_until, *was_damaged = reply
        if was_damaged:
            _logger.error("%s was no hash, overwritten by hand: it is made anew", self._keys[slot])
        is_another = epoch != self._known[slot] != ""
        left_ms = max(0, recovering_until - now)
        if left_ms and (outage or is_another or was_damaged):
            found.recoveries["was out of reach for long" if outage else "lost its data"] = left_ms
        found.recovering_ms = max(found.recovering_ms, left_ms)
        if is_another:
            found.lost[slot] = epoch
        else:
            self._note(slot, epoch)

    def _note(self, slot: int, epoch: str) -> None:
        self._known[slot] = epoch
        self._outages.end((slot,))

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


@dataclass(slots=True)
class _Found:
    """What a meeting found out."""

    lost: dict[int, str] = field(default_factory=dict)
    """The epochs that are others than we know."""
    unserved: dict[int, ClusterDownError] = field(default_factory=dict)
    """Slots that the server does not serve. They concern their own users only."""
    recoveries: dict[str, int] = field(default_factory=dict)
    """How long those go on that the meeting opened or learned of, by their cause, ms."""
    recovering_ms: int = 0
    """How long any of them goes on."""
