"""Many client processes at once, through several workers: exactly the limit, and every promise kept."""

import os
import secrets
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from streamlimit.results import Reason
from tests.figures import report
from tests.history import Operation
from tests.races import CROWD_ADMISSIONS, CROWD_USERS, LIMIT, Outcome, crowd, race

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("PROVE_SECONDS", "0"))


def reported(outcome: Outcome) -> Outcome:
    report(
        "race",
        clients=outcome.clients,
        calls=outcome.calls,
        admitted=outcome.admitted.total(),
        refused=outcome.refused,
        unknown=outcome.unknown,
        violations=len(outcome.violations),
        wrongly_refused=outcome.wrongly_refused,
        longest_call_seconds=outcome.longest_ms / 1000,
    )
    return outcome


def test_racing_admissions_get_exactly_the_limit(tmp_path: Path) -> None:
    outcome = reported(crowd(tmp_path))

    assert outcome.kept, outcome
    assert not outcome.unknown, outcome
    assert outcome.admitted == Counter({f"crowd-user-{user}": LIMIT for user in range(CROWD_USERS)})
    assert outcome.admitted.total() + outcome.refused == outcome.operations["admit"] >= CROWD_ADMISSIONS


def test_a_race_breaks_no_promise(tmp_path: Path) -> None:
    outcome = reported(race(tmp_path, seconds=max(15, SECONDS), seed=secrets.token_hex(4) if SECONDS else "test"))

    assert outcome.kept, outcome
    # Nor was it an idle one.
    assert outcome.operations.keys() == set(get_args(Operation)) - {"recovery"}, outcome
    assert outcome.reasons.keys() == set(get_args(Reason)) - {"limit_reached"}, outcome  # nothing was lost
    assert {user.partition("-user-")[2] for user in outcome.admitted} == set("01234"), outcome
    assert outcome.refused, outcome
    assert outcome.unknown, outcome
