"""Fill a store with live streams, measure what they cost, and calculate what a deployment needs.

The figures are the store's own: its memory and the CPU time of its thread, by INFO before and after.
"""

import argparse
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capacity import capacity_table, claimed_by, costs_table
from costs import LIMIT, Simulation, SimulationError
from marked import between, write_marked
from redis import Redis, RedisError

from streamlimit.embedded import HOST, EmbeddedStore
from streamlimit.errors import StreamlimitError

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
MARK = "scripts/simulate --write"
MAX_STREAMS = 1_000_000


@contextmanager
def store(url: str) -> Iterator[str]:
    """The URL of a store: the one given, or that of an embedded one."""
    if url:
        yield url
        return
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory, EmbeddedStore(port, Path(directory)):
        yield f"redis://{HOST}:{port}/0"


def measure(options: argparse.Namespace) -> tuple[dict[str, float], str]:
    """Return the costs, and where they were measured."""
    with store(options.redis_url) as url, connect(url) as client:
        if client.dbsize():
            raise SimulationError("the database is not empty: choose a server that nobody uses")
        if not options.redis_url:
            # Its rewriting would fall into one measurement and not into another.
            client.config_set("auto-aof-rewrite-percentage", 0)
        simulation = Simulation(client, options.streams)
        try:
            simulation.run()
            if options.worker_rate:
                simulation.costs["worker_beats"] = options.worker_rate
            else:
                simulation.run_app(url, options.app_seconds)
        finally:
            if options.redis_url:
                simulation.clear()
        info = client.info("server")
        valkey = info.get("valkey_version")
        engine = f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
        where = f"{options.streams // LIMIT * LIMIT:,} live streams on {engine}, Python {platform.python_version()}"
        app = "as told" if options.worker_rate else "the tracker in one process, without HTTP"
        return simulation.costs, f"{where}, {os.cpu_count()} cores; app: {app}"


@contextmanager
def connect(url: str) -> Iterator[Any]:
    """A client of the store."""
    with Redis.from_url(url, decode_responses=True, protocol=2, socket_timeout=60) as client:
        yield client


def streams(text: str) -> int:
    """Read the number of streams."""
    count = int(text.replace(",", ""))
    if not LIMIT <= count <= MAX_STREAMS:
        raise argparse.ArgumentTypeError(f"must be {LIMIT} to {MAX_STREAMS:,}")
    return count


def main() -> str | None:
    """Run the command; return what went wrong."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--streams", type=streams, default=100_000, help="live ones; default: %(default)s")
    parser.add_argument("--redis-url", default="", help="of an empty server; default: an embedded Valkey")
    parser.add_argument(
        "--worker-rate", type=float, help="heartbeats/s of an app process, as scripts/bench says; default: measured"
    )
    parser.add_argument("--app-seconds", type=float, default=3, help="for that; default: %(default)s")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/scaling.md")
    options = parser.parse_args()
    try:
        costs, where = measure(options)
    except (SimulationError, StreamlimitError, RedisError, OSError, ValueError) as error:
        return str(error)
    except KeyboardInterrupt:
        return "Interrupted"
    said = claimed_by(between(PAGE.read_text(encoding="utf-8"), MARK))
    told = f"{datetime.now(UTC):%Y-%m-%d}, {where}."
    print(f"{told}\n\n{costs_table(costs, said)}\n{capacity_table(costs)}")
    if options.write:
        write_marked(PAGE, MARK, f"{told}\n\n{costs_table(costs)}\n{capacity_table(costs)}")
    return None


if __name__ == "__main__":
    sys.exit(main())
