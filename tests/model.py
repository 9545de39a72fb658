"""The specification of streamlimit as a program: every rule, once, in the plainest words that run.

It knows neither Redis nor HTTP, and its clock stands still until told. Answers are tuples that begin with a word.
`test_exhaustive.py` and `test_state_machine.py` hold the scripts against it; `promises.py` says what must follow.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from streamlimit import Rules

ENDED_MS: Final = 600_000
MAX_ENDED: Final = 64
CLOCK_ERROR_MS: Final = 1_000
Answer = tuple[Any, ...]


@dataclass(frozen=True)
class Ref:
    """What names one admission for ever: a retry has the same. It carries when and under which limit it was made."""

    name: str = ""
    minted: int = 0
    limit: int = 0


@dataclass(frozen=True)
class Wish:
    """What an admission asks for."""

    device: str = ""
    take_over: str = ""
    evict: bool = False
    limit: int | None = None
    key: str = ""


@dataclass
class Stream:
    ref: Ref
    started: int
    expires: int
    device: str = ""
    key: str = ""


class End(NamedTuple):
    """Why and when a stream ended; and what it was, where an admission (SEAT.REF) or an operation (a name) ended it."""

    reason: str
    at: int
    by: str = ""
    seat: int = 0
    stream: Stream | None = None

    @property
    def told(self) -> tuple[str, str, str | None]:
        """What its player is told: only a stream has a dot."""
        return ("ended", self.reason, self.by if "." in self.by else None)


@dataclass
class User:
    limit: int | None = None
    seats: dict[int, Stream] = field(default_factory=dict)
    ended: dict[str, End] = field(default_factory=dict)
    ended_until: int = 0


@dataclass
class Model:
    """One store, its users, and the processes that use it."""

    rules: Rules
    now: int = 0
    users: defaultdict[str, User] = field(default_factory=lambda: defaultdict(User))
    epoch: int = 0  # 0: there is none
    since: int = 0
    recovering_until: int = 0
    epochs: int = 0
    known: dict[str, int] = field(default_factory=dict)  # the epoch that each process knows

    def admit(  # noqa: C901, PLR0911 - the rules, in their order
        self, user_id: str, ref: Ref, wish: Wish, process: str, *, dry_run: bool = False
    ) -> Answer:
        """Start a stream, or refuse it. The first rule that matches wins. A dry run decides, and changes nothing."""
        self._enter(process)
        user, rules = self.users[user_id], self.rules
        # 1. The limit is the caller's, else the record's, else the default; who has none of them is unknown.
        default = rules.limit if rules.unknown_users == "admit" else None
        limit = next((known for known in (wish.limit, user.limit, default) if known is not None), None)
        if limit is None:
            return ("unknown_user",)
        # 2. An admission already made gives its stream, with a whole TTL, and says again what it ended, as far as that
        # is remembered. What ended stays ended.
        live = len(user.seats)
        for seat, stream in sorted(user.seats.items()):
            if stream.ref.name == ref.name or (wish.key and stream.key == wish.key):
                if dry_run:
                    return ("admissible", live, limit)
                stream.expires = self.now + rules.ttl_ms
                over = live > limit and not rules.enforce
                return (
                    "admitted",
                    seat,
                    stream.ref.name,
                    live,
                    limit,
                    self._ended_by(user, stream.ref.name, stream.started),
                    over,
                )
        if ref.name in user.ended:
            return user.ended[ref.name].told
        # 3. The device's own stream is replaced.  4. The stream that is to be taken over ends.
        own = [seat for seat, stream in user.seats.items() if wish.device and stream.device == wish.device]
        named = [seat for seat, stream in user.seats.items() if stream.ref.name == wish.take_over]
        freed = [(seat, "replaced") for seat in own] or [(seat, "taken_over") for seat in named]
        # 5. Below the limit there is a seat; in recovery it waits for the stream that may still report.
        if not freed and live < limit and rules.enforce and self.now < self.recovering_until:
            return ("recovering", live, limit)
        # 6. At the limit as many more are evicted as needed.
        if wish.evict and limit > 0:
            others = [seat for seat in self._eviction_order(user) if seat not in dict(freed)]
            freed += [(seat, "evicted") for seat in others[: max(0, live - len(freed) - limit + 1)]]
        # 7. Refused, where fewer than the limit would not be left. Shadow mode lets it in while there is a seat.
        over = live - len(freed) >= limit
        seat = freed[0][0] if freed else self._lowest_free_seat(user)
        if over and (rules.enforce or seat > rules.max_limit):
            return ("refused", live, limit, [stream.ref.name for _, stream in sorted(user.seats.items())])
        if dry_run:
            return ("admissible", live, limit)
        # A REF that carries another limit is of no use: the caller makes a new one.
        if ref.limit != limit:
            return ("limit", limit)
        ended = [self._end(user, victim, reason, f"{seat}.{ref.name}") for victim, reason in freed]
        user.seats[seat] = Stream(ref, self.now, self.now + rules.ttl_ms, wish.device, wish.key)
        return ("admitted", seat, ref.name, live - len(freed) + 1, limit, ended, over)

    def heartbeat(self, user_id: str, ref: Ref, last_seat: int, process: str, *, genuine: bool = True) -> Answer:
        """Keep a stream live for one more TTL."""
        stream = self.users[user_id].seats.get(last_seat)
        if not (stream and stream.ref == ref and genuine):
            return self.resume(user_id, ref, last_seat, process, genuine=genuine)
        stream.expires = self.now + self.rules.ttl_ms
        return ("live", last_seat)

    def resume(
        self, user_id: str, ref: Ref, last_seat: int, process: str, *, genuine: bool = True, dry_run: bool = False
    ) -> Answer:
        """Say what became of a stream, and bring it back where the store lost it."""
        self._enter(process)
        user, rules = self.users[user_id], self.rules
        # 1. Nobody gets anywhere with a signature that is wrong.
        if not genuine:
            return ("unknown",)
        # 2. It is live, be it in another seat.
        for seat, stream in user.seats.items():
            if stream.ref == ref:
                if not dry_run:
                    stream.expires = self.now + rules.ttl_ms
                return ("live", seat)
        # 3. It ended.
        if ref.name in user.ended:
            return user.ended[ref.name].told
        # 4. The store lost it, if it recovers or the REF is younger than a TTL; not from the future, beyond an error of
        # the clocks; not so old that the end may have been dropped from a full record. It is back while the limit
        # allows: the record's, else that of its REF; in shadow mode any seat will do.
        young = ref.minted - CLOCK_ERROR_MS < self.now < min(ref.minted, self.now) + rules.ttl_ms
        full = len(user.ended) >= MAX_ENDED
        dropped = full and ref.minted <= min(end.at for end in user.ended.values())
        limit = (ref.limit if user.limit is None else user.limit) if rules.enforce else rules.max_limit
        lost = (young or self.now < self.recovering_until) and not dropped
        if lost and len(user.seats) < limit:
            free = 1 <= last_seat <= rules.max_limit and last_seat not in user.seats
            seat = last_seat if free else self._lowest_free_seat(user)
            if dry_run:
                return ("provisional", seat)
            user.seats[seat] = Stream(ref, ref.minted, self.now + rules.ttl_ms)
            return ("live", seat)
        # 5. No seat is left for it, or it expired; that will not change.
        reason = "limit_reached" if lost else "expired"
        if not dry_run:
            self._record(user, ref.name, End(reason, self.now))
        return ("ended", reason, None)

    def release(
        self, user_id: str, ref: Ref, reason: str = "released", *, genuine: bool = True, keep_live: bool = False
    ) -> bool:
        """End a stream; whether it was live. An operator's "terminated" goes by the REF alone."""
        user = self.users[user_id]
        for seat, stream in user.seats.items():
            if stream.ref.name == ref.name:
                if keep_live or not (genuine or reason == "terminated"):
                    return False
                self._end(user, seat, reason)
                return True
        # What its player ended does not come back, though the store may have lost it or not seen it yet.
        if genuine and reason == "released" and ref.name not in user.ended:
            self._record(user, ref.name, End(reason, self.now))
        return False

    def trim(
        self, user_id: str, keep: int, reason: str, limit: int | None = None, operation: str = ""
    ) -> list[tuple[str, str]]:
        """End what is more than `keep`, in the order of eviction; set the record.

        A repetition of an operation that ended something says so again, and does no more.
        """
        user = self.users[user_id]
        if operation and (done := self._ended_by(user, operation, 0)):
            return done
        excess = self._eviction_order(user)[: max(0, len(user.seats) - keep)]
        user.limit = user.limit if limit is None else limit
        return [self._end(user, seat, reason, operation) for seat in excess]

    def meet(self, process: str, *, outage: bool = False) -> None:
        """Let a process meet the store: at its start, after an outage, and when it finds an epoch it does not know."""
        known = self.known.get(process)
        used = bool(self.epoch or known)
        if not self.epoch:
            self.epochs += 1
            self.epoch, self.since, self.recovering_until = self.epochs, self.now, 0
        # Who knew another epoch saw a loss: recovery lasts one TTL from the beginning of this one.
        if known not in (None, self.epoch):
            self.recovering_until = max(self.recovering_until, self.since + self.rules.ttl_ms)
        # In an outage that was too long for heartbeats, streams expired that nobody stopped.
        if outage and used:
            self.recovering_until = max(self.recovering_until, self.now + self.rules.ttl_ms)
        self.known[process] = self.epoch

    def lose_everything(self) -> None:
        """Lose all that the store held."""
        self.users.clear()
        self.epoch = 0

    def lose(self, user_id: str, ref: Ref) -> None:
        """Lose a stream, as a failover may."""
        user = self.users[user_id]
        user.seats = {seat: stream for seat, stream in user.seats.items() if stream.ref != ref}

    def pass_time(self, ms: int) -> None:
        """Let time pass, and expire what nobody kept."""
        self.now += ms
        for user in self.users.values():
            user.seats = {seat: stream for seat, stream in user.seats.items() if stream.expires > self.now}
            if user.ended_until <= self.now:
                user.ended.clear()

    def _enter(self, process: str) -> None:
        if not self.epoch or self.known.get(process) != self.epoch:
            self.meet(process)

    def _eviction_order(self, user: User) -> list[int]:
        """Stale streams first, then the oldest, then the lower seat."""

        def fresh_started_seat(seat: int) -> tuple[bool, int, int]:
            stream = user.seats[seat]
            return stream.expires - self.now >= self.rules.stale_below_ms, stream.started, seat

        return sorted(user.seats, key=fresh_started_seat)

    def _lowest_free_seat(self, user: User) -> int:
        return next(seat for seat in range(1, self.rules.max_limit + 2) if seat not in user.seats)

    def _end(self, user: User, seat: int, reason: str, by: str | None = None) -> tuple[str, str]:
        stream = user.seats.pop(seat)
        end = End(reason, self.now) if by is None else End(reason, self.now, by, seat, stream)
        self._record(user, stream.ref.name, end)
        return stream.ref.name, reason

    def _ended_by(self, user: User, by: str, since: int) -> list[tuple[str, str]]:
        """What an admission, by its REF, or an operation ended; the record is in the order in which it did."""
        ends = user.ended.items()
        return [(ref, end.reason) for ref, end in ends if by and end.by.split(".")[-1] == by and end.at >= since]

    def _record(self, user: User, ref: str, end: End) -> None:
        """Remember an end for ten minutes; of more than 64 the oldest is dropped."""
        user.ended[ref] = end
        if len(user.ended) > MAX_ENDED:
            del user.ended[min(user.ended, key=lambda name: user.ended[name].at)]
        user.ended_until = self.now + ENDED_MS
