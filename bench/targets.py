"""What is aimed at, and whether it was reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.plan import BATCH
from bench.servers import (
    ADMISSIONS,
    BARE,
    BATCHES,
    EXPRESS,
    FASTAPI,
    FASTIFY,
    FASTIFY_PIPELINED,
    HEARTBEATS,
    STREAMLIMIT,
)
from bench.stores import REDIS, VALKEY
from bench.verdicts import Summary, cpu_ratio, rate_ratio

GROWTH, FEW, MANY = "growth", "few", "many"
KEYED, NO_KEYS, WITH_KEYS = "keys", "no-keys", "with-keys"
CREDENTIALS, NOBODY = "credentials", "no key"
LATENCY, WORKERS, ONE, TWO = "latency", "workers", "one", "two"
NOT_MEASURED: Final = "not measured"
MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a run."""

    loads: Mapping[str, Mapping[str, Summary]]
    """By load, then by server."""
    figures: Mapping[str, float]
    cores: int

    def of(self, load: str, server: str) -> Summary | None:
        """A server under a load."""
        return self.loads.get(load, {}).get(server)


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure in words, and whether the target is met; None where that cannot be said."""

    words: str
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """In the table."""
        return {True: "yes", False: "no", None: "—"}[self.met]


def _rates(load: str, over: str, least: float, of: str = STREAMLIMIT.name) -> Callable[[Found], Measured]:
    """One rate over another, at least so much; judged by CPU time, the steadier figure, where there is no rate."""

    def measure(found: Found) -> Measured:
        pair = found.of(load, of), found.of(load, over)
        rate, cpu = rate_ratio(*pair), cpu_ratio(*pair)
        by_cpu = "" if cpu.value is None else f"{cpu.value:.2f} by CPU time"
        if rate.value is None:
            if cpu.value is None:
                return Measured(rate.reason)
            return Measured(f"{by_cpu}; rate: {rate.reason}", cpu.value >= least)
        return Measured(f"{rate.value:.2f}; {by_cpu}", rate.value >= least)

    return measure


def _batches(found: Found) -> Measured:
    summary = found.of(BATCHES, STREAMLIMIT.name)
    if summary is None:
        return Measured(NOT_MEASURED)
    if summary.failed:
        return Measured(summary.failed)
    by_cpu = f"{BATCH / summary.cpu_us.median * 1e6:,.0f} by CPU time"
    if summary.refused:
        return Measured(f"{by_cpu}; rate: {summary.refused}")
    rate = summary.rate.median * BATCH
    return Measured(f"{rate:,.0f}; {by_cpu}", rate >= 60_000)  # noqa: PLR2004 - the target


def _latency(found: Found) -> Measured:
    summary = found.of(LATENCY, STREAMLIMIT.name)
    if summary is None or summary.refused:
        return Measured(summary.refused if summary else NOT_MEASURED)
    words = f"{summary.p99_ms / summary.p50_ms:.1f} ({summary.p99_ms:.2f} over {summary.p50_ms:.2f} ms)"
    return Measured(words, summary.p99_ms < 4 * summary.p50_ms)


def _latency_of_fastify(found: Found) -> Measured:
    own, other = found.of(LATENCY, STREAMLIMIT.name), found.of(LATENCY, FASTIFY_PIPELINED.name)
    if own is None or other is None:
        return Measured(NOT_MEASURED)
    if reason := own.refused or other.refused:
        return Measured(reason)
    return Measured(f"{own.p99_ms:.2f} against {other.p99_ms:.2f} ms", own.p99_ms < other.p99_ms)


def _scripts(found: Found) -> Measured:
    words, worst = [], 0.0
    for engine in (VALKEY, REDIS):
        count = found.figures.get(f"{engine}_count_us")
        if count is None:
            continue
        times = [found.figures[f"{engine}_{step}_us"] for step in ("first", "third", "refused")]
        ratios = " / ".join(f"{time / count:.1f}" for time in times)
        words.append(f"{engine}: {ratios} ({' / '.join(f'{time:.0f}' for time in times)} µs over {count:.0f})")
        worst = max(worst, max(times) / count)
    return Measured("; ".join(words), worst <= 1.5) if words else Measured(NOT_MEASURED)  # noqa: PLR2004 - the target


def _store_cpu(found: Found) -> Measured:
    summary, native = found.of(BATCHES, STREAMLIMIT.name), found.figures.get("native_us")
    if summary is None or native is None or summary.failed:
        return Measured(summary.failed if summary and native else NOT_MEASURED)
    own = summary.store_cpu_us.median / BATCH
    return Measured(f"{own / native:.1f} ({own:.1f} over {native:.1f} µs)", own <= 1.5 * native)


def _memory(engine: str, most: float) -> Callable[[Found], Measured]:
    def measure(found: Found) -> Measured:
        size = found.figures.get(f"{engine}_stream_bytes")
        return Measured(NOT_MEASURED) if size is None else Measured(f"{size:.0f} bytes", size <= most)

    return measure


def _million(found: Found) -> Measured:
    if found.figures.get("streams_stored") != MILLION:
        return Measured(NOT_MEASURED)
    sizes = {engine: found.figures.get(f"{engine}_stream_bytes") for engine in (VALKEY, REDIS)}
    there = {engine: size * MILLION / 1e6 for engine, size in sizes.items() if size is not None}
    words = ", ".join(f"{engine} {size:.0f} MB" for engine, size in there.items())
    return Measured(words, max(there.values()) <= 260)  # noqa: PLR2004 - the target


def _workers(found: Found) -> Measured:
    one, two = found.of(WORKERS, ONE), found.of(WORKERS, TWO)
    if one is None or two is None:
        return Measured(NOT_MEASURED)
    cpu = cpu_ratio(two, one)
    if found.cores < 4:  # noqa: PLR2004 - two workers, the store, the load
        words = "" if cpu.value is None else f"on one core {cpu.value:.2f} of one, by CPU time; "
        return Measured(f"{words}four cores are needed, there are {found.cores}")
    ratio = rate_ratio(two, one)
    if ratio.value is None:
        return Measured(ratio.reason)
    return Measured(f"{ratio.value:.2f} on {found.cores} cores", ratio.value >= 1.8)  # noqa: PLR2004 - the target


def _seconds(name: str, most: float) -> Callable[[Found], Measured]:
    def measure(found: Found) -> Measured:
        seconds = found.figures.get(f"{name}_seconds")
        return Measured(NOT_MEASURED) if seconds is None else Measured(f"{seconds:.2f} s", seconds < most)

    return measure


TARGETS: Final[tuple[tuple[str, str, Callable[[Found], Measured]], ...]] = (
    ("heartbeats/s, over bare ASGI", "≥ 0.55, aim 0.75", _rates(HEARTBEATS, BARE.name, 0.55)),
    ("… over Fastify + ioredis with auto-pipelining", "> 1", _rates(HEARTBEATS, FASTIFY_PIPELINED.name, 1)),
    ("… over FastAPI + redis-py as commonly written", "≥ 6, aim 8", _rates(HEARTBEATS, FASTAPI.name, 6)),
    ("admissions/s, over bare ASGI", "≥ 0.35", _rates(ADMISSIONS, BARE.name, 0.35)),
    ("… over Express + ioredis", "> 1", _rates(ADMISSIONS, EXPRESS.name, 1)),
    ("… over Fastify + ioredis", "aim 1", _rates(ADMISSIONS, FASTIFY.name, 1)),
    ("admission script, first / third / refused, over a script that only counts", "≤ 1.5", _scripts),
    (f"heartbeats/s through `POST /v1/heartbeats`, {BATCH} a request", "≥ 60,000", _batches),
    ("p99 of a heartbeat at half of the peak, over p50", "< 4", _latency),
    ("… and below that of Fastify + ioredis with auto-pipelining", "<", _latency_of_fastify),
    ("CPU time of the store a batched heartbeat, over a native PEXPIRE in a pipeline", "≤ 1.5", _store_cpu),
    ("memory of a live stream, Redis", "≤ 260 bytes", _memory(REDIS, 260)),
    ("… Valkey", "≤ 230 bytes", _memory(VALKEY, 230)),
    ("… of 1,000,000", "≤ 260 MB", _million),
    ("heartbeats/s with 1,000,000 live streams, over 1,000", "≥ 0.95", _rates(GROWTH, FEW, 0.95, MANY)),
    ("heartbeats/s with keys and tokens, over bare ASGI", "≥ 0.55", _rates(KEYED, BARE.name, 0.55, WITH_KEYS)),
    ("heartbeats/s of two workers, over one", "≥ 1.8", _workers),
    ("start-up to the first admission, embedded store", "< 1.5 s", _seconds("start", 1.5)),
    ("import of the package", "< 0.4 s", _seconds("import", 0.4)),
)
"""What, how much, and how it is found."""
