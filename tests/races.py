"""Races over HTTP, and the check of what was told in them: `python -m tests.races --seconds 60 --seed 1`.

First a crowd asks for admission and nothing else; then clients race for the seats of a few users, each doing at random
what players, back ends and operators do. They are many processes, ask several workers all at once, and write down what
they are told. tests/history.py says which promises are judged and how. Exit code 1 where one was broken.
"""

import argparse
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from redis import Redis

from tests import history, racer
from tests.history import Event, Violation
from tests.racer import Plan
from tests.servers import PATIENCE_SECONDS, Service, serving

ROOT: Final = Path(__file__).parent.parent
PROCESSES: Final = 16
USERS: Final = 5
LIMIT: Final = 3
SEATS: Final = 10
SERVED: Final = ("--workers", "2", "--admissions-per-minute", "0")
TTL_SECONDS: Final = 3
SAMPLE_SECONDS: Final = 0.02
MAX_ROUND_SECONDS: Final = 60
"""A longer race is run in rounds, each with users of its own, so that its log fits into memory."""
SHOWN: Final = 5

CROWD_USERS: Final = 50
CROWD_ADMISSIONS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened in a race, and what was wrong."""

    seconds: float
    clients: int
    operations: Counter[str]
    """Calls by kind, samples of PTTLs among them."""
    admitted: Counter[str]
    """Admissions by user."""
    refused: int
    reasons: Counter[str]
    """Why streams ended, as their players were told."""
    unknown: int
    """Calls without a usable answer."""
    unexpected: tuple[Event, ...]
    """Answers that nobody should get, such as 500."""
    longest_ms: float
    """The longest call that was answered."""
    violations: tuple[Violation, ...]

    @property
    def calls(self) -> int:
        """How many, but for samples."""
        return self.operations.total() - self.operations["pttl"]

    @property
    def wrongly_refused(self) -> int:
        """Admissions that were refused although there was a seat."""
        return sum(one.promise == 3 for one in self.violations)

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return not self.violations and not self.unexpected

    def __str__(self) -> str:
        calls = Counter({name: count for name, count in self.operations.items() if name != "pttl"})
        rows = {
            "seconds": f"{self.seconds:.1f}",
            "clients": self.clients,
            "calls": f"{self.calls} ({', '.join(f'{count} {name}' for name, count in calls.most_common())})",
            "admissions raced": f"{calls['admit']} ({self.admitted.total()} admitted, {self.refused} refused)",
            "ends told": ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common()) or 0,
            "samples of PTTL": self.operations["pttl"],
            "unknown outcomes": self.unknown,
            "unexpected answers": len(self.unexpected),
            "longest call": f"{self.longest_ms:.0f} ms",
            "violations": len(self.violations),
            "wrongly refused": self.wrongly_refused,
        }
        shown = [str(one) for one in (*self.violations[:SHOWN], *self.unexpected[:SHOWN])]
        return "\n".join([*(f"{name:<20}{value}" for name, value in rows.items()), *shown])


def race(directory: Path, seconds: float = 15, seed: str = "", processes: int = PROCESSES) -> Outcome:
    """Let clients race for the seats of few users, with a short TTL.

    Args:
        directory: For the service's data and the logs.
        seconds: How long.
        seed: What the clients do at random; when they do it is for the machine to say.
        processes: How many, of several clients each.
    """
    service = Service(directory, *SERVED, "--ttl-seconds", str(TTL_SECONDS), "--heartbeat-seconds", "1")
    rounds = -int(-seconds // MAX_ROUND_SECONDS)
    outcomes = []
    with serving(service), Redis(port=service.embedded_port) as store:
        for number in range(rounds):
            users = [f"round-{number}-user-{user}" for user in range(USERS)]
            plan = Plan("", service.port, users, "", f"{seed} {number}", ttl_ms=TTL_SECONDS * 1000)
            outcomes.append(_run(directory, plan, processes, seconds / rounds, store))
    return _sum(outcomes)


def crowd(directory: Path, processes: int = PROCESSES) -> Outcome:
    """Let clients ask for the seats of many users as fast as they can, each user being asked for by all at once."""
    service = Service(directory, *SERVED)
    users = [f"crowd-user-{user}" for user in range(CROWD_USERS)]
    plan = Plan("", service.port, users, "", ttl_ms=90_000)
    plan = replace(plan, admissions=-(-CROWD_ADMISSIONS // (processes * plan.clients)))
    with serving(service), Redis(port=service.embedded_port) as store:
        return _run(directory, plan, processes, 0, store)


def _run(directory: Path, plan: Plan, processes: int, seconds: float, store: Redis) -> Outcome:
    """Start the processes, sample the store while they run, and judge their logs."""
    started = time.monotonic()
    logs = [directory / f"racer-{number}.jsonl" for number in range(processes)]
    plans = [replace(plan, name=f"racer-{number}", log=str(log)) for number, log in enumerate(logs)]
    if seconds:
        # So that all of them are there from the beginning.
        plans = [replace(one, until=(time.monotonic() + seconds) * 1000) for one in plans]
    racers = [subprocess.Popen(racer.command(one), stdin=subprocess.DEVNULL, cwd=ROOT) for one in plans]
    samples = []
    try:
        while any(one.poll() is None for one in racers):
            samples += _sample(store, plan.users)
            time.sleep(SAMPLE_SECONDS)
            assert time.monotonic() < started + seconds + 3 * PATIENCE_SECONDS, "the racers do not come to an end"
    finally:
        for one in racers:
            one.kill()
            one.wait()
    assert not any(one.returncode for one in racers), "a racer failed; it said why"
    calls = [event for log in logs for event in history.read(log)]
    return _judge(calls, samples, plan, processes, time.monotonic() - started)


def _sample(store: Redis, users: Iterable[str]) -> list[Event]:
    """Read the PTTLs of all seats."""
    names = [(user, seat) for user in users for seat in range(1, SEATS + 1)]
    sent = time.monotonic() * 1000
    with store.pipeline(transaction=False) as pipeline:
        for user, seat in names:
            pipeline.pttl(f"stream:{{{user}}}:{seat}")
        found: dict[str, dict[str, int]] = {}
        for (user, seat), pttl in zip(names, pipeline.execute(), strict=True):
            if pttl != -2:  # there is such a key
                found.setdefault(user, {})[str(seat)] = pttl
    answered = time.monotonic() * 1000
    return [Event("sampler", user, "pttl", sent, answered, answer=dict(pttls)) for user, pttls in found.items()]


def _judge(calls: list[Event], samples: list[Event], plan: Plan, processes: int, seconds: float) -> Outcome:
    longest = max(call.answered - call.sent for call in calls if call.status is not None)
    # What a client no longer waits for goes on like what it does wait for, and the service gives up after a second.
    settled = 1_000 + 2 * longest
    told = [call for call in calls if call.operation in ("heartbeat", "get") and call.status == 410]
    return Outcome(
        seconds=seconds,
        clients=processes * plan.clients,
        operations=Counter(call.operation for call in (*calls, *samples)),
        admitted=Counter(call.user for call in calls if call.admitted),
        refused=sum(call.operation == "admit" and call.refused for call in calls),
        reasons=Counter(call.answer["reason"] for call in told),
        unknown=sum(call.unknown for call in calls),
        unexpected=tuple(history.unexpected(calls)),
        longest_ms=longest,
        violations=tuple(history.violations([*calls, *samples], plan.ttl_ms, limit=LIMIT, settled_ms=settled)),
    )


def _sum(outcomes: list[Outcome]) -> Outcome:
    """Several rounds as one."""
    return Outcome(
        seconds=sum(one.seconds for one in outcomes),
        clients=outcomes[0].clients,
        operations=sum((one.operations for one in outcomes), Counter()),
        admitted=sum((one.admitted for one in outcomes), Counter()),
        refused=sum(one.refused for one in outcomes),
        reasons=sum((one.reasons for one in outcomes), Counter()),
        unknown=sum(one.unknown for one in outcomes),
        unexpected=tuple(event for one in outcomes for event in one.unexpected),
        longest_ms=max(one.longest_ms for one in outcomes),
        violations=tuple(violation for one in outcomes for violation in one.violations),
    )


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="how long to race (default: %(default)s)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of what the clients do (default: a random one)")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="of three clients each (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        outcomes = [crowd(Path(first), options.processes)]
        print(f"crowd\n{outcomes[0]}\n", flush=True)  # noqa: T201 - a command prints
        outcomes += [race(Path(second), options.seconds, options.seed, options.processes)]
        print(f"race, seed {options.seed}\n{outcomes[1]}")  # noqa: T201 - the same
    return 0 if all(outcome.kept for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
