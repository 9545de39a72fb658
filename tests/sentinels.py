"""A primary with two replicas, and three Sentinels that replace it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from tests.nodes import OPEN, PORT, Node, Security
from tests.servers import wait_for
from tests.topologies import Topology

SERVICE: Final = "streams"

_DATA_NODES: Final = 3
_SENTINELS: Final = 3


class Sentinels(Topology):
    """Of a primary, two replicas and three Sentinels.

    Args:
        directory: An empty one.
        *options: Of the primary and the replicas.
        binary: The servers'; without one, Valkey's.
        down_after_ms: Without an answer for so long, a primary is taken for down.
        failover_ms: How long a failover may take before it is tried anew.
        security: What clients must know.
        partitionable: Put a network in between.
    """

    scheme = "sentinel"

    def __init__(
        self,
        directory: Path,
        *options: str,
        binary: str | Path | None = None,
        down_after_ms: int = 700,
        failover_ms: int = 3_000,
        security: Security = OPEN,
        partitionable: bool = False,
    ) -> None:
        super().__init__(
            directory, _DATA_NODES + _SENTINELS, binary=binary, security=security, partitionable=partitionable
        )
        for number, door in enumerate(self._doors[:_DATA_NODES]):
            replica_of = ("--replicaof", self._doors[0], str(PORT)) if number else ()
            self._data_node(number, "--replica-announce-ip", door, *replica_of, *options)
        self.sentinels = [
            self._sentinel(number, down_after_ms, failover_ms)
            for number in range(_DATA_NODES, _DATA_NODES + _SENTINELS)
        ]

    @property
    def primary(self) -> Node:
        """What most Sentinels take for the primary."""
        named = [self._named_by(sentinel) for sentinel in self._running_sentinels()]
        return self._at(max(named, key=named.count))

    def primary_of(self, key: str) -> Node:  # noqa: ARG002 - it holds all
        return self.primary

    def replicas_of(self, primary: Node) -> list[Node]:
        return [node for node in self._running() if node is not primary]

    def silent_ms(self) -> list[int]:
        """For how long each Sentinel has not heard of what it takes for the primary."""
        return [_view(sentinel)["last-ok-ping-reply"] for sentinel in self._running_sentinels()]

    def fail_over(self, key: str) -> Node:
        before = self.primary
        self._running_sentinels()[0].command("SENTINEL", "FAILOVER", SERVICE)
        return self.wait_for_another_primary(key, before)

    def wait_for_another_primary(self, key: str, before: Node) -> Node:  # noqa: ARG002 - as above
        def found() -> Node | None:
            primary = self.primary
            return primary if primary is not before and primary.role() == "master" else None

        return wait_for(found, "another primary")

    def is_whole(self) -> bool:
        views = [_view(sentinel) for sentinel in self._running_sentinels()]
        primary = self._at(views[0]["ip"])
        return (
            all(
                view["ip"] == primary.announced
                and view["flags"] == "master"
                and int(view["num-slaves"]) == _DATA_NODES - 1
                and int(view["num-other-sentinels"]) == _SENTINELS - 1
                for view in views
            )
            and primary.role() == "master"
            and all(node.is_linked_replica_of(primary) for node in self.replicas_of(primary))
        )

    def wait_until_whole(self) -> None:
        # By themselves they ask so rarely that it takes ten seconds and more. Not before all know of the last failover:
        # whoever does not would soon demote the new primary where the old one is back.
        wait_for(lambda: len(set(map(self._named_by, self._running_sentinels()))) == 1, "the Sentinels to agree")
        self._set_periods(publish_ms=100, info_ms=100)
        super().wait_until_whole()
        self._set_periods(publish_ms=2_000, info_ms=10_000)

    def _set_periods(self, *, publish_ms: int, info_ms: int) -> None:
        for sentinel in self._running_sentinels():
            sentinel.command("SENTINEL", "DEBUG", "PUBLISH-PERIOD", publish_ms, "INFO-PERIOD", info_ms)

    def _start(self) -> None:
        for node in self.nodes:
            node.start()
        # Sentinels learn of replicas from their primary: at once if these are there first.
        primary, *replicas = self.nodes
        wait_for(lambda: len(primary.command("ROLE")[2]) == len(replicas), "the replicas")
        for sentinel in self.sentinels:
            sentinel.start()

    def _entrances(self) -> Sequence[Node]:
        return self.sentinels

    def _path(self) -> str:
        return f"/{SERVICE}"

    def _all(self) -> Sequence[Node]:
        return [*self.sentinels, *self.nodes]

    def _running_sentinels(self) -> list[Node]:
        return [sentinel for sentinel in self.sentinels if sentinel.state == "running"]

    def _named_by(self, sentinel: Node) -> str:
        address: list[str] = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return address[0]

    def _sentinel(self, number: int, down_after_ms: int, failover_ms: int) -> Node:
        security = self._security
        lines = [
            f"sentinel announce-ip {self._doors[number]}",
            f"sentinel announce-port {PORT}",
            f"sentinel monitor {SERVICE} {self._doors[0]} {PORT} {_SENTINELS // 2 + 1}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} {failover_ms}",
            f"sentinel parallel-syncs {SERVICE} {_DATA_NODES - 1}",
        ]
        if security.password:
            lines.append(f"sentinel auth-pass {SERVICE} {json.dumps(security.password)}")
        if security.sentinel_password:
            quoted = json.dumps(security.sentinel_password)
            lines += [f"requirepass {quoted}", f"sentinel sentinel-pass {quoted}"]
        lines += [f"user {rule}" for rule in security.sentinel_users]
        return self._node(number, password=security.sentinel_password, config="\n".join([*lines, ""]))


def _view(sentinel: Node) -> dict[str, Any]:
    with sentinel.operator() as client:
        return cast("dict[str, Any]", client.sentinel_master(SERVICE))
