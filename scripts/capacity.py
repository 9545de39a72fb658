"""The arithmetic of docs/scaling.md: from what an operation costs to what a deployment needs."""

from collections.abc import Mapping
from math import ceil
from typing import Final

HEARTBEAT_SECONDS: Final = 0.9 * 30
PLAY_SECONDS: Final = 100 * HEARTBEAT_SECONDS
"""How long a stream lives, so that 99 of 100 requests are heartbeats."""
ENDS_KEPT_SECONDS: Final = 600
LOAD: Final = 0.5
"""Of a core, on an ordinary evening. The rest is for what is not ordinary."""
RESUME_SECONDS: Final = 45
"""Within half of the TTL all streams must be back after a loss; the other half is for heartbeats that are repeated."""
MIN_PRIMARIES: Final = 3
"""Fewer cannot elect."""
SIZES: Final = (1_000_000, 10_000_000, 100_000_000)

Costs = Mapping[str, float]

COSTS: Final = {
    "stream_bytes": ("memory of a live stream", "{:,.0f} bytes"),
    "ended_bytes": ("memory of an ended one, kept for ten minutes", "{:,.0f} bytes"),
    "epochs_bytes": ("memory of the 16,384 epoch keys of a Cluster", "{:,.0f} bytes"),
    "beat_us": ("store CPU of a heartbeat, 128 in a call, as on one server", "{:.2f} µs"),
    "own_call_us": ("… in a call of its own, 128 calls together, as on a Cluster", "{:.2f} µs"),
    "alone_us": ("… sent alone", "{:.2f} µs"),
    "first_us": ("store CPU of a user's first admission", "{:.2f} µs"),
    "third_us": ("… of the third", "{:.2f} µs"),
    "refused_us": ("… of one that is refused", "{:.2f} µs"),
    "release_us": ("… of a release", "{:.2f} µs"),
    "resume_us": ("… of a stream that resumes", "{:.2f} µs"),
    "epoch_us": ("… of the first meeting, an epoch key", "{:.2f} µs"),
    "beat_log_bytes": ("append-only file, and each replica, of a heartbeat", "{:,.0f} bytes"),
    "third_log_bytes": ("… of an admission", "{:,.0f} bytes"),
    "beat_net_bytes": ("network of a heartbeat, 128 in a call, both directions", "{:,.0f} bytes"),
    "own_call_net_bytes": ("… in a call of its own", "{:,.0f} bytes"),
    "worker_beats": ("heartbeats a core of app processes carries", "{:,.0f}/s"),
}
"""What is measured, as people read it, in the order of the table."""


def cores(costs: Costs, beat: str = "beat_us") -> float:
    """What a live stream takes of a core of its server."""
    seldom = (costs["third_us"] + costs["release_us"]) / PLAY_SECONDS
    return (costs[beat] / HEARTBEAT_SECONDS + seldom) / 1e6


def streams_a_primary(costs: Costs, beat: str = "beat_us") -> int:
    """Live streams that one primary carries: on an ordinary evening, and after it has lost everything."""
    return int(min(LOAD / cores(costs, beat), RESUME_SECONDS * 1e6 / costs["resume_us"]))


def primaries(costs: Costs, streams: int) -> int:
    """Primaries that a Cluster needs."""
    return max(MIN_PRIMARIES, ceil(streams / streams_a_primary(costs, "own_call_us")))


def data_bytes(costs: Costs, streams: int) -> float:
    """Memory of the keys, once."""
    return streams * (costs["stream_bytes"] + costs["ended_bytes"] * ENDS_KEPT_SECONDS / PLAY_SECONDS)


def network_bits(costs: Costs, streams: int, beat: str = "own_call_net_bytes") -> float:
    """Between service, primaries and one replica of each, a second."""
    return streams / HEARTBEAT_SECONDS * 8 * (costs[beat] + costs["beat_log_bytes"])


def workers(costs: Costs, streams: int) -> int:
    """App processes, each of which has half a core's work."""
    return ceil(streams / HEARTBEAT_SECONDS / (LOAD * costs["worker_beats"]))


def costs_table(costs: Costs, claimed: Mapping[str, str] | None = None) -> str:
    """What was measured, and beside it what is claimed, by what is measured."""
    rows = ["| what | measured |" + (" docs/scaling.md |" if claimed is not None else "")]
    rows.append("| --- | --- |" + (" --- |" if claimed is not None else ""))
    for name, (what, form) in COSTS.items():
        value = form.format(costs[name]) if name in costs else "not measured"
        beside = "" if claimed is None else f" {claimed.get(name, '—')} |"
        rows.append(f"| {what} | {value} |{beside}")
    return "\n".join(rows) + "\n"


def claimed_by(text: str) -> dict[str, str]:
    """What such a table says, by the names of COSTS."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    values = {cell[0]: cell[1] for cell in cells if len(cell) > 1}
    return {name: values[what] for name, (what, _) in COSTS.items() if what in values}


def capacity_table(costs: Costs) -> str:
    """What 1, 10 and 100 million live streams need."""
    single = streams_a_primary(costs)
    rows = [
        ("live streams", *(f"{streams:,}" for streams in SIZES)),
        ("---", *("---" for _ in SIZES)),
        ("heartbeats/s", *(f"{streams / HEARTBEAT_SECONDS:,.0f}" for streams in SIZES)),
        ("admissions/s", *(f"{streams / PLAY_SECONDS:,.0f}" for streams in SIZES)),
        ("cores of one server", *(f"{cores(costs) * streams:.2f}" for streams in SIZES)),
        (
            "… until all have resumed after a loss",
            *(f"{costs['resume_us'] * streams / 1e6:,.0f} s" for streams in SIZES),
        ),
        ("… is it enough?", *("yes" if streams <= single else "no" for streams in SIZES)),
        ("primaries of a Cluster", *(f"{primaries(costs, streams):,}" for streams in SIZES)),
        ("… cores of all", *(f"{cores(costs, 'own_call_us') * streams:.2f}" for streams in SIZES)),
        ("keys, once", *(_gigabytes(data_bytes(costs, streams)) for streams in SIZES)),
        ("… with a replica each, and room to rewrite", *(_gigabytes(4 * data_bytes(costs, s)) for s in SIZES)),
        ("network of all primaries", *(f"{network_bits(costs, streams) / 1e6:,.0f} Mbit/s" for streams in SIZES)),
        ("app processes, at least", *(f"{workers(costs, streams):,}" for streams in SIZES)),
    ]
    found = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    clustered = streams_a_primary(costs, "own_call_us")
    return (
        f"{found}\nOne server, or a Sentinel set, carries {_rounded(single)} live streams; each primary of a Cluster "
        f"{_rounded(clustered)}.\n"
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _rounded(count: int) -> str:
    digits = max(0, len(str(count)) - 2)
    return f"{count // 10**digits * 10**digits:,}"
