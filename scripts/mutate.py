#!/usr/bin/env python3
"""Damage the service in each way that tests/mutants.py lists, and see that the quick suite fails.

With --generated it is damaged as tests/generated.py finds it, in place of the list. That is a lot: name some modules,
or take a sample.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.figures import report  # noqa: E402 - the tests are no installed package
from tests.generated import Splice, generated  # noqa: E402 - the same
from tests.mutants import EQUIVALENT, MUTANTS, PACKAGE  # noqa: E402 - the same

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "data", "__pycache__", ".*_cache", ".hypothesis", "node_modules")
LIKELY = ("admit", "heartbeat", "app", "recovery", "stream_id", "store", "late_attempts")
"""Tests that notice most; they run as soon as those have passed that name the damaged module."""
ON_ONE_SERVER = "not sentinel and not cluster"
"""Which of them run first, since the servers of the others take a while to start."""
TOO_LONG_SECONDS = 300
AT_LEAST_SECONDS = 30
TIMES_AS_LONG = 4
"""As the same tests without any damage; after that a test waits for what does not come."""
ENDLESS = "a test that never ends"
NOT_IMPORTED = "the import of the tests"


class Damage(Protocol):
    """What is done to a copy of the project."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def where(self) -> str:
        """A file of the package, or a pattern of some."""

    def damage(self, root: Path) -> None:
        """Do it to the package under `root`."""


class DidNotRunError(Exception):
    """The tests were interrupted, or could not be collected."""


def killer(mutant: Damage | None, *, only_near: bool = False) -> str | None:
    """Return the first test that fails with the damage done, None where none does.

    Args:
        mutant: The damage; None is none.
        only_near: Run the tests that name the damaged module, and no others where there are some.

    Raises:
        DidNotRunError: The tests did not come so far as to fail, which proves nothing.
    """
    with tempfile.TemporaryDirectory(prefix="streamlimit-mutant-") as directory:
        root = Path(directory)
        shutil.copytree(ROOT, root, ignore=LEFT_OUT, dirs_exist_ok=True)
        if mutant:
            mutant.damage(root)
            if isinstance(mutant, Splice) and not imports(root, mutant.where):
                return NOT_IMPORTED
        by_chance: list[str] = []
        where = mutant.where if mutant else ""
        for tests in stages(root, where, only_near=only_near):
            seconds = near_seconds(where) if only_near else TOO_LONG_SECONDS
            while failed := failure(root, *tests, "-m", "not slow", *by_chance, seconds=seconds):
                # One that now passes failed by chance, on a busy machine, and not for the damage.
                if failed == ENDLESS or failure(root, failed):
                    return failed
                by_chance += ["--deselect", failed]
        return None


def imports(root: Path, where: str) -> bool:
    """Whether a module can still be imported; what a person wrote into the list always can, or is mended."""
    module = f"{PACKAGE}.{Path(where).stem}"
    command = [sys.executable, "-c", f"import {PACKAGE}, {module}"]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False, timeout=30)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def stages(root: Path, where: str, *, only_near: bool) -> Iterator[Sequence[str]]:
    """What to run, one after the other: those of the damaged module, those that notice most, and all."""
    near = naming(root, Path(where).stem) if where.endswith(".py") else []
    if near and only_near:
        yield near  # all of them, since there is nothing afterwards that would run those of Sentinels and Clusters
        return
    if near:
        yield [*near, "-k", ON_ONE_SERVER]
    likely = [name for one in LIKELY if (name := f"tests/test_{one}.py") not in near and (root / name).exists()]
    if likely:
        yield [*likely, "-k", ON_ONE_SERVER]
    if not only_near:
        yield ["."]


def naming(root: Path, module: str) -> list[str]:
    """The files of tests that import a module, its own one first."""
    imports = re.compile(rf"^(from|import) {PACKAGE}(\.{module}\b| import .*\b{module}\b)", re.MULTILINE)
    found = [path for path in sorted(root.glob("tests/test_*.py")) if imports.search(path.read_text(encoding="utf-8"))]
    own = root / "tests" / f"test_{module}.py"
    return [str(path.relative_to(root)) for path in dict.fromkeys([*([own] if own.exists() else []), *found])]


@cache
def near_seconds(where: str) -> float:
    """How long the tests that name a module may take at most."""
    started = time.monotonic()
    for tests in stages(ROOT, where, only_near=True):
        if failed := failure(ROOT, *tests, "-m", "not slow"):
            raise DidNotRunError(f"Without any damage {failed} fails.")
    return max(AT_LEAST_SECONDS, TIMES_AS_LONG * (time.monotonic() - started))


def failure(root: Path, *options: str, seconds: float = TOO_LONG_SECONDS) -> str | None:
    """Run tests of the copy until one fails, and return which."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *options]
    # These two look at the text of what is damaged, not at what it does.
    command += ["--ignore", "tests/test_mutants.py", "--ignore", "tests/test_scripts.py"]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - our own tests
            command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return ENDLESS
    if done.returncode == pytest.ExitCode.OK:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode != pytest.ExitCode.TESTS_FAILED or not failed:
        raise DidNotRunError(done.stdout[-500:] + done.stderr[-500:])
    return failed[1]


def chosen(options: argparse.Namespace) -> Sequence[Damage]:
    """The damage that was asked for."""
    modules = options.module or sorted(path.name for path in (ROOT / PACKAGE).glob("*.py"))
    files = [name if "." in name else f"{name}.py" for name in modules]
    if options.generated:
        machine = [one for name in files for one in generated(ROOT, name) if one.name not in EQUIVALENT]
        return [one for one in machine if options.only in one.name][:: options.every]
    return [one for one in MUTANTS if options.only in one.name and (not options.module or one.where in files)]


def main() -> str | None:
    """Run the command; return what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="the mutants whose names contain this")
    parser.add_argument("--module", action="append", help="those of this file of the package; may be given repeatedly")
    parser.add_argument("--generated", action="store_true", help="those that a machine makes, in place of the list")
    parser.add_argument("--every", type=int, default=1, help="of those only each so-manieth (default: %(default)s)")
    parser.add_argument("--near", action="store_true", help="run only the tests that import the damaged module")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (default: %(default)s)")
    options = parser.parse_args()
    mutants = chosen(options)
    pool = ThreadPoolExecutor(options.jobs)
    survivors = 0
    try:
        if not options.near and (failed := killer(None)):
            return f"Without any damage {failed} fails: mend that first."
        for one in {one.where for one in mutants} if options.near else ():
            near_seconds(one)
        find = partial(killer, only_near=options.near)
        for mutant, killed_by in zip(mutants, pool.map(find, mutants), strict=True):
            survivors += killed_by is None
            print(f"{'SURVIVED' if killed_by is None else 'killed  '}  {mutant.name}  {killed_by or ''}", flush=True)
    except DidNotRunError as error:
        return f"The tests did not run:\n{error}"
    except KeyboardInterrupt:
        return "Interrupted."
    finally:
        pool.shutdown(cancel_futures=True)
    report("generated mutants" if options.generated else "mutants", tried=len(mutants), killed=len(mutants) - survivors)
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants killed")
    return "Each that survived is a test that is missing." if survivors else None


if __name__ == "__main__":
    sys.exit(main())
