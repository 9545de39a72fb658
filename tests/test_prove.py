"""The summary of what was proven."""

import subprocess
import sys

from tests.documents import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from marked import marked
from prove import MARK, PAGE, PROOFS, summary

FIGURES = [
    {"test": "exhaustive", "world": "one", "sequences": 1_000, "calls": 900},
    {"test": "exhaustive", "world": "two", "sequences": 500, "calls": 400},
    {"test": "state machine", "store": "valkey", "steps": 700},
    {"test": "race", "clients": 48, "calls": 900, "admitted": 10, "refused": 20, "unknown": 3, "violations": 1}
    | {"wrongly_refused": 1, "longest_call_seconds": 0.5},
    {"test": "fault", "fault": "frozen", "cases": 1, "calls": 2, "unknown": 1, "longest_call_seconds": 0.25},
    {"test": "fault", "fault": "frozen", "cases": 2, "calls": 3, "unknown": 0, "longest_call_seconds": 0.75},
    {"test": "loss", "case": "FLUSHALL", "losses": 5, "streams": 300, "interrupted": 0, "users_over": 1}
    | {"waited_seconds": 3.021},
    {"test": "mutants", "tried": 100, "killed": 99},
]


def test_the_figures_of_one_kind_are_added_up() -> None:
    rows = summary(FIGURES).splitlines()

    assert "| sequences enumerated | 1,500, in 2 small worlds |" in rows
    assert "| steps of random stories | 700 (700 on valkey) |" in rows
    assert "| admissions raced | 10 admitted, 20 refused |" in rows
    assert "| broken promises | 1 |" in rows
    assert "| mutants killed | 99 of 100 |" in rows
    assert "| frozen | 3 | 5 | 1 | 0.75 s |" in rows
    assert "| FLUSHALL | 5 | 300 | 0 | 1 | 3.02 s |" in rows


def test_what_was_not_run_is_not_made_up() -> None:
    assert "| mutants killed | not run |" in summary(FIGURES[:-1])


def test_every_proof_exists_and_the_page_has_room_for_the_figures() -> None:
    assert [name for name in PROOFS if not (ROOT / "tests" / f"test_{name}.py").exists()] == []
    assert "figures" in marked(PAGE.read_text(), MARK, "figures")


def test_the_options_are_told() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "prove.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--write" in done.stdout
