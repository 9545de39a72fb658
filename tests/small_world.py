"""Small worlds: a few players and all that can happen to them, on the model and as calls of the scripts.

All times are multiples of a tick, which passes before each operation; so the store's clock, which runs on, may be off
by half of it. What depends on time is decided in steps of 100 s, but for staleness (less than 250 s left); for up
to ten ticks nothing is decided otherwise than at its step.
"""

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha1
from typing import Any, Final, NamedTuple

from streamlimit import Rules
from streamlimit.keys import Keys
from streamlimit.scripts import ADMIT, DELETE, EPOCH, HEARTBEAT, LIST, RELEASE, RESUME, TRIM, Script
from tests import stored
from tests.model import ENDED_MS, MAX_ENDED, Answer, End, Model, Ref, Stream, Wish
from tests.promises import PromisedModel

TICK_MS: Final = 5_000
STEP_MS: Final = 100_000
TTL_MS: Final = 500_000
HEARTBEAT_MS: Final = 125_000


def _script(name: str, source: str) -> Script:
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


WRITE: Final = _script(
    "write",
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function at(ms) return string.format('%.0f', now + ms) end
redis.call('DEL', unpack(KEYS))
for i, hash in ipairs(cjson.decode(ARGV[1])) do
  local fields, pttl = hash[1], hash[2]
  for j = 1, #fields do fields[j] = string.gsub(fields[j], '@(-?%d+)', at) end
  if #fields > 0 then redis.call('HSET', KEYS[i], unpack(fields)) end
  if pttl > 0 then redis.call('PEXPIRE', KEYS[i], pttl) end
end
return 'OK'
""",
)
"""Makes the keys hold what ARGV says. `@MS` is a time, from now."""

READ: Final = _script("read", stored.READ)
SCRIPTS: Final = (ADMIT, DELETE, EPOCH, HEARTBEAT, LIST, RELEASE, RESUME, TRIM, WRITE, READ)


ANY: Final = Wish()


@dataclass(frozen=True)
class Player:
    """Somebody with one wish, who always asks with the same REF: asking again is a late retry."""

    wish: Wish = ANY
    takes_over: str = ""
    user: str = "alice"
    process: str = "p"


class Trim(NamedTuple):
    """An operation that ends streams and sets a limit."""

    user: str
    keep: int
    reason: str
    limit: int | None
    operation: str


class Call(NamedTuple):
    """What is sent to the store, and what the model says will be read from the reply."""

    sha: str
    keys: Sequence[str]
    args: Sequence[str | int]
    read: Callable[[Any], Any]
    foretold: Any

    def args_at(self, now_ms: int) -> list[str | int]:
        """What is sent at this time of the store."""
        return [now_ms + int(arg[1:]) if isinstance(arg, str) and arg.startswith("@") else arg for arg in self.args]


class Moment:
    """A state of a world, and the calls that an operation makes in it."""

    def __init__(self, rules: Rules, players: dict[str, Player], saved: bytes = b"") -> None:
        self.model: PromisedModel
        self.asked: dict[str, tuple[Ref, Wish]]
        """The admissions that were asked for, by the name of the REF."""
        self.held: dict[str, tuple[Ref, int]]
        """The stream id that each player was given: REF and seat."""
        self.trims: int
        """How many there were; none has the name of another."""
        self.unanswered: Trim | None
        """The one that may be repeated."""
        beginning: tuple[Any, ...] = PromisedModel(rules), {}, {}, 0, None
        self.model, self.asked, self.held, self.trims, self.unanswered = pickle.loads(saved) if saved else beginning
        self.calls: list[Call] = []
        self._players = players
        self._keys = Keys(seats=rules.max_limit)
        self._users = sorted({player.user for player in players.values()})

    def saved(self) -> bytes:
        return pickle.dumps((self.model, self.asked, self.held, self.trims, self.unanswered))

    # What can happen.

    def asks(self, name: str) -> None:
        """Send an admission as the tracker does: with a guess of the limit, and again when the script tells it."""
        player, model = self._players[name], self.model
        wish = player.wish
        if player.takes_over in self.held:
            wish = replace(wish, take_over=self.held[player.takes_over][0].name)
        answer: Answer = ("limit", model.rules.limit if wish.limit is None else wish.limit)
        while answer[0] == "limit":
            ref = Ref(f"{name}-{answer[1]}", model.now, answer[1])
            ref, wish = self.asked.setdefault(ref.name, (ref, wish))
            foretell = partial(model.admit, player.user, ref, wish, player.process)
            answer = self._decide(ADMIT, player, _admission(model.rules, ref, wish), _read_admission, foretell)
        if answer[0] == "admitted":
            _, seat, admitted, *_ = answer
            self.held[name] = self.asked[admitted][0], seat

    def beats(self, name: str) -> None:
        if name not in self.held:
            return
        (ref, seat), player = self.held[name], self._players[name]
        stream = self.model.users[player.user].seats.get(seat)
        hit = stream is not None and stream.ref == ref
        self._call(HEARTBEAT, [self._keys.stream(player.user, seat)], [TTL_MS, ref.name, _sig(ref)], _read_ends, hit)
        foretell = partial(self.model.heartbeat, player.user, ref, seat, player.process)
        answer = foretell() if hit else self._decide(RESUME, player, self._resume(ref, seat), _read_resume, foretell)
        if answer[0] == "live":
            self.held[name] = ref, answer[1]

    def releases(self, name: str) -> None:
        if name in self.held:
            ref, _ = self.held[name]
            self._release(name, ref, "released", _sig(ref))

    def is_terminated(self, name: str) -> None:
        if name in self.held:
            self._release(name, self.held[name][0], "terminated", "")

    def gives_up(self, name: str) -> None:
        """Bar the admissions that it asked for, unless they are live: another try may have found them."""
        for ref, _ in list(self.asked.values()):
            if ref.name.startswith(f"{name}-"):
                self._release(name, ref, "released", _sig(ref), keep_live=True)

    def is_lost(self, name: str) -> None:
        if name in self.held:
            self.model.lose(self._user(name), self.held[name][0])
            self.write()

    def falls_silent(self, name: str) -> None:
        """Let a TTL pass in which every other player sends its heartbeats."""
        self.waits(3 * STEP_MS)
        for other in sorted(self.held.keys() - {name}):
            if self.held[other][0] in [stream.ref for stream in self.model.users[self._user(other)].seats.values()]:
                self.beats(other)
        self.waits(2 * STEP_MS)

    def many_others_end(self, user: str) -> None:
        """Let 400 s pass in which others of the user's streams end, so that the record of ends is full."""
        self.model.pass_time(4 * STEP_MS)
        ends, now = self.model.users[user], self.model.now
        for number in range(len(ends.ended), MAX_ENDED):
            ends.ended[f"other-{now}-{number}"] = End("released", now - (MAX_ENDED - number) * TICK_MS)
        ends.ended_until = now + ENDED_MS
        self.write()

    def waits(self, ms: int) -> None:
        self.model.pass_time(ms)
        self.write()

    def gets_limit(self, user: str, limit: int, *, end_excess: bool = False, answered: bool = True) -> None:
        keep = limit if end_excess else self.model.rules.max_limit
        self._trim(user, keep, "limit_lowered", limit, answered=answered)

    def loses_record(self, user: str) -> None:
        self.model.users[user].limit = None
        self.write()

    def is_cleared(self, user: str, *, answered: bool = True) -> None:
        self._trim(user, 0, "terminated", None, answered=answered)

    def is_tried_again(self) -> None:
        """Repeat the operation whose answer was lost."""
        if self.unanswered:
            self._send_trim(self.unanswered)

    def store_is_lost(self) -> None:
        self.model.lose_everything()
        self.write()

    def restarts(self, process: str) -> None:
        self.model.known.pop(process, None)

    def meets(self, process: str, *, outage: bool = False) -> None:
        known = self.model.known.get(process)
        new = not self.model.epoch
        self.model.meet(process, outage=outage)
        args: list[str | int] = [
            _epoch(known),
            _epoch(self.model.epoch) if new else "unused",
            TTL_MS,
            "1" if outage else "",
        ]
        recovering = max(0, self.model.recovering_until - self.model.now)
        self._call(EPOCH, [self._keys.epochs[0]], args, _read_epoch, (_epoch(self.model.epoch), recovering))

    def all_look(self) -> None:
        """Do all that changes nothing: listings, checks, and what is forged."""
        model = self.model
        for user in self._users:
            seats = model.users[user].seats
            rows = [_row(model, seat, stream) for seat, stream in sorted(seats.items())]
            default = model.rules.limit_of_unknown
            limit = model.users[user].limit if model.users[user].limit is not None else default or None
            self._call(LIST, self._keys.all_of(user), [default], _read_list, (limit, rows))
            # What comes late does nothing.
            late: list[str | int] = [0, "terminated", 0, 0, "late", "@-1"]
            self._call(TRIM, self._keys.all_of(user), late, tuple, ("late",))
            self._call(DELETE, [self._keys.user(user)], ["@-1"], tuple, ("late",))
        for player in {(player.user, player.wish.device): player for player in self._players.values()}.values():
            wish = Wish(device=player.wish.device)
            foretell = partial(model.admit, player.user, Ref(), wish, player.process, dry_run=True)
            args = _admission(model.rules, Ref(), wish, dry_run="1")
            self._decide(ADMIT, player, args, _read_admission, foretell)
        for name, (ref, seat) in self.held.items():
            player = self._players[name]
            look = partial(model.resume, player.user, ref, seat, player.process, dry_run=True)
            self._decide(RESUME, player, self._resume(ref, seat, dry_run="1"), _read_resume, look)
            self._call(HEARTBEAT, [self._keys.stream(player.user, seat)], [TTL_MS, ref.name, "forged"], list, [0])
            forge = partial(model.heartbeat, player.user, ref, seat, player.process, genuine=False)
            args = self._resume(ref, seat)
            self._decide(RESUME, player, [args[0], "forged", "", *args[3:]], _read_resume, forge)
            forged_release: list[str | int] = [ref.name, "forged", "", "released", ""]
            self._call(RELEASE, self._keys.all_of(player.user), forged_release, int, 0)
            assert not model.release(player.user, ref, genuine=False)

    # What is said to the store.

    def write(self) -> None:
        """Make the store hold what the model says."""
        hashes = [([word for field in fields.items() for word in field], pttl) for fields, pttl in self._stored()]
        self._call(WRITE, self._all_keys(), [json.dumps(hashes)], str, "OK")

    def read(self) -> None:
        """See whether the store holds what the model says, no more and no less."""
        self._call(READ, self._all_keys(), [], _read_store, self._stored())

    def _call(self, script: Script, keys: Sequence[str], args: Sequence[str | int], read: Any, foretold: Any) -> None:
        self.calls.append(Call(script.sha, keys, args, read, foretold))

    def _decide(
        self, script: Script, player: Player, args: Sequence[str | int], read: Any, foretell: Callable[[], Answer]
    ) -> Answer:
        """Call a script that decides only in the epoch that the process knows."""
        keys, model = self._keys.all_of(player.user), self.model
        known = model.known.get(player.process)
        if known is None:
            self.meets(player.process)
        elif known != model.epoch:
            self._call(script, keys, [_epoch(known), *args], tuple, ("epoch",))
            self.meets(player.process)
        answer = foretell()
        self._call(script, keys, [_epoch(model.epoch), *args], read, answer)
        return answer

    def _resume(self, ref: Ref, seat: int, dry_run: str = "") -> list[str | int]:
        # The one time that a script is given: by the clock of the caller.
        minted = f"@{ref.minted - self.model.now}"
        enforce = "1" if self.model.rules.enforce else ""
        return [ref.name, _sig(ref), "1", seat, minted, ref.limit, TTL_MS, enforce, dry_run]

    def _release(self, name: str, ref: Ref, reason: str, sig: str, *, keep_live: bool = False) -> None:
        args = [ref.name, sig, "1" if sig else "", reason, "1" if keep_live else ""]
        was_live = self.model.release(self._user(name), ref, reason, keep_live=keep_live)
        self._call(RELEASE, self._keys.all_of(self._user(name)), args, bool, was_live)

    def _trim(self, user: str, keep: int, reason: str, limit: int | None, *, answered: bool) -> None:
        self.trims += 1
        trim = Trim(user, keep, reason, limit, f"operation-{self.trims}")
        if not answered:
            self.unanswered = trim
        self._send_trim(trim)

    def _send_trim(self, trim: Trim) -> None:
        user, keep, reason, limit, operation = trim
        args: list[str | int] = [
            keep,
            reason,
            self.model.rules.stale_below_ms,
            "" if limit is None else limit,
            operation,
        ]
        self._call(TRIM, self._keys.all_of(user), args, _read_trim, self.model.trim(*trim))

    def _user(self, name: str) -> str:
        return self._players[name].user

    def _all_keys(self) -> list[str]:
        return [key for user in self._users for key in self._keys.all_of(user)]

    def _stored(self) -> list[stored.Hash]:
        return stored.foretold(self.model, self._users, lambda _, ref: f"sig-{ref}", TICK_MS)

    def sameness(self) -> object:
        """What is equal for two moments in which the same can happen from now on.

        Of times that is their order, since the oldest stream is evicted and the oldest end dropped first, and in which
        step of 100 s they lie. Of the epoch that a process knows, it is whether it is the store's.
        """
        model = self.model
        now = model.now
        started = [stream.started for user in model.users.values() for stream in user.seats.values()]
        ended = [end for user in model.users.values() for end in user.ended.values()]
        started += [end.stream.started for end in ended if end.stream and self._may_be_told(end)]
        order = sorted({*started, *(ref.minted for ref, _ in self.asked.values())})
        users = []
        for user in (model.users[user_id] for user_id in self._users):
            seats = [
                (
                    seat,
                    stream.ref.name,
                    stream.device,
                    stream.key,
                    order.index(stream.started),
                    _steps(stream.expires - now),
                )
                for seat, stream in sorted(user.seats.items())
            ]
            ends = [self._sameness_of_end(ref, end, order) for ref, end in user.ended.items()]
            record = tuple(ends) if len(ends) > MAX_ENDED // 2 else frozenset(ends)
            users.append((user.limit, tuple(seats), record, _steps(user.ended_until - now) if record else 0))
        asked = frozenset(
            (ref.name, wish.take_over, order.index(ref.minted), min((now - ref.minted) // STEP_MS, 5))
            for ref, wish in self.asked.values()
        )
        held = frozenset((name, ref.name, seat) for name, (ref, seat) in self.held.items())
        known = frozenset((process, epoch == model.epoch) for process, epoch in model.known.items())
        recovery = max(0, _steps(model.recovering_until - now))
        since = min((now - model.since) // STEP_MS, 5) if model.epoch else None
        pending = self.unanswered and self.unanswered[:-1]
        return tuple(users), asked, held, known, since, recovery, model.lost, pending

    def _sameness_of_end(self, ref: str, end: End, order: list[int]) -> tuple[object, ...]:
        if not end.stream or not self._may_be_told(end):
            return ref, end.reason
        by = end.by if "." in end.by else "the unanswered"
        stale = end.stream.expires - end.at < self.model.rules.stale_below_ms
        return ref, end.reason, by, end.seat, order.index(end.stream.started), end.stream.device, stale

    def _may_be_told(self, end: End) -> bool:
        """Whether a repetition may say again what it ended."""
        return "." in end.by or (self.unanswered is not None and end.by == self.unanswered.operation)


def rules(**options: Any) -> Rules:
    return Rules(ttl_ms=TTL_MS, heartbeat_ms=HEARTBEAT_MS, **options)


def _steps(ms: int) -> int:
    return -(-ms // STEP_MS)


def _sig(ref: Ref) -> str:
    return f"sig-{ref.name}"


def _epoch(number: int | None) -> str:
    return f"E{number}" if number else ""


def _admission(rules: Rules, ref: Ref, wish: Wish, dry_run: str = "") -> list[str | int]:
    return [
        *(ref.name, _sig(ref), ref.limit, rules.ttl_ms, rules.stale_below_ms),
        *(
            "" if wish.limit is None else wish.limit,
            rules.limit_of_unknown,
            "evict" if wish.evict else "",
            wish.take_over,
        ),
        *(wish.device, "", "", wish.key, "1" if rules.enforce else "", dry_run),
    ]


# What is read from replies, in the words of the model.


def _read_admission(reply: list[Any]) -> Answer:
    match reply:
        case ["admitted", _, live, limit, row, freed, sig, over]:
            assert sig == f"sig-{row[2]}"
            return "admitted", row[0], row[2], live, limit, _read_trim([0, freed]), bool(over)
        case ["refused", _, live, limit, rows]:
            return "refused", live, limit, [row[2] for row in rows]
        case ["admissible" | "recovering" as word, _, live, limit, *_]:
            return word, live, limit
        case ["ended", reason, by, None]:
            return "ended", reason, by
    return tuple(reply)


def _read_resume(reply: list[Any]) -> Answer:
    match reply:
        case ["ended", reason, by, None]:
            return "ended", reason, by
        case ["live" | "provisional" as word, _, row]:
            return word, row[0]
    return tuple(reply)


def _read_trim(reply: list[Any]) -> list[tuple[str, str]]:
    return [(row[2], reason) for row, reason in reply[1]]


def _read_list(reply: list[Any]) -> Answer:
    now, limit, rows = reply
    return limit, [(seat, ref, device, _ticks(pttl), _ticks(at - now)) for seat, pttl, ref, at, device, *_ in rows]


def _row(model: Model, seat: int, stream: Stream) -> Answer:
    return seat, stream.ref.name, stream.device or None, stream.expires - model.now, stream.started - model.now


def _read_ends(reply: list[int]) -> bool:
    (end,) = reply
    return bool(end)


def _read_epoch(reply: list[Any]) -> Answer:
    name, now, recovering_until = reply
    return name, max(0, _ticks(recovering_until - now))


def _read_store(reply: list[Any]) -> list[stored.Hash]:
    assert all(0 < pttl <= TTL_MS for words, pttl in reply[1:] if "ref" in words)
    return stored.found(reply, TICK_MS)


def _ticks(ms: int) -> int:
    """The time that was meant, by a clock that is late by less than half a tick."""
    return round(ms / TICK_MS) * TICK_MS
