"""What is promised of streamlimit, checked at every step of the model, whatever its rules are."""

import pickle
from typing import Self

from tests.model import Answer, Model, Ref, Stream, Wish


class PromisedModel(Model):
    """The model, watched: a step that breaks a promise is an AssertionError."""

    lost = False
    """The store lost data or was away for long: it is not the one surviving primary that promises 1 and 5 speak of."""

    def admit(self, user_id: str, ref: Ref, wish: Wish, process: str, *, dry_run: bool = False) -> Answer:
        before = self._copy()
        answer = super().admit(user_id, ref, wish, process, dry_run=dry_run)
        ended = self._check(before, user_id)
        assert not (dry_run and ended)
        # 2. An admission ends what it was asked to end.
        for stream in ended:
            asked_for = {
                "replaced": wish.device and stream.device == wish.device,
                "taken_over": stream.ref.name == wish.take_over,
                "evicted": wish.evict,
            }
            assert asked_for[self._reason(user_id, stream)]
        # 3. With a free seat and no recovery it is never refused, and a refusal changes nothing.
        if answer[0] in ("refused", "recovering"):
            _, live, limit, *_ = answer
            assert live >= limit or (answer[0] == "recovering" and self.now < self.recovering_until)
            assert self.users == before.users
        # 4. The same again gives the same stream and says the same. What ended does not come back.
        if answer[0] == "admitted":
            name = answer[2]
            again = self._copy()
            repeated = Model.admit(again, user_id, ref, wish, process)
            assert repeated == answer, (repeated, answer)
            assert again == self
            assert name not in before.users[user_id].ended
        return answer

    def heartbeat(self, user_id: str, ref: Ref, last_seat: int, process: str, *, genuine: bool = True) -> Answer:
        before = self._copy()
        answer = super().heartbeat(user_id, ref, last_seat, process, genuine=genuine)
        assert not self._check(before, user_id)
        # 2. In time it is never in vain; too late or not, its player learns what became of the stream.
        was_live = any(stream.ref == ref for stream in before.users[user_id].seats.values())
        assert answer[0] == ("unknown" if not genuine else "live" if was_live else answer[0])
        # 4. What ended does not come back.
        if genuine and ref.name in before.users[user_id].ended:
            assert answer == before.users[user_id].ended[ref.name].told
        return answer

    def release(
        self, user_id: str, ref: Ref, reason: str = "released", *, genuine: bool = True, keep_live: bool = False
    ) -> bool:
        before = self._copy()
        was_live = super().release(user_id, ref, reason, genuine=genuine, keep_live=keep_live)
        ended = self._check(before, user_id)
        assert [(stream.ref.name, reason) for stream in ended] == [(ref.name, reason)] * was_live
        # 4. The same again changes nothing.
        again = self._copy()
        assert not Model.release(again, user_id, ref, reason, genuine=genuine, keep_live=keep_live)
        assert again == self
        return was_live

    def trim(
        self, user_id: str, keep: int, reason: str, limit: int | None = None, operation: str = ""
    ) -> list[tuple[str, str]]:
        before = self._copy()
        told = super().trim(user_id, keep, reason, limit, operation)
        ended = self._check(before, user_id)
        # 4. The same again says the same, and changes nothing.
        if operation and told:
            again = self._copy()
            assert Model.trim(again, user_id, keep, reason, limit, operation) == told
            assert again == self
        if any(end.by == operation for end in before.users[user_id].ended.values()) and operation:
            assert self == before
            return told
        assert {(stream.ref.name, reason) for stream in ended} == set(told)
        assert len(self.users[user_id].seats) == min(keep, len(before.users[user_id].seats))
        return told

    def meet(self, process: str, *, outage: bool = False) -> None:
        self.lost |= outage
        super().meet(process, outage=outage)

    def lose_everything(self) -> None:
        self.lost = True
        super().lose_everything()

    def lose(self, user_id: str, ref: Ref) -> None:
        self.lost = True
        super().lose(user_id, ref)

    def _check(self, before: Self, user_id: str) -> list[Stream]:
        """Check what every operation on a user must keep, and return the streams that it ended."""
        user, old = self.users[user_id], before.users[user_id]
        live = {stream.ref.name for stream in user.seats.values()}
        # 1. When the youngest stream was admitted, no more were live than the limit of then; all others were there.
        if user.seats and self.rules.enforce and not self.lost:
            assert len(live) <= max(user.seats.values(), key=lambda stream: stream.started).ref.limit
        # 2. What ended has a reason, and it is not that it expired.
        ended = [stream for stream in old.seats.values() if stream.ref.name not in live]
        assert all(self._reason(user_id, stream) != "expired" for stream in ended)
        # 4. What ended is not live.
        assert not live & user.ended.keys()
        # 5. Another user's streams are as they were. A device has one seat.
        others = (self.users.keys() | before.users.keys()) - {user_id}
        assert all(self.users[other] == before.users[other] for other in others)
        devices = [stream.device for stream in user.seats.values() if stream.device]
        assert len(devices) == len(set(devices))
        # 6. Every stream has an end, at most one TTL away.
        assert all(0 < stream.expires - self.now <= self.rules.ttl_ms for stream in user.seats.values())
        return ended

    def _reason(self, user_id: str, stream: Stream) -> str:
        return self.users[user_id].ended[stream.ref.name].reason

    def _copy(self) -> Self:
        copy: Self = pickle.loads(pickle.dumps(self))
        return copy
