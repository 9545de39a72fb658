"""What is remembered of streams that have just been found to have ended."""

import pytest

from streamlimit import recent_ends
from streamlimit.recent_ends import RecentEnds
from streamlimit.results import StreamEnded
from streamlimit.stream_id import StreamId

STREAM: StreamId = StreamId(2, "R" * 19, "S" * 16)
ENDED = StreamEnded("released")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds; set it by its only item."""
    clock = [100.0]
    monkeypatch.setattr(recent_ends, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def ends(now: list[float]) -> RecentEnds:
    del now
    ends = RecentEnds()
    ends.add("alice", STREAM, ENDED)
    return ends


def test_an_end_is_known_for_a_second(ends: RecentEnds, now: list[float]) -> None:
    now[0] += 0.99
    assert ends.get("alice", STREAM) == ENDED
    now[0] += 0.01
    assert ends.get("alice", STREAM) is None
    assert not ends


def test_the_seat_does_not_matter(ends: RecentEnds) -> None:
    assert ends.get("alice", STREAM._replace(seat=9)) == ENDED


@pytest.mark.parametrize(
    ("user_id", "stream_id"),
    [("bob", STREAM), ("alice", STREAM._replace(ref="Q" * 19)), ("alice", STREAM._replace(sig="T" * 16))],
)
def test_another_stream_is_not_known(ends: RecentEnds, user_id: str, stream_id: StreamId) -> None:
    assert ends.get(user_id, stream_id) is None


def test_they_are_bounded(ends: RecentEnds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_ends, "_MAX_STREAMS", 2)
    for name in ("bob", "carol"):
        ends.add(name, STREAM, ENDED)

    assert ends.get("alice", STREAM) is None
    assert ends.get("carol", STREAM) == ENDED
