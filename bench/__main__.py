"""Measure the service beside its peers: what people would otherwise write, on one machine, in one run."""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from bench import chart, credentials, in_the_store, machine, over_http, report, servers, start_up
from bench.plan import FULL, QUICK, ROOT, BenchError, choose_cores
from bench.run import Run
from bench.servers import ADMISSIONS, BATCHES, HEARTBEATS, SERVERS, Server
from bench.targets import GROWTH, KEYED, LATENCY, WORKERS

sys.path.insert(0, str(ROOT / "scripts"))

from marked import write_marked

PAGE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "performance.svg"
PARTS = {
    HEARTBEATS: over_http.heartbeats,
    LATENCY: over_http.heartbeats,
    ADMISSIONS: over_http.admissions,
    BATCHES: over_http.batches,
    GROWTH: over_http.growth,
    WORKERS: over_http.workers,
    KEYED: credentials.credentials,
    "scripts": in_the_store.scripts,
    "memory": in_the_store.memory,
    "start": start_up.start_up,
}


def choose(only: str) -> tuple[frozenset[str], tuple[Server, ...]]:
    """From the names in --only to parts and servers; no part, or no server, named: all of them.

    Raises:
        BenchError: A name is neither.
    """
    names = {name for name in only.split(",") if name}
    by_name = {server.name: server for server in SERVERS}
    if unknown := names - set(PARTS) - set(by_name):
        raise BenchError(f"--only: there is no {', '.join(sorted(unknown))}; there is {', '.join([*PARTS, *by_name])}")
    chosen = []
    for server in SERVERS:
        if names & set(by_name) and server.name not in names:
            continue
        if reason := servers.missing(server):
            if server.name in names:
                raise BenchError(f"{server.name}: {reason}")
            print(f"left out: {server.name}: {reason}", file=sys.stderr)
            continue
        chosen.append(server)
    return frozenset(names & set(PARTS)) or frozenset(PARTS), tuple(chosen)


def main() -> str | None:
    """Run the command; return what went wrong."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two, for a first look; else below 20 minutes")
    names = ", ".join([*PARTS, *(server.name for server in SERVERS)])
    parser.add_argument("--only", default="", metavar="NAME,…", help=f"parts and servers of: {names}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw heartbeats and admissions as SVG")
    parser.add_argument("--write", action="store_true", help="put tables and chart into docs/")
    options = parser.parse_args()
    if options.write and (options.quick or options.only):
        parser.error("--write: what is published is measured in full, without --quick and --only")
    try:
        parts, chosen = choose(options.only)
        run = Run(QUICK if options.quick else FULL, choose_cores(os.sched_getaffinity(0)), parts, chosen)
        described = machine.describe(run.cores)
        # What runs here between the turns stays off the server's core.
        os.sched_setaffinity(0, {run.cores.load})
        for part in dict.fromkeys(measure for name, measure in PARTS.items() if name in parts):
            part(run)
    except BenchError as error:
        return f"scripts/bench: {error}"
    except KeyboardInterrupt:
        return "scripts/bench: interrupted, nothing is written"
    found = run.found()
    text = report.whole(found, described)
    print(f"\n{text}")
    drawing = chart.draw(found, f"{described['date']}, {described['cores']} cores, {described['processor']}")
    if options.json:
        turns = {
            load: {name: [dataclasses.asdict(turn) for turn in turns] for name, turns in by_server.items()}
            for load, by_server in run.turns.items()
        }
        loads = {
            load: {name: dataclasses.asdict(one) for name, one in summaries.items()}
            for load, summaries in found.loads.items()
        }
        everything = {"machine": described, "loads": loads, "figures": run.figures, "turns": turns}
        options.json.write_text(json.dumps(everything, indent=2) + "\n")
    if options.chart:
        options.chart.write_text(drawing, encoding="utf-8")
    if options.write:
        CHART.write_text(drawing, encoding="utf-8")
        write_marked(PAGE, "scripts/bench --write", f"![{CHART.stem}]({CHART.name})\n\n{text}")
    return None


if __name__ == "__main__":
    sys.exit(main())
