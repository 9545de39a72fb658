"""A Redis Cluster of three primaries, each with a replica, and the migration of its slots."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.nodes import BUS_PORT, OPEN, PORT, Node, Security
from tests.servers import wait_for
from tests.topologies import Topology

_PRIMARIES: Final = 3
_BAD_FLAGS: Final = {"fail", "fail?", "handshake", "noaddr"}

_MIGRATE_MS: Final = 5_000
"""How long moving a key may take."""


class Cluster(Topology):
    """Of three primaries and three replicas.

    Args:
        directory: An empty one.
        *options: Of all nodes.
        binary: The servers'; without one, Valkey's.
        node_timeout_ms: Without an answer for so long, a node is taken for down.
        security: What clients must know.
        partitionable: Put a network in between.
    """

    scheme = "cluster"

    def __init__(
        self,
        directory: Path,
        *options: str,
        binary: str | Path | None = None,
        node_timeout_ms: int = 1_000,
        security: Security = OPEN,
        partitionable: bool = False,
    ) -> None:
        super().__init__(directory, 2 * _PRIMARIES, binary=binary, security=security, partitionable=partitionable)
        common = f"--cluster-enabled yes --cluster-node-timeout {node_timeout_ms} --cluster-port {BUS_PORT}".split()
        # Which replica belongs to whom stays as it is.
        common += ["--cluster-allow-replica-migration", "no"]
        if security.tls:
            common += ["--tls-cluster", "yes"]
        for number, door in enumerate(self._doors):
            self._data_node(number, *common, "--cluster-announce-ip", door, *options)

    @property
    def primaries(self) -> list[Node]:
        """In the order of their slots."""
        held = {node: _held(node) for node in self._running()}
        return sorted((node for node in held if held[node]), key=lambda node: held[node][0])

    def primary_of(self, key: str) -> Node:
        return self._claimants(key)[-1]

    def replicas_of(self, primary: Node) -> list[Node]:
        return [node for node in self._running() if _master_of(node) == primary.announced]

    def fail_over(self, key: str, how: Literal["", "FORCE", "TAKEOVER"] = "") -> Node:
        before = self.primary_of(key)
        self.replicas_of(before)[0].command("CLUSTER", "FAILOVER", *how.split())
        return self.wait_for_another_primary(key, before)

    def wait_for_another_primary(self, key: str, before: Node) -> Node:
        def found() -> Node | None:
            claimants = self._claimants(key)
            return next((node for node in claimants[-1:] if node is not before and _state(node) == "ok"), None)

        return wait_for(found, "another primary")

    def is_whole(self) -> bool:
        running = self._running()
        return (
            sum(last - first + 1 for node in running for first, last in _held(node)) == REDIS_CLUSTER_HASH_SLOTS
            and all(_state(node) == "ok" for node in running)
            and all(self._knows(node, running) for node in running)
            and all(self._is_in_place(node) for node in running)
        )

    def other_than(self, node: Node) -> Node:
        """Another primary."""
        return next(one for one in self.primaries if one is not node)

    def standing(self) -> "Standing":
        """What no migration of slots between its primaries changes."""
        running = self._running()
        ids: dict[str, str] = {}
        for primary in self.primaries:
            with primary.operator() as client:
                keys = list(client.scan_iter("epoch:*", count=10_000))
                with client.pipeline(transaction=False) as pipeline:
                    for key in keys:
                        pipeline.hget(key, "id")
                    ids |= dict(zip(keys, pipeline.execute(), strict=True))
        return Standing({node.announced: node.role() for node in running}, config_epochs(self.primaries), ids)

    def migration(self, slot: int, target: Node) -> "Migration":
        """Begin to move a slot."""
        return Migration(self, slot, target)

    @contextmanager
    def migrating(self, slot: int) -> Iterator["Migration"]:
        """Begin to move a slot to another primary; at the end it is finished, and brought back."""
        source = next(node for node in self.primaries if _holds(node, slot))
        migration = self.migration(slot, self.other_than(source))
        try:
            yield migration
        finally:
            migration.finish()
            self.migration(slot, source).finish()

    def _start(self) -> None:
        for node in self.nodes:
            node.start()
        first, *others = self.nodes
        share = REDIS_CLUSTER_HASH_SLOTS // _PRIMARIES
        for number, node in enumerate(self.nodes[:_PRIMARIES]):
            last = REDIS_CLUSTER_HASH_SLOTS - 1 if number == _PRIMARIES - 1 else (number + 1) * share - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            # Of its own, so that none has to be agreed on.
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in others:
            first.command("CLUSTER", "MEET", node.announced, PORT, BUS_PORT)
        wait_for(lambda: all(self._knows(node, self.nodes) for node in self.nodes), "the nodes to meet")
        for primary, replica in zip(self.nodes[:_PRIMARIES], self.nodes[_PRIMARIES:], strict=True):
            replica.command("CLUSTER", "REPLICATE", primary.command("CLUSTER", "MYID"))

    def _claimants(self, key: str) -> list[Node]:
        """Those that take themselves for the holder of a key, the latest last."""
        slot = key_slot(key.encode())
        return sorted(
            (node for node in self._running() if _holds(node, slot)), key=lambda node: int(_own(node)["epoch"])
        )

    def _knows(self, node: Node, others: Sequence[Node]) -> bool:
        view = {address.partition(":")[0]: row for address, row in _view(node).items()}
        return all(
            (row := view.get(other.announced)) is not None
            and not _BAD_FLAGS & set(row["flags"].split(","))
            and row["connected"]
            and ("slave" in row["flags"]) == (other.role() == "slave")
            for other in others
        )

    def _is_in_place(self, node: Node) -> bool:
        """Whether it holds slots, or replicates one that runs and does."""
        if node.role() == "master":
            return bool(_held(node))
        primary = self._at(_master_of(node))
        return primary.state != "running" or node.is_linked_replica_of(primary)


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a Cluster, at one moment."""

    roles: dict[str, str]
    config_epochs: dict[str, int]
    """Of each primary. A node that imports a slot raises its own; a failover raises that of the replica."""
    epochs: dict[str, str]
    """The id in each epoch key of ours: another one is a loss."""

    def changed(self, before: "Standing", importers: Iterable[Node]) -> dict[str, object]:
        """What is another than before, but for what the import of slots by these nodes explains."""
        imported = {node.announced for node in importers}
        return {
            "roles": {node: role for node, role in self.roles.items() if before.roles.get(node) != role},
            "config epochs": {
                node: epoch
                for node, epoch in self.config_epochs.items()
                if before.config_epochs.get(node) != epoch and node not in imported
            },
            "epochs": {key: one for key, one in self.epochs.items() if before.epochs.get(key, one) != one}
            | {key: None for key in before.epochs if key not in self.epochs},
        }


class Migration:
    """A slot on its way from its primary to another node; until it is finished, calls meet ASK and TRYAGAIN.

    The old primary answers ASK where it has none of a call's keys, and TRYAGAIN where it lacks one of several; so does
    the new one, to those that were sent by an ASK.
    """

    def __init__(self, cluster: Cluster, slot: int, target: Node) -> None:
        self.slot = slot
        self.source = next(node for node in cluster.primaries if _holds(node, slot))
        self.target = target
        self._cluster = cluster
        self._password = cluster._security.password
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(self.source))
        self.source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))

    def keys(self) -> list[str]:
        """What has not moved yet."""
        count = self.source.command("CLUSTER", "COUNTKEYSINSLOT", self.slot)
        found: list[str] = self.source.command("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        return found

    def move(self, *keys: str) -> None:
        """Move these keys."""
        login = ("AUTH", self._password) if self._password else ()
        target = self.target.announced
        self.source.command("MIGRATE", target, PORT, "", 0, _MIGRATE_MS, *login, "KEYS", *keys)

    def finish(self) -> None:
        """Move what is left, and give the slot to its new primary."""
        while keys := self.keys():
            self.move(*keys)
        # In this order: at no time does nobody hold it.
        others = [node for node in self._cluster.primaries if node not in (self.source, self.target)]
        for node in (self.target, self.source, *others):
            node.command("CLUSTER", "SETSLOT", self.slot, "NODE", _id(self.target))


def config_epochs(primaries: Iterable[Node]) -> dict[str, int]:
    return {node.announced: int(_own(node)["epoch"]) for node in primaries}


def _id(node: Node) -> str:
    name: str = node.command("CLUSTER", "MYID")
    return name


def _view(node: Node) -> dict[str, dict[str, Any]]:
    """What a node knows of all nodes, by their addresses."""
    view: dict[str, dict[str, Any]] = node.command("CLUSTER NODES")
    return view


def _own(node: Node) -> dict[str, Any]:
    return next(row for row in _view(node).values() if "myself" in row["flags"])


def _held(node: Node) -> list[tuple[int, int]]:
    """The slots that a node takes for its own: first and last of each range."""
    return [(int(slots[0]), int(slots[-1])) for slots in _own(node)["slots"]]


def _holds(node: Node, slot: int) -> bool:
    return any(first <= slot <= last for first, last in _held(node))


def _state(node: Node) -> str:
    state: str = node.command("CLUSTER INFO")["cluster_state"]
    return state


def _master_of(node: Node) -> str:
    role = node.command("ROLE")
    return role[1] if role[0] == "slave" else ""
