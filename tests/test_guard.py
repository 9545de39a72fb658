"""What a heartbeat costs, in counts that do not depend on the machine."""

import subprocess
import sys

import pytest

from bench.guard import BUDGET, complaints
from tests.documents import ROOT


@pytest.mark.slow
def test_a_heartbeat_costs_no_more_than_it_may() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.guard"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith("commands in the store, alone")]


def test_what_costs_more_than_it_may_is_told() -> None:
    dearer = dict(BUDGET) | {"commands in the store, alone": 6.0}

    assert complaints(BUDGET) == []
    assert complaints(dearer) == ["commands in the store, alone: a heartbeat costs 6.00, and may cost 5.00"]


@pytest.mark.slow
def test_more_work_counts_more() -> None:
    code = (
        "from bench.guard import counting\n"
        "def work(times):\n"
        "    for number in range(times): len(str(number))\n"
        "def cost(times):\n"
        "    with counting() as counts: work(times)\n"
        "    return counts.instructions, counts.functions\n"
        "once, again, more = cost(10), cost(10), cost(20)\n"
        "assert once == again, (once, again)\n"
        "assert more[0] > once[0] and more[1] == once[1] + 10, (once, more)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
