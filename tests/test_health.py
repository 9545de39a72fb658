"""What a server tells of itself that will hurt later."""

import pytest

from streamlimit.findings import Finding, State, worst
from streamlimit.health import warnings


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ("", []),
        ("maxmemory_policy:noeviction\r\nmaxmemory:0\r\nused_memory:100\r\naof_enabled:1\r\n", []),
        ("maxmemory:100\r\nused_memory:99\r\n", []),
        ("maxmemory:100\r\nused_memory:100\r\n", ["memory is full"]),
        ("maxmemory_policy:allkeys-lru\r\n", ["maxmemory-policy is allkeys-lru"]),
        ("aof_enabled:0\r\n", ["append-only file"]),
        ("aof_enabled:0\r\nmaxmemory_policy:volatile-ttl\r\n", ["maxmemory-policy", "append-only file"]),
    ],
)
def test_what_an_operator_should_change_is_said(info: str, words: list[str]) -> None:
    told = list(warnings(info))

    assert len(told) == len(words)
    assert all(word in warning for word, warning in zip(words, told, strict=True))


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["ok", "skipped"], "ok"),
        (["skipped", "warning", "ok"], "warning"),
        (["warning", "problem", "skipped"], "problem"),
        (["skipped"], "skipped"),
        ([], "skipped"),
    ],
)
def test_the_worst_finding_is_the_state_of_the_whole(states: list[State], expected: State) -> None:
    assert worst([Finding("check", state, "found") for state in states]) == expected
