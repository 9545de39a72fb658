"""One server behind a client, to be asked by itself, whether it stands alone or in a Cluster."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

CALL_SECONDS: Final = 2.0
"""No answer may take longer, whatever time-outs the client has: the first one may ask several Sentinels for the way."""


class NoAnswer(Exception):
    """The server cannot be talked to; nothing else needs to be asked.

    Args:
        found: What happened.
        advice: What to do.
    """

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found = found
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Target:
    """One server that takes writes."""

    name: str
    """HOST:PORT, or the path of a socket."""
    execute: Callable[..., Awaitable[Any]]
    """Sends a command to this very server, whatever its keys."""
    slots: frozenset[int] | None = None
    """The hash slots that it serves; None where it serves all."""

    async def ask(self, *command: str | int) -> Any:
        """Send a command, and return the reply.

        Raises:
            NoAnswer: There is none, or the server lets nobody in.
            ResponseError: The server refuses this command.
        """
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self.execute(*command)
        except ResponseError:
            raise
        except (RedisError, TimeoutError, OSError) as error:
            raise _explained(error) from None

    async def info(self) -> dict[str, Any] | None:
        """What the server tells of itself; None where it does not.

        Raises:
            NoAnswer: It cannot be talked to.
        """
        return await self._told("INFO")

    async def settings(self, *names: str) -> dict[str, Any] | None:
        """Its settings with these names; None where it does not tell them.

        Raises:
            NoAnswer: It cannot be talked to.
        """
        return await self._told("CONFIG GET", *names)

    async def _told(self, *command: str) -> dict[str, Any] | None:
        try:
            reply = await self.ask(*command)
        except ResponseError:
            return None
        return reply if isinstance(reply, dict) else None


def target_of(client: Redis, name: str) -> Target:
    """The server that a client talks to."""
    return Target(name, client.execute_command)


def address_of(client: Redis) -> str:
    """Where a client connects to, without user name and password."""
    where = client.connection_pool.connection_kwargs
    return str(where["path"]) if "path" in where else f"{where.get('host')}:{where.get('port')}"


def target_in_cluster(
    client: RedisCluster, host: str, port: int, slots: Iterable[int] = ()
) -> tuple[Target, ClusterNode]:
    """A server of a Cluster, and what is to be disconnected when all is asked."""
    host, port = client.nodes_manager.remap_host_port(host, port)
    options: dict[str, Any] = client.get_connection_kwargs()
    node = ClusterNode(host, port, **options)
    return Target(node.name, node.execute_command, frozenset(slots)), node


def user_of(client: Redis | RedisCluster) -> str:
    """The name of the ACL user."""
    where = client.get_connection_kwargs()
    return str(where.get("username") or "default")


def _explained(error: BaseException) -> NoAnswer:
    said = str(error).strip().rstrip(".") or type(error).__name__
    if isinstance(error, AuthenticationError):
        return NoAnswer(
            f"it lets us not in: {said}",
            "put the user name and the password into the URL, redis://USER:PASSWORD@HOST:PORT (# as %23, / as %2F, "
            "@ as %40), and see with ACL GETUSER USER, as an administrator, that the user is on",
        )
    if isinstance(error, BusyLoadingError):
        return NoAnswer("it still reads its file after a start", "wait; INFO persistence says how far it is")
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return NoAnswer(
            "no answer in time",
            "see whether the server is frozen or overloaded (redis-cli --latency), a firewall drops what it is sent, "
            "or the URL says rediss:// and the server speaks no TLS",
        )
    if isinstance(error, InvalidResponse):
        return NoAnswer(f"this is no Redis: {said}", "see whether host and port in the URL are right")
    return NoAnswer(
        f"no connection: {said}",
        "see whether the server runs, whether it listens on this address, and whether it wants TLS (rediss://)",
    )
