"""Gives every server its turn in every round, and measures all processes meanwhile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load, generate
from bench.plan import Cores, Plan
from bench.processes import CoreTimes, Process, core_times
from bench.verdicts import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server under a load."""

    name: str
    server: Process
    store: Process
    warm: Sequence[str | Path]
    """The command that warms it."""
    load: Sequence[str | Path]
    """The command that loads it."""
    cores: int = 1
    """How many the server has."""


@dataclass(frozen=True, slots=True)
class _Reading:
    server: float
    store: float
    cores: dict[int, CoreTimes]


def _read(contender: Contender, cores: Cores) -> _Reading:
    found = {core: core_times(core) for core in {cores.server, *cores.others}}
    return _Reading(contender.server.cpu_seconds(), contender.store.cpu_seconds(), found)


def take_turn(contender: Contender, cores: Cores) -> Turn:
    """Load one server, and measure."""
    before = _read(contender, cores)

    def begin() -> None:
        nonlocal before
        before = _read(contender, cores)

    load = generate(contender.load, cores.load, begin)
    return _turn(load, before, _read(contender, cores), contender, cores)


def _turn(load: Load, before: _Reading, after: _Reading, contender: Contender, cores: Cores) -> Turn:
    server_cpu = after.server - before.server
    did = {core: times.since(before.cores[core]) for core, times in after.cores.items()}
    own = did[cores.server]
    # Ticks of 10 ms round the server's time up where the core's is rounded down.
    foreign = max(0.0, own.busy - server_cpu) if contender.cores == 1 else 0.0
    store_cpu = after.store - before.store
    others = [did[core] for core in cores.others]
    others_foreign = max(0.0, sum(core.busy for core in others) - store_cpu - load.cpu_seconds)
    return Turn(
        requests=load.requests,
        errors=load.errors,
        seconds=load.seconds,
        server_cpu_seconds=server_cpu,
        store_cpu_seconds=store_cpu,
        load_cpu_seconds=load.cpu_seconds,
        others_busy=max(core.busy / max(0.01, core.total) for core in others),
        disturbed=foreign / max(0.01, own.total),
        others_disturbed=others_foreign / max(0.01, sum(core.total for core in others)),
        stolen=own.stolen / max(0.01, own.total),
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        late_p99_ms=load.late_p99_ms,
        planned=load.planned,
        cores=contender.cores,
    )


def in_turn(
    contenders: Sequence[Contender],
    cores: Cores,
    plan: Plan,
    prepare: Callable[[Contender], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Turn]]:
    """Measure all of them, every other round in the opposite order, so that a slow drift of the machine hits all alike.

    Args:
        contenders: Who.
        cores: Where.
        plan: How often.
        prepare: Called before each turn.
        tell: Called with a line for people after each turn.
    """
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    for number in range(plan.rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            prepare(contender)
            generate(contender.warm, cores.load)
            prepare(contender)
            turn = take_turn(contender, cores)
            turns[contender.name].append(turn)
            tell(f"{contender.name}, round {number + 1}: {turn.rate:,.0f} requests/s, {turn.errors:,} errors")
    return turns
