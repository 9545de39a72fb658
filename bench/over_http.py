"""The parts that load servers over HTTP."""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench import servers, streams
from bench.native import measure_native
from bench.plan import GATEWAYS
from bench.run import Run
from bench.servers import ADMISSIONS, BATCHES, FASTAPI, FASTIFY, FASTIFY_PIPELINED, HEARTBEATS, STREAMLIMIT, TWO_WORKERS
from bench.stores import KEPT, VALKEY, connect, forget_streams, start_store
from bench.targets import FEW, GROWTH, LATENCY, MANY, ONE, TWO, WORKERS

FEW_STREAMS: Final = 1_000
_PATIENT: Final = {server.name for server in (STREAMLIMIT, FASTIFY, FASTIFY_PIPELINED, FASTAPI, servers.BARE)}
"""Whose latency is measured."""


def heartbeats(run: Run) -> None:
    """Single heartbeats at full load, and then at half of it."""
    with run.directory() as name, ExitStack() as stack:
        directory = Path(name)
        store = start_store(VALKEY, run.cores.store, directory, stack, *KEPT)
        chosen = run.answering(HEARTBEATS)
        minter = [] if STREAMLIMIT in chosen else [STREAMLIMIT]
        started = run.start([*chosen, *minter], store, directory, stack)
        minted = streams.mint(started[STREAMLIMIT.name], run.plan.streams, run.cores.load, directory)
        with connect(store) as client:
            streams.fill_sorted_sets(client, minted)
        lines = streams.heartbeats(minted)
        for server in chosen:
            servers.check(server, started[server.name].port, lines[0], "")
        requests = streams.write(lines, directory / "heartbeats.txt")
        contenders = [run.full_load(one.name, started[one.name], store, requests) for one in chosen]
        run.measure(HEARTBEATS, contenders)
        if LATENCY in run.parts:
            patient = [run.half_load(one, requests) for one in contenders if one.name in _PATIENT]
            run.measure(LATENCY, patient)


def admissions(run: Run) -> None:
    """Admissions of users who have no stream."""
    with run.directory() as name, ExitStack() as stack:
        directory = Path(name)
        store = start_store(VALKEY, run.cores.store, directory, stack, *KEPT)
        chosen = run.answering(ADMISSIONS)
        started = run.start(chosen, store, directory, stack)
        lines = streams.admissions(run.plan.users, 1)
        for server in chosen:
            servers.check(server, started[server.name].port, *lines[0].split("\t"))
            forget_streams(store)
        requests = streams.write(lines, directory / "admissions.txt")
        contenders = [run.full_load(one.name, started[one.name], store, requests) for one in chosen]
        run.measure(ADMISSIONS, contenders, lambda contender: forget_streams(contender.store))


def batches(run: Run) -> None:
    """Heartbeats as a gateway collects them, and what Redis would take for the same natively."""
    with run.directory() as name, ExitStack() as stack:
        directory = Path(name)
        store = start_store(VALKEY, run.cores.store, directory, stack, *KEPT)
        chosen = run.answering(BATCHES)
        started = run.start(chosen, store, directory, stack)
        with connect(store) as client:
            filled = streams.fill(client, run.plan.batch_streams)
        lines = streams.batches(filled)
        for server in chosen:
            servers.check(server, started[server.name].port, *lines[0].split("\t"))
        requests = streams.write(lines, directory / "batches.txt")
        contenders = [
            run.full_load(one.name, started[one.name], store, requests, connections=GATEWAYS) for one in chosen
        ]
        run.measure(BATCHES, contenders)
        run.figures["native_us"] = measure_native(store, filled, run.plan)


def growth(run: Run) -> None:
    """Heartbeats with very many live streams, and with few."""
    with run.directory() as name, ExitStack() as stack:
        directory = Path(name)
        contenders = []
        for who, count in ((FEW, FEW_STREAMS), (MANY, run.plan.many_streams)):
            store = start_store(VALKEY, run.cores.store, directory, stack, *KEPT)
            server = run.start([STREAMLIMIT], store, directory, stack)[STREAMLIMIT.name]
            with connect(store) as client:
                lines = streams.heartbeats(streams.fill(client, count))
            requests = streams.write(lines, directory / f"heartbeats-{count}.txt")
            contenders.append(run.full_load(who, server, store, requests))
        run.measure(GROWTH, contenders)


def workers(run: Run) -> None:
    """Heartbeats with two workers, and with one. With too few cores the two share one: it shows what they cost."""
    with run.directory() as name, ExitStack() as stack:
        directory = Path(name)
        second = run.cores.second_server
        cores = (run.cores.server,) if second is None else (run.cores.server, second)
        store = start_store(VALKEY, run.cores.store, directory, stack, *KEPT)
        one = servers.start(STREAMLIMIT, store.port, (run.cores.server,), directory, stack).wait()
        two = servers.start(TWO_WORKERS, store.port, cores, directory, stack).wait()
        with connect(store) as client:
            lines = streams.heartbeats(streams.fill(client, run.plan.streams))
        servers.check(TWO_WORKERS, two.port, lines[0], "")
        requests = streams.write(lines, directory / "heartbeats.txt")
        contenders = [
            run.full_load(ONE, one, store, requests),
            run.full_load(TWO, two, store, requests, cores=len(cores)),
        ]
        run.measure(WORKERS, contenders)
