"""What is answered while the store is away. Where the rules allow it, streams begin and go on, and are not counted."""

import time

from streamlimit.attempts import is_outage
from streamlimit.errors import StoreUnavailable
from streamlimit.results import Admission, Lease, Stream
from streamlimit.rules import Rules
from streamlimit.stream_id import Signer, StreamId, mint_ref


class Outage:
    """Answers in place of the store. All times are by the clock of this machine.

    Args:
        rules: Whether they allow it.
        signer: Knows which stream ids are genuine; no more can be known.
    """

    def __init__(self, rules: Rules, signer: Signer) -> None:
        self._rules = rules
        self._signer = signer

    def admission(self, error: StoreUnavailable, user_id: str, limit: int, **given: str | None) -> Admission:
        """Let a stream in that takes a seat with its first heartbeat afterwards.

        Args:
            error: Why the store gave no answer; raised where that lets nobody in.
            user_id: Whose stream.
            limit: The user's, at a guess.
            given: `device_id`, `device_name` and `content_id`.
        """
        if not self._allows(error) or limit == 0:
            raise error
        ref = mint_ref(limit)
        stream = self._provisional(user_id, StreamId(1, ref), **given)
        lease = self._rules.lease(f"{stream.stream_ref}.{self._signer.sign(user_id, ref)}", stream.expires_at_ms)
        return Admission(stream, lease, live=None, limit=limit, ended=(), over_limit=False)

    def lease(self, error: StoreUnavailable, user_id: str, stream_id: StreamId) -> Lease | StoreUnavailable:
        """The answer to a heartbeat; the error where it is not to be answered."""
        if not self._may_go_on(error, user_id, stream_id):
            return error
        return self._rules.lease(str(stream_id), self._expires_at_ms())

    def stream(self, error: StoreUnavailable, user_id: str, stream_id: StreamId) -> Stream:
        """The stream as it may go on, or raise the error."""
        if not self._may_go_on(error, user_id, stream_id):
            raise error
        return self._provisional(user_id, stream_id)

    def _allows(self, error: StoreUnavailable) -> bool:
        return self._rules.on_outage == "allow" and is_outage(error)

    def _may_go_on(self, error: StoreUnavailable, user_id: str, stream_id: StreamId) -> bool:
        return self._allows(error) and self._signer.is_genuine(user_id, stream_id)

    def _provisional(self, user_id: str, stream_id: StreamId, **given: str | None) -> Stream:
        expires_at_ms = self._expires_at_ms()
        return Stream(
            user_id, stream_id.seat, stream_id.ref, stream_id.minted_ms, expires_at_ms, **given, provisional=True
        )

    def _expires_at_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._rules.ttl_ms
