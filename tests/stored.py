"""What the keys of users hold when the model is right, and what they do hold."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.model import End, Model, Stream, User

Hash = tuple[dict[str, str], int]
"""What a key holds: fields, in which `@MS` is a time from now, and the PTTL, 0 for none."""

READ: Final = """
local time = redis.call('TIME')
local found = {time[1] * 1000 + math.floor(time[2] / 1000)}
for i, key in ipairs(KEYS) do found[i + 1] = {redis.call('HGETALL', key), redis.call('PTTL', key)} end
return found
"""


def foretold(model: Model, user_ids: Sequence[str], sign: Callable[[str, str], str], unit_ms: int) -> list[Hash]:
    """Return what `Keys.all_of` each user hold.

    Args:
        model: Where everything is as it should be.
        user_ids: The users, in order.
        sign: The SIG of a user's REF.
        unit_ms: Times are rounded to it, since the clock of a store runs on while the model's stands still.
    """

    def time(ms: int) -> str:
        return f"@{_rounded(ms - model.now, unit_ms)}"

    def seat(user_id: str, stream: Stream | None) -> Hash:
        if stream is None:
            return {}, 0
        ref = stream.ref.name
        fields = {"ref": ref, "sig": sign(user_id, ref), "started_at": time(stream.started)}
        given = {"device_id": stream.device, "request": stream.key}
        return fields | {name: value for name, value in given.items() if value}, _rounded(
            stream.expires - model.now, unit_ms
        )

    def entry(end: End) -> str:
        if end.stream is None:
            return f"{end.reason} {time(end.at)}"
        stream = end.stream
        times = time(stream.expires), time(stream.started)
        return "\t".join((end.reason, end.by, "", str(end.seat), *times, stream.device, "", "", time(end.at)))

    epoch = {}
    if model.epoch:
        until = time(max(model.recovering_until, model.now))
        epoch = {"id": f"E{model.epoch}", "since": time(model.since), "recovering_until": until}
    hashes: list[Hash] = []
    for user_id in user_ids:
        user = model.users.get(user_id, User())
        ended = {ref: entry(end) for ref, end in user.ended.items()}
        hashes += [
            ({} if user.limit is None else {"limit": str(user.limit)}, 0),
            (ended, _rounded(user.ended_until - model.now, unit_ms) if ended else 0),
            (epoch, 0),
        ]
        hashes += [seat(user_id, user.seats.get(number)) for number in range(1, model.rules.max_limit + 1)]
    return hashes


def found(reply: list[Any], unit_ms: int) -> list[Hash]:
    """Return what READ replied, with times rounded as in what was foretold."""
    now, *hashes = reply

    def time(match: re.Match[str]) -> str:
        return f"@{_rounded(int(match[0]) - now, unit_ms)}"

    result = []
    for words, pttl in hashes:
        pairs = zip(words[::2], words[1::2], strict=True)
        # Which secrets are in use is no matter of the rules.
        fields = {name: re.sub(r"\b\d{13}\b", time, value) for name, value in pairs if not name.startswith("secret:")}
        if fields.get("recovering_until", "").startswith(("@-", "0")):
            fields["recovering_until"] = "@0"
        result.append((fields, _rounded(max(0, pttl), unit_ms)))
    return result


def _rounded(ms: int, unit_ms: int) -> int:
    return round(ms / unit_ms) * unit_ms
