"""One server that takes writes: what is sent to it, and what is known of it."""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, RedisError

from streamlimit.lane import Lane
from streamlimit.scripts import GET, HEARTBEAT, Script

MAX_CLAIMS: Final = 128
"""In one script call: they take the server about a millisecond, in which it does nothing else."""

PATIENCE: Final = 0.5
"""The part of an operation's budget for which a call may wait to be sent, and then for its answer."""

_MAX_CALLS: Final = 64
_CLAIMS_IN_FLIGHT: Final = 2
_CALLS_IN_FLIGHT: Final = 16
_MAX_WAITING: Final = 10_000
_MAX_LOADINGS: Final = 3
_UNKNOWN: Final = re.compile("(unknown|unsupported|invalid) (sub)?command", re.IGNORECASE)
"""How servers and proxies refuse what they do not know."""

_logger = logging.getLogger(__name__)


class Claim(NamedTuple):
    """That a seat holds a stream, as a stream id says."""

    slot: int
    key: str
    ref: str
    sig: str


@dataclass(slots=True, frozen=True)
class Command:
    """A command as it goes over the wire; with the script that it runs, if any."""

    packed: bytes
    script: Script | None = None


def command(*words: str | int) -> Command:
    """Pack a command."""
    return Command(_pack(*words))


def script_call(script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Command:
    """Pack the call of a script."""
    return Command(_pack("EVALSHA", script.sha, len(keys), *keys, *args), script)


def by_eval(call: Command) -> Command:
    """The same call of a script with its source in place of its SHA-1."""
    if call.script is None:
        return call
    sha, source = call.script.sha.encode(), call.script.source.encode()
    count, arguments = call.packed.split(b"\r\n$7\r\nEVALSHA\r\n$40\r\n%b" % sha, 1)
    return Command(b"%b\r\n$4\r\nEVAL\r\n$%d\r\n%b%b" % (count, len(source), source, arguments), call.script)


def _pack(*words: str | int) -> bytes:
    packed: bytes = pack_command(words)  # type: ignore[arg-type] # typed as a tuple of one, but takes any
    return packed


_ASKING: Final = command("ASKING")

MakeCommand = Callable[[float], Command]
"""Makes a command from the moment at which its answer is given up, in the event loop's time."""


class Connections(Protocol):
    """Where the connections to one server come from: redis-py."""

    async def acquire(self) -> AbstractConnection:
        """Return one that is connected, or connects when it is used."""

    async def release(self, connection: AbstractConnection) -> None:
        """Take it back."""

    async def close(self) -> None:
        """Close all."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Connections of redis-py's pool."""

    pool: ConnectionPool

    async def acquire(self) -> AbstractConnection:
        """Return one that is connected."""
        connection: AbstractConnection = await self.pool.get_connection()  # type: ignore[no-untyped-call]
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Take it back."""
        await self.pool.release(connection)

    async def close(self) -> None:
        """Close all."""
        await self.pool.aclose()


class Node:
    """One server that takes writes: a single one, the primary of a Sentinel set, or a primary of a Cluster.

    Heartbeats and looks have lanes of their own, so that no slow admission stands before them.

    Args:
        name: Its address, for people; '' where there is only one.
        connections: To it.
        ttl_ms: The stream TTL.
        budget_seconds: Of an operation.
        one_user_scripts: A script may touch the keys of one user only, as on a Cluster.
    """

    def __init__(
        self,
        name: str,
        connections: Connections,
        *,
        ttl_ms: int,
        budget_seconds: float,
        one_user_scripts: bool = False,
    ) -> None:
        self.name = name
        self._connections = connections
        self.clock_ahead_ms = 0
        """Of the event loop's clock, and never too much. 0 until the server is met, so that what must not be late is
        refused, and the server met."""
        self.meeting = asyncio.Lock()
        self.meetings = 0
        """How often it was met."""
        self._patience_seconds = patience_seconds = PATIENCE * budget_seconds
        self._one_user_scripts = one_user_scripts
        self._may_load_scripts = True
        self.calls = Lane[MakeCommand](
            self._exchange_calls,
            max_batch=_MAX_CALLS,
            max_in_flight=_CALLS_IN_FLIGHT,
            max_waiting=_MAX_WAITING,
            patience_seconds=patience_seconds,
        )
        self.beats = self._lane_of_claims(HEARTBEAT, ttl_ms)
        """Of heartbeat.lua."""
        self.looks = self._lane_of_claims(GET)
        """Of get.lua."""

    async def exchange(self, commands: Sequence[Command], *, asking: bool = False) -> list[Any]:
        """Send commands in one go, and load the scripts that the server does not know.

        Args:
            commands: What to send.
            asking: Each was redirected here by ASK, in the middle of a slot's migration; ASKING must be sent on the
                command's own connection.

        Returns:
            In order, each command's reply, or the RedisError that is its own.

        Raises:
            RedisError, TimeoutError, OSError: There was no answer in time; what became of the commands is not known.
        """
        if asking:
            commands = [one for each in commands for one in (_ASKING, each)]
        async with asyncio.timeout(self._patience_seconds):
            connection = await self._connections.acquire()
            connection.socket_timeout = None  # ours is for the whole; redis-py's would make a timer for each reply
            whole = False
            try:
                replies = await _exchange(connection, commands)
                for _ in range(_MAX_LOADINGS):
                    lost = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                    if not lost:
                        break
                    resent = [commands[place] for place in lost]
                    if self._may_load_scripts:
                        scripts = {call.script for call in resent if call.script}
                        load = [command("SCRIPT", "LOAD", script.source) for script in scripts]
                    else:
                        load, resent = [], [by_eval(call) for call in resent]
                    again = [one for call in resent for one in ((_ASKING,) if asking else ()) + (call,)]
                    answers = await _exchange(connection, load + again)
                    self._note_loaded(answers[: len(load)])
                    for place, answer in zip(lost, answers[len(load) :][asking :: 1 + asking], strict=True):
                        replies[place] = answer
                whole = True
            finally:
                if not whole:  # the rest of the replies must not meet the next command
                    await connection.disconnect(nowait=True)
                await self._connections.release(connection)
        return replies[1::2] if asking else replies

    def gives_up_at(self) -> float:
        """When an exchange that begins now is given up, in the event loop's time."""
        return asyncio.get_running_loop().time() + self._patience_seconds

    async def close(self) -> None:
        """Wait until all calls are answered, and close the connections."""
        await asyncio.gather(self.calls.drain(), self.beats.drain(), self.looks.drain())
        await self._connections.close()

    def _note_loaded(self, replies: Sequence[Any]) -> None:
        """Where SCRIPT LOAD is refused, by an ACL or by a proxy that does not know it, scripts are sent with EVAL."""
        for reply in replies:
            if isinstance(reply, NoPermissionError) or _UNKNOWN.search(str(reply)):
                self._may_load_scripts = False
                _logger.warning("%s refuses SCRIPT LOAD (%s): scripts run by EVAL", self.name or "The store", reply)
                return

    async def _exchange_calls(self, calls: Sequence[MakeCommand]) -> list[Any]:
        given_up_at = self.gives_up_at()
        return await self.exchange([make(given_up_at) for make in calls])

    def _lane_of_claims(self, script: Script, *args: int) -> Lane[Claim]:
        """A lane whose script takes these arguments, and then REF and SIG of each claim; it replies to each."""

        def call(claims: Sequence[Claim]) -> Command:
            words: list[str | int] = [*args]
            for claim in claims:
                words += claim[2:]
            return script_call(script, [claim.key for claim in claims], words)

        async def send(claims: Sequence[Claim]) -> list[Any]:
            if self._one_user_scripts:
                return [
                    reply if isinstance(reply, RedisError) else reply[0]
                    for reply in await self.exchange([call((claim,)) for claim in claims])
                ]
            (replies,) = await self.exchange([call(claims)])
            if isinstance(replies, RedisError):
                raise replies
            return replies  # type: ignore[no-any-return]

        return Lane(
            send,
            max_batch=MAX_CLAIMS,
            max_in_flight=_CLAIMS_IN_FLIGHT,
            max_waiting=_MAX_WAITING,
            patience_seconds=self._patience_seconds,
        )


async def _exchange(connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
    await connection.send_packed_command([one.packed for one in commands])
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except RedisConnectionError:
            raise
        except RedisError as error:
            if not connection.is_connected:  # it was no reply, or none that can be read
                raise RedisConnectionError(f"broken off: {error}") from error
            replies.append(error)
    return replies
