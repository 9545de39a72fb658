"""Many client processes at once, through several workers: exactly the limit, and every promise kept."""

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from streamlimit.results import Reason
from tests.history import Operation
from tests.races import CROWD_ADMISSIONS, CROWD_USERS, LIMIT, crowd, race

pytestmark = pytest.mark.slow


def test_racing_admissions_get_exactly_the_limit(tmp_path: Path) -> None:
    outcome = crowd(tmp_path)

    assert outcome.kept, outcome
    assert not outcome.unknown, outcome
    assert outcome.admitted == Counter({f"crowd-user-{user}": LIMIT for user in range(CROWD_USERS)})
    assert outcome.admitted.total() + outcome.refused == outcome.operations["admit"] >= CROWD_ADMISSIONS


def test_a_race_breaks_no_promise(tmp_path: Path) -> None:
    outcome = race(tmp_path, seconds=15, seed="test")

    assert outcome.kept, outcome
    # Nor was it an idle one.
    assert outcome.operations.keys() == set(get_args(Operation)) - {"recovery"}, outcome
    assert outcome.reasons.keys() == set(get_args(Reason)), outcome
    assert outcome.admitted.keys() == {f"round-0-user-{user}" for user in range(5)}, outcome
    assert outcome.refused, outcome
    assert outcome.unknown, outcome
