"""The bounds of what callers send, and the keys and roles that are made of it."""

from collections.abc import Callable

import pytest

from streamlimit import InvalidInput
from streamlimit.api_keys import ApiKeys, parse_digests
from streamlimit.callers import Caller, Role
from streamlimit.counters import Counters
from streamlimit.fields import (
    check_device_id,
    check_idempotency_key,
    check_key_prefix,
    check_text,
    check_user_id,
)
from streamlimit.keys import Keys
from tests.issuer import digest


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (check_user_id, ["a", "x" * 128, "...", "a@b.example"], ["", "x" * 129, ".", "..", "a{b", "a*", "a b", "a\n"]),
        (check_key_prefix, ["", "x" * 32], ["x" * 33, "a:b", "{a}", "a\n"]),
        (check_text, ["a", "x" * 64, "é" * 32], ["", "x" * 65, "é" * 33, "a\x1f", "a\x7f", "a\x9f", "\ud800"]),
        (check_device_id, ["a b", "x" * 64], ["", "x" * 65, "é", "a\n"]),
        (check_idempotency_key, ["a", "x" * 255], ["", "x" * 256, "a b", "é"]),
    ],
)
def test_a_value_is_taken_up_to_its_bounds(check: Callable[[str], str], right: list[str], wrong: list[str]) -> None:
    for value in right:
        assert check(value) == value
    for value in wrong:
        with pytest.raises(ValueError, match="must"):
            check(value)


def test_all_keys_of_a_user_have_the_prefix_and_its_tag() -> None:
    keys = Keys("blue", 2)

    assert keys.all_of("alice") == [
        "blue:user:{alice}",
        "blue:ended:{alice}",
        "blue:epoch:{0}",
        "blue:stream:{alice}:1",
        "blue:stream:{alice}:2",
    ]
    assert keys.stream("alice", 2) == "blue:stream:{alice}:2"
    assert keys.admissions("alice") == "blue:admissions:{alice}"
    with pytest.raises(InvalidInput):
        keys.user("al}ice")


@pytest.mark.parametrize("text", [",", "0" * 63, "0" * 65, "g" * 64, f"{'0' * 64} x"])
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        parse_digests(text)


def test_a_key_is_known_by_its_digest_and_named_by_its_beginning() -> None:
    keys = ApiKeys(
        {Role.SERVICE: [digest("one"), digest("two")], Role.OPERATOR: parse_digests(digest("three").upper())}
    )

    assert keys.find("two") == Caller(Role.SERVICE, f"service key {digest('two')[:8]}")
    assert keys.find("three") == Caller(Role.OPERATOR, f"operator key {digest('three')[:8]}")
    assert keys.find("four") is None


@pytest.mark.parametrize("role", Role)
def test_only_a_player_acts_for_one_user_alone(role: Role) -> None:
    caller = Caller(role, "somebody", "alice")

    assert caller.may_act_for("alice")
    assert caller.may_act_for("bob") == (role is not Role.PLAYER)


def test_each_process_counts_in_a_row_of_its_own_while_there_are_some() -> None:
    counters = Counters(2)
    assert list(counters.totals()) == [0, 0]
    rows = [counters.take_row() for _ in range(66)]
    for number, row in enumerate(rows[:63]):
        row[1] = number

    assert [row[1] for row in rows[:63]] == list(range(63))
    assert list(counters.totals()) == [0, sum(range(63))]
    rows[64][0] += 1
    assert rows[65][0] == 1  # when none is left, the last is shared
