"""What the service counts, and how Prometheus gets it. No user, stream or key is ever a label."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, Literal, get_args

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from streamlimit.counters import Counters

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

Admissions = Literal[
    "admitted", "over_limit", "provisional", "limit_reached", "unknown_user", "recovering", "ended", "too_many"
]
Heartbeats = Literal["live", "ended", "unknown", "invalid", "unavailable"]
StoreErrors = Literal["unavailable", "overloaded", "damaged"]
Fetches = Literal["fetched", "failed"]
Refusals = Literal["missing", "invalid", "expired", "repeated", "forbidden", "keys_unavailable"]
RefusedRequests = Literal["malformed", "head_too_large", "too_slow", "not_reading", "too_many_connections"]

_EVENTS: Final[Mapping[tuple[str, str], tuple[str, tuple[str, ...]]]] = {
    ("admissions", "outcome"): (
        "Admissions that were asked for; over_limit: the limit is not enforced; provisional: the store was away.",
        get_args(Admissions),
    ),
    ("heartbeats", "result"): ("Heartbeats, alone or in batches.", get_args(Heartbeats)),
    ("store_errors", "kind"): (
        "Requests, and heartbeats of batches, to which the store gave no usable answer in time; damaged: by hand.",
        get_args(StoreErrors),
    ),
    ("callers_refused", "reason"): (
        "Requests that were refused for who asked: no key, a wrong one, or one that may not do this.",
        get_args(Refusals),
    ),
    ("key_set_fetches", "result"): ("Fetches of the keys of players' tokens from JWT_JWKS_URL.", get_args(Fetches)),
    ("requests_refused", "reason"): (
        "Requests that were refused before they were looked at, and their connections closed.",
        get_args(RefusedRequests),
    ),
}
_SLOTS: Final = {
    (family, value): slot
    for slot, (family, value) in enumerate(
        (family, value) for (family, _), (_, values) in _EVENTS.items() for value in values
    )
}
_EVENT_SLOTS: Final = len(_SLOTS)
_HEARTBEATS: Final = {200: "live", 410: "ended", 404: "unknown", 422: "invalid", 503: "unavailable"}

_STATUSES: Final = (*(200, 201, 204, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 503), 0)
"""0 stands for any other one."""
_STATUS_SLOTS: Final = {status: slot for slot, status in enumerate(_STATUSES)}
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_LATENCIES: Final = len(_STATUSES)
_SUM: Final = _LATENCIES + len(_BOUNDS) + 1
_PER_OPERATION: Final = _SUM + 1


def counters(operations: int) -> Counters:
    """Make the counters for so many operations, to be shared by all workers."""
    return Counters(_EVENT_SLOTS + operations * _PER_OPERATION)


class Metrics(Collector):
    """The counts of this process, and the sums over all.

    Args:
        operations: Method and path of each operation; what they are counted by is their place in it.
        counters: Shared with the other workers.
    """

    def __init__(self, operations: Sequence[tuple[str, str]], counters: Counters) -> None:
        self._operations = operations
        self._counters = counters
        self._row = counters.take_row()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answered(self, operation: int, status: int, seconds: float) -> None:
        """Count an answer, and how long it took to make."""
        base = _EVENT_SLOTS + operation * _PER_OPERATION
        row = self._row
        row[base + _STATUS_SLOTS.get(status, _LATENCIES - 1)] += 1
        row[base + _LATENCIES + bisect_left(_BOUNDS, seconds)] += 1
        row[base + _SUM] += int(seconds * 1_000_000)

    def admission(self, outcome: Admissions) -> None:
        """Count an admission that was asked for."""
        self._row[_SLOTS["admissions", outcome]] += 1

    def heartbeat_of_batch(self, result: Heartbeats) -> None:
        """Count a heartbeat out of a batch; others are counted by their answers."""
        self._row[_SLOTS["heartbeats", result]] += 1

    def store_error(self, kind: StoreErrors) -> None:
        """Count a failure of the store."""
        self._row[_SLOTS["store_errors", kind]] += 1

    def refused(self, reason: Refusals) -> None:
        """Count a caller that was not let in."""
        self._row[_SLOTS["callers_refused", reason]] += 1

    def key_set_fetch(self, result: Fetches) -> None:
        """Count a fetch of the keys of players' tokens."""
        self._row[_SLOTS["key_set_fetches", result]] += 1

    def request_refused(self, reason: RefusedRequests) -> None:
        """Count a request that was refused for how it came."""
        self._row[_SLOTS["requests_refused", reason]] += 1

    def exposition(self) -> bytes:
        """Write all counts, of all workers, as Prometheus reads them."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. Called by prometheus-client."""
        totals = self._counters.totals()
        events = {key: totals[slot] for key, slot in _SLOTS.items()}
        answers = CounterMetricFamily("streamlimit_answers", "Answers.", labels=["method", "route", "status"])
        seconds = HistogramMetricFamily(
            "streamlimit_request_seconds", "How long answers took to make.", labels=["method", "route"]
        )
        for number, labels in enumerate(self._operations):
            base = _EVENT_SLOTS + number * _PER_OPERATION
            for status, count in zip(_STATUSES, totals[base:], strict=False):
                if count:
                    answers.add_metric([*labels, str(status or "other")], count)
                if labels[1].endswith("/heartbeat") and status in _HEARTBEATS:
                    events["heartbeats", _HEARTBEATS[status]] += count
            counts = accumulate(totals[base + _LATENCIES : base + _SUM])
            buckets = [(str(bound), float(count)) for bound, count in zip((*_BOUNDS, "+Inf"), counts, strict=True)]
            seconds.add_metric(labels, buckets, totals[base + _SUM] / 1_000_000)
        for (family, label), (description, values) in _EVENTS.items():
            metric = CounterMetricFamily(f"streamlimit_{family}", description, labels=[label])
            for value in values:
                metric.add_metric([value], events[family, value])
            yield metric
        yield answers
        yield seconds
