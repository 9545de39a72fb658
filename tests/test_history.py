"""The checker of tests/history.py finds each broken promise in a log, and none where the promises are kept."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.history import Event, Operation, read, ref_of, unexpected, violations, write

TTL = 3_000
SEATS = 10


def call(operation: Operation, sent: float, *, took: float = 10, **given: Any) -> Event:
    defaults: dict[str, Any] = {"client": "player", "user": "alice", "answered": sent + took}
    return Event(operation=operation, sent=sent, **(defaults | given))


def told(ref: str, **more: Any) -> dict[str, Any]:
    return {"stream_ref": f"1.{ref}", **more}


def admission(
    ref: str,
    sent: float,
    *,
    took: float = 10,
    user: str = "alice",
    ended: dict[str, str] | None = None,
    **arguments: Any,
) -> Event:
    lists = [told(one, reason=reason) for one, reason in (ended or {}).items()]
    answer = told(ref, device_id=arguments.get("device_id"), ended=lists)
    return call("admit", sent, took=took, user=user, status=201, arguments=arguments, answer=answer)


def refusal(sent: float, *refs: str, took: float = 10, limit: int = 3, **arguments: Any) -> Event:
    answer = {"limit": limit, "live": len(refs), "streams": [told(ref) for ref in refs]}
    return call("admit", sent, took=took, status=409, arguments=arguments, answer=answer)


def lost(operation: Operation, sent: float, **given: Any) -> Event:
    return call(operation, sent, status=None, **given)


def beat(ref: str, sent: float, reason: str = "", **given: Any) -> Event:
    answer: dict[str, Any] = {
        "stream": ref,
        "status": 410 if reason else 200,
        "answer": {"reason": reason} if reason else {},
    }
    return call("heartbeat", sent, **(answer | given))


def release(ref: str, sent: float, **given: Any) -> Event:
    defaults: dict[str, Any] = {"stream": ref, "status": 204}
    return call("release", sent, **(defaults | given))


def listing(sent: float, *refs: str, limit: int = 3, **given: Any) -> Event:
    return call("list", sent, status=200, answer={"limit": limit, "streams": [told(ref) for ref in refs]}, **given)


def limit_set(limit: int, sent: float, ended: tuple[str, ...] = (), **given: Any) -> Event:
    answer = {"limit": limit, "ended": [told(ref, reason="limit_lowered") for ref in ended]}
    arguments = {"limit": limit, "end_excess": bool(ended)}
    return call("set_limit", sent, status=200, arguments=arguments, answer=answer, **given)


def three(sent: float = 0) -> list[Event]:
    return [admission(ref, sent + 20 * number) for number, ref in enumerate("abc")]


RECOVERING = {"type": "urn:streamlimit:recovering", "status": 503}


def pttl(value: int) -> Event:
    return call("pttl", 100, status=200, answer={"1": value})


KEPT = {
    "a full house refuses": [*three(), refusal(100, *"abc")],
    "a seat is free as soon as its stream is released": [*three(), release("a", 100), admission("d", 120)],
    "an admission that overlaps a release": [*three(), release("a", 100, took=50), admission("d", 110, took=10)],
    "a refusal that overlaps a release": [*three(), release("a", 100, took=50), refusal(110, *"abc")],
    "a refusal while another admission is under way": [*three()[:2], admission("c", 90, took=50), refusal(100, *"abc")],
    "a dead stream's seat is free after one TTL": [*three(), admission("d", TTL + 11)],
    "a seat may be held for a TTL after the answer": [*three(), refusal(TTL + 12, *"abc", took=1)],
    "a heartbeat keeps the seat": [limit_set(1, 0), admission("a", 20), beat("a", 2_900), refusal(5_800, "a", limit=1)],
    "a heartbeat soon after another may write nothing": [
        *three(), beat("a", 2_300), beat("a", 2_400), admission("d", 5_330), beat("a", 5_350, "expired"),
    ],
    "an admission of unknown outcome may hold the seat": [*three()[:2], lost("admit", 50), refusal(100, *"abx")],
    "or hold it late": [*three()[:2], lost("admit", 50, took=5), refusal(900, *"abx")],
    "or hold it never": [*three()[:2], lost("admit", 50), admission("c", 100), refusal(200, *"abc")],
    "a heartbeat of unknown outcome may keep it": [
        limit_set(1, 0), admission("a", 20), lost("heartbeat", 2_900, stream="a"), refusal(5_800, "a", limit=1),
    ],
    "or not": [limit_set(1, 0), admission("a", 20), lost("heartbeat", 2_900, stream="a"), admission("b", 3_100)],
    "a release of unknown outcome may free the seat": [*three(), lost("release", 100, stream="a"), admission("d", 200)],
    "or not yet": [*three(), lost("release", 100, stream="a"), refusal(200, *"abc"), admission("d", 900)],
    "or after another heartbeat": [
        *three(), lost("release", 100, took=5, stream="a"), beat("a", 150), beat("a", 400, "released"),
    ],
    "an eviction of unknown outcome may have ended any": [
        *three(), lost("admit", 100, arguments={"on_limit": "evict"}), beat("b", 900, "evicted"),
    ],
    "a call answered late may have been tried twice": [
        *three(), call("terminate_all", 100, took=600, status=200, answer={"ended": []}), beat("b", 800, "terminated"),
    ],
    "a lowered limit ends nobody by itself": [
        *three(), limit_set(1, 100), beat("c", 200), refusal(300, *"abc", limit=1),
    ],
    "a lowered limit ends what is too much": [
        *three(), limit_set(1, 100, ("a", "b")), beat("a", 200, "limit_lowered"), refusal(300, "c", limit=1),
    ],
    "a limit set at the same time may be in force": [*three(), limit_set(4, 100, took=50), admission("d", 110)],
    "or not be": [*three(), limit_set(4, 100, took=50), refusal(110, *"abc")],
    "a limit of unknown outcome may come into force late": [
        *three(), lost("set_limit", 100, arguments={"limit": 4}), refusal(200, *"abc"), admission("d", 900),
    ],
    "an override holds for one admission": [*three(), admission("d", 100, limit=4), refusal(200, *"abcd")],
    "the same admission gives the same stream": [admission("a", 0, key="k"), admission("a", 100, key="k")],
    "even at once": [admission("a", 0, key="k", took=50), admission("a", 10, key="k")],
    "and after its end another one": [admission("a", 0, key="k"), release("a", 50), admission("b", 100, key="k")],
    "a lost admission is found by its key": [lost("admit", 0, arguments={"key": "k"}), admission("a", 100, key="k")],
    "and says again what it ended": [
        *three(), *(admission("d", at, key="k", on_limit="evict", ended={"a": "evicted"}) for at in (100, 2_900)),
    ],
    "or for the first time": [
        *three(), lost("admit", 100, arguments={"key": "k", "on_limit": "evict"}), beat("a", 200, "evicted"),
        beat("b", 2_500), beat("c", 2_500), admission("d", 4_000, key="k", on_limit="evict", ended={"a": "evicted"}),
    ],
    "a device replaces its stream": [
        admission("a", 0, device_id="tv"), admission("b", 50, device_id="tv", ended={"a": "replaced"}),
        beat("a", 100, "replaced"),
    ],
    "devices of two users are two": [admission("a", 0, device_id="tv"), admission("b", 50, user="bob", device_id="tv")],
    "another user's heartbeat is for an unknown stream": [*three(), beat("a", 100, user="bob", status=404)],
    "a release may be repeated": [*three(), release("a", 100), release("a", 200), release("a", 9_000)],
    "a heartbeat at the same time as the release": [*three(), release("a", 100, took=50), beat("a", 110)],
    "or told of it": [*three(), release("a", 100, took=50), beat("a", 110, "released")],
    "a list at the same time as an admission": [admission("a", 0, took=50), listing(10), listing(20, "a")],
    "a list with one of unknown outcome": [
        *three(), lost("admit", 50, arguments={"limit": 4}), listing(100, *"abcx"),
    ],
    "a device that has a seat is refused above a lowered limit": [
        admission("a", 0, device_id="tv"), admission("b", 20), limit_set(1, 50),
        refusal(100, *"ab", limit=1, device_id="tv"),
    ],
    "a repeated admission that overlaps its release": [
        *three()[:2], admission("c", 50, key="k"), release("c", 100, took=50), refusal(110, *"abc", key="k"),
    ],
    "old ends are forgotten": [
        admission("x", 0), release("x", 20),
        *(event for n in range(64) for event in (admission(f"r{n}", 50 + 20 * n), release(f"r{n}", 60 + 20 * n))),
        beat("x", 2_000, "expired"),
    ],
    "a recovery explains refusals": [call("recovery", 0, took=3_000), refusal(100)],
    "and waits": [call("recovery", 0, took=3_000), call("admit", 100, status=503, answer=RECOVERING)],
    "a 503 says nothing": [call("admit", 0, status=503), beat("a", 10, status=503), admission("a", 20)],
    "the last millisecond is rounded down": [pttl(0), pttl(1), pttl(TTL)],
}  # fmt: skip


@pytest.mark.parametrize("log", KEPT.values(), ids=KEPT)
def test_what_keeps_the_promises_is_not_reported(log: list[Event]) -> None:
    assert violations(log, TTL, settled_ms=2_000) == []


BROKEN: dict[str, tuple[int, list[Event]]] = {
    "a fourth admission": (1, [*three(), admission("d", 100)]),
    "a fourth by overlapping calls": (1, [admission(ref, 0, took=50) for ref in "abcd"]),
    "a fourth while heartbeats keep the three": (
        1, [*three(), *(beat(ref, 2_500) for ref in "abc"), admission("d", 4_000)],
    ),
    "a fourth, and a call of unknown outcome that ends none": (
        1, [*three(), lost("heartbeat", 50, stream="a"), admission("d", 100)],
    ),
    "a second over a lowered limit": (1, [limit_set(1, 0), admission("a", 50), admission("b", 100)]),
    "a second over a limit that was lowered before": (
        1, [limit_set(5, 0), limit_set(1, 20), admission("a", 50), admission("b", 100)],
    ),
    "a fourth beside one that was let in with limit 4": (
        1, [admission("a", 0, limit=4), admission("b", 20), admission("c", 40), admission("d", 100)],
    ),
    "a list of more than the limit": (1, [*three(), listing(100, *"abcx")]),
    "one with limit 0": (1, [limit_set(0, 0), admission("a", 50)]),
    "one beyond its override": (1, [*three(), admission("d", 100, limit=2)]),
    "an end without a cause": (2, [*three(), beat("a", 100, "expired")]),
    "an end for another's cause": (2, [*three(), release("b", 50), beat("a", 100, "released")]),
    "an end too soon after a heartbeat": (2, [*three(), beat("a", 2_000), beat("a", 3_900, "expired")]),
    "a wrong reason": (2, [*three(), release("a", 50), beat("a", 100, "expired")]),
    "a reason other than the one that was told": (
        2,
        [
            *three(), admission("d", 100, take_over="1.a", ended={"a": "taken_over"}),
            release("a", 150), beat("a", 200, "released"),
        ],
    ),
    "a reason that comes too late": (2, [*three(), beat("a", 4_000, "released"), release("a", 4_050)]),
    "a stream that its player is told never was": (2, [*three(), beat("a", 100, status=404)]),
    "a live stream is not in the list": (2, [*three(), listing(100, *"ab")]),
    "a live stream is not among those of a refusal": (2, [*three(), refusal(100, *"bcx")]),
    "an eviction from a free seat": (2, [*three()[:2], admission("c", 100, on_limit="evict", ended={"a": "evicted"})]),
    "an eviction that nobody asked for": (2, [*three(), admission("d", 100, ended={"a": "evicted"})]),
    "a taking over of another stream": (
        2, [*three(), admission("d", 100, take_over="1.b", ended={"a": "taken_over"})],
    ),
    "a replacement of another device's stream": (
        2, [admission("a", 0, device_id="tv"), admission("b", 50, device_id="phone", ended={"a": "replaced"})],
    ),
    "a lowered limit ends streams uninvited": (
        2, [*three(), replace(limit_set(1, 100, ("a", "b")), arguments={"limit": 1, "end_excess": False})],
    ),
    "a lowered limit ends too many": (2, [*three(), limit_set(2, 100, ("a", "b"))]),
    "a refusal with a free seat": (3, [*three()[:2], refusal(100, *"ab")]),
    "a refusal after a release": (3, [*three(), release("a", 100), refusal(120, *"abc")]),
    "a refusal a TTL after a player fell silent": (
        3, [*three(), beat("b", 2_000), beat("c", 2_000), refusal(3_100, *"abc")],
    ),
    "a refusal under a raised limit": (3, [*three(), limit_set(4, 100), refusal(150, *"abc", limit=4)]),
    "a refusal long after an unknown outcome": (3, [lost("admit", 50), limit_set(1, 0), refusal(5_200, "x", limit=1)]),
    "a check says no": (3, [call("check", 0, status=200, answer={"limit": 3, "reason": "limit_reached"})]),
    "eviction is refused": (3, [*three(), refusal(100, *"abc", on_limit="evict")]),
    "a device that has a seat is refused": (
        3, [*three()[:2], admission("c", 50, device_id="tv"), refusal(100, *"abc", device_id="tv")],
    ),
    "a taking over is refused": (3, [*three(), refusal(100, *"abc", take_over="1.a")]),
    "a wait where nothing was lost": (3, [call("admit", 0, status=503, answer=RECOVERING)]),
    "a check foretells such a wait": (3, [call("check", 0, status=200, answer={"reason": "recovering"})]),
    "a repeated admission gives another stream": (4, [admission("a", 0, key="k"), admission("b", 50, key="k")]),
    "and ends the first": (
        4,
        [
            admission("a", 0, key="k", device_id="tv"),
            admission("b", 50, key="k", device_id="tv", ended={"a": "replaced"}),
        ],
    ),
    "a repeated admission is refused": (4, [*three()[:2], admission("c", 50, key="k"), refusal(100, *"abc", key="k")]),
    "two at once give two": (4, [admission("a", 0, key="k", took=50), admission("b", 10, key="k", took=50)]),
    "two admissions are given one stream": (4, [admission("a", 0, key="k"), admission("a", 50, key="other")]),
    "a released stream is beaten back to life": (4, [*three(), release("a", 50), beat("a", 100)]),
    "an expired one is": (4, [*three(), beat("a", 3_100)]),
    "one that was told to have ended is": (4, [*three(), beat("a", 3_100, "expired"), beat("a", 3_200)]),
    "a taken over one is seen again": (
        4, [*three(), admission("d", 100, take_over="1.a", ended={"a": "taken_over"}), listing(150, *"abcd")],
    ),
    "a stream is ended twice": (
        4, [*three(), *(admission(ref, 100, on_limit="evict", ended={"a": "evicted"}) for ref in "de")],
    ),
    "a repeated release is refused": (4, [*three(), release("a", 50), release("a", 100, status=410)]),
    "a device on two seats": (5, [admission("a", 0, device_id="tv"), admission("b", 50, device_id="tv")]),
    "another user's stream is ended": (
        5, [*three(), admission("x", 100, user="bob", on_limit="evict", ended={"a": "evicted"})],
    ),
    "another user's stream is kept live": (5, [*three(), beat("a", 100, user="bob")]),
    "another user's stream is listed": (5, [*three(), listing(100, "a", user="bob")]),
    "another user's limit": (5, [limit_set(5, 0, user="bob"), listing(50, limit=5)]),
    "a key without expiry": (6, [pttl(-1)]),
    "a key that lives too long": (6, [pttl(TTL + 1)]),
}  # fmt: skip


@pytest.mark.parametrize(("promise", "log"), BROKEN.values(), ids=BROKEN)
def test_what_breaks_a_promise_is_reported(promise: int, log: list[Event]) -> None:
    found = violations(log, TTL, settled_ms=2_000)

    assert promise in {one.promise for one in found}


def test_an_answer_that_does_not_belong_to_its_operation_is_unexpected() -> None:
    usual = [*three(), lost("admit", 50), refusal(60, *"abc"), beat("a", 70), release("a", 80), listing(90, *"bc")]
    odd = [call("admit", 0, status=404), call("heartbeat", 0, status=500), release("a", 0, status=410)]

    assert list(unexpected([*usual, *odd])) == odd


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = [*three(), lost("admit", 100)]

    write(log, tmp_path / "log")

    assert [repr(event) for event in read(tmp_path / "log")] == [repr(event) for event in log]


@dataclass
class Live:
    ref: str
    expires: float
    device: str | None
    key: str | None


@dataclass
class Perfect:
    """A service that keeps the promises, in as few lines as possible. Each call takes effect at the moment `now`."""

    limits: dict[str, int] = field(default_factory=dict)
    live: dict[str, list[Live]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    ended_by: dict[str, list[Any]] = field(default_factory=dict)
    born: int = 0

    def handle(self, now: float, user: str, operation: Operation, ref: str, asked: dict[str, Any]) -> tuple[int, Any]:
        live = self.live[user] = [one for one in self.live.get(user, []) if one.expires > now]
        limit = self.limits.get(user, 3)
        named = [one for one in live if one.ref == ref]
        match operation:
            case "admit":
                return self._admit(now, live, asked, asked.get("limit", limit))
            case "heartbeat" | "get":
                if operation == "heartbeat" and named and named[0].expires <= now + TTL - TTL / 20:
                    named[0].expires = now + TTL
                return (200, {}) if named else (410, {"reason": self.ended.setdefault(ref, "expired")})
            case "release" | "terminate":
                self._end(live, named, f"{operation}d")
                self.ended.setdefault(ref, f"{operation}d")
                return 204, {}
            case "terminate_all":
                return 200, {"ended": self._end(live, live, "terminated")}
            case "set_limit":
                self.limits[user] = asked["limit"]
                excess = live[: max(0, len(live) - asked["limit"])] if asked["end_excess"] else []
                return 200, {"limit": asked["limit"], "ended": self._end(live, excess, "limit_lowered")}
            case _:
                return 200, {"limit": limit, "streams": [told(one.ref) for one in live]}

    def _admit(self, now: float, live: list[Live], asked: dict[str, Any], limit: int) -> tuple[int, Any]:
        key, device = asked.get("key"), asked.get("device_id")
        ended: list[Any] = []
        if found := [one for one in live if key and one.key == key]:
            found[0].expires = now + TTL
            ended = self.ended_by[found[0].ref]
        else:
            named = [one for one in live if one.ref == ref_of(asked.get("take_over", "0.0"))]
            freed, reason = [one for one in live if device and one.device == device], "replaced"
            if not freed:
                freed, reason = named, "taken_over"
            excess = max(0, len(live) - len(freed) - limit + 1) if asked.get("on_limit") and limit else 0
            evicted = [one for one in live if one not in freed][:excess]
            if len(live) - len(freed) - len(evicted) >= limit:
                return 409, {"limit": limit, "streams": [told(one.ref) for one in live]}
            ended = self._end(live, freed, reason) + self._end(live, evicted, "evicted")
            self.born += 1
            found = [Live(f"r{self.born}", now + TTL, device, key)]
            live += found
            self.ended_by[found[0].ref] = ended
        return 201, told(found[0].ref, device_id=found[0].device, limit=limit, ended=ended)

    def _end(self, live: list[Live], victims: list[Live], reason: str) -> list[Any]:
        ended = [told(one.ref, reason=reason) for one in victims]
        for one in list(victims):
            live.remove(one)
            self.ended[one.ref] = reason
        return ended


def perfect_history(seed: int, calls: int) -> list[Event]:
    """A log of calls that overlap, some of them without an answer, some of those without effect."""
    chance = random.Random(seed)
    service, now = Perfect(), 10_000.0
    log: list[Event] = []
    about_one: list[Operation] = ["heartbeat", "release", "terminate", "get"]
    about_all: list[Operation] = ["admit", "terminate_all", "set_limit", "list"]
    for _ in range(calls):
        now += chance.choice([1, 10, 100, 100, 1_000])
        user = chance.choice(["alice", "bob"])
        known = sorted({event.admitted for event in log if event.user == user} - {""})
        asked: dict[str, Any] = {}
        if known and chance.random() < 0.5:
            (operation,) = chance.choices(about_one, [8, 2, 1, 1])
            ref = chance.choice(known[-6:])
        else:
            (operation,) = chance.choices(about_all, [16, 0.5, 1, 2])
            ref = ""
        if operation == "admit":
            options: dict[str, Any] = {"key": f"k{chance.randrange(3)}", "device_id": f"tv-{chance.randrange(3)}"}
            options |= {"on_limit": "evict", "limit": chance.randrange(SEATS)}
            options |= {"take_over": f"1.{chance.choice(known)}"} if known else {}
            asked = {name: value for name, value in options.items() if chance.random() < 0.15}
        elif operation == "set_limit":
            asked = {"limit": chance.randrange(6), "end_excess": chance.random() < 0.5}
        is_lost = chance.random() < 0.05
        sent, answered = now - chance.choice([1, 5, 200]), now + chance.choice([1, 5, 200])
        status: int | None = None
        answer: dict[str, Any] = {}
        if not (is_lost and chance.random() < 0.5):
            status, answer = service.handle(now, user, operation, ref, asked)
        if is_lost:  # given up before or after it took effect
            status, answer, answered = None, {}, sent + chance.choice([1, 300])
        log.append(Event("player", user, operation, sent, answered, status, ref, asked, answer))
    return log


@given(st.integers(min_value=0, max_value=2**32), st.integers(min_value=1, max_value=300))
@settings(deadline=None, max_examples=200)
def test_whatever_a_right_service_answers_is_not_reported(seed: int, calls: int) -> None:
    assert violations(perfect_history(seed, calls), TTL, settled_ms=500) == []


DOCTORED: dict[str, tuple[int, Callable[[Event], bool], Callable[[Event], list[Event]]]] = {
    "a new user has four streams": (
        1,
        lambda event: bool(event.admitted),
        lambda event: [event, *(replace(event, user="carol", answer=told(ref), arguments={}) for ref in "abcd")],
    ),
    "a live stream is unknown": (
        2,
        lambda event: event.operation == "heartbeat" and event.status == 200,
        lambda event: [event, replace(event, sent=event.answered + 1, answered=event.answered + 2, status=404)],
    ),
    "a user without a stream is refused": (
        3,
        lambda event: event.operation == "admit" and event.status == 409,
        lambda event: [replace(event, user="carol")],
    ),
    "a released stream is live": (
        4,
        lambda event: event.operation == "release" and event.status == 204,
        lambda event: [event, beat(event.stream, event.answered + 1, user=event.user)],
    ),
    "a heartbeat keeps another user's stream live": (
        5,
        lambda event: event.operation == "heartbeat" and event.status == 200,
        lambda event: [event, replace(event, user="carol")],
    ),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("promise", "wanted", "doctor"), DOCTORED.values(), ids=DOCTORED)
def test_a_long_log_that_was_doctored_in_one_place_is_found_out(
    promise: int, wanted: Callable[[Event], bool], doctor: Callable[[Event], list[Event]], seed: int
) -> None:
    log = perfect_history(seed, 400)
    place = next(place for place in range(200, len(log)) if wanted(log[place]))
    log[place : place + 1] = doctor(log[place])

    assert promise in {one.promise for one in violations(log, TTL, settled_ms=500)}
