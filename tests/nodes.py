"""The servers of a topology, each on a loopback address of its own, as if it had a machine of its own."""

import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import trustme
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import PATIENCE_SECONDS, RedisServer

PORT: Final = 6379
"""Of every node: each has an address of its own. So no client's end of a connection has taken the port, either, when a
node that was killed wants it back."""

BUS_PORT: Final = 16379


@dataclass(frozen=True, slots=True)
class Security:
    """What a client must know or have, and the servers among themselves."""

    password: str = ""
    """Of the default user of primaries and replicas."""
    users: Sequence[str] = ()
    """Further ones there, as ACL rules: `streamlimit on >secret ~stream:* +@all`."""
    sentinel_password: str = ""
    sentinel_users: Sequence[str] = ()
    tls: bool = False
    """Only with a binary that knows it: Debian's redis-server."""


OPEN: Final = Security()


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files for TLS: whom to trust, and what the servers show."""

    authority: Path
    server: Path

    @classmethod
    def issue(cls, directory: Path, hosts: Sequence[str]) -> "Certificates":
        files = cls(directory / "ca.pem", directory / "server.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(files.authority))
        authority.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(str(files.server))
        return files

    def options(self) -> list[str]:
        # Without a port in the clear, so that nothing can go by it.
        return (
            f"--port 0 --tls-port {PORT} --tls-auth-clients no --tls-replication yes"
            f" --tls-ca-cert-file {self.authority} --tls-cert-file {self.server} --tls-key-file {self.server}"
        ).split()


class Node(RedisServer):
    """A primary or a replica, or a Sentinel.

    Args:
        binary: The server's.
        directory: For its files; made here.
        *options: Of the command line.
        host: Where it listens and from where it connects to others.
        announced: Where others find it: `host`, or what stands before it.
        password: Of its default user.
        certificates: Where it speaks TLS.
        config: A file that it owns and rewrites, as Sentinels do.
    """

    def __init__(
        self,
        binary: str | Path,
        directory: Path,
        *options: str,
        host: str,
        announced: str,
        password: str = "",
        certificates: Certificates | None = None,
        config: str = "",
    ) -> None:
        directory.mkdir()
        # The bind address alone keeps others out; Redis 7 takes 127.0.0.2 for a foreign one.
        options = ("--bind-source-addr", host, "--protected-mode", "no", *options)
        if certificates:
            options += tuple(certificates.options())
        super().__init__(binary, directory, *options, host=host, port=PORT)
        if config:
            (directory / "node.conf").write_text(config)
            self._command.insert(1, str(directory / "node.conf"))
            self._command.append("--sentinel")
        self.announced = announced
        self.state: Literal["stopped", "running", "frozen"] = "stopped"
        self._directory = directory
        self._password = password
        self._certificates = certificates

    def __repr__(self) -> str:
        return f"<{self.announced}, {self.state}>"

    def start(self) -> None:
        self.state = "running"  # before it answers, so that it is stopped where it never does
        super().start()

    def stop(self) -> None:
        """Kill it; what it wrote stays."""
        if self.state != "stopped":
            self.state = "stopped"
            super().stop()

    def freeze(self) -> None:
        self.state = "frozen"
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)
        self.state = "running"

    def restart(self, *, empty: bool = False) -> None:
        """Kill it and start it again, as the same member of its topology; `empty` loses the data before."""
        self.stop()
        if empty:
            shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)
            (self._directory / "dump.rdb").unlink(missing_ok=True)
        self.start()

    @contextmanager
    def operator(self) -> Iterator[Redis]:
        """A client on the node's own machine: no partition stands in its way, and nobody's name is asked."""
        with Redis(
            host=self.host,
            port=PORT,
            password=self._password or None,
            decode_responses=True,
            protocol=2,
            socket_timeout=PATIENCE_SECONDS,
            retry=Retry(NoBackoff(), 0),
            ssl=bool(self._certificates),
            ssl_ca_certs=str(self._certificates.authority) if self._certificates else None,
        ) as client:
            yield client

    def command(self, *words: str | int) -> Any:
        with self.operator() as client:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        try:
            return bool(self.command("PING"))
        except RedisError:
            return False

    def role(self) -> str:
        """`master`, `slave` or `sentinel`: their word."""
        role: str = self.command("ROLE")[0]
        return role

    def is_linked_replica_of(self, primary: "Node") -> bool:
        with self.operator() as client:
            found = client.info("replication")
        at = (found.get("master_host"), found.get("master_link_status"))
        return at == (primary.announced, "up")
