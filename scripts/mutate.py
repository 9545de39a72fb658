#!/usr/bin/env python3
"""Damage the scripts and the tracker in each way that tests/mutants.py lists, and see that the quick suite fails."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.figures import report  # noqa: E402 - the tests are no installed package
from tests.mutants import MUTANTS, Mutant  # noqa: E402 - the same

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "data", "__pycache__", ".*_cache", ".hypothesis", "node_modules")
LIKELY = ("admit", "heartbeat", "app", "recovery", "stream_id", "store", "late_attempts")
"""Tests that notice most; they run first, and so does the one of the damaged module."""
ON_ONE_SERVER = "not sentinel and not cluster"
"""Which of them run first, since the servers of the others take a while to start."""
TOO_LONG_SECONDS = 300
ENDLESS = "a test that never ends"


class DidNotRunError(Exception):
    """The tests were interrupted, or could not be collected."""


def killer(mutant: Mutant | None) -> str | None:
    """Return the first test that fails with the damage done, None where none does.

    Raises:
        DidNotRunError: The tests did not come so far as to fail, which proves nothing.
    """
    with tempfile.TemporaryDirectory(prefix="streamlimit-mutant-") as directory:
        root = Path(directory)
        shutil.copytree(ROOT, root, ignore=LEFT_OUT, dirs_exist_ok=True)
        if mutant:
            mutant.damage(root)
        names = (Path(mutant.where).stem if mutant else "", *LIKELY)
        likely = [name for name in dict.fromkeys(f"tests/test_{one}.py" for one in names) if (root / name).exists()]
        by_chance: list[str] = []
        for tests in ([*likely, "-k", ON_ONE_SERVER], ["."]) if likely else (["."],):
            while failed := failure(root, *tests, "-m", "not slow", *by_chance):
                # One that now passes failed by chance, on a busy machine, and not for the damage.
                if failed == ENDLESS or failure(root, failed):
                    return failed
                by_chance += ["--deselect", failed]
        return None


def failure(root: Path, *options: str) -> str | None:
    """Run tests of the copy until one fails, and return which."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *options]
    # These two look at the text of what is damaged, not at what it does.
    command += ["--ignore", "tests/test_mutants.py", "--ignore", "tests/test_scripts.py"]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - our own tests
            command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=TOO_LONG_SECONDS
        )
    except subprocess.TimeoutExpired:
        return ENDLESS
    if done.returncode == pytest.ExitCode.OK:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode != pytest.ExitCode.TESTS_FAILED or not failed:
        raise DidNotRunError(done.stdout[-500:] + done.stderr[-500:])
    return failed[1]


def main() -> str | None:
    """Run the command; return what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="the mutants whose names contain this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (default: %(default)s)")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if options.only in mutant.name]
    pool = ThreadPoolExecutor(options.jobs)
    survivors = 0
    try:
        if failed := killer(None):
            return f"Without any damage {failed} fails: mend that first."
        for mutant, killed_by in zip(mutants, pool.map(killer, mutants), strict=True):
            survivors += killed_by is None
            print(f"{'SURVIVED' if killed_by is None else 'killed  '}  {mutant.name}  {killed_by or ''}", flush=True)
    except DidNotRunError as error:
        return f"The tests did not run:\n{error}"
    except KeyboardInterrupt:
        return "Interrupted."
    finally:
        pool.shutdown(cancel_futures=True)
    report("mutants", tried=len(mutants), killed=len(mutants) - survivors)
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants killed")
    return "Each that survived is a test that is missing." if survivors else None


if __name__ == "__main__":
    sys.exit(main())
