"""What the OpenAPI document shows: an evening of alice, who has limit 3. Answers are made by the code that answers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel

from streamlimit import problems, results, wire
from streamlimit.callers import NotAuthenticated
from streamlimit.problems import Problem, ProblemType
from streamlimit.results import Lease, Stream

USER_ID: Final = "alice"
DEVICE_ID: Final = "tv-1"

_QUARTER_PAST_8: Final = 1_795_551_300_000
_TV: Final = Stream(
    user_id=USER_ID,
    seat=1,
    ref="AaIPJM4AA3ST7VNy_1I",
    started_at_ms=_QUARTER_PAST_8 - 900_000,
    expires_at_ms=_QUARTER_PAST_8 + 64_000,
    device_id=DEVICE_ID,
    device_name="Living-room TV",
    content_id="match-1",
)
_PHONE: Final = Stream(
    user_id=USER_ID,
    seat=2,
    ref="AaIPKWHgA93f4I0UwGs",
    started_at_ms=_QUARTER_PAST_8 - 600_000,
    expires_at_ms=_QUARTER_PAST_8 + 81_000,
    device_id="phone-1",
    device_name="Alice's phone",
    content_id="series-4",
)
_TABLET: Final = Stream(
    user_id=USER_ID,
    seat=3,
    ref="AaIPLfXAA_g4t8kQCUI",
    started_at_ms=_QUARTER_PAST_8 - 300_000,
    expires_at_ms=_QUARTER_PAST_8 + 38_000,
)
_LAPTOP: Final = Stream(
    user_id=USER_ID,
    seat=2,
    ref="AaIPMomgA02R4D_AhQw",
    started_at_ms=_QUARTER_PAST_8,
    expires_at_ms=_QUARTER_PAST_8 + 90_000,
    device_id="laptop-1",
    device_name="Laptop",
    content_id="match-1",
)
STREAM_REF: Final = _TV.stream_ref
STREAM_ID: Final = f"{STREAM_REF}.cU11lufe3TsGwcev"
_LAPTOP_ID: Final = f"{_LAPTOP.stream_ref}.RG2J9wNOtzpJHSKD"


def _lease(stream_id: str, stream: Stream, heartbeat_ms: int) -> Lease:
    return Lease(stream_id, stream.expires_at_ms, ttl_ms=90_000, heartbeat_ms=heartbeat_ms)


def _admission(stream: Stream, lease: Lease, live: int, *ended: results.EndedStream) -> wire.Admission:
    return wire.Admission.of_admission(results.Admission(stream, lease, live, 3, ended, over_limit=False))


def _ended(stream: Stream, reason: results.Reason) -> results.EndedStream:
    return results.EndedStream(stream, reason)


_FIRST: Final = replace(_TV, expires_at_ms=_TV.started_at_ms + 90_000)
_ENDED: Final = problems.stream_ended(
    results.StreamEnded("taken_over", results.EndedBy(_LAPTOP.stream_ref, _LAPTOP.device_name))
)

REQUESTS: Final[Mapping[type[BaseModel], Mapping[str, Mapping[str, Any]]]] = {
    wire.AdmissionRequest: {
        "A device starts": {"device_id": DEVICE_ID, "device_name": _TV.device_name, "content_id": _TV.content_id},
        "Take over another stream": {"device_id": _LAPTOP.device_id, "take_over": _PHONE.stream_ref},
        "Evict at the limit": {"device_id": _LAPTOP.device_id, "on_limit": "evict"},
        "A back end knows the limit": {"device_id": DEVICE_ID, "limit": 5},
    },
    wire.UserRequest: {
        "Set the limit": {"limit": 3},
        "Lower the limit and end what is too much": {"limit": 1, "end_excess": True},
    },
    wire.HeartbeatsRequest: {
        "Two players": {
            "streams": [
                {"user_id": USER_ID, "stream_id": STREAM_ID},
                {"user_id": "bob", "stream_id": "1.AaIPLfXAA9w1cXmYk0E.Lm34S1AM9YY7IDlm"},
            ]
        },
    },
}
"""Of each body that callers send, by what they want."""

ANSWERS: Final[Mapping[type[BaseModel], Mapping[str, BaseModel]]] = {
    wire.Admission: {
        "Started": _admission(_FIRST, _lease(STREAM_ID, _FIRST, 27_656), 1),
        "Another stream was taken over": _admission(
            _LAPTOP, _lease(_LAPTOP_ID, _LAPTOP, 26_210), 3, _ended(_PHONE, "taken_over")
        ),
    },
    wire.Lease: {"Go on": wire.Lease.of(_lease(STREAM_ID, _TV, 27_602))},
    wire.StreamState: {
        "It plays": wire.StreamState.of(_TV),
        "The store lost it, and it may go on": wire.StreamState.of(
            replace(_TV, device_id=None, device_name=None, content_id=None, provisional=True)
        ),
    },
    wire.UserStreams: {
        "Two live": wire.UserStreams(
            user_id=USER_ID, limit=3, live=2, streams=[wire.Stream.of(_TV), wire.Stream.of(_PHONE)]
        )
    },
    wire.AdmissionCheck: {
        "Yes": wire.AdmissionCheck(admissible=True, live=2, limit=3, reason=None),
        "No": wire.AdmissionCheck(admissible=False, live=3, limit=3, reason="limit_reached"),
    },
    wire.EndedStreams: {
        "Two ended": wire.EndedStreams(
            ended=[wire.EndedStream.of(_ended(stream, "terminated")) for stream in (_TV, _PHONE)]
        )
    },
    wire.User: {"A record": wire.User(user_id=USER_ID, limit=3)},
    wire.UserChange: {
        "Set": wire.UserChange(user_id=USER_ID, limit=3, ended=[]),
        "Lowered, and one ended": wire.UserChange(
            user_id=USER_ID, limit=1, ended=[wire.EndedStream.of(_ended(_TV, "limit_lowered"))]
        ),
    },
    wire.HeartbeatResults: {
        "One goes on, one has ended": wire.HeartbeatResults(
            streams=[wire.HeartbeatLease.of(_lease(STREAM_ID, _TV, 27_602)), _ENDED.body]
        )
    },
    wire.LegacyCheck: {
        "Yes": wire.LegacyCheck(can_add_stream=True),
        "No": wire.LegacyCheck(can_add_stream=False),
    },
    wire.Metrics: {
        "A morning": wire.Metrics(
            "# HELP streamlimit_admissions_total Admissions that were asked for.\n"
            "# TYPE streamlimit_admissions_total counter\n"
            'streamlimit_admissions_total{outcome="admitted"} 4711.0\n'
        )
    },
    wire.Liveness: {"Up": wire.Liveness(), "About to stop": wire.Liveness(status="draining")},
    wire.Readiness: {
        "Ready": wire.Readiness(recovering_seconds=0, warnings=[]),
        "Ready, and it recovers": wire.Readiness(recovering_seconds=61.5, warnings=[]),
    },
}
"""Of each success, by what happened."""

PROBLEMS: Final[Mapping[ProblemType, Problem]] = {
    problem.kind: problem
    for problem in (
        problems.invalid([("user_id", "must be 1 to 128 of A-Z a-z 0-9 . _ ~ @ | : + = - and neither '.' nor '..'")]),
        problems.unauthenticated(NotAuthenticated("expired", "The token has expired: get a new one.")),
        problems.forbidden("A player acts for the user that its token names, and for no other."),
        problems.too_many_admissions(results.TooManyAdmissions(retry_after_ms=41_000)),
        problems.keys_unavailable(),
        problems.cross_origin(),
        problems.host_not_accepted(),
        problems.body_too_large(),
        problems.unsupported_media_type(),
        problems.limit_reached(results.LimitReached(3, 3, (_TV, _PHONE, _TABLET), 38_000)),
        problems.unknown_user(),
        problems.unknown_stream(),
        _ENDED,
        problems.recovering(results.Recovering(live=1, limit=3, retry_after_ms=61_500)),
        problems.draining(),
        problems.store_unavailable(),
        problems.damaged_key(),
        problems.internal_error(),
    )
}
"""One of each type that an operation may answer."""
