"""The trial of a failover: a primary fails under the load of an audience, and what its viewers were told is judged.

PROVE_STREAMS is how many streams play.
"""

import asyncio
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from streamlimit import Rules
from tests.audience import SETTLED_MS, Audience
from tests.helpers import until
from tests.history import Event, History
from tests.nodes import Node
from tests.topologies import Topology

KEY: Final = "stream:{user-0}:1"
"""It is the primary of this key that fails."""
_STREAMS: Final = int(os.environ.get("PROVE_STREAMS", "1200"))
_SCALE: Final = max(1, _STREAMS / 1200)
"""More streams have longer lives, so that there are as many calls each second."""
RULES: Final = Rules(limit=3, ttl_ms=round(_SCALE * 6_000), heartbeat_ms=round(_SCALE * 2_000))
"""A failover is over sooner than a stream would end without a heartbeat, as with the defaults."""
USERS: Final = _STREAMS // RULES.limit
DEVICES: Final = RULES.limit + 2
RETRY_SECONDS: Final = _SCALE
MEAN_SECONDS: Final = 15 * _SCALE
REST_SECONDS: Final = 7 * _SCALE
"""Streams come and go, so that there are always admissions that no replica has heard of: some into a seat that was just
released, some into one that nobody wanted."""
SPLIT_SECONDS: Final = 2
"""As long a partition lasts on, or a primary stays frozen, after it was replaced."""

_SUCCESSES: Final = {200, 201, 204, 409}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What viewers noticed of one fault, judged by what they were told."""

    streams: int
    """So many played when it began."""
    replaced_seconds: float
    """From the fault until another primary stood in."""
    silent_seconds: float
    """The longest time without a success for those whose primary it was."""
    unanswered: int
    """Their calls without an answer (503)."""
    waited: int
    """Their admissions that had to wait for a recovery (503, too)."""
    longest_call_seconds: float
    expired: int
    """Streams that were told to have expired. All players are punctual, so these were interrupted."""
    seat_lost: int
    """Streams that were told that their seat was given away, since its new primary did not know of them."""
    users_over: int
    largest_excess: int
    over_seconds: float
    """From the fault until nobody was over the limit any more."""
    unanswered_elsewhere: int
    """Calls of the users of other nodes without an answer."""
    longest_call_elsewhere_seconds: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that befalls a primary, until `Topology.mend`."""

    name: str
    happen: Callable[[Topology, Node], None]


FAULTS: Final = (
    Fault("killed", lambda _, node: node.stop()),
    Fault("frozen", lambda _, node: node.freeze()),
    Fault("partitioned", lambda topology, node: topology.partition(node)),
)
"""Clients reach all servers in the partition, also the primary that was replaced."""


@dataclass(frozen=True, slots=True)
class Incident:
    """When a fault happened, in ms, and whom it concerned."""

    fault: Fault
    streams: int
    began: float
    replaced: float
    users: frozenset[str]


async def incident(
    audience: Audience, topology: Topology, fault: Fault, users_of: Callable[[Node], Iterable[str]]
) -> Incident:
    """Let a fault happen to a primary, mend it after the failover, and wait until nothing of it can be left.

    Args:
        audience: It watches.
        topology: Which has the primary.
        fault: What happens.
        users_of: Whose keys are on a node.
    """
    await asyncio.sleep(RULES.ttl_ms / 1000)  # most streams are older than that, so that none comes back for its youth
    primary = await asyncio.to_thread(topology.primary_of, KEY)
    users, streams = frozenset(users_of(primary)), audience.playing
    began = time.monotonic()
    await asyncio.to_thread(fault.happen, topology, primary)
    await asyncio.to_thread(topology.wait_for_another_primary, KEY, primary)
    replaced = time.monotonic()

    async def successful() -> bool:
        last = reversed(audience.events[-1_000:])
        return any(one.user in users and one.status in _SUCCESSES and one.sent > replaced * 1000 for one in last)

    await until(successful)
    await asyncio.sleep(SPLIT_SECONDS)
    await asyncio.to_thread(topology.mend)
    return Incident(fault, streams, began * 1000, replaced * 1000, users)


def outcomes(events: Sequence[Event], incidents: Sequence[Incident]) -> list[Outcome]:
    """Judge each incident, from its beginning until the next one."""
    over = list(_over(History(events, RULES.ttl_ms, limit=RULES.limit, settled_ms=SETTLED_MS)))
    ends = [*(one.began for one in incidents[1:]), math.inf]
    return [_outcome(events, over, incident, end) for incident, end in zip(incidents, ends, strict=True)]


def _outcome(events: Sequence[Event], over: Sequence["_Over"], incident: Incident, end: float) -> Outcome:
    after = [one for one in events if incident.began <= one.answered < end]
    concerned = [one for one in after if one.user in incident.users]
    elsewhere = [one for one in after if one.user not in incident.users]
    told = Counter(one.answer["reason"] for one in after if one.status == 410)
    exceeded = [one for one in over if incident.began <= one.start < end]
    return Outcome(
        streams=incident.streams,
        replaced_seconds=(incident.replaced - incident.began) / 1000,
        silent_seconds=_longest_silence(concerned, incident.began),
        unanswered=_unanswered(concerned),
        waited=sum(one.answer.get("why") == "recovering" for one in concerned),
        longest_call_seconds=_longest_call(concerned),
        expired=told["expired"],
        seat_lost=told["limit_reached"],
        users_over=len({one.user for one in exceeded}),
        largest_excess=max((one.excess for one in exceeded), default=0),
        over_seconds=max(((one.end - incident.began) / 1000 for one in exceeded), default=0),
        unanswered_elsewhere=_unanswered(elsewhere),
        longest_call_elsewhere_seconds=_longest_call(elsewhere),
    )


def _longest_silence(events: Iterable[Event], began: float) -> float:
    answered = sorted(one.answered for one in events if one.status in _SUCCESSES)
    return max((later - earlier for earlier, later in pairwise([began, *answered])), default=0) / 1000


def _unanswered(events: Iterable[Event]) -> int:
    return sum(one.status == 503 and not one.answer["why"] for one in events)


def _longest_call(events: Iterable[Event]) -> float:
    return max((one.answered - one.sent for one in events), default=0) / 1000


class _Over(NamedTuple):
    """From when to when a user had so many streams more than allowed."""

    user: str
    start: float
    end: float
    excess: int


def _over(history: History) -> Iterator[_Over]:
    """Where a user surely had more streams than the limit. Whoever was told that a stream is over watches no more."""
    for user, streams in history.streams_of.items():
        changes = []
        for stream in streams:
            for start, end in _united(history.surely_live(stream)):
                changes += [(start, 1), (min(end, stream.over), -1)]
        changes.sort()
        live = 0
        for (at, change), (until_then, _) in pairwise([*changes, (math.inf, 0)]):
            live += change
            if live > RULES.limit and until_then > at:
                yield _Over(user, at, until_then, live - RULES.limit)


def _united(spans: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    last: tuple[float, float] | None = None
    for start, end in sorted(spans):
        if last and start <= last[1]:
            last = (last[0], max(last[1], end))
            continue
        if last:
            yield last
        last = (start, end)
    if last:
        yield last
