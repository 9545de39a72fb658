"""Which rules a deployment may have, and what follows from them."""

import pytest

from streamlimit import InvalidInput
from streamlimit.rules import Rules


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"limit": 11}, "limit"),
        ({"max_limit": 65}, "max_limit"),
        ({"ttl_ms": 600_001}, "ttl_ms"),
        ({"ttl_ms": 89_999}, "ttl_ms"),
        ({"heartbeat_ms": 0}, "heartbeat_ms"),
        ({"max_limit": 0, "limit": 0}, "max_limit"),
        ({"limit": -1}, "limit"),
        ({"admissions_per_minute": -1}, "admissions_per_minute"),
    ],
)
def test_the_library_checks_its_rules_too(rules: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Rules(**rules)  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    "rules",
    [
        {"limit": 0, "max_limit": 1},
        {"limit": 64, "max_limit": 64},
        {"ttl_ms": 600_000},
        {"ttl_ms": 3, "heartbeat_ms": 1},
        {"admissions_per_minute": 0},
    ],
)
def test_what_is_just_right_is_taken(rules: dict[str, int]) -> None:
    assert Rules(**rules)  # type: ignore[arg-type]


def test_a_stream_that_has_missed_a_heartbeat_is_stale() -> None:
    assert Rules(ttl_ms=90_000, heartbeat_ms=20_000).stale_below_ms == 50_000


def test_a_user_without_a_record_has_the_limit_of_the_rules_or_none() -> None:
    assert Rules(limit=5).limit_of_unknown == 5
    assert Rules(limit=5, unknown_users="reject").limit_of_unknown == ""


def test_heartbeats_are_asked_for_a_little_before_they_are_due_and_of_each_player_at_another_time() -> None:
    leases = [Rules(heartbeat_ms=1_000, ttl_ms=3_000).lease("id", 7) for _ in range(100)]

    assert {lease.stream_id for lease in leases} == {"id"}
    assert {(lease.expires_at_ms, lease.ttl_ms) for lease in leases} == {(7, 3_000)}
    assert all(850 <= lease.heartbeat_ms <= 950 for lease in leases)
    assert len({lease.heartbeat_ms for lease in leases}) > 10
