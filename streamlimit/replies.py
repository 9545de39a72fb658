"""From the arrays that the scripts reply with to typed results. The scripts' headers say what stands where."""

from collections.abc import Callable
from typing import Any, get_args

from streamlimit.results import (
    Admission,
    Check,
    EndedBy,
    EndedStream,
    Lease,
    LimitReached,
    Reason,
    Recovering,
    Stream,
    StreamEnded,
    UnknownStream,
    UnknownUser,
    UserStreams,
)
from streamlimit.stream_id import StreamId, parse_stream_ref, ref_of_seat


def admission(
    user_id: str, reply: list[Any], lease: Callable[[str, int], Lease]
) -> Admission | LimitReached | UnknownUser | Recovering | StreamEnded:
    """Read what admit.lua replied."""
    match reply:
        case ["admitted", now, live, limit, row, freed, sig, over]:
            stream = _stream(user_id, now, row)
            return Admission(
                stream=stream,
                lease=lease(f"{stream.stream_ref}.{sig}", stream.expires_at_ms),
                live=live,
                limit=limit,
                ended=_ended(user_id, now, freed),
                over_limit=bool(over),
            )
        case ["refused", now, live, limit, rows]:
            streams = tuple(_stream(user_id, now, row) for row in rows)
            first_end = min((stream.expires_at_ms for stream in streams), default=None)
            return LimitReached(live, limit, streams, first_end - now if first_end is not None else None)
        case ["recovering", now, live, limit, until]:
            return Recovering(live, limit, until - now)
        case ["ended", reason, by, by_name]:
            return _why(reason, by, by_name)
        case ["unknown_user"]:
            return UnknownUser()
    raise AssertionError(f"admit.lua replied {reply!r}")


def check(reply: list[Any]) -> Check:
    """Read what admit.lua replied in a dry run."""
    match reply:
        case ["admissible", _, live, limit]:
            return Check(admissible=True, live=live, limit=limit)
        case ["refused", _, live, limit, _]:
            return Check(admissible=False, live=live, limit=limit, reason="limit_reached")
        case ["recovering", now, live, limit, until]:
            return Check(admissible=False, live=live, limit=limit, reason="recovering", retry_after_ms=until - now)
        case ["unknown_user"]:
            return Check(admissible=False, reason="unknown_user")
    raise AssertionError(f"admit.lua replied {reply!r}")


def found(user_id: str, reply: list[Any]) -> Stream | StreamEnded | UnknownStream:
    """Read what resume.lua replied."""
    match reply:
        case ["live", now, row]:
            return _stream(user_id, now, row)
        case ["provisional", now, row]:
            return _stream(user_id, now, row, provisional=True)
        case ["ended", reason, by, by_name]:
            return _why(reason, by, by_name)
        case ["unknown"]:
            return UnknownStream()
    raise AssertionError(f"resume.lua replied {reply!r}")


def seen(user_id: str, stream_id: StreamId, reply: list[Any]) -> Stream:
    """Read what get.lua replied for the stream of this id."""
    now, pttl, *told = reply
    return _stream(user_id, now, [stream_id.seat, pttl, stream_id.ref, *told])


def trimmed(user_id: str, reply: list[Any]) -> tuple[EndedStream, ...]:
    """Read what trim.lua replied."""
    now, freed = reply
    return _ended(user_id, now, freed)


def user_streams(user_id: str, reply: list[Any]) -> UserStreams:
    """Read what list.lua replied."""
    now, limit, rows = reply
    return UserStreams(limit, tuple(_stream(user_id, now, row) for row in rows))


def _why(reason: Any, by: str | None, by_name: str | None) -> StreamEnded:
    # What an operator wrote by hand is none of ours.
    known: Reason = reason if reason in get_args(Reason) else "terminated"
    return StreamEnded(known, EndedBy(by, by_name) if by and parse_stream_ref(by) else None)


def _ended(user_id: str, now: int, freed: list[Any]) -> tuple[EndedStream, ...]:
    return tuple(EndedStream(_stream(user_id, now, row), reason) for row, reason in freed)


def _stream(user_id: str, now: int, row: list[Any], *, provisional: bool = False) -> Stream:
    seat, pttl, ref, started_at, device_id, device_name, content_id = row
    return Stream(
        user_id=user_id,
        seat=seat,
        ref=ref_of_seat(ref, seat),
        started_at_ms=started_at,
        expires_at_ms=now + max(pttl, 0),
        device_id=device_id or None,
        device_name=device_name or None,
        content_id=content_id or None,
        provisional=provisional,
    )
