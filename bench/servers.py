"""The servers that are measured: the service as it is deployed, and its peers."""

import http.client
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.plan import ROOT, SECRET, TTL_SECONDS, BenchError
from bench.processes import HOST, PATIENCE_SECONDS, Process, free_port

PEERS: Final = ROOT / "bench" / "peers"
HEARTBEATS, ADMISSIONS, BATCHES = "heartbeats", "admissions", "batches"
"""Kinds of requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One of them."""

    name: str
    """For --only."""
    title: str
    """For readers."""
    command: Callable[[int], list[str]]
    """From its port."""
    env: Mapping[str, str]
    answers: frozenset[str]
    """Which kinds of requests."""
    runtime: str = "python"
    keeps: bool = True
    """False: it answers without a store, and limits nothing."""


def _uvicorn(app: str) -> Callable[[int], list[str]]:
    # As the service runs it: the same loop, parser and backlog, and no access log.
    options = ["--loop", "uvloop", "--http", "httptools", "--backlog", "2048", "--no-access-log", "--no-server-header"]
    return lambda port: [
        *(sys.executable, "-m", "uvicorn", f"bench.peers.{app}:app", "--port", str(port)),
        *(*options, "--log-level", "warning"),
    ]


def _node(file: str) -> Callable[[int], list[str]]:
    return lambda _: ["node", str(PEERS / file)]


def _streamlimit(workers: int) -> Callable[[int], list[str]]:
    return lambda port: [
        *(sys.executable, "-m", "streamlimit", "serve", "--port", str(port), "--workers", str(workers)),
        *("--ttl-seconds", str(TTL_SECONDS), "--heartbeat-seconds", str(TTL_SECONDS // 3)),
    ]


_SINGLE = frozenset({HEARTBEATS, ADMISSIONS})
_ALL = _SINGLE | {BATCHES}
_PRODUCTION = {"NODE_ENV": "production"}

BARE: Final = Server(
    name="bare",
    title="bare ASGI application on uvicorn",
    command=_uvicorn("bare"),
    env={},
    answers=_SINGLE,
    keeps=False,
)
STREAMLIMIT: Final = Server(
    name="streamlimit", title="**streamlimit**, as deployed", command=_streamlimit(1), env={}, answers=_ALL
)
TWO_WORKERS: Final = Server(
    name="streamlimit-2", title="streamlimit, two workers", command=_streamlimit(2), env={}, answers=_ALL
)
FASTAPI: Final = Server(
    name="fastapi",
    title="FastAPI + redis-py, as commonly written",
    command=_uvicorn("fastapi_redis"),
    env={},
    answers=_ALL,
)
FASTIFY: Final = Server(
    name="fastify",
    title="Fastify + ioredis",
    command=_node("fastify.js"),
    env=_PRODUCTION,
    answers=_ALL,
    runtime="node",
)
FASTIFY_PIPELINED: Final = Server(
    name="fastify-pipelined",
    title="Fastify + ioredis, auto-pipelining",
    command=_node("fastify.js"),
    env=_PRODUCTION | {"AUTO_PIPELINING": "1"},
    answers=_ALL,
    runtime="node",
)
EXPRESS: Final = Server(
    name="express",
    title="Express + ioredis",
    command=_node("express.js"),
    env=_PRODUCTION,
    answers=_ALL,
    runtime="node",
)
SERVERS: Final = (
    BARE,
    Server(
        name="route",
        title="Starlette route, no store",
        command=_uvicorn("route"),
        env={},
        answers=_SINGLE,
        keeps=False,
    ),
    Server(
        name="models",
        title="Starlette + pydantic, no store",
        command=_uvicorn("models"),
        env={},
        answers=_SINGLE,
        keeps=False,
    ),
    STREAMLIMIT,
    FASTIFY_PIPELINED,
    FASTIFY,
    EXPRESS,
    Server(
        name="sorted-set",
        title="Starlette + redis-py, sorted set",
        command=_uvicorn("sorted_set"),
        env={},
        answers=_SINGLE,
    ),
    FASTAPI,
)


def missing(server: Server) -> str:
    """Why it cannot run here; '' where it can."""
    if server.runtime != "node":
        return ""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node or npm is missing; on Debian: apt-get install nodejs npm"
    return "" if (PEERS / "node_modules" / "ioredis").exists() else "npm could not install bench/peers/package.json"


def start(server: Server, redis_port: int, cores: tuple[int, ...], directory: Path, stack: ExitStack) -> Process:
    """Start a server on a store; wait for it with `wait`."""
    port = free_port()
    url = f"redis://{HOST}:{redis_port}/0"
    env = {
        "REDIS_URL": url,
        "PORT": str(port),
        "SECRET": SECRET,
        "TTL_SECONDS": str(TTL_SECONDS),
        "STREAMLIMIT_REDIS_URL": url,
        "STREAMLIMIT_SECRET": SECRET,
    }
    return stack.enter_context(
        Process(server.name, server.command(port), port, cores=cores, directory=directory, env=env | dict(server.env))
    )


def check(server: Server, port: int, path: str, body: str) -> None:
    """Send one request, and see that the answer is right, so that no server is fast because it does nothing.

    Raises:
        BenchError: It is not.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("POST", path, body or None, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    found = json.loads(text) if answer.status in (200, 201) else {}
    leases = found.get("streams", [found])
    if not leases or not all(lease and "expires_at" in lease for lease in leases):
        raise BenchError(f"{server.name} answers {answer.status} to POST {path}: {text[:200]}")
