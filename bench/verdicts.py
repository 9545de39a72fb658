"""From turns to figures: medians, spread, and when a figure is no figure of the server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

MIN_SERVER_SHARE: Final = 0.9
"""Below it the server was not the bottleneck."""
SATURATED: Final = 0.95
MAX_DISTURBANCE: Final = 0.1
MIN_KEPT: Final = 0.98
"""How much of its plan a paced generator must have sent."""
MAX_GENERATOR_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one server did in one round."""

    requests: int
    errors: int
    seconds: float
    server_cpu_seconds: float
    store_cpu_seconds: float
    load_cpu_seconds: float
    others_busy: float
    """Of the cores of the load generator and the store, the busier one's share."""
    disturbed: float
    """The share of the server's core that other processes used."""
    others_disturbed: float
    """The same of the cores of the load generator and the store."""
    stolen: float
    """The share of it that the hypervisor gave to somebody else."""
    p50_ms: float
    p99_ms: float
    late_p99_ms: float = 0
    planned: int = 0
    cores: int = 1
    """How many the server had."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def server_share(self) -> float:
        """How much the server used of what it could have had of its core, or cores."""
        return self.server_cpu_seconds / self.seconds / self.cores / max(0.01, 1 - self.disturbed - self.stolen)


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the lowest and the highest value."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values))


def failed(turn: Turn) -> str:
    """Why this turn tells nothing at all; '' where it does."""
    if turn.errors:
        return f"{turn.errors:,} of {turn.requests:,} requests failed"
    return "" if turn.requests else "nothing was answered"


def not_at_peak(turn: Turn) -> str:
    """Why the rate of this turn is not the server's peak; '' where it is."""
    share = f"the server used {turn.server_share:.0%} of its core"
    if turn.disturbed > MAX_DISTURBANCE:
        return f"other processes used {turn.disturbed:.0%} of the server's core"
    if turn.stolen > MAX_DISTURBANCE:
        return f"the hypervisor took {turn.stolen:.0%} of the server's core"
    if turn.server_share >= MIN_SERVER_SHARE:
        return ""
    if turn.others_disturbed > MAX_DISTURBANCE:
        return f"{share}, and other processes used {turn.others_disturbed:.0%} of that of wrk and the store"
    if turn.others_busy >= SATURATED:
        return (
            f"the load generator was the bottleneck: {share}, that of wrk and the store was {turn.others_busy:.0%} busy"
        )
    return f"the server was not under full load: {share}"


def not_kept(turn: Turn) -> str:
    """Why the latencies of this turn are not those at the planned rate; '' where they are."""
    if turn.requests < turn.planned * MIN_KEPT:
        return f"{turn.requests:,} of {turn.planned:,} planned requests were answered"
    if turn.late_p99_ms > turn.p99_ms / 2:
        return f"the load generator itself was late: {turn.late_p99_ms:.2f} ms at the 99th percentile"
    if turn.load_cpu_seconds / turn.seconds > MAX_GENERATOR_SHARE:
        return f"the load generator was the bottleneck: it used {turn.load_cpu_seconds / turn.seconds:.0%} of a core"
    if turn.disturbed > MAX_DISTURBANCE:
        return f"other processes used {turn.disturbed:.0%} of the server's core"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All turns of one server."""

    rate: Spread
    """Requests a second."""
    cpu_us: Spread
    """CPU time of the server a request: the steadier figure."""
    store_cpu_us: Spread
    p50_ms: float
    p99_ms: float
    late_p99_ms: float
    cpu: tuple[float, float, float]
    """The shares of a core that server, store and load generator used."""
    stolen: float
    failed: str
    """Why it tells nothing, or ''."""
    refused: str
    """Why its rate or latency is not to be compared, or ''."""


def summarise(turns: Sequence[Turn], judge: Callable[[Turn], str] = not_at_peak) -> Summary:
    """Sum up the turns of a server.

    Args:
        turns: At least one.
        judge: Finds what is wrong with a turn. Turns with which something is wrong are left out; where they are the
            greater part, nothing is left to compare.
    """
    broken = [reason for turn in turns if (reason := failed(turn))]
    reasons = [judge(turn) for turn in turns]
    good = [turn for turn, reason in zip(turns, reasons, strict=True) if not reason]
    refused = "" if len(good) * 2 >= len(turns) else next(reason for reason in reasons if reason)
    used = good if good and not refused else turns
    return Summary(
        rate=spread([turn.rate for turn in used]),
        cpu_us=spread([turn.server_cpu_seconds / max(1, turn.requests) * 1e6 for turn in used]),
        store_cpu_us=spread([turn.store_cpu_seconds / max(1, turn.requests) * 1e6 for turn in used]),
        p50_ms=median(turn.p50_ms for turn in used),
        p99_ms=median(turn.p99_ms for turn in used),
        late_p99_ms=median(turn.late_p99_ms for turn in used),
        cpu=(
            median(turn.server_cpu_seconds / turn.seconds for turn in used),
            median(turn.store_cpu_seconds / turn.seconds for turn in used),
            median(turn.load_cpu_seconds / turn.seconds for turn in used),
        ),
        stolen=median(turn.stolen for turn in turns),
        failed=broken[0] if broken else "",
        refused=broken[0] if broken else refused,
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure over another, or why there is none."""

    value: float | None
    reason: str = ""


def rate_ratio(of: Summary | None, over: Summary | None) -> Ratio:
    """Requests a second of one server over those of another."""
    if of is None or over is None:
        return Ratio(None, "not measured")
    if reason := of.refused or over.refused:
        return Ratio(None, reason)
    return Ratio(of.rate.median / over.rate.median)


def cpu_ratio(of: Summary | None, over: Summary | None) -> Ratio:
    """What one server would do over what another would, judged by the CPU time that they take a request."""
    if of is None or over is None:
        return Ratio(None, "not measured")
    if reason := of.failed or over.failed:
        return Ratio(None, reason)
    return Ratio(over.cpu_us.median / of.cpu_us.median if of.cpu_us.median else None)
