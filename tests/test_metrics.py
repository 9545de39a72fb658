"""What the service counts, and that all of its workers are counted together."""

import multiprocessing
import os
import re
import signal
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from streamlimit import StoreUnavailable, StreamTracker
from streamlimit.counters import Counters
from streamlimit.errors import StoreOverloaded
from streamlimit.routes import OPERATIONS
from streamlimit.store import Store
from tests.conftest import Serve
from tests.issuer import SERVICE_KEY, bearer, token
from tests.servers import Service, serving, wait_for
from tests.test_auth import OPERATOR, make_authenticator
from tests.web import ALICE, INVENTED, STREAMS, raising, started

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Those that are not 0, by name and values of the labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.value
    }


async def counted(http: httpx2.AsyncClient, name: str) -> dict[str, float]:
    """The values of a counter by its only label."""
    found = samples((await http.get("/metrics")).text)
    return {key[1]: value for key, value in found.items() if key[0] == f"streamlimit_{name}_total"}


@pytest.mark.anyio
async def test_admissions_are_counted_by_what_became_of_them(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    for _ in range(4):
        await http.post(STREAMS)
    await fake_redis.flushall()
    await http.post(STREAMS)

    assert await counted(http, "admissions") == {"admitted": 3, "limit_reached": 1, "recovering": 1}


@pytest.mark.anyio
async def test_admissions_that_are_not_enforced_are_counted(serve: Serve) -> None:
    http = await serve(enforce=False, limit=1)
    for _ in range(3):
        await http.post(STREAMS)

    assert await counted(http, "admissions") == {"admitted": 1, "over_limit": 2}


@pytest.mark.anyio
async def test_admissions_while_the_store_is_away_are_counted_for_themselves_and_as_its_failures(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = await serve(on_outage="allow")
    down = StoreUnavailable("down")
    down.__cause__ = TimeoutError()
    monkeypatch.setattr(Store, "run", raising(down))
    assert (await http.post(STREAMS)).json()["provisional"] is True

    assert await counted(http, "admissions") == {"provisional": 1}
    assert await counted(http, "store_errors") == {"unavailable": 1}


@pytest.mark.anyio
async def test_unknown_users_are_counted(serve: Serve) -> None:
    http = await serve(unknown_users="reject")
    await http.post(STREAMS)

    assert await counted(http, "admissions") == {"unknown_user": 1}


@pytest.mark.anyio
async def test_heartbeats_are_counted_alone_and_in_batches(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, ended = [(await started(http))["stream_id"] for _ in range(2)]
    await http.post(f"{STREAMS}/{ended}/release")
    ids = [live, live, ended, INVENTED, "x"]
    for stream_id in ids:
        await http.post(f"{STREAMS}/{stream_id}/heartbeat")
    await http.post("/v1/users/*/streams/x/heartbeat")
    batch = [{"user_id": "alice", "stream_id": stream_id} for stream_id in ids] + [{"user_id": "*", "stream_id": "x"}]
    await http.post("/v1/heartbeats", json={"streams": batch})
    monkeypatch.setattr(StreamTracker, "heartbeat", raising(StoreUnavailable("down")))
    await http.post(f"{STREAMS}/{live}/heartbeat")

    expected = {"live": 4, "ended": 2, "unknown": 4, "invalid": 2, "unavailable": 1}
    assert await counted(http, "heartbeats") == expected


@pytest.mark.anyio
async def test_failures_of_the_store_are_counted(http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> tuple[StoreUnavailable, ...]:
        return StoreUnavailable("down"), StoreOverloaded("busy"), StoreUnavailable("down")

    monkeypatch.setattr(StreamTracker, "heartbeat_many", fail)
    monkeypatch.setattr(StreamTracker, "list", raising(StoreOverloaded("busy")))
    await http.post("/v1/heartbeats", json={"streams": []})
    await http.get(STREAMS)

    assert await counted(http, "store_errors") == {"unavailable": 2, "overloaded": 2}


@pytest.mark.anyio
async def test_callers_that_are_refused_are_counted_by_the_reason(serve: Serve) -> None:
    http = await serve(make_authenticator())
    for headers in ({}, bearer("x"), bearer(token(exp=1)), bearer(token(sub="bob")), bearer(token(sub="bob"))):
        await http.get(STREAMS, headers=headers)
    http.headers = OPERATOR

    expected = {"missing": 1, "invalid": 1, "expired": 1, "forbidden": 2}
    assert await counted(http, "callers_refused") == expected


@pytest.mark.anyio
async def test_answers_are_counted_by_route_and_status(http: httpx2.AsyncClient) -> None:
    await http.get(ALICE)
    await http.put(ALICE, json={"limit": 3})
    await http.head(ALICE)
    await http.put(ALICE)

    found = samples((await http.get("/metrics")).text)

    route = "/v1/users/{user_id}"
    assert {key[1:]: value for key, value in found.items() if key[0] == "streamlimit_answers_total"} == {
        ("GET", route, "404"): 1,
        ("GET", route, "200"): 1,
        ("PUT", route, "200"): 1,
        ("PUT", route, "415"): 1,
    }
    assert found["streamlimit_request_seconds_count", "GET", route] == 2
    assert found["streamlimit_request_seconds_bucket", "+Inf", "GET", route] == 2
    assert found["streamlimit_request_seconds_sum", "GET", route] > 0


@pytest.mark.anyio
async def test_a_bug_is_counted_as_an_error(http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamTracker, "list", raising(RuntimeError("a bug")))
    await http.get(STREAMS)

    found = samples((await http.get("/metrics")).text)

    assert found["streamlimit_answers_total", "GET", "/v1/users/{user_id}/streams", "500"] == 1


@pytest.mark.anyio
async def test_no_user_and_no_stream_is_named(http: httpx2.AsyncClient) -> None:
    stream = await started(http, device_id="tv-1")
    await http.post(f"{STREAMS}/{stream['stream_id']}/heartbeat")

    text = (await http.get("/metrics")).text

    for secret in ("alice", "tv-1", stream["stream_ref"]):
        assert secret not in text
    labels = set(re.findall(r'(\w+)="', text))
    assert labels == {"outcome", "result", "kind", "reason", "method", "route", "status", "le"}
    assert {f'route="{operation.path}"' for operation in OPERATIONS} == set(re.findall(r'route="[^"]*"', text))


# Counters.


def add(counters: Counters) -> None:
    row = counters.take_row()
    for _ in range(10_000):
        row[1] += 1


@pytest.mark.slow
def test_processes_count_together() -> None:
    counters = Counters(2)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add, args=(counters,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert counters.totals() == [0, 30_000]


def test_nobody_has_counted_at_first() -> None:
    assert Counters(2).totals() == [0, 0]


def test_there_are_rows_for_more_workers_than_there_are_rows() -> None:
    counters = Counters(1)
    for _ in range(100):
        counters.take_row()[0] += 1

    assert counters.totals() == [100]


@pytest.mark.slow
def test_each_worker_tells_the_counts_of_all_and_of_those_that_are_gone(tmp_path: Path) -> None:
    with serving(Service(tmp_path, "--workers", "3")) as service:

        def answered() -> float:
            # A connection of its own, for any of the workers.
            with httpx2.Client(base_url=service.http.base_url) as http:
                found = samples(http.get("/metrics").text)
            return found.get(("streamlimit_answers_total", "GET", "/v1/users/{user_id}/streams", "200"), 0)

        for _ in range(30):
            with httpx2.Client(base_url=service.http.base_url) as http:
                http.get(STREAMS)
        assert [answered() for _ in range(10)] == [30] * 10

        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(workers) == 3
        os.kill(int(workers[0]), signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{workers[0]}").exists(), "the end of the worker")
        assert answered() == 30
        assert service.http.get(STREAMS, headers=bearer(SERVICE_KEY)).status_code == 200
        assert answered() == 31
