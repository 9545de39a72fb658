"""What may break in a server, and how it is mended: one node of any topology, while the others are well."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import pytest
from redis import RedisError
from redis.exceptions import BusyLoadingError

from streamlimit import StreamTracker, node
from streamlimit.lane import Lane
from tests.nodes import Node
from tests.servers import wait_for

KEY: Final = "stream:{alice}:1"
SLOT: Final = 749
"""Of it."""

_LOAD_MS: Final = 2_500
"""It answers LOADING for so long. Between two keys it answers nothing, so there must be many."""
_MANY_KEYS: Final = 2_000

KINDS: Final = frozenset({"single", "sentinel", "cluster"})


@dataclass(frozen=True, slots=True)
class Breakage:
    """One way to break a node."""

    name: str
    cause: str
    """What the log must say of it."""
    _break: Callable[[Node], AbstractContextManager[None]]
    kinds: frozenset[str] = KINDS
    reads: bool = False
    """It answers what writes nothing."""

    @asynccontextmanager
    async def of(self, node: Node) -> AsyncIterator[None]:
        """Break it, and mend it."""
        broken = self._break(node)
        await asyncio.to_thread(broken.__enter__)
        try:
            yield
        finally:
            await asyncio.to_thread(broken.__exit__, None, None, None)


@contextmanager
def _closed(node: Node) -> Iterator[None]:
    node.stop()
    yield
    node.start()


@contextmanager
def _frozen(node: Node) -> Iterator[None]:
    node.freeze()
    yield
    node.thaw()


@contextmanager
def _slow(node: Node) -> Iterator[None]:
    """Every answer comes, but half a minute late."""
    node.command("CLIENT", "PAUSE", 30_000, "WRITE")
    yield
    node.command("CLIENT", "UNPAUSE")


@contextmanager
def _busy(node: Node) -> Iterator[None]:
    node.command("CONFIG", "SET", "busy-reply-threshold", 1)

    def run() -> None:
        with suppress(RedisError):
            node.command("EVAL", "while true do end", 0)

    running = threading.Thread(target=run)
    running.start()
    wait_for(lambda: not node.answers(), "the script to run")
    yield
    node.command("SCRIPT", "KILL")
    running.join()


@contextmanager
def _loading(node: Node) -> Iterator[None]:
    """It is started again, and reads its data key by key, in no hurry."""
    if node.command("DBSIZE") < _MANY_KEYS:  # no Cluster, whose epochs are many
        node.command("EVAL", f"for i = 1, {_MANY_KEYS} do redis.call('SET', 'padding:' .. i, i) end", 0)
    node.command("BGREWRITEAOF")
    wait_for(lambda: node.command("INFO", "persistence")["aof_base_size"] > 100, "the data to be written as keys")
    wait_for(lambda: not node.command("INFO", "persistence")["aof_rewrite_in_progress"], "all of it")
    keys = node.command("DBSIZE")
    delay = ["--key-load-delay", str(_LOAD_MS * 1000 // keys), "--loading-process-events-interval-bytes", "1024"]
    node.stop()
    node._command += delay
    starting = threading.Thread(target=node.start)
    starting.start()
    wait_for(lambda: _is_loading(node), "the server to load")
    yield
    del node._command[-len(delay) :]
    starting.join()


def _is_loading(node: Node) -> bool:
    try:
        node.command("PING")
    except BusyLoadingError:
        return True
    except RedisError:
        return False
    raise AssertionError("it has loaded all before it was asked")


@contextmanager
def _read_only(node: Node) -> Iterator[None]:
    node.command("REPLICAOF", "127.0.0.1", 1)  # nobody there
    yield
    node.command("REPLICAOF", "NO", "ONE")


@contextmanager
def _without_replicas(node: Node) -> Iterator[None]:
    node.command("CONFIG", "SET", "min-replicas-to-write", 9)
    yield
    node.command("CONFIG", "SET", "min-replicas-to-write", 0)


@contextmanager
def _slot_uncovered(node: Node) -> Iterator[None]:
    node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    node.command("CLUSTER", "DELSLOTS", SLOT)
    yield
    node.command("CLUSTER", "ADDSLOTS", SLOT)
    node.command("CONFIG", "SET", "cluster-require-full-coverage", "yes")


@contextmanager
def _cluster_down(node: Node) -> Iterator[None]:
    node.command("CLUSTER", "DELSLOTS", SLOT)
    wait_for(lambda: node.command("CLUSTER INFO")["cluster_state"] == "fail", "the node to take the Cluster for down")
    yield
    node.command("CLUSTER", "ADDSLOTS", SLOT)
    wait_for(lambda: node.command("CLUSTER INFO")["cluster_state"] == "ok", "the Cluster to be well")


BREAKAGES: Final = (
    Breakage("closed", "Connect", _closed),
    Breakage("frozen", "Timeout", _frozen),
    Breakage("slow", "Timeout", _slow),
    Breakage("busy with a script", "BUSY", _busy),
    Breakage("loading", "loading|is down", _loading),
    Breakage("read-only", "read only|now a slave", _read_only, KINDS - {"cluster"}, reads=True),
    Breakage("too few replicas", "NOREPLICAS", _without_replicas, reads=True),
    Breakage("slot uncovered", "not served", _slot_uncovered, KINDS & {"cluster"}),
    Breakage("cluster down", "is down", _cluster_down, KINDS & {"cluster"}),
)


@contextmanager
def overloaded(tracker: StreamTracker, slot: int) -> Iterator[None]:
    """The server is well, but all our lines to it are busy, and stay so."""
    on = tracker._store._topology.node(slot)
    go_on = asyncio.Event()

    def hold(lane: Lane[node.MakeCommand] | Lane[node.Claim]) -> None:
        patches.setattr(lane, "_send", lambda _: go_on.wait())
        patches.setattr(lane, "_max_in_flight", 0)

    with pytest.MonkeyPatch.context() as patches:
        hold(on.calls)
        hold(on.beats)
        hold(on.looks)
        yield
    go_on.set()
