"""The domain: which streams of which users are live. It knows no HTTP and serves any asyncio program."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from types import TracebackType
from typing import Any, Literal, Self

from redis.asyncio import Redis, RedisCluster

from streamlimit import hash_slots, replies
from streamlimit.admission_rate import AdmissionRate
from streamlimit.audit import Audit
from streamlimit.calls import Calls
from streamlimit.connection import connect
from streamlimit.errors import InvalidInput, StoreUnavailable
from streamlimit.fields import check_device_id, check_idempotency_key, check_user_id, checked, visible_text
from streamlimit.keys import SINGLE_SERVER, Keys
from streamlimit.node import Claim
from streamlimit.outage import Outage
from streamlimit.recent_ends import RecentEnds
from streamlimit.results import (
    Admission,
    Check,
    EndedStream,
    Health,
    Lease,
    Reason,
    Refusal,
    Stream,
    StreamEnded,
    TooManyAdmissions,
    Undecided,
    UnknownStream,
    UserStreams,
)
from streamlimit.rules import DEFAULT_RULES, Rules
from streamlimit.store import BEATS, BUDGET_SECONDS, LOOKS, Store
from streamlimit.stream_id import Signer, StreamId, mint_ref, parse_stream_id, parse_stream_ref

BeatResult = Lease | StreamEnded | UnknownStream
"""The answer to a heartbeat."""


class StreamTracker:
    """Admits, keeps, lists and ends streams. Use it as an async context manager, one for a process.

    All methods raise InvalidInput where an argument cannot be used, and StoreUnavailable where the store gave no usable
    answer within the budget; the operation may then have happened, and may be repeated. DamagedKey, a StoreUnavailable,
    says that somebody overwrote a key of the user by hand; repeating helps only once that is repaired.

    Args:
        client: A redis-py client with `decode_responses=True` and timeouts, as `connect` makes it; closed with the
            tracker.
        secrets: Sign the stream ids. The first signs, all are accepted. The same for every process of a deployment.
        rules: How many streams, and for how long.
        key_prefix: Put before every key.
        budget_seconds: Every method has answered or failed after this time.
        name_user: What the log calls a user; by default a hash, as `Audit` makes it.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        secrets: Sequence[str],
        rules: Rules = DEFAULT_RULES,
        key_prefix: str = "",
        *,
        budget_seconds: float = BUDGET_SECONDS,
        name_user: Callable[[str], str] | None = None,
    ) -> None:
        self.rules = rules
        self.shadow_admissions = 0
        """How many this process let in only because the limit is not enforced."""
        tags = hash_slots.tags() if isinstance(client, RedisCluster) else SINGLE_SERVER
        keys = Keys(key_prefix, rules.max_limit, tags)
        self._signer = Signer(secrets, key_prefix)
        self._calls = Calls(keys, self._signer, rules)
        self._outage = Outage(rules, self._signer)
        self._recent_ends = RecentEnds()
        self._store = Store(
            client,
            keys,
            ttl_ms=rules.ttl_ms,
            outage_ms=rules.ttl_ms - rules.heartbeat_ms,
            budget_seconds=budget_seconds,
            name_user=name_user or Audit("hashed", secrets[0]).name,
            secrets=secrets,
        )
        self._rate = AdmissionRate(self._store, self._calls, rules.admissions_per_minute)

    @classmethod
    def from_url(
        cls,
        url: str,
        secrets: Sequence[str],
        rules: Rules = DEFAULT_RULES,
        key_prefix: str = "",
        *,
        budget_seconds: float = BUDGET_SECONDS,
        name_user: Callable[[str], str] | None = None,
    ) -> Self:
        """Make a tracker on the store at a URL, as `connect` takes it."""
        client = connect(url, budget_seconds)
        return cls(client, secrets, rules, key_prefix, budget_seconds=budget_seconds, name_user=name_user)

    async def __aenter__(self) -> Self:
        await self._store.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.close()

    async def health(self) -> Health:
        """Prove that the store runs our scripts and takes writes."""
        return await self._store.health()

    async def admit(
        self,
        user_id: str,
        *,
        device_id: str | None = None,
        device_name: str | None = None,
        content_id: str | None = None,
        take_over: str | None = None,
        on_limit: Literal["reject", "evict"] = "reject",
        limit: int | None = None,
        idempotency_key: str | None = None,
    ) -> Admission | Refusal:
        """Start a stream, or refuse it.

        Where the rules say so, an outage of the store lets it in provisionally; it cannot replace, evict or take over
        anything then.

        Args:
            user_id: Whose stream.
            device_id: A device that is admitted again replaces its own stream.
            device_name: For people: "Living-room TV".
            content_id: What is played.
            take_over: The stream_ref of a stream of this user that is to end in favour of this one.
            on_limit: "evict" ends other streams where the limit is reached.
            limit: The user's limit as a trusted caller knows it, over any record.
            idempotency_key: The same key again gives the same stream, while that is live, and what it ended.

        Returns:
            Admission, or why not. StreamEnded: it was admitted, and ended while we still waited for the answer.
        """
        checked("user_id", check_user_id, user_id)
        if limit is not None:
            self._check_limit(limit)
        names = {
            "device_id": _optional("device_id", check_device_id, device_id),
            "device_name": _optional("device_name", visible_text, device_name),
            "content_id": _optional("content_id", visible_text, content_id),
        }
        wanted: dict[str, str | int] = {
            "override": "" if limit is None else limit,
            "on_limit": "evict" if on_limit == "evict" else "",
            "take_over": "" if take_over is None else _stream_ref("take_over", take_over).ref,
            **names,
            "request": _request_hash(idempotency_key),
        }
        # A guess: the script says so where the user's limit is another one, before it writes anything.
        ref_limit = self.rules.limit if limit is None else limit
        deadline = self._store.deadline()
        try:
            if wait_ms := await self._rate.wait_ms(user_id, deadline):
                return TooManyAdmissions(wait_ms)
            reply = await self._decide(user_id, wanted, ref_limit, deadline, retry=idempotency_key is not None)
        except StoreUnavailable as error:
            given = {name: value or None for name, value in names.items()}
            return self._outage.admission(error, user_id, ref_limit, **given)
        result = replies.admission(user_id, reply, self.rules.lease)
        if isinstance(result, Admission) and result.over_limit:
            self.shadow_admissions += 1
        return result

    async def check(
        self,
        user_id: str,
        *,
        device_id: str | None = None,
        limit: int | None = None,
        known_users_only: bool = False,
    ) -> Check:
        """Say whether `admit` would admit now, and change nothing.

        Args:
            user_id: Whose stream.
            device_id: As for `admit`.
            limit: As for `admit`.
            known_users_only: Take a user without a record as unknown, whatever the rules say.
        """
        if limit is not None:
            self._check_limit(limit)
        given: dict[str, str | int] = {
            "device_id": _optional("device_id", check_device_id, device_id),
            "override": "" if limit is None else limit,
        }
        if known_users_only:
            given["default"] = ""
        call = self._calls.admission(user_id, dry_run="1", **given)
        return replies.check(await self._store.run(call))

    def keep_live(self, user_id: str, stream_id: str, answer: Callable[[BeatResult | Undecided], None]) -> None:
        """Make one attempt at what `heartbeat` does, without a task: that would cost as much as the rest of it.

        Args:
            user_id: Whose stream.
            stream_id: Its id.
            answer: Called once, soon and in the event loop. Where it is Undecided, `heartbeat` may bring the stream
                back, or says what became of it.
        """
        parsed = parse_stream_id(stream_id)
        ended = self._recent_ends.get(user_id, parsed) if parsed and self._recent_ends else None
        if ended or parsed is None:
            asyncio.get_running_loop().call_soon(answer, ended or UnknownStream())
            return

        def on_reply(expires_at_ms: int | None) -> None:
            answer(
                self.rules.lease(stream_id, expires_at_ms)
                if expires_at_ms
                else self._unseated(user_id, parsed, expires_at_ms)
            )

        self._store.soon(BEATS, self._calls.claim(user_id, parsed), on_reply)

    async def heartbeat(
        self, user_id: str, stream_id: str, *, spent_seconds: float = 0, seat_checked: bool = False
    ) -> BeatResult:
        """Keep a stream live for one more TTL, or bring it back where the store lost it.

        During an outage the lease of a genuine id only says "go on", where the rules allow that.

        Args:
            user_id: Whose stream.
            stream_id: Its id.
            spent_seconds: How much of the budget is gone already.
            seat_checked: `keep_live` has just answered NOT_IN_ITS_SEAT.
        """
        parsed = self._parse(user_id, stream_id)
        if parsed is None:
            return UnknownStream()
        if ended := self._recent_ends.get(user_id, parsed):
            return ended
        deadline = self._store.deadline(spent_seconds)
        claim = self._calls.claim(user_id, parsed)
        reply = 0 if seat_checked else await self._store.heartbeat(claim, deadline)
        if not isinstance(reply, StoreUnavailable) and reply:
            return self.rules.lease(stream_id, reply)
        result = (
            self._outage.lease(reply, user_id, parsed)
            if isinstance(reply, StoreUnavailable)
            else await self._resumed(user_id, parsed, deadline)
        )
        if isinstance(result, StoreUnavailable):
            raise result
        return result

    async def heartbeat_many(
        self, streams: Sequence[tuple[str, str]]
    ) -> tuple[BeatResult | InvalidInput | StoreUnavailable, ...]:
        """Send many heartbeats, in one round trip where all of the streams are live.

        Args:
            streams: User id and stream id of each.

        Returns:
            In order, each one's result; an error stands in its place and is not raised.
        """
        deadline = self._store.deadline()
        results: dict[int, BeatResult | InvalidInput | StoreUnavailable] = {}
        parsed: list[tuple[int, str, StreamId]] = []
        beats: list[Claim] = []
        for index, (user_id, text) in enumerate(streams):
            try:
                stream_id = self._parse(user_id, text)
            except InvalidInput as error:
                results[index] = error
                continue
            ended = stream_id and self._recent_ends.get(user_id, stream_id)
            if ended or stream_id is None:
                results[index] = ended or UnknownStream()
                continue
            parsed.append((index, user_id, stream_id))
            beats.append(self._calls.claim(user_id, stream_id))

        missing: list[tuple[int, str, StreamId]] = []
        for found, reply in zip(parsed, await self._store.heartbeats(beats, deadline), strict=True):
            index, user_id, stream_id = found
            if isinstance(reply, StoreUnavailable):
                results[index] = self._outage.lease(reply, user_id, stream_id)
            elif reply:
                results[index] = self.rules.lease(str(stream_id), reply)
            elif self._signer.is_genuine(user_id, stream_id):
                missing.append(found)
            else:
                results[index] = UnknownStream()

        # After a loss the first one meets the store for the others, which then go together and in their order.
        resumed = [await self._resumed(user_id, one, deadline) for _, user_id, one in missing[:1]]
        resumed += await asyncio.gather(*(self._resumed(user_id, one, deadline) for _, user_id, one in missing[1:]))
        results |= {index: result for (index, _, _), result in zip(missing, resumed, strict=True)}
        return tuple(results[index] for index in range(len(streams)))

    def get_live(
        self, user_id: str, stream_id: str, answer: Callable[[Stream | StreamEnded | UnknownStream | Undecided], None]
    ) -> None:
        """Make one attempt at what `get` does, as `keep_live` does for `heartbeat`."""
        parsed = parse_stream_id(stream_id)
        ended = self._recent_ends.get(user_id, parsed) if parsed and self._recent_ends else None
        if ended or parsed is None:
            asyncio.get_running_loop().call_soon(answer, ended or UnknownStream())
            return

        def on_reply(reply: Any) -> None:
            answer(replies.seen(user_id, parsed, reply) if reply else self._unseated(user_id, parsed, reply))

        if parsed.seat > self.rules.max_limit:
            asyncio.get_running_loop().call_soon(on_reply, 0)
        else:
            self._store.soon(LOOKS, self._calls.claim(user_id, parsed), on_reply)

    async def get(
        self, user_id: str, stream_id: str, *, spent_seconds: float = 0, seat_checked: bool = False
    ) -> Stream | StreamEnded | UnknownStream:
        """Say whether a stream may go on, and change nothing. What a heartbeat would bring back is `provisional`.

        Args:
            user_id: Whose stream.
            stream_id: Its id.
            spent_seconds: How much of the budget is gone already.
            seat_checked: `get_live` has just answered NOT_IN_ITS_SEAT.
        """
        deadline = self._store.deadline(spent_seconds)
        parsed = self._parse(user_id, stream_id)
        if parsed is None:
            return UnknownStream()
        if ended := self._recent_ends.get(user_id, parsed):
            return ended
        is_genuine = seat_checked or self._signer.is_genuine(user_id, parsed)
        try:
            if is_genuine:
                call = self._calls.resume(user_id, parsed, dry_run=True)
                return replies.found(user_id, await self._store.run(call, deadline))
            # A secret that is no longer listed signed the streams that still have it, each in its seat.
            if parsed.seat > self.rules.max_limit:
                return UnknownStream()
            (reply,) = await self._store.run(self._calls.look(user_id, parsed), deadline)
        except StoreUnavailable as error:
            return self._outage.stream(error, user_id, parsed)
        return replies.seen(user_id, parsed, reply) if reply else UnknownStream()

    async def release(self, user_id: str, stream_id: str) -> None:
        """End a stream, as its player does. Again and again does no harm, nor does an id that was never issued."""
        parsed = self._parse(user_id, stream_id)
        if parsed is not None:
            await self._store.run(self._calls.release(user_id, parsed))

    def abandon(self, user_id: str, stream_id: str) -> None:
        """Release a stream that nobody knows of, as soon as the store answers; returns at once."""
        parsed = parse_stream_id(stream_id)
        if parsed is not None:
            self._store.owe(self._calls.release(user_id, parsed))

    async def terminate(self, user_id: str, stream_ref: str) -> bool:
        """End a stream by its stream_ref, as an operator or back end does; whether it was live."""
        call = self._calls.termination(user_id, _stream_ref("stream_ref", stream_ref))
        return bool(await self._store.run(call))

    async def terminate_all(self, user_id: str) -> tuple[EndedStream, ...]:
        """End all streams of a user, and say which."""
        return await self._trim(user_id, 0, "terminated")

    async def list(self, user_id: str) -> UserStreams:
        """The live streams of a user, by seat, and the limit."""
        return replies.user_streams(user_id, await self._store.run(self._calls.listing(user_id)))

    async def user_limit(self, user_id: str) -> int | None:
        """The limit in the user's record; None where there is none."""
        call = self._calls.listing(user_id, known_users_only=True)
        return replies.user_streams(user_id, await self._store.run(call)).limit

    async def set_user_limit(self, user_id: str, limit: int, *, end_excess: bool = False) -> tuple[EndedStream, ...]:
        """Write the user's record. With `end_excess`, end what is too much, stale streams first, then the oldest."""
        self._check_limit(limit)
        keep = limit if end_excess else self.rules.max_limit
        return await self._trim(user_id, keep, "limit_lowered", str(limit))

    async def delete_user(self, user_id: str) -> bool:
        """Delete the user's record. Live streams go on.

        Returns:
            Whether there was one. True, too, where an attempt got no answer, and the next one found none: it is gone.
        """
        call = self._calls.deletion(user_id)
        return bool(await self._store.run(call)) or call.in_doubt

    async def _decide(
        self, user_id: str, wanted: dict[str, str | int], ref_limit: int, deadline: float, *, retry: bool
    ) -> Any:
        """Run admit.lua until REF carries the user's limit.

        Args:
            user_id: Whose stream.
            wanted: ARGV of admit.lua by their names.
            ref_limit: The user's limit, at a guess.
            deadline: In the event loop's time.
            retry: The caller may repeat the admission, with the same idempotency key.
        """
        while True:
            ref = mint_ref(ref_limit)
            sig = self._signer.sign(user_id, ref)
            call = self._calls.admission(user_id, ref=ref, sig=sig, ref_limit=ref_limit, **wanted)
            reply = None
            try:
                reply = await self._store.run(call, deadline)
            finally:
                settled = reply is not None and reply[0] == "admitted" and reply[4][2] == ref
                if call.in_doubt and not settled:
                    # A late run must not take a seat that nobody knows of. A repetition may have found this stream, so
                    # a live one is left alone then.
                    self._store.owe(self._calls.release(user_id, StreamId(1, ref, sig), keep_live=retry))
            if reply[0] != "limit":
                return reply
            ref_limit = reply[1]

    def _parse(self, user_id: str, stream_id: str) -> StreamId | None:
        """Read a stream id; a bad user id is told first."""
        checked("user_id", check_user_id, user_id)
        return parse_stream_id(stream_id)

    def _check_limit(self, limit: int) -> None:
        if not 0 <= limit <= self.rules.max_limit:
            raise InvalidInput("limit", f"must be 0 to {self.rules.max_limit}")

    async def _trim(self, user_id: str, keep: int, reason: Reason, limit: str = "") -> tuple[EndedStream, ...]:
        return replies.trimmed(user_id, await self._store.run(self._calls.trim(user_id, keep, reason, limit)))

    def _unseated(self, user_id: str, stream_id: StreamId, reply: object) -> UnknownStream | Undecided:
        """What is known of a stream that its seat does not hold (0), or of which there was no answer (None).

        Only a genuine id is worth a look at all keys of the user: a stream never leaves its seat unless it resumes, and
        that takes a secret that is listed.
        """
        if reply is None:
            return Undecided.UNANSWERED
        return Undecided.NOT_IN_ITS_SEAT if self._signer.is_genuine(user_id, stream_id) else UnknownStream()

    async def _resumed(self, user_id: str, stream_id: StreamId, deadline: float) -> BeatResult | StoreUnavailable:
        """The answer to a heartbeat whose seat does not hold the stream."""
        if not self._signer.is_genuine(user_id, stream_id):
            return UnknownStream()
        try:
            reply = await self._store.run(self._calls.resume(user_id, stream_id), deadline)
        except StoreUnavailable as error:
            return self._outage.lease(error, user_id, stream_id)
        stream = replies.found(user_id, reply)
        if isinstance(stream, Stream):
            return self.rules.lease(f"{stream.stream_ref}.{stream_id.sig}", stream.expires_at_ms)
        if isinstance(stream, StreamEnded):
            self._recent_ends.add(user_id, stream_id, stream)
        return stream


def _optional(field: str, check: Callable[[str], str], value: str | None) -> str:
    """A value as the scripts take it: '' where it is absent."""
    return "" if value is None else checked(field, check, value)


def _stream_ref(field: str, text: str) -> StreamId:
    parsed = parse_stream_ref(text)
    if parsed is None:
        raise InvalidInput(field, "must be a stream_ref, SEAT.REF, as listings and refusals show it")
    return parsed


def _request_hash(idempotency_key: str | None) -> str:
    if idempotency_key is None:
        return ""
    checked("idempotency_key", check_idempotency_key, idempotency_key)
    return urlsafe_b64encode(sha256(idempotency_key.encode()).digest()[:12]).decode()
