"""The figures as tables: Markdown that a terminal shows well, too."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bench.plan import BATCH
from bench.servers import ADMISSIONS, BARE, BATCHES, FASTIFY, HEARTBEATS, SERVERS
from bench.targets import (
    CREDENTIALS,
    FEW,
    GROWTH,
    KEYED,
    LATENCY,
    MANY,
    NO_KEYS,
    NOBODY,
    ONE,
    TARGETS,
    TWO,
    WITH_KEYS,
    WORKERS,
    Found,
)
from bench.verdicts import Ratio, Spread, Summary, cpu_ratio, rate_ratio

TITLES: Final = {
    HEARTBEATS: "Heartbeats",
    ADMISSIONS: "Admissions",
    BATCHES: f"Heartbeats in batches of {BATCH}",
    LATENCY: "Latency of heartbeats at half of each one's peak",
    GROWTH: "Heartbeats with few and with many live streams",
    WORKERS: "Heartbeats with one and with two workers",
    KEYED: "Heartbeats with keys configured, and a token that nobody looks at",
    CREDENTIALS: "Admissions of one device, by who asks",
}
_NAMES: Final = {server.name: server.title for server in SERVERS} | {
    FEW: "1,000 live streams",
    MANY: "very many",
    ONE: "one worker",
    TWO: "two workers",
    NO_KEYS: "streamlimit, no key configured, none sent",
    WITH_KEYS: "streamlimit, keys configured, a token sent",
}
_OVER: Final = {BATCHES: FASTIFY.name, GROWTH: FEW, WORKERS: ONE, CREDENTIALS: NOBODY}
"""What others are compared with, where that is not the bare application."""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table whose columns are aligned; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    head, *body = rows
    lines = [head, ["-" * max(3, width) for width in widths], *body]
    return "".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |\n" for line in lines
    )


def targets(found: Found) -> str:
    """What was aimed at, what was measured, and whether it is met."""
    measured = [(what, goal, measure(found)) for what, goal, measure in TARGETS]
    rows = [(what, goal, result.words, result.verdict) for what, goal, result in measured]
    return table([("what", "target", "measured", "met?"), *rows])


def loads(found: Found) -> str:
    """Each load: a table, and why a ratio is missing."""
    texts = []
    for load, summaries in found.loads.items():
        over = summaries.get(_OVER.get(load, BARE.name))
        rows = [_latency_head() if load == LATENCY else _head(load)]
        rows += [
            _latency_row(name, one) if load == LATENCY else _row(load, name, one, over)
            for name, one in summaries.items()
        ]
        texts.append(f"### {TITLES[load]}\n\n{table(rows)}{_reasons(summaries)}")
    return "\n".join(texts)


def machine(described: Mapping[str, str]) -> str:
    """One line on what was measured, and on what."""
    named = {"date", "cores", "processor", "kernel"}
    versions = ", ".join(f"{name} {version}" for name, version in described.items() if name not in named)
    cores = f"{described['cores']} cores ({described['processor']})"
    return f"{described['date']}, {cores}, Linux {described['kernel']}, {versions}."


def _head(load: str) -> tuple[str, ...]:
    rate = "heartbeats/s" if load == BATCHES else "requests/s"
    over = {BATCHES: "of Fastify", GROWTH: "of few", WORKERS: "of one", CREDENTIALS: "of no key"}.get(load, "of bare")
    cpu = ("CPU µs", f"CPU {over}", "store µs")
    return ("server", f"{rate} (lowest to highest)", over, *cpu, "p50 ms", "p99 ms", "CPU % server, store, wrk")


def _row(load: str, name: str, one: Summary, over: Summary | None) -> tuple[str, ...]:
    each = BATCH if load == BATCHES else 1
    return (
        _NAMES.get(name, name),
        _spread(one.rate, each),
        _ratio(rate_ratio(one, over)),
        f"{one.cpu_us.median / each:.1f}" if not one.failed else "—",
        _ratio(cpu_ratio(one, over)),
        f"{one.store_cpu_us.median / each:.1f}",
        f"{one.p50_ms:.2f}",
        f"{one.p99_ms:.2f}",
        ", ".join(f"{share * 100:.0f}" for share in one.cpu),
    )


def _latency_head() -> tuple[str, ...]:
    return (
        "server",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99 over p50",
        "sent late, p99 ms",
        "CPU % server, store, generator",
    )


def _latency_row(name: str, one: Summary) -> tuple[str, ...]:
    latencies = ("—", "—", "—")
    if not one.refused:
        latencies = (f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.p99_ms / one.p50_ms:.1f}")
    cpu = ", ".join(f"{share * 100:.0f}" for share in one.cpu)
    return (_NAMES.get(name, name), f"{one.rate.median:,.0f}", *latencies, f"{one.late_p99_ms:.2f}", cpu)


def _reasons(summaries: Mapping[str, Summary]) -> str:
    lines = [f"- {_NAMES.get(name, name)}: {one.refused}." for name, one in summaries.items() if one.refused]
    stolen = max((one.stolen for one in summaries.values()), default=0)
    lines += [f"- The hypervisor took up to {stolen:.0%} of the server's core (steal)."] if stolen >= 0.01 else []  # noqa: PLR2004 - what rounds to 0 %
    return "\n".join(["", *lines, ""]) if lines else ""


def _spread(value: Spread, each: int) -> str:
    return f"{value.median * each:,.0f} ({value.low * each:,.0f} to {value.high * each:,.0f})"


def _ratio(ratio: Ratio) -> str:
    return "—" if ratio.value is None else f"{ratio.value:.2f}"


def whole(found: Found, described: Mapping[str, str]) -> str:
    """All of it, as docs/performance.md shows it."""
    parts: Iterable[str] = (machine(described), "### Targets\n\n" + targets(found), loads(found))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)
