"""Servers that are away, frozen, full or of the wrong kind: an answer within the budget, and never a wrong one."""

import asyncio
import dataclasses
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from redis.asyncio import Redis
from redis.exceptions import ClusterDownError

from streamlimit import (
    Admission,
    Lease,
    LimitReached,
    Recovering,
    StoreOverloaded,
    StoreUnavailable,
    StreamEnded,
    StreamTracker,
    node,
)
from streamlimit.scripts import ADMIT, Call
from streamlimit.store import Store
from tests.conftest import RULES, SECRET
from tests.helpers import admitted, refs, until
from tests.operations import OPERATIONS
from tests.proxy import Fault, Proxy
from tests.servers import KEPT, PATIENCE_SECONDS, RedisServer, running, valkey

pytestmark = pytest.mark.anyio

BUDGET_SECONDS = 0.4
"""Less than the default, as many of these tests wait until it is over."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running(valkey(tmp_path, *KEPT)) as server:
        yield server


@pytest.fixture
async def tracker(server: RedisServer) -> AsyncIterator[StreamTracker]:
    async with StreamTracker.from_url(server.url, [SECRET], RULES, budget_seconds=BUDGET_SECONDS) as tracker:
        yield tracker


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_no_operation_takes_longer_than_its_budget(
    tracker: StreamTracker, server: RedisServer, fault: str
) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    if fault == "killed":
        server.stop()
    else:
        server.signal(signal.SIGSTOP)
    clock = asyncio.get_running_loop().time
    started = clock()

    answers = await asyncio.gather(
        tracker.health(),
        *(operation(tracker, "alice", stream_id) for operation in OPERATIONS.values()),
        return_exceptions=True,
    )

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    # The event loop's own clock, and far less than all of them one after the other: the deadline is not added up.
    assert clock() - started < len(answers) * BUDGET_SECONDS / 3


async def test_a_restart_is_noticed_by_nobody(tracker: StreamTracker, server: RedisServer) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    server.stop()
    server.start()  # with its append-only file; its scripts and our connections are gone

    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
    assert (await admitted(tracker)).live == 2


async def test_a_short_outage_makes_nobody_wait(tracker: StreamTracker, server: RedisServer) -> None:
    server.stop()
    with pytest.raises(StoreUnavailable):
        await tracker.admit("alice")
    server.start()

    assert isinstance(await until(lambda: tracker.admit("bob")), Admission)


async def test_after_an_outage_in_which_streams_expired_they_resume(server: RedisServer, operator: Redis) -> None:
    rules = dataclasses.replace(RULES, ttl_ms=600, heartbeat_ms=200)
    async with StreamTracker.from_url(server.url, [SECRET], rules) as tracker:
        stream_id = (await admitted(tracker)).lease.stream_id
        server.stop()
        with pytest.raises(StoreUnavailable):
            await tracker.heartbeat("alice", stream_id)  # takes the budget of 1 s: longer than TTL - heartbeat
        server.start()
        assert await operator.exists("stream:{alice}:1") == 0

        beat = await until(lambda: tracker.heartbeat("alice", stream_id))
        assert isinstance(beat, Lease), beat
        assert isinstance(await tracker.admit("bob"), Recovering)


async def test_streams_resume_that_expired_while_replicas_were_too_few(server: RedisServer, operator: Redis) -> None:
    rules = dataclasses.replace(RULES, ttl_ms=600, heartbeat_ms=200)
    async with StreamTracker.from_url(server.url, [SECRET], rules) as tracker:
        stream_id = (await admitted(tracker)).lease.stream_id
        await operator.config_set("min-replicas-to-write", 1)
        with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
            await tracker.admit("bob")  # takes the budget of 1 s: longer than TTL - heartbeat
        assert await operator.exists("stream:{alice}:1") == 0
        await operator.config_set("min-replicas-to-write", 0)

        beat = await until(lambda: tracker.heartbeat("alice", stream_id))
        assert isinstance(beat, Lease), beat


async def test_an_admission_of_unknown_outcome_takes_no_seat(
    tracker: StreamTracker, server: RedisServer, operator: Redis
) -> None:
    await tracker.check("alice")  # the script is loaded, so that what comes late does run
    server.signal(signal.SIGSTOP)  # what is sent now waits in the server's socket
    with pytest.raises(StoreUnavailable):
        await tracker.admit("alice")
    server.signal(signal.SIGCONT)

    ended = await until(lambda: operator.hgetall("ended:{alice}"))
    assert {str(reason).split()[0] for reason in ended.values()} == {"released"}
    assert await refs(tracker) == []


async def cancel_an_admission(tracker: StreamTracker, server: RedisServer) -> None:
    """Cancel it while the frozen server holds its command, which runs when the server goes on."""
    await tracker.check("alice")  # the script is loaded
    server.signal(signal.SIGSTOP)
    task = asyncio.create_task(tracker.admit("alice"))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    server.signal(signal.SIGCONT)


async def test_a_cancelled_admission_takes_no_seat(
    tracker: StreamTracker, server: RedisServer, operator: Redis
) -> None:
    await cancel_an_admission(tracker, server)

    await until(lambda: operator.exists("ended:{alice}"))
    assert await refs(tracker) == []


async def test_a_repeated_admission_survives_the_undoing_of_the_first_try(
    tracker: StreamTracker, server: RedisServer
) -> None:
    await tracker.check("alice")  # the script is loaded
    server.signal(signal.SIGSTOP)
    with pytest.raises(StoreUnavailable):
        await tracker.admit("alice", idempotency_key="k")
    server.signal(signal.SIGCONT)
    again = await until(lambda: tracker.admit("alice", idempotency_key="k"))
    assert isinstance(again, Admission)

    async def paid() -> bool:
        return not tracker._store._debts

    await until(paid)
    assert isinstance(await tracker.heartbeat("alice", again.lease.stream_id), Lease)
    assert len(await refs(tracker)) == 1


async def test_an_admission_that_is_answered_after_a_lost_try_is_kept(
    server: RedisServer, operator: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StreamTracker.from_url(server.url, [SECRET], RULES) as tracker:
        lose_one_try(tracker, monkeypatch)
        await admitted(tracker)

    assert (await operator.exists("stream:{alice}:1"), await operator.exists("ended:{alice}")) == (1, 0)


async def test_an_admission_whose_caller_gave_up_decides_nothing_any_more(
    server: RedisServer, tracker: StreamTracker, operator: Redis
) -> None:
    """Its app is cut off and cannot undo it, so its device came back through another one."""
    async with (
        Proxy(server.port) as proxy,
        StreamTracker.from_url(proxy.url, [SECRET], RULES, budget_seconds=0.2) as cut_off,
    ):
        await until(lambda: cut_off.check("alice"))  # the script is loaded
        proxy.arm(Fault("hold", "request", connections=1_000))
        with pytest.raises(StoreUnavailable):
            await cut_off.admit("alice", device_id="tv-1")
        again = await admitted(tracker, device_id="tv-1")
        proxy.let_go()
        await until(lambda: operator.exists("ended:{alice}"))  # it came first, and then what bars it

        assert isinstance(await tracker.heartbeat("alice", again.lease.stream_id), Lease)


async def test_what_is_owed_is_done_at_shutdown(server: RedisServer, operator: Redis) -> None:
    async with StreamTracker.from_url(server.url, [SECRET], RULES) as tracker:
        await cancel_an_admission(tracker, server)

    assert await operator.exists("ended:{alice}") == 1


async def test_more_than_can_be_owed_is_told_to_the_log(
    tracker: StreamTracker, server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streamlimit.debts._MAX_OWED", 1)
    stream_id = (await admitted(tracker)).lease.stream_id
    server.signal(signal.SIGSTOP)
    for _ in range(2):
        tracker.abandon("alice", stream_id)
    server.signal(signal.SIGCONT)

    assert "too many admissions are in doubt" in caplog.text


async def test_slots_that_nobody_holds_are_looked_at_together(
    tracker: StreamTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def node(*_: object) -> NoReturn:
        raise ClusterDownError("nobody holds it")

    store = tracker._store
    with monkeypatch.context() as patches:
        patches.setattr(store._outages, "since", {1: 0.0, 2: 0.0, 3: 0.0})
        patches.setattr(store._topology, "node", node)

        assert len([*store._down_slots()]) == 1


async def test_a_shutdown_does_not_wait_for_a_repair_that_a_library_keeps_from_being_cancelled(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def repair(_: Store) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as asyncio.wait_for does before Python 3.12, if what it waits for is done
            await asyncio.Event().wait()

    monkeypatch.setattr(Store, "_repair_until_well", repair)
    tracker = StreamTracker.from_url(server.url, [SECRET], RULES)
    async with asyncio.timeout(PATIENCE_SECONDS), tracker:
        tracker._store._start_repair()
        await asyncio.sleep(0)


async def test_nothing_runs_on_after_a_shutdown_while_the_store_is_away(server: RedisServer) -> None:
    before = asyncio.all_tasks()
    async with StreamTracker.from_url(server.url, [SECRET], RULES, budget_seconds=BUDGET_SECONDS) as tracker:
        server.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            await tracker.admit("alice")

    assert asyncio.all_tasks() == before


async def test_the_store_may_be_away_at_the_start(server: RedisServer) -> None:
    server.stop()
    async with StreamTracker.from_url(server.url, [SECRET], RULES, budget_seconds=BUDGET_SECONDS) as tracker:
        with pytest.raises(StoreUnavailable):
            await tracker.health()
        server.start()
        assert isinstance(await until(lambda: tracker.admit("alice")), Admission)


async def test_scripts_that_are_flushed_as_soon_as_they_are_loaded_are_loaded_again(
    tracker: StreamTracker, operator: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = node._exchange

    async def flush_in_the_middle(connection: Any, commands: Sequence[node.Command]) -> list[Any]:
        if not commands[0].packed.startswith(b"*3\r\n$6\r\nSCRIPT"):
            return await exchange(connection, commands)
        monkeypatch.undo()
        loaded = await exchange(connection, commands[:1])
        await operator.script_flush()
        return loaded + await exchange(connection, commands[1:])

    monkeypatch.setattr(node, "_exchange", flush_in_the_middle)

    assert isinstance(await tracker.admit("alice"), Admission)


async def test_a_crowd_is_served_by_few_connections(server: RedisServer, operator: Redis) -> None:
    async with StreamTracker.from_url(server.url, [SECRET], RULES) as tracker:
        answers = await asyncio.gather(*(tracker.admit(f"user-{number % 50}") for number in range(500)))

        assert sum(isinstance(answer, Admission) for answer in answers) == 150
        assert len(await operator.client_list()) <= 70


async def test_overload_is_no_outage(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlimit.node._CALLS_IN_FLIGHT", 1)
    async with StreamTracker.from_url(server.url, [SECRET], RULES) as tracker:
        await tracker.list("alice")
        lane = tracker._store._topology.node(0).calls
        go_on = asyncio.Event()
        monkeypatch.setattr(lane, "_send", lambda _: go_on.wait())
        first = asyncio.create_task(tracker.list("alice"))
        await asyncio.sleep(0.01)
        monkeypatch.undo()

        with pytest.raises(StoreOverloaded):
            await tracker.list("alice")
        assert not tracker._store._outages
        first.cancel()
        go_on.set()
        await tracker.list("alice")


async def test_short_of_memory_heartbeats_go_on(tracker: StreamTracker, operator: Redis) -> None:
    stream_id = (await admitted(tracker)).lease.stream_id
    await operator.pexpire("stream:{alice}:1", 500)
    await operator.config_set("maxmemory", "1")

    with pytest.raises(StoreUnavailable, match="maxmemory"):
        await tracker.admit("alice")
    assert isinstance(await tracker.heartbeat("alice", stream_id), Lease)
    assert await operator.pttl("stream:{alice}:1") > 500
    assert isinstance(await tracker.admit("alice", take_over=stream_id.rpartition(".")[0]), Admission)
    assert (await tracker.health()).recovering_ms == 0


async def test_short_of_memory_ends_are_told_all_the_same(tracker: StreamTracker, operator: Redis) -> None:
    expired, live = await admitted(tracker), await admitted(tracker, "bob")
    await operator.delete("stream:{alice}:1", "epoch:{0}")
    await operator.set("padding", "x" * 100)
    await tracker.terminate_all("bob")
    await tracker.set_user_limit("alice", 0)  # nothing may resume
    await operator.config_set("maxmemory", "1")

    assert await tracker.heartbeat("alice", expired.lease.stream_id) == StreamEnded("limit_reached")
    await tracker.release("alice", expired.lease.stream_id)
    assert await tracker.heartbeat("bob", live.lease.stream_id) == StreamEnded("terminated")
    assert "memory is full" in " ".join((await tracker.health()).warnings)


async def test_short_of_memory_a_limit_can_be_enforced(tracker: StreamTracker, operator: Redis) -> None:
    await admitted(tracker)
    await operator.config_set("maxmemory", "1")

    assert len(await tracker.set_user_limit("alice", 0, end_excess=True)) == 1


def lose_one_try(tracker: StreamTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each admission is answered only after a try that got no answer."""
    run = tracker._store.run

    async def run_in_doubt(call: Call, deadline: float | None = None) -> Any:
        call.in_doubt = call.script is ADMIT
        return await run(call, deadline)

    monkeypatch.setattr(tracker._store, "run", run_in_doubt)


async def test_a_refusal_after_a_lost_try_bars_the_late_run_of_that_try(
    tracker: StreamTracker, operator: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_one_try(tracker, monkeypatch)

    assert isinstance(await tracker.admit("alice", limit=0), LimitReached)
    assert await until(lambda: operator.exists("ended:{alice}"))


async def test_a_replay_after_a_lost_try_bars_the_late_run_of_that_try(
    tracker: StreamTracker, operator: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await admitted(tracker, idempotency_key="k")
    lose_one_try(tracker, monkeypatch)

    again = await admitted(tracker, idempotency_key="k")
    assert again.stream.ref == first.stream.ref
    (barred,) = await until(lambda: operator.hkeys("ended:{alice}"))
    assert barred != first.stream.ref
    assert await refs(tracker) == [first.stream.ref]


async def test_one_failure_is_no_long_outage(server: RedisServer, operator: Redis) -> None:
    async with StreamTracker.from_url(server.url, [SECRET], RULES) as tracker:
        await tracker.list("alice")
        await operator.client_kill_filter(_type="normal", skipme=True)
        await tracker.list("alice")

        async def is_over() -> bool:
            return not tracker._store._outages

        assert await until(is_over)


async def test_a_policy_that_drops_streams_is_warned_of(tracker: StreamTracker, operator: Redis) -> None:
    await operator.config_set("maxmemory-policy", "allkeys-lru")

    warnings = (await tracker.health()).warnings

    assert "maxmemory-policy is allkeys-lru" in warnings[0]


@pytest.mark.parametrize(("appendonly", "warned"), [("no", True), ("yes", False)])
async def test_a_store_without_an_append_only_file_is_warned_of(
    tracker: StreamTracker, operator: Redis, appendonly: str, *, warned: bool
) -> None:
    await operator.config_set("appendonly", appendonly)

    assert any("append-only file" in warning for warning in (await tracker.health()).warnings) == warned


async def test_a_replica_is_not_well(tracker: StreamTracker, operator: Redis) -> None:
    await operator.replicaof("127.0.0.1", 1)  # nobody there; it is read-only all the same

    with pytest.raises(StoreUnavailable):
        await tracker.health()


async def test_a_replica_with_data_of_long_ago_ends_and_refuses_nobody(
    tracker: StreamTracker, operator: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_ago = time.time_ns() - 3600 * 10**9  # a young stream would be brought back, which fails in any case
    with monkeypatch.context() as patches:
        patches.setattr("streamlimit.stream_id.time", SimpleNamespace(time_ns=lambda: hour_ago))
        stream_id = (await admitted(tracker, "bob")).lease.stream_id
    for _ in range(RULES.limit):
        await admitted(tracker)
    await operator.delete("stream:{bob}:1")
    await operator.replicaof("127.0.0.1", 1)  # it was a primary, and nobody has told us

    with pytest.raises(StoreUnavailable, match="read only replica"):
        await tracker.heartbeat("bob", stream_id)
    with pytest.raises(StoreUnavailable, match="read only replica"):
        await tracker.admit("alice")
