"""From what is wanted to the KEYS and ARGV of the scripts, as their headers define them. See also `replies`."""

from collections.abc import Sequence
from secrets import token_urlsafe
from typing import Final

from streamlimit.keys import Keys
from streamlimit.node import Claim
from streamlimit.results import Reason
from streamlimit.rules import Rules
from streamlimit.scripts import ADMIT, COUNT, DELETE, GET, LIST, RELEASE, RESUME, TRIM, Call, Script
from streamlimit.stream_id import Signer, StreamId

_ADMIT_ARGUMENTS: Final = (
    *("ref", "sig", "ref_limit", "ttl", "stale_below", "override", "default", "on_limit", "take_over"),
    *("device_id", "device_name", "content_id", "request", "enforce", "dry_run"),
)
"""ARGV of admit.lua behind the epoch, in order; '' stands for what is not given."""

_OPERATION_BYTES: Final = 9
"""Of the name of an operation: enough that no two of a user's last 64 ever are the same."""


class Calls:
    """Makes the calls of one deployment. Each raises InvalidInput where the user id cannot be one."""

    def __init__(self, keys: Keys, signer: Signer, rules: Rules) -> None:
        self._keys = keys
        self._signer = signer
        self._rules = rules

    def admission(self, user_id: str, **given: str | int) -> Call:
        """Run admit.lua, with its arguments by their names."""
        rules: dict[str, str | int] = {
            "default": self._rules.limit_of_unknown,
            "ttl": self._rules.ttl_ms,
            "stale_below": self._rules.stale_below_ms,
            "enforce": _flag(self._rules.enforce),
        }
        rules |= given
        args = [rules.get(name, "") for name in _ADMIT_ARGUMENTS]
        return self._call(ADMIT, user_id, args, in_epoch=True)

    def count(self, user_id: str, amount: int, most: int, window_ms: int) -> Call:
        """Count admissions that are asked for."""
        return Call(COUNT, [self._keys.admissions(user_id)], [amount, most, window_ms], self._keys.slot(user_id))

    def claim(self, user_id: str, stream_id: StreamId) -> Claim:
        """What a stream id says; of a seat that there is not, the last one instead."""
        key = self._keys.stream(user_id, min(stream_id.seat, self._rules.max_limit))
        return Claim(self._keys.slot(user_id), key, stream_id.ref, stream_id.sig)

    def look(self, user_id: str, stream_id: StreamId) -> Call:
        """Look at the seat in a stream id, and at no other."""
        slot, key, ref, sig = self.claim(user_id, stream_id)
        return Call(GET, [key], [ref, sig], slot)

    def resume(self, user_id: str, stream_id: StreamId, *, dry_run: bool = False) -> Call:
        """Look where a stream is, and bring it back where the store lost it."""
        rules = self._rules
        genuine = self._signer.is_genuine(user_id, stream_id)
        args: list[str | int] = [
            *(stream_id.ref, stream_id.sig, _flag(genuine), stream_id.seat, stream_id.minted_ms, stream_id.limit),
            *(rules.ttl_ms, _flag(rules.enforce), _flag(dry_run)),
        ]
        return self._call(RESUME, user_id, args, in_epoch=True)

    def release(self, user_id: str, stream_id: StreamId, *, keep_live: bool = False) -> Call:
        """End a stream, as its player does; or only bar an admission that may still arrive."""
        genuine = _flag(self._signer.is_genuine(user_id, stream_id))
        return self._call(RELEASE, user_id, [stream_id.ref, stream_id.sig, genuine, "released", _flag(keep_live)])

    def termination(self, user_id: str, stream_ref: StreamId) -> Call:
        """End a stream, as an operator does."""
        return self._call(RELEASE, user_id, [stream_ref.ref, "", "", "terminated", ""])

    def listing(self, user_id: str, *, known_users_only: bool = False) -> Call:
        """List the streams and the limit of a user."""
        return self._call(LIST, user_id, ["" if known_users_only else self._rules.limit_of_unknown])

    def trim(self, user_id: str, keep: int, reason: Reason, limit: str = "") -> Call:
        """End streams until as many are left as may stay, and set the limit."""
        operation = token_urlsafe(_OPERATION_BYTES)
        args = [keep, reason, self._rules.stale_below_ms, limit, operation]
        return self._call(TRIM, user_id, args, in_turn=True)

    def deletion(self, user_id: str) -> Call:
        """Delete the record of a user."""
        return Call(DELETE, [self._keys.user(user_id)], [], self._keys.slot(user_id), in_turn=True)

    def _call(
        self, script: Script, user_id: str, args: Sequence[str | int], *, in_epoch: bool = False, in_turn: bool = False
    ) -> Call:
        return Call(script, self._keys.all_of(user_id), args, self._keys.slot(user_id), in_epoch, in_turn)


def _flag(value: bool) -> str:  # noqa: FBT001 - its only argument
    return "1" if value else ""
