"""The summary of what was proven, and what `scripts/prove` does around the proofs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.servers import PATIENCE_SECONDS, wait_for

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
    {"test": "failover", "topology": "Cluster", "fault": "killed", "streams": 1200, "replaced_seconds": 2.345}
    | {"silent_seconds": 2.5, "unanswered": 40, "waited": 2, "longest_call_seconds": 1.0, "expired": 0, "seat_lost": 3}
    | {"users_over": 4, "largest_excess": 1, "over_seconds": 3.21, "unanswered_elsewhere": 0}
    | {"longest_call_elsewhere_seconds": 0.1},
    {"test": "epochs", "slots": 16384, "seconds": 0.567, "bytes": 1_888_704},
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
    assert "| epochs of a Cluster written at the first meeting | 16,384 in 0.57 s, 1.9 MB |" in rows
    assert "| Cluster: killed | 1,200 | 2.35 s | 2.50 s | 42 | 0 | 3 | 4, 1, 3.2 s | 0 | 1.00 s |" in rows


def test_what_was_not_run_is_not_made_up() -> None:
    assert "| mutants killed | not run |" in summary(FIGURES[:-1])
    assert "| broken promises | not run |" in summary([])


def test_every_proof_exists_and_the_page_has_room_for_the_figures() -> None:
    assert [name for name in PROOFS if not (ROOT / "tests" / f"test_{name}.py").exists()] == []
    assert "figures" in marked(PAGE.read_text(), MARK, "figures")


def test_the_options_are_told() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "prove.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--write" in done.stdout


STAND_IN = """
import pathlib, sys, prove

_, page, proof, *options = sys.argv
prove.PAGE = pathlib.Path(page)
prove.commands = lambda _: [[sys.executable, "-c", proof]]
sys.argv[1:] = options
sys.exit(prove.main())
"""
"""The command, with another page, and a program that stands for all proofs."""

LINES = "\n".join(map(json.dumps, FIGURES))
HOLDS = f"import os; open(os.environ['PROVE_FIGURES'], 'w').write({LINES!r})"
BREAKS = f"{HOLDS}; raise SystemExit(1)"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "guarantees.md"
    page.write_text(PAGE.read_text())
    return page


def started(page: Path, proof: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STAND_IN, str(page), proof, "--write"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it complained of."""
    with process:
        return process.wait(PATIENCE_SECONDS), process.communicate()[1]


def test_figures_take_the_place_of_those_of_an_earlier_run(page: Path) -> None:
    for _ in range(2):
        assert finished(started(page, HOLDS)) == (0, "")
        assert page.read_text().count(summary(FIGURES)) == 1
        assert marked(page.read_text(), MARK, "") == marked(PAGE.read_text(), MARK, "")


def test_where_a_promise_was_broken_nothing_is_written(page: Path) -> None:
    code, complaint = finished(started(page, BREAKS))

    assert (code, complaint) == (1, "A promise was broken, or a proof did not run; see above.\n")
    assert page.read_text() == PAGE.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_lets_the_proofs_stop_their_servers_and_writes_nothing(
    page: Path, tmp_path: Path, number: signal.Signals
) -> None:
    ready, stopped = tmp_path / "ready", tmp_path / "stopped"
    proof = f"""
import pathlib, time
try:
    pathlib.Path({str(ready)!r}).touch()
    time.sleep({PATIENCE_SECONDS})
except KeyboardInterrupt:
    pathlib.Path({str(stopped)!r}).touch()
"""
    process = started(page, proof)
    wait_for(ready.exists, "the proof")
    process.send_signal(number)

    assert finished(process) == (1, "Interrupted.\n")
    assert stopped.exists()
    assert page.read_text() == PAGE.read_text()


def test_a_page_without_room_for_figures_is_noticed_before_the_long_run(page: Path, tmp_path: Path) -> None:
    page.write_text("# What is promised\n")
    code, complaint = finished(started(page, f"open({str(tmp_path / 'ran')!r}, 'w')"))

    assert code == 1
    assert "no place for the figures" in complaint
    assert not (tmp_path / "ran").exists()
