"""Long stories of two users, two processes and a store with bad luck, invented by Hypothesis.

The model foretells every answer of `StreamTracker` and, after every step, all that the store holds; a promise that is
broken is an error too (`promises.py`). The store's clock cannot be moved, so where time passes, everything in the store
is made older, and REFs with it.

The stories are the same each time. PROVE_SECONDS=N goes on for N seconds on each kind of store, with ever other ones.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, Final, TypeVar

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from streamlimit import (
    Admission,
    Check,
    EndedStream,
    Lease,
    LimitReached,
    Recovering,
    Rules,
    Stream,
    StreamEnded,
    StreamTracker,
    UnknownStream,
    UnknownUser,
    replies,
    stream_id,
)
from streamlimit.keys import Keys
from streamlimit.scripts import ADMIT, TRIM, Call
from streamlimit.stream_id import Signer, StreamId
from streamlimit.tracker import _request_hash
from tests import stored
from tests.conftest import SECRET
from tests.figures import report
from tests.helpers import single
from tests.model import ENDED_MS, MAX_ENDED, Answer, End, Ref, Wish
from tests.promises import PromisedModel
from tests.servers import PATIENCE_SECONDS, RedisServer

pytestmark = pytest.mark.slow

SECONDS: Final = float(os.environ.get("PROVE_SECONDS", "0"))
USERS: Final = ("alice", "bob")
SEATS: Final = 4
STEP_MS: Final = 100_000
PRECISION_MS: Final = 50_000

SETTINGS: Final = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=not SECONDS,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

AGE: Final = """
local ms = tonumber(ARGV[1])
local function older(digits) return #digits == 13 and string.format('%.0f', digits - ms) or nil end
for _, key in ipairs(KEYS) do
  local pttl, words = redis.call('PTTL', key), redis.call('HGETALL', key)
  for i = 1, #words, 2 do
    if words[i] ~= 'id' then redis.call('HSET', key, words[i], (string.gsub(words[i + 1], '%d+', older))) end
  end
  if pttl > ms then redis.call('PEXPIRE', key, pttl - ms) elseif pttl > 0 then redis.call('DEL', key) end
end
"""

_Result = TypeVar("_Result")


class Try:
    """An admission that was asked for, and the stream id that it gave or may still give."""

    def __init__(self, user_id: str, ref: Ref, wish: Wish, args: Sequence[str | int]) -> None:
        self.user_id = user_id
        self.ref = ref
        self.wish = wish
        self.args = args
        self.sig = Signer([SECRET]).sign(user_id, ref.name)
        self.seat = 0
        """Where its player was told to be; 0 before it was admitted."""

    @property
    def stream_ref(self) -> str:
        return f"{self.seat}.{self.ref.name}"

    @property
    def stream_id(self) -> str:
        return f"{self.stream_ref}.{self.sig}"


@dataclass(frozen=True)
class Claim:
    """Who comes with which stream id: the player itself, mostly."""

    index: int
    process: str
    stranger: bool
    forged: bool
    seat: int | None


users = st.sampled_from(["alice", "alice", "bob"])
processes = st.sampled_from(["p", "q"])
indexes = st.integers(0, 15)
seldom = st.integers(0, 7).map(lambda number: number == 0)
limits = st.sampled_from([0, 1, 2, 2, 3, 3, 3])
wishes = st.fixed_dictionaries(
    {},
    optional={
        "device_id": st.sampled_from(["tv", "phone"]),
        "on_limit": st.just("evict"),
        "limit": limits,
        "idempotency_key": st.sampled_from(["k", "l"]),
    },
)
claims = st.builds(
    Claim,
    indexes,
    process=processes,
    stranger=seldom,
    forged=seldom,
    seat=st.none() | st.none() | st.integers(1, SEATS),
)
rule_sets = st.builds(
    Rules,
    limit=st.integers(1, 3),
    max_limit=st.just(SEATS),
    ttl_ms=st.just(5 * STEP_MS),
    heartbeat_ms=st.just(123_000),
    enforce=st.sampled_from([True, True, False]),
    unknown_users=st.sampled_from([*["admit"] * 7, "reject"]),
)
somebody_plays = precondition(lambda story: story.admitted)


class Story(RuleBasedStateMachine):
    """One example is one story; each rule is something that may happen in it."""

    new_store: ClassVar[Callable[[], Callable[[], Redis]]]
    """Returns what makes clients of a store."""
    figures: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.runner = asyncio.Runner()
        self.trackers: dict[str, StreamTracker] = {}
        self.tries: list[Try] = []
        self.admitted: list[Try] = []
        self.epochs: dict[str, str] = {}
        self.ahead_ms = 0
        """How much later it is for those who mint than for the store, whose content was made older by as much."""
        self.minted: list[str] = []
        self.calls: list[Call] = []
        """Admissions and ends that were asked for."""
        self.trims: list[tuple[Call, tuple[str, int, str, int | None, str]]] = []
        """Ends, and what the model was told of each."""
        self.in_doubt = False

    @initialize(rules=rule_sets, calm=st.booleans())
    def begin(self, *, rules: Rules, calm: bool) -> None:
        self.figures["stories"] += 1
        self.calm = calm
        """Nothing is lost in this story, so that promise 1 holds to its end."""
        self.model = PromisedModel(rules)
        clock = SimpleNamespace(time_ns=lambda: time.time_ns() + self.ahead_ms * 1_000_000)
        minted_ms = StreamId.minted_ms.fget  # type: ignore[attr-defined]
        self.patches.setattr(stream_id, "time", clock)
        self.patches.setattr(StreamId, "minted_ms", property(lambda one: minted_ms(one) - self.ahead_ms))
        self.patches.setattr("streamlimit.tracker.mint_ref", self.mint)
        self.patches.setattr("streamlimit.recent_ends._SECONDS", 0)  # of a clock that stands still here
        self.connect = type(self).new_store()
        self.operator = self.connect()
        self.run(self.operator.flushall())
        self.restarts("p")
        self.restarts("q")

    def teardown(self) -> None:
        for tracker in self.trackers.values():
            self.run(tracker.__aexit__(None, None, None))
        self.run(self.operator.aclose())
        self.runner.close()
        self.patches.undo()

    # What players do.

    @rule(user_id=users, process=processes)
    def admit(self, user_id: str, process: str) -> None:
        self.ask(user_id, process, {})

    @rule(user_id=users, process=processes, wish=wishes, in_doubt=seldom)
    def admit_with_a_wish(self, *, user_id: str, process: str, wish: dict[str, Any], in_doubt: bool) -> None:
        self.ask(user_id, process, wish, in_doubt=in_doubt)

    @rule(user_id=users, process=processes)
    def admit_and_evict(self, user_id: str, process: str) -> None:
        self.ask(user_id, process, {"on_limit": "evict"})

    @somebody_plays
    @rule(index=indexes, process=processes, wish=wishes)
    def take_over(self, index: int, process: str, wish: dict[str, Any]) -> None:
        other = self.admitted[index % len(self.admitted)]
        self.ask(other.user_id, process, wish | {"take_over": other.stream_ref})

    @precondition(lambda story: story.tries)
    @rule(index=indexes, process=processes)
    def a_late_admission_arrives(self, index: int, process: str) -> None:
        self.step()
        one = self.tries[index % len(self.tries)]
        tracker = self.trackers[process]
        reply = self.run(tracker._store.run(Call(ADMIT, self.keys_of(one.user_id), one.args, in_epoch=True)))
        if reply[0] == "limit":
            self.check_admission(one, process, tuple(reply))
        else:
            self.check_admission(one, process, said(replies.admission(one.user_id, reply, tracker.rules.lease)))

    @somebody_plays
    @rule(claim=claims)
    def heartbeat(self, claim: Claim) -> None:
        self.step()
        one, user_id, text, genuine = self.claimed(claim)
        answer = self.run(self.trackers[claim.process].heartbeat(user_id, text))
        seat = claim.seat or one.seat
        self.check_heartbeat(one, answer, self.model.heartbeat(user_id, one.ref, seat, claim.process, genuine=genuine))

    @somebody_plays
    @rule(process=processes)
    def heartbeats_of_all(self, process: str) -> None:
        self.step()
        streams = [(one.user_id, one.stream_id) for one in self.admitted]
        answers = self.run(self.trackers[process].heartbeat_many(streams))
        for one, answer in zip(self.admitted, answers, strict=True):
            self.check_heartbeat(one, answer, self.model.heartbeat(one.user_id, one.ref, one.seat, process))

    @somebody_plays
    @rule(claim=claims)
    def release(self, claim: Claim) -> None:
        self.step()
        one, user_id, text, genuine = self.claimed(claim)
        self.run(self.trackers[claim.process].release(user_id, text))
        self.model.release(user_id, one.ref, genuine=genuine)

    @somebody_plays
    @rule(claim=claims, device=st.sampled_from([None, "tv"]))
    def look(self, claim: Claim, device: str | None) -> None:
        self.step()
        one, user_id, text, genuine = self.claimed(claim)
        tracker, process, model = self.trackers[claim.process], claim.process, self.model
        seat = claim.seat or one.seat
        stream = self.run(tracker.get(user_id, text))
        assert said(stream) == model.resume(user_id, one.ref, seat, process, genuine=genuine, dry_run=True)
        check = self.run(tracker.check(user_id, device_id=device))
        assert said(check) == model.admit(user_id, Ref(), Wish(device or ""), process, dry_run=True)[:3]
        listed = [(one.seat, one.ref, one.device_id or "") for one in self.run(tracker.list(user_id)).streams]
        seats = sorted(model.users[user_id].seats.items())
        assert listed == [(seat, stream.ref.name, stream.device) for seat, stream in seats]

    # What operators and back ends do.

    @somebody_plays
    @rule(index=indexes, process=processes, user_id=users)
    def terminate(self, index: int, process: str, user_id: str) -> None:
        self.step()
        one = self.admitted[index % len(self.admitted)]
        was_live = self.run(self.trackers[process].terminate(user_id, one.stream_ref))
        assert was_live == self.model.release(user_id, one.ref, "terminated")

    @rule(user_id=users, process=processes, limit=limits, end_excess=st.booleans())
    def set_limit(self, *, user_id: str, process: str, limit: int, end_excess: bool) -> None:
        self.step()
        ended = self.run(self.trackers[process].set_user_limit(user_id, limit, end_excess=end_excess))
        self.check_trim(ended, user_id, limit if end_excess else SEATS, "limit_lowered", limit)

    @rule(user_id=users, process=processes, streams_too=seldom)
    def clear(self, *, user_id: str, process: str, streams_too: bool) -> None:
        self.step()
        user = self.model.users[user_id]
        assert self.run(self.trackers[process].delete_user(user_id)) == (user.limit is not None)
        user.limit = None
        if streams_too:
            ended = self.run(self.trackers[process].terminate_all(user_id))
            self.check_trim(ended, user_id, 0, "terminated")

    @precondition(lambda story: story.trims)
    @rule(index=indexes, process=processes)
    def an_end_is_tried_again(self, index: int, process: str) -> None:
        """As if its first answer had been lost."""
        self.step()
        call, trim = self.trims[index % len(self.trims)]
        reply = self.run(self.trackers[process]._store.run(replace(call)))
        assert told(replies.trimmed(trim[0], reply)) == self.model.trim(*trim)

    # What befalls them.

    @rule(steps=st.sampled_from([1, 1, 2, 2, 3, 6]))
    def time_passes(self, steps: int) -> None:
        self.step()
        self.wait(steps * STEP_MS)

    @somebody_plays
    @rule(index=indexes, process=processes, for_ever=st.booleans())
    def one_falls_silent(self, *, index: int, process: str, for_ever: bool) -> None:
        """Let a stream become stale, and expire, while all others send heartbeats."""
        self.step()
        silent = self.admitted[index % len(self.admitted)]
        self.wait(3 * STEP_MS)
        for one in self.admitted:
            if one is not silent and self.seat_of(one):
                answer = self.run(self.trackers[process].heartbeat(one.user_id, one.stream_id))
                self.check_heartbeat(one, answer, self.model.heartbeat(one.user_id, one.ref, one.seat, process))
        if for_ever:
            self.wait(2 * STEP_MS)

    @rule(process=processes, user_id=users, what=st.sampled_from(["restart", "scripts lost", "record full"]))
    def a_small_misfortune(self, process: str, user_id: str, what: str) -> None:
        self.step()
        if what == "restart":
            self.run(self.trackers.pop(process).__aexit__(None, None, None))
            self.restarts(process)
        elif what == "scripts lost":
            self.run(self.operator.script_flush())
        else:
            self.fill_the_record_of_ends(user_id)

    @precondition(lambda story: not story.calm)
    @rule(process=processes, index=indexes, what=st.sampled_from(["a stream lost", "all lost", "outage"]))
    def a_great_misfortune(self, process: str, index: int, what: str) -> None:
        self.step()
        if what == "all lost":
            self.run(self.operator.flushall())
            self.model.lose_everything()
        elif what == "outage":
            long_ago = self.runner.get_loop().time() - self.model.rules.ttl_ms / 1000
            self.trackers[process]._store._outages.since[0] = long_ago
            self.run(self.trackers[process].health())
            self.model.meet(process, outage=True)
        elif self.admitted:
            one = self.admitted[index % len(self.admitted)]
            self.run(self.operator.delete(Keys().stream(one.user_id, self.seat_of(one))))
            self.model.lose(one.user_id, one.ref)

    @precondition(lambda story: not story.calm)
    @rule(process=processes, user_id=users, steps=st.integers(0, 5))
    def writes_are_refused_for_a_while(self, process: str, user_id: str, steps: int) -> None:
        """Lists are answered meanwhile, which does not end the outage."""
        self.step()
        tracker, rules = self.trackers[process], self.model.rules
        outages = tracker._store._outages
        outages.since[0] = self.runner.get_loop().time()
        for _ in range(steps):
            self.run(tracker.list(user_id))
            self.wait(STEP_MS)
            outages.since[0] -= STEP_MS / 1000
        self.run(tracker.health())
        self.model.meet(process, outage=steps * STEP_MS > rules.ttl_ms - rules.heartbeat_ms)

    @invariant()
    def the_store_holds_what_the_model_says(self) -> None:
        keys = [key for user_id in USERS for key in self.keys_of(user_id)]
        reply = self.run(self.operator.eval(stored.READ, len(keys), *keys))
        assert all(0 < pttl <= self.model.rules.ttl_ms for words, pttl in reply[1:] if "ref" in words)
        found = stored.found(reply, PRECISION_MS)
        for fields, _ in found:
            if "id" in fields:
                fields["id"] = self.epochs.setdefault(fields["id"], f"E{len(self.epochs) + 1}")
        assert found == stored.foretold(self.model, USERS, Signer([SECRET]).sign, PRECISION_MS)

    # How it is done.

    def ask(self, user_id: str, process: str, wish: dict[str, Any], *, in_doubt: bool = False) -> None:
        self.step()
        tracker = self.trackers[process]
        self.minted.clear()
        self.in_doubt = in_doubt
        answer = self.run(tracker.admit(user_id, **wish))
        self.in_doubt = False
        *others, ref = [Ref(ref, self.model.now, StreamId(1, ref).limit) for ref in self.minted]
        wished = Wish(
            wish.get("device_id", ""),
            wish.get("take_over", "").partition(".")[2],
            "on_limit" in wish,
            wish.get("limit"),
            _request_hash(wish.get("idempotency_key")),
        )
        one = Try(user_id, ref, wished, self.calls[-1].args)
        self.tries.append(one)
        self.check_admission(one, process, said(answer))
        if in_doubt:
            # What gave no stream is barred, since it may arrive late.
            self.run(paid(tracker))
            for barred in others if one.seat else (*others, ref):
                self.model.release(user_id, barred, keep_live="idempotency_key" in wish)

    def check_admission(self, one: Try, process: str, answer: Answer) -> None:
        foretold = self.model.admit(one.user_id, one.ref, one.wish, process)
        assert answer == foretold
        self.count(foretold)
        if foretold[0] == "admitted":
            _, seat, name, *_ = foretold
            (given,) = [other for other in self.tries if other.ref.name == name]
            if not given.seat:
                self.admitted.append(given)
            given.seat = seat

    def check_trim(
        self, ended: Sequence[EndedStream], user_id: str, keep: int, reason: str, limit: int | None = None
    ) -> None:
        call = self.calls[-1]
        trim = user_id, keep, reason, limit, str(call.args[-1])
        self.trims.append((call, trim))
        assert told(ended) == self.model.trim(*trim)

    def check_heartbeat(self, one: Try, answer: object, foretold: Answer) -> None:
        assert said(answer) == foretold
        self.count(foretold)
        if foretold[0] == "live":
            one.seat = foretold[1]

    def claimed(self, claim: Claim) -> tuple[Try, str, str, bool]:
        """What is claimed of which stream: user, stream id, and whether they are genuine."""
        one = self.admitted[claim.index % len(self.admitted)]
        user_id = USERS[1 - USERS.index(one.user_id)] if claim.stranger else one.user_id
        sig = "x" * 16 if claim.forged else one.sig
        text = f"{claim.seat or one.seat}.{one.ref.name}.{sig}"
        return one, user_id, text, not (claim.stranger or claim.forged)

    def restarts(self, process: str) -> None:
        # A slow machine proves nothing.
        tracker = StreamTracker(self.connect(), [SECRET], self.model.rules, budget_seconds=PATIENCE_SECONDS)
        self.trackers[process] = self.run(tracker.__aenter__())
        self.model.known.pop(process, None)
        self.model.meet(process)
        run = tracker._store.run

        async def run_watched(call: Call, deadline: float | None = None) -> Any:
            if call.script in (ADMIT, TRIM):
                self.calls.append(call)
            if call.script is ADMIT:
                call.in_doubt = self.in_doubt  # as if a first try had got no answer
            return await run(call, deadline)

        self.patches.setattr(tracker._store, "run", run_watched)

    def fill_the_record_of_ends(self, user_id: str) -> None:
        user, now, key = self.model.users[user_id], time.time_ns() // 1_000_000, Keys().ended(user_id)
        names = [f"other-{self.model.now}-{number}" for number in range(MAX_ENDED - len(user.ended))]
        if names:
            self.run(self.operator.hset(key, mapping={name: f"released {now + n}" for n, name in enumerate(names)}))
            self.run(self.operator.pexpire(key, ENDED_MS))
            user.ended |= {name: End("released", self.model.now + n) for n, name in enumerate(names)}
            user.ended_until = self.model.now + ENDED_MS
            self.wait(MAX_ENDED)

    def step(self) -> None:
        """No two steps are in the same millisecond, neither for the store nor for the model."""
        self.figures["steps"] += 1
        time.sleep(0.001)
        self.model.pass_time(1)

    def wait(self, ms: int) -> None:
        keys = list(dict.fromkeys(key for user_id in USERS for key in self.keys_of(user_id)))
        self.run(self.operator.eval(AGE, len(keys), *keys, ms))
        self.ahead_ms += ms
        self.model.pass_time(ms)

    def seat_of(self, one: Try) -> int:
        """Where it is live; 0 for nowhere."""
        seats = self.model.users[one.user_id].seats
        return next((seat for seat, stream in seats.items() if stream.ref == one.ref), 0)

    def keys_of(self, user_id: str) -> list[str]:
        return Keys(seats=SEATS).all_of(user_id)

    def mint(self, limit: int) -> str:
        self.minted.append(stream_id.mint_ref(limit))
        return self.minted[-1]

    def count(self, answer: Answer) -> None:
        self.figures[answer[0]] += 1
        if answer[0] == "admitted":
            self.figures.update(reason for _, reason in answer[5])

    def run(self, work: Awaitable[_Result]) -> _Result:
        async def result() -> _Result:
            return await work

        return self.runner.run(result())


async def paid(tracker: StreamTracker) -> None:
    """Wait until the tracker has done what it owes."""
    if tracker._store._repair is not None:
        await asyncio.wait([tracker._store._repair])


def said(answer: object) -> Answer:  # noqa: PLR0911 - one for each kind of answer
    """An answer of the tracker in the words of the model."""
    match answer:
        case Admission(stream, _, live, limit, ended, over_limit):
            return "admitted", stream.seat, stream.ref, live, limit, told(ended), over_limit
        case LimitReached(live, limit, streams):
            return "refused", live, limit, [stream.ref for stream in streams]
        case Recovering(live, limit) | Check(False, live, limit, "recovering"):
            return "recovering", live, limit
        case UnknownUser() | Check(False, reason="unknown_user"):
            return ("unknown_user",)
        case Check(admissible, live, limit):
            return "admissible" if admissible else "refused", live, limit
        case Lease(text):
            return "live", int(text.split(".")[0])
        case Stream(seat=seat, provisional=provisional):
            return "provisional" if provisional else "live", seat
        case StreamEnded(reason, by):
            return "ended", reason, by and by.stream_ref
        case UnknownStream():
            return ("unknown",)
    raise AssertionError(answer)


def told(ended: Sequence[EndedStream]) -> list[tuple[str, str]]:
    return [(one.stream.ref, one.reason) for one in ended]


def fakes() -> Callable[[], Redis]:
    server = FakeServer()
    return lambda: FakeAsyncRedis(server=server, decode_responses=True)


@pytest.mark.parametrize("store", ["fakeredis", "valkey", "redis"])
def test_no_story_breaks_a_promise(
    store: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR")  # each loss would be warned of

    class StoryOnStore(Story):
        figures: ClassVar[Counter[str]] = Counter()

    if store == "fakeredis":
        StoryOnStore.new_store = staticmethod(fakes)
    else:
        server: RedisServer = request.getfixturevalue(f"{store}_server")
        StoryOnStore.new_store = staticmethod(lambda: partial(single, server.url, PATIENCE_SECONDS))
    started = time.monotonic()
    while True:
        run_state_machine_as_test(StoryOnStore, settings=SETTINGS)
        seconds = time.monotonic() - started
        if seconds >= SECONDS:
            break
    report("state machine", store=store, seconds=round(seconds, 1), **StoryOnStore.figures)
