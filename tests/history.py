"""What clients did and were told, and a checker that looks in it for broken promises.

The clients write down each call: what they asked, when they sent it, and when they were told what. Nothing else counts,
least of all what Redis holds. Times are ms of CLOCK_MONOTONIC, which all processes of a machine share.

What a violation rests on:

- A call takes effect at one moment, of which only this is known: not before it was sent, not after it was answered.
- A call without an answer, or with a 5xx, is *unknown*: it took effect at any moment after it was sent, or never. It is
  taken neither for success nor for refusal. How long "any moment after" lasts is `settled_ms`.
- A call that took longer than the service's patience with its store, or fell into a recovery, may have been tried twice
  by the service: what it was told is certain, but it may have had effect once more, and later. It is *doubtful*, as
  unknown ones are.

So each stream has a time in which it is *surely live* (after a success was answered, until one TTL after that call was
sent, or until any call was sent that may have ended it), and a time in which it is *possibly live* (from when its
admission was sent until one TTL after the last call that may have kept it live was answered, or until something was
answered that says that it is over). The truth lies between them. A violation is reported where the promise is broken
wherever in these intervals the moments really lie, so that none is a matter of luck or of slow machines. What is broken
only by some readings of the log is not reported; with short calls that is little.

A heartbeat soon after the last one, less than a second and a twentieth of the TTL, writes nothing (see heartbeat.lua),
and its stream ends one TTL after that last one. Where that may have been so, this time is taken off: no more is
expected of such a heartbeat.
"""

import json
import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal

Operation = Literal[
    "admit",
    "heartbeat",
    "release",
    "terminate",
    "terminate_all",
    "set_limit",
    "list",
    "check",
    "get",
    "pttl",
    "recovery",
]
"""`release` has the whole id, `terminate` only a ref. `pttl` is a sample of the store's keys; `recovery` declares from
when to when the store recovered from a loss of data."""

ROUNDING_MS: Final = 5
"""Redis counts whole milliseconds of the wall clock, which may be slewed against the monotonic one."""
PATIENCE_MS: Final = 500
"""After this time without an answer from the store the service tries again."""
ANSWERS: Final[dict[Operation, set[int]]] = {
    "admit": {201, 409, 410, 503},
    "heartbeat": {200, 404, 410, 503},
    "get": {200, 404, 410, 503},
    "release": {204, 503},
    "terminate": {204, 503},
}
"""The statuses that a client may be given; of other operations 200 and 503."""
REMEMBERED: Final = 64
"""So many ends of a user's streams are remembered; what happened to an older one, the service cannot tell."""


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One call of one client."""

    client: str
    user: str
    operation: Operation
    sent: float
    answered: float
    """When it was answered, or given up."""
    status: int | None = None
    """None: no answer."""
    stream: str = ""
    """REF of the stream that it is about; an admission's is in the answer."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """As sent. The Idempotency-Key is `key`."""
    answer: dict[str, Any] = field(default_factory=dict)
    """The body."""

    @property
    def unknown(self) -> bool:
        """Whether it may or may not have had effect. An admission's 410 says that it had, but not all that it did."""
        return self.status is None or self.status >= 500 or (self.operation == "admit" and self.status == 410)

    @property
    def admitted(self) -> str:
        """REF of the stream that it was given."""
        return ref_of(self.answer["stream_ref"]) if self.operation == "admit" and self.status == 201 else ""

    @property
    def ended(self) -> dict[str, str]:
        """REF and reason of the streams that it says it ended; a repeated admission says what the first one did."""
        return {ref_of(one["stream_ref"]): one["reason"] for one in self.answer.get("ended", [])}

    @property
    def live(self) -> list[str] | None:
        """REFs of all live streams of the user, where it was told."""
        streams = self.answer.get("streams")
        return None if streams is None else [ref_of(one["stream_ref"]) for one in streams]

    @property
    def refused(self) -> bool:
        """Whether the limit was given as the reason why there is no seat."""
        said = self.answer.get("reason") if self.operation == "check" else ""
        return (self.operation == "admit" and self.status == 409) or said == "limit_reached"

    @property
    def waits(self) -> bool:
        """Whether it was told to wait until the store has recovered from a loss."""
        said = self.answer.get("reason") if self.operation == "check" else ""
        return self.answer.get("type") == "urn:streamlimit:recovering" or said == "recovering"

    def repeats(self, stream: "Stream") -> bool:
        """Whether it is the admission that the stream was given for. It finds it before it looks for one to end."""
        return self.operation == "admit" and stream.key is not None and self.arguments.get("key") == stream.key

    def may_have_ended(self, stream: "Stream") -> set[str]:
        """The reasons for which it ended the stream, if it had effect."""
        asked = self.arguments
        match self.operation:
            case "release" | "terminate" if self.stream == stream.ref:
                return {f"{self.operation}d"}
            case "terminate_all":
                return {"terminated"}
            case "set_limit" if asked.get("end_excess"):
                return {"limit_lowered"}
            case "admit":
                device = {"replaced"} if asked.get("device_id") and asked["device_id"] == stream.device else set()
                named = {"taken_over"} if asked.get("take_over") and ref_of(asked["take_over"]) == stream.ref else set()
                return device | named | ({"evicted"} if asked.get("on_limit") == "evict" else set())
        return set()


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    promise: int
    text: str
    events: tuple[Event, ...]
    """The calls that prove it."""

    def __str__(self) -> str:
        return "\n  ".join([f"promise {self.promise}: {self.text}", *(json.dumps(asdict(one)) for one in self.events)])


@dataclass(eq=False)
class Stream:
    """What is known of a stream that somebody was given."""

    ref: str
    user: str
    admissions: list[Event]
    """All answers that gave it, in the order in which they were sent."""
    leases: list[Event] = field(default_factory=list)
    """What certainly kept it live: admissions and heartbeats."""
    tries: list[Event] = field(default_factory=list)
    """What may have kept it live, or started it: the same, and those of unknown outcome."""
    ends: list[Event] = field(default_factory=list)
    """What ended it or may have ended it."""
    sightings: list[Event] = field(default_factory=list)
    """It was live when these took effect."""
    denials: list[Event] = field(default_factory=list)
    """It was said to be ended, or unknown."""
    over: float = math.inf
    """When somebody was told that it has ended."""

    @property
    def device(self) -> str | None:
        return self.admissions[0].answer.get("device_id")

    @property
    def key(self) -> str | None:
        return self.admissions[0].arguments.get("key")

    @property
    def makers(self) -> list[Event]:
        """One of these calls started it."""
        return [one for one in self.tries if one.operation == "admit" and one.sent <= self.born_by]

    @property
    def born_by(self) -> float:
        """It was started before this moment."""
        return min(one.answered for one in self.admissions)


class History:
    """A log, sorted by streams and users.

    Args:
        events: In any order.
        ttl_ms: The stream TTL.
        limit: Of users whose limit nobody has set.
        settled_ms: A call of unknown outcome had effect within this time after it was sent, or never.
    """

    def __init__(self, events: Iterable[Event], ttl_ms: float, *, limit: int, settled_ms: float) -> None:
        self.events = sorted(events, key=lambda event: event.sent)
        self.ttl = ttl_ms
        self._limit = limit
        self._settled = settled_ms
        self.recoveries = [event for event in self.events if event.operation == "recovery"]
        self.doubtful = {
            event
            for event in self.events
            if event.unknown or event.answered - event.sent >= PATIENCE_MS or self.in_recovery(event)
        }
        """What may have had other or later effects than was told."""
        self.calls: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            if event.operation not in ("pttl", "recovery"):
                self.calls[event.user].append(event)
        self._of_key: dict[tuple[str, Any], list[Event]] = defaultdict(list)
        for event in self.events:
            if "key" in event.arguments:
                self._of_key[event.user, event.arguments["key"]].append(event)
        self.streams: dict[str, Stream] = {}
        for event in self.events:
            if event.admitted in self.streams:
                self.streams[event.admitted].admissions.append(event)
            elif event.admitted:
                self.streams[event.admitted] = Stream(event.admitted, event.user, [event])
        self.streams_of: dict[str, list[Stream]] = defaultdict(list)
        for stream in self.streams.values():
            self.streams_of[stream.user].append(stream)
        for user, calls in self.calls.items():
            self._assign(calls, self.streams_of[user])

    def _assign(self, calls: list[Event], streams: list[Stream]) -> None:
        """Say which of a user's calls bear on which of the same user's streams."""
        by_ref = {stream.ref: stream for stream in streams}
        for call in calls:
            seen = {call.admitted, *(call.live or []), *(() if self.may_repeat(call) else call.ended)}
            for ref in seen & by_ref.keys():
                by_ref[ref].sightings.append(call)
            for ref in call.ended.keys() & by_ref.keys():
                by_ref[ref].over = min(by_ref[ref].over, call.answered)
            own = by_ref.get(call.admitted or call.stream)
            if own:
                self._assign_own(call, own)
            named = {call.stream, *call.ended} & by_ref.keys()
            for stream in streams if call in self.doubtful else [by_ref[ref] for ref in named]:
                if call.repeats(stream):
                    stream.tries += [call] if call.admitted != stream.ref else []
                elif stream.ref in call.ended or call.may_have_ended(stream):
                    stream.ends.append(call)

    def _assign_own(self, call: Event, stream: Stream) -> None:
        """The same for a call about this one stream."""
        match call.operation, call.status:
            case "admit", _:
                stream.leases.append(call)
                stream.tries.append(call)
            case "heartbeat", 200:
                stream.leases.append(call)
                stream.tries.append(call)
                stream.sightings.append(call)
            case "heartbeat", _ if call.unknown:
                stream.tries.append(call)
            case "get", 200:
                stream.sightings.append(call)
            case (("heartbeat" | "get"), (404 | 410)):
                stream.denials.append(call)
                stream.over = min(stream.over, call.answered)
            # What a recovery has not brought back yet, it does not find.
            case (("release" | "terminate"), 204) if not self.in_recovery(call):
                stream.over = min(stream.over, call.answered)

    def in_recovery(self, event: Event) -> bool:
        """Whether it may have taken effect while the store recovered."""
        return any(one.sent <= event.answered and event.sent <= one.answered for one in self.recoveries)

    def may_repeat(self, call: Event) -> bool:
        """Whether another admission of the same key may have ended what this one says it ended."""
        others = self._of_key.get((call.user, call.arguments.get("key")), [])
        return any(one is not call and one.sent <= call.answered for one in others)

    def latest(self, event: Event) -> float:
        """After this moment it has no effect any more."""
        return max(event.answered, event.sent + self._settled) if event in self.doubtful else event.answered

    def lease_end(self, stream: Stream, lease: Event) -> float:
        """Until when, at least, this success alone kept the stream live.

        It set the TTL anew after it was sent. A heartbeat may instead have found that another call had just done so,
        and left it at that.
        """
        skipped = 0.0
        if lease.operation == "heartbeat":
            within = min(1000, self.ttl / 20)
            since = lease.sent - within - ROUNDING_MS
            if any(
                one is not lease and since <= self.latest(one) and one.sent <= lease.answered for one in stream.tries
            ):
                skipped = within
        return lease.sent + self.ttl - skipped - ROUNDING_MS

    @cache  # noqa: B019 - a history is thrown away with its cache
    def surely_live(self, stream: Stream) -> list[tuple[float, float]]:
        """When the stream was live wherever in their intervals the calls took effect.

        A success took effect before it was answered. From then on it was live for its lease, unless something ended it
        after the success; what can have no effect after the success was sent did not.
        """
        found = []
        for lease in stream.leases:
            ends = (end.sent for end in stream.ends if self.latest(end) >= lease.sent)
            until = min(self.lease_end(stream, lease), *ends, math.inf)
            if lease.answered < until:
                found.append((lease.answered, until))
        return found

    def meets(self, call: Event, stream: Stream) -> bool:
        """Whether the call found the stream live, whenever it took effect."""
        return any(start < call.sent and call.answered < end for start, end in self.surely_live(stream))

    def possibly_live_until(self, stream: Stream) -> float:
        """After this moment the stream is not live, wherever in their intervals the calls took effect.

        A chain: what was sent after the stream had died of all that came before it did not keep it live.
        """
        until = self.latest(stream.admissions[0]) + self.ttl + ROUNDING_MS
        for one in sorted(stream.tries, key=lambda event: event.sent):
            if one.sent <= until:
                until = max(until, self.latest(one) + self.ttl + ROUNDING_MS)
        return min(until, stream.over)

    def limits(self, call: Event, until: float) -> set[int]:
        """The limits that may have been in force for this call when it took effect, by `until` at the latest.

        A limit set by a call is one of them unless another call, sent after the first could have effect, was answered
        before this one was sent.
        """
        own = call.arguments.get("limit")
        if own is not None:
            return {own}
        settings = self._settings.get(call.user, [])
        done = [one.sent for one in settings if not one.unknown and one.answered < call.sent]
        last = max(done, default=-math.inf)
        possible = {one.arguments["limit"] for one in settings if one.sent <= until and self.latest(one) >= last}
        return possible if done else possible | {self._limit}

    def limits_of_doubtful(self, user: str, until: float) -> set[int]:
        """Those for admissions that may have started a stream by then without being told so; 0 where there are none."""
        doubtful = [one for one in self.calls[user] if one.operation == "admit" and one in self.doubtful]
        return {0, *(limit for one in doubtful if one.sent <= until for limit in self.limits(one, self.latest(one)))}

    @cached_property
    def _settings(self) -> dict[str, list[Event]]:
        return {
            user: [call for call in calls if call.operation == "set_limit" and (call.unknown or call.status == 200)]
            for user, calls in self.calls.items()
        }

    def most_live(self, call: Event) -> int:
        """As many streams of the user may have been live when this call took effect, not counting one that it started.

        An admission of unknown outcome counts as a stream nobody knows of.
        """
        near = [
            (start, end)
            for start, end, admission in self._possible(call.user)
            if start <= call.answered and end >= call.sent and not (admission is call and call.admitted)
        ]
        moments = [call.sent, *(start for start, _ in near if start > call.sent)]
        return max(sum(start <= moment <= end for start, end in near) for moment in moments)

    @cache  # noqa: B019 - the same
    def _possible(self, user: str) -> list[tuple[float, float, Event]]:
        """From when to when streams of the user were possibly live, and what started them."""
        known = [(one.admissions[0], self.possibly_live_until(one)) for one in self.streams_of[user]]
        doubtful = [one for one in self.calls[user] if one.operation == "admit" and one in self.doubtful]
        known += [(one, self.latest(one) + self.ttl + ROUNDING_MS) for one in doubtful]
        return [(admission.sent, end, admission) for admission, end in known]

    def most_ends(self, user: str, since: float, until: float) -> int:
        """As many ends of the user's streams may have been recorded in this time."""
        begun, over = self._ends(user)
        # All that began by then, but for what was over before.
        return begun[bisect_right(begun, (until, math.inf)) - 1][1] - over[bisect_left(over, (since, 0)) - 1][1]

    @cache  # noqa: B019 - the same
    def _ends(self, user: str) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
        """How many ends the calls sent by a moment may have recorded, and how many those that were over by then."""
        ends = [(call, 12 if call in self.doubtful else 1 + len(call.ended)) for call in self.calls[user]]
        counts = []
        for moment in (lambda call: call.sent, self.latest):
            moments = sorted((moment(call), number) for call, number in ends)
            totals = accumulate(number for _, number in moments)
            counts.append([(-math.inf, 0), *((at, total) for (at, _), total in zip(moments, totals, strict=True))])
        return counts[0], counts[1]


def violations(
    events: Iterable[Event], ttl_ms: float, *, limit: int = 3, settled_ms: float = math.inf
) -> list[Violation]:
    """Return every proof in a log that a promise was broken; see History for the arguments."""
    history = History(events, ttl_ms, limit=limit, settled_ms=settled_ms)
    checks = (
        limit_exceeded,
        ended_without_cause,
        ended_needlessly,
        wrongly_refused,
        not_idempotent,
        not_repeatable,
        mixed_up,
        bad_ttls,
    )
    return [violation for check in checks for violation in check(history)]


def limit_exceeded(history: History) -> Iterator[Violation]:
    """Promise 1: the live streams of a user never exceed the limit in force when they were admitted.

    Of the streams surely live at one instant, one was admitted last. At that moment all of them were live, so that they
    may be no more than the limit then in force. Which was the last may be open, and which limit was in force; then it
    is the highest that may have been. The same goes for the streams of a list, which shows one instant.
    """
    for user, streams in history.streams_of.items():
        allowed = {
            stream.ref: max(limit for maker in stream.makers for limit in history.limits(maker, stream.born_by))
            for stream in streams
        }
        lives = sorted(
            ((start, end, stream) for stream in streams for start, end in history.surely_live(stream)),
            key=lambda life: life[0],
        )
        together: dict[str, tuple[float, Stream]] = {}
        for start, end, stream in lives:
            together = {ref: one for ref, one in together.items() if one[0] > start}
            together[stream.ref] = (max(end, together.get(stream.ref, (end,))[0]), stream)
            live = [one for _, one in together.values()]
            if len(live) > (most := _limit_of_last(live, allowed)):
                text = f"{len(live)} streams of {user} are live at {start:.0f}, limit {most}"
                yield Violation(1, text, tuple(one.admissions[0] for one in live))
        for call in history.calls[user]:
            live = [history.streams[ref] for ref in call.live or [] if ref in allowed]
            most = _limit_of_last(live, allowed) if live else 0
            if live and len(live) < len(call.live or []):  # the last may be one that nobody knows to have been given
                most = max(most, *history.limits_of_doubtful(user, call.answered))
            if live and len(call.live or []) > most:
                yield Violation(1, f"{user} is told of {len(call.live or [])} live streams, limit {most}", (call,))


def _limit_of_last(live: list[Stream], allowed: dict[str, int]) -> int:
    """The highest limit that may have been in force when the last of these was admitted."""
    last = max(min(maker.sent for maker in one.makers) for one in live)
    return max(allowed[one.ref] for one in live if one.born_by >= last)


def ended_without_cause(history: History) -> Iterator[Violation]:
    """Promise 2: a stream whose heartbeats arrive in time is ended only for a cause, and its player learns the cause.

    Three proofs: somebody was told that it is not live, in the 410 or by a list without it, in an interval in which it
    was surely live; its own player was told that it never was; the reason is one that nothing can have caused.
    """
    snapshots = {user: [call for call in calls if call.live is not None] for user, calls in history.calls.items()}
    for stream in history.streams.values():
        others = snapshots[stream.user]
        for start, end in history.surely_live(stream):
            first = bisect_left(others, start, key=lambda call: call.sent)
            last = bisect_left(others, end, key=lambda call: call.sent)
            absent = [
                one for one in others[first:last] if stream.ref not in (one.live or []) and not history.in_recovery(one)
            ]
            for call in absent + [one for one in stream.denials if one.sent >= start]:
                if call.answered < end:
                    yield Violation(2, f"{stream.ref} is told to be gone while it is live", (*stream.leases, call))
        for denial in stream.denials:
            if denial.status == 404:
                yield Violation(2, f"{stream.ref} is told to be unknown", (stream.admissions[0], denial))
            elif not _is_explained(history, stream, denial):
                evidence = (*stream.leases, *stream.ends, denial)
                yield Violation(2, f"{stream.ref} is told to be {denial.answer['reason']}, for no cause", evidence)


def _is_explained(history: History, stream: Stream, denial: Event) -> bool:
    """Whether the reason in a 410 may be right.

    A call that says that it ended the stream is the one that did. Else it is any that may have. Expiry takes that the
    lease ran out. Of an end before the last 64, no reason is asked for.
    """
    reason = denial.answer["reason"]
    causes = [end for end in stream.ends if end.sent <= denial.answered]
    said = {end.ended[stream.ref] for end in stream.ends if stream.ref in end.ended}
    possible = said or {one for end in causes for one in end.may_have_ended(stream)}
    if not said and all(
        history.lease_end(stream, lease) <= denial.answered for lease in stream.leases if lease.sent <= denial.answered
    ):
        possible.add("expired")
    forgotten = causes and history.most_ends(stream.user, causes[0].sent, denial.answered) >= REMEMBERED
    return reason in possible or bool(forgotten)


def ended_needlessly(history: History) -> Iterator[Violation]:
    """Promise 2, too: a call ends what it was asked to end; eviction and a lowered limit no more than is too much.

    That is as many as were live, at most, above the limit, and one more where another one is admitted.
    """
    for calls in history.calls.values():
        for call in calls:
            if history.may_repeat(call):
                continue
            for stream in (history.streams[ref] for ref in call.ended.keys() & history.streams.keys()):
                if call.ended[stream.ref] not in call.may_have_ended(stream):
                    text = f"{stream.ref} is {call.ended[stream.ref]}, which nobody asked for"
                    yield Violation(2, text, (stream.admissions[0], call))
            cut = [reason for reason in call.ended.values() if reason in ("evicted", "limit_lowered")]
            if cut and not history.in_recovery(call):
                room = min(history.limits(call, call.answered)) - (call.operation == "admit")
                if len(cut) > history.most_live(call) - room:
                    yield Violation(2, f"{len(cut)} streams of {call.user} are ended, though not too many", (call,))


def wrongly_refused(history: History) -> Iterator[Violation]:
    """Promise 3: with a free seat and no recovery an admission is not refused; a dead stream's seat is free in a TTL.

    A refusal is wrong where at every moment of its interval fewer streams were possibly live than the lowest limit that
    may have been in force, not counting the one that it would have ended: its device's own, or the one to be taken
    over. Who asked for eviction is refused only by limit 0, and nobody waits for a recovery where nothing was lost.
    """
    for user, calls in history.calls.items():
        for call in calls:
            if history.in_recovery(call):
                continue
            if call.waits:
                yield Violation(3, f"{user} waits, and nothing was lost", (call,))
            if not call.refused:
                continue
            floor = min(history.limits(call, call.answered))
            most = history.most_live(call)
            evicts = call.arguments.get("on_limit") == "evict"
            if call.arguments.keys() & {"device_id", "take_over"}:
                most -= any(
                    call.may_have_ended(one) & {"replaced", "taken_over"} and history.meets(call, one)
                    for one in history.streams_of[user]
                )
            if most < floor or (evicts and floor > 0):
                text = f"{user} is refused with at most {most} streams live, limit {floor}"
                yield Violation(3, text, (call,))


def not_idempotent(history: History) -> Iterator[Violation]:
    """Promise 4: the same admission gives the same stream, a release may be repeated, nothing that ended comes back.

    One stream is given again only for the key that it was given for. It is not live for a call sent after somebody was
    told that it has ended, or after its last lease ran out. No two calls ended it, unless one is the repetition of the
    other.
    """
    for stream in history.streams.values():
        first, *again = stream.admissions
        for one in again:
            if not stream.key or one.arguments.get("key") != stream.key:
                yield Violation(4, f"{stream.ref} is given to two admissions", (first, one))
        until = history.possibly_live_until(stream)
        for one in stream.sightings:
            if one.sent > until and not history.in_recovery(one):
                yield Violation(4, f"{stream.ref} is live after its end", (*stream.leases, *stream.ends, one))
        enders = [end for end in stream.ends if stream.ref in end.ended]
        if len({end.admitted or end for end in enders}) > 1:
            yield Violation(4, f"{stream.ref} is ended twice", tuple(enders))
    for event in history.events:
        if event.operation == "release" and not event.unknown and event.status != 204:
            yield Violation(4, "a release is refused", (event,))


def not_repeatable(history: History) -> Iterator[Violation]:
    """Promise 4, too: two streams of a key are never live together; while one is, its admission is not refused."""
    for left, right in _live_together(history, "key"):
        evidence = (*left.admissions, *right.admissions)
        yield Violation(4, f"{left.ref} and {right.ref} are given for the same key", evidence)
    for stream in (one for one in history.streams.values() if one.key):
        for call in history.calls[stream.user]:
            if call.refused and call.repeats(stream) and history.meets(call, stream):
                yield Violation(4, f"{stream.ref} is live, and its admission refused", (*stream.admissions, call))


def mixed_up(history: History) -> Iterator[Violation]:
    """Promise 5: nothing done for one user changes another's, and a device never has two seats.

    No answer about a user speaks of another's stream, nor of a limit that nobody set for that user. (A stream that ends
    through another user's call is ended without cause: promise 2.) Two streams of a device are never live together.
    """
    for event in history.events:
        named = {event.admitted, *event.ended, *(event.live or [])}
        if event.operation in ("heartbeat", "get") and event.status in (200, 410):
            named.add(event.stream)
        for ref in named & history.streams.keys():
            owner = history.streams[ref]
            if owner.user != event.user:
                yield Violation(5, f"{ref} of {owner.user} is known to {event.user}", (owner.admissions[0], event))
        told = event.answer.get("limit")
        if told is not None and told not in history.limits(event, event.answered):
            yield Violation(5, f"{event.user} is told limit {told}, which is not in force", (event,))
    for left, right in _live_together(history, "device"):
        evidence = (*left.leases, *right.leases)
        yield Violation(5, f"{left.ref} and {right.ref} are live on one device", evidence)


def _live_together(history: History, attribute: Literal["key", "device"]) -> Iterator[tuple[Stream, Stream]]:
    """Streams of a user that share a key or a device, and are both surely live at some moment."""
    groups = defaultdict(list)
    for stream in history.streams.values():
        if value := getattr(stream, attribute):
            groups[stream.user, value].append(stream)
    for streams in groups.values():
        lives = sorted(
            ((start, end, stream) for stream in streams for start, end in history.surely_live(stream)),
            key=lambda life: life[0],
        )
        last_end, last = -math.inf, streams[0]
        for start, end, stream in lives:
            if stream is not last and start < last_end:
                yield last, stream
            if end > last_end:
                last_end, last = end, stream


def bad_ttls(history: History) -> Iterator[Violation]:
    """Promise 6: every stream key has 0 < PTTL ≤ TTL at all times.

    Redis answers -1 where a key never expires. It counts whole milliseconds: 0 is the last one of a key's life.
    """
    for event in history.events:
        if event.operation == "pttl":
            for seat, pttl in event.answer.items():
                if not 0 <= pttl <= history.ttl:
                    yield Violation(6, f"seat {seat} of {event.user} has PTTL {pttl}", (event,))


def unexpected(events: Iterable[Event]) -> Iterator[Event]:
    """Return the calls with an answer that nobody should get, such as 500, or a user who is not known."""
    for event in events:
        if event.status is not None and event.status not in ANSWERS.get(event.operation, {200, 503}):
            yield event


def write(events: Iterable[Event], path: Path) -> None:
    """Write a log, an event a line."""
    with path.open("w") as log:
        log.writelines(f"{json.dumps(asdict(event))}\n" for event in events)


def read(path: Path) -> list[Event]:
    """Read a log."""
    with path.open() as log:
        return [Event(**json.loads(line)) for line in log]


def ref_of(stream_ref: str) -> str:
    """The REF in SEAT.REF or SEAT.REF.SIG. The seat may change, the REF does not."""
    return stream_ref.split(".")[1]
