"""How times are told, whatever the store or a hand-made key says."""

import pytest

from streamlimit import replies
from streamlimit.wire import timestamp


@pytest.mark.parametrize(
    ("unix_ms", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_551_300_007, "2026-11-24T20:15:00.007Z"),
        (-1, "1970-01-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
        (10**30, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_told_as_rfc_3339_can_write_it(unix_ms: int, expected: str) -> None:
    assert timestamp(unix_ms) == expected


@pytest.mark.parametrize(("pttl", "expires_at_ms"), [(500, 1_500), (0, 1_000), (-1, 1_000), (-2, 1_000)])
def test_a_stream_never_ends_before_now(pttl: int, expires_at_ms: int) -> None:
    """PTTL of a key without an end is -1, of one that has gone -2."""
    found = replies.found("alice", ["live", 1_000, [2, pttl, "", 900, "", "", ""]])

    assert (found.expires_at_ms, found.seat) == (expires_at_ms, 2)  # type: ignore[union-attr]
