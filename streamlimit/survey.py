"""Which servers stand behind a client, and whether what joins them is sound: a Cluster's hash slots, the Sentinels."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from streamlimit.checks import full_coverage
from streamlimit.findings import Finding
from streamlimit.targets import CALL_SECONDS, NoAnswer, Target, address_of, target_in_cluster, target_of

_QUORUM: Final = 3
"""With fewer Sentinels or primaries the loss of one leaves no majority of them to vote for a failover."""


@dataclass(slots=True)
class Survey:
    """The servers to examine one by one, and what was found about all of them."""

    targets: list[Target] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    promotes: bool = False
    """Whether a replica is promoted where a primary is lost."""


@asynccontextmanager
async def surveyed(client: Redis | RedisCluster) -> AsyncIterator[Survey]:
    """Find the servers behind a client, to be asked while the context is open."""
    found = Survey(promotes=True)
    if isinstance(client, RedisCluster):
        opened: list[ClusterNode] = []
        try:
            await _survey_cluster(client, found, opened)
            yield found
        finally:
            nodes = client.nodes_manager
            await asyncio.gather(
                *(node.disconnect() for node in opened),
                nodes.aclose(),
                nodes.aclose("startup_nodes"),
                return_exceptions=True,
            )
    elif isinstance(client.connection_pool, SentinelConnectionPool):
        try:
            await _survey_sentinels(client, client.connection_pool, found)
            yield found
        finally:
            await asyncio.gather(client.connection_pool.sentinel_manager.aclose(), return_exceptions=True)
    else:
        yield Survey(targets=[target_of(client, address_of(client))])


async def _survey_sentinels(client: Redis, pool: SentinelConnectionPool, found: Survey) -> None:
    service = pool.service_name
    answers = await asyncio.gather(*(_quorum(sentinel, service) for sentinel in pool.sentinel_manager.sentinels))
    found.findings.append(judged_sentinels(answers))
    try:
        async with asyncio.timeout(CALL_SECONDS):
            host, port = await pool.get_master_address()  # type: ignore[no-untyped-call]
    except (RedisError, TimeoutError, OSError) as error:
        if found.findings[0].state != "problem":
            advice = f"see SENTINEL MASTER {service}, and what their users may do; a failover may be going on"
            found.findings.append(Finding("primary", "problem", str(error), advice))
    else:
        found.targets = [target_of(client, f"{host}:{port}")]


async def _quorum(sentinel: Redis, service: str) -> Finding | int | str:
    """How many Sentinels are usable, as one of them says; a finding where that is too few; or why it says nothing."""
    address = address_of(sentinel)
    try:
        answer = str(await target_of(sentinel, address).ask("SENTINEL", "CKQUORUM", service))
    except NoAnswer as error:
        return f"{address}: {error.found}"
    except ResponseError as error:
        if str(error).startswith("NOQUORUM"):
            advice = "start the Sentinels again that are missing: until then a lost primary is not replaced"
            return Finding("sentinels", "problem", f"{address} says {error}", advice)
        if "No such master" in str(error):
            advice = "put the name behind the last / of the URL that stands in `sentinel monitor NAME …`"
            return Finding("sentinels", "problem", f"{address} watches no primary called {service}", advice)
        advice = f"look at it by hand: redis-cli -p 26379 SENTINEL CKQUORUM {service}"
        return Finding("sentinels", "skipped", f"{address} does not tell us: {error}", advice)
    number = re.search(r"\d+", answer)
    return int(number[0]) if number else 0


def judged_sentinels(answers: Sequence[Finding | int | str]) -> Finding:
    """Say whether the Sentinels could replace a lost primary.

    Args:
        answers: Of each in the URL how many it says are usable, or a finding, or why it says nothing.
    """
    refusals = [answer for answer in answers if isinstance(answer, Finding)]
    silent = [answer for answer in answers if isinstance(answer, str)]
    usable = [answer for answer in answers if isinstance(answer, int)]
    if refusals:
        return refusals[0]
    if not usable:
        advice = "see whether the Sentinels run, and whether host and port in the URL are theirs"
        return Finding("sentinels", "problem", f"none answers: {'; '.join(silent)}", advice)
    if silent:
        found = f"{len(usable)} of {len(answers)} in the URL answer, which is enough for now; {'; '.join(silent)}"
        return Finding("sentinels", "warning", found, "start it again, or take it out of the URL")
    found = f"{len(answers)} in the URL answer, {min(usable)} are usable, and can agree on a failover"
    if min(len(answers), *usable) < _QUORUM:
        advice = "run three or more, on machines of their own, and put all of them into the URL"
        return Finding("sentinels", "warning", found, advice)
    return Finding("sentinels", "ok", found)


async def _survey_cluster(client: RedisCluster, found: Survey, opened: list[ClusterNode]) -> None:
    found.findings.append(await _join(client))

    def target(host: str, port: int, slots: Iterable[int] = ()) -> Target:
        made, node = target_in_cluster(client, host, port, slots)
        opened.append(node)
        return made

    # Asked one by one: the client does not say why it cannot connect.
    silent = []
    for start in list(client.nodes_manager.startup_nodes.values()):
        node = target(start.host, int(start.port))
        try:
            rows = await node.ask("CLUSTER", "SLOTS")
        except (NoAnswer, ResponseError) as error:
            silent.append(f"{node.name}: {error}")
            continue
        found.targets = [target(*address, slots) for address, slots in _by_primary(rows, start.host).items()]
        views = await asyncio.gather(*(_view(one) for one in found.targets))
        found.findings.append(judged_coverage([view for view in views if view is not None]))
        found.findings.append(full_coverage(await _strictest(found.targets, "cluster-require-full-coverage")))
        return
    said = f"no server in the URL tells us of it: {'; '.join(silent)}"
    advice = "see whether the servers run, whether host and port in the URL are theirs, and whether they form a cluster"
    found.findings = [Finding("cluster", "problem", said, advice)]


async def _join(client: RedisCluster) -> Finding:
    """Let the client find the servers, as it does for the service."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(CALL_SECONDS):
            await client.nodes_manager.initialize()
    except (RedisClusterException, RedisError, TimeoutError, OSError) as error:
        found = f"the client cannot use it: {error or type(error).__name__}"
        advice = "see what follows; on a Cluster the ACL user needs '+cluster|slots' and '+asking', too"
        return Finding("cluster", "problem", found, advice)
    number, took_ms = len(client.get_primaries()), (time.monotonic() - began) * 1000
    return Finding("cluster", "ok", f"{number} primaries found in {took_ms:.1f} ms")


def _by_primary(rows: Sequence[Any], asked: str) -> dict[tuple[str, int], list[int]]:
    slots: dict[tuple[str, int], list[int]] = {}
    for first, last, primary, *_ in rows:
        # A server that has met no other does not know its own address.
        address = (str(primary[0] or asked), int(primary[1]))
        slots.setdefault(address, []).extend(range(int(first), int(last) + 1))
    return slots


@dataclass(frozen=True, slots=True)
class View:
    """What a primary knows of its Cluster."""

    served: int
    """Hash slots."""
    primaries: int
    state: str
    """`ok`, `fail`, or '' where it does not tell."""


async def _view(target: Target) -> View | None:
    """None where it does not answer, which its own examination tells."""
    try:
        rows = await target.ask("CLUSTER", "SLOTS")
        try:
            told = await target.ask("CLUSTER", "INFO")
        except ResponseError:
            told = ""
    except (NoAnswer, ResponseError):
        return None
    state = dict(line.split(":", 1) for line in str(told).splitlines() if ":" in line).get("cluster_state", "")
    served = sum(int(last) - int(first) + 1 for first, last, *_ in rows)
    return View(served, len({str(primary[2]) for _, _, primary, *_ in rows}), state)


def judged_coverage(views: Sequence[View]) -> Finding:
    """Say whether all hash slots are served, as the primary with the worst news sees it.

    Args:
        views: Of those that answer.
    """
    if not views:
        return Finding("coverage", "problem", "no primary answers", "see what follows")
    worst = min(views, key=lambda view: (view.state != "fail", view.served))
    found = f"{worst.served} of {REDIS_CLUSTER_HASH_SLOTS} hash slots are served, by {worst.primaries} primaries"
    found += f"; the state is {worst.state}" if worst.state else "; the state is not told: CLUSTER INFO is refused"
    if worst.served < REDIS_CLUSTER_HASH_SLOTS or worst.state == "fail":
        advice = (
            "redis-cli --cluster check HOST:PORT says what is missing: start the servers again that serve it, or give "
            "these slots to others"
        )
        return Finding("coverage", "problem", found, advice)
    if worst.primaries < _QUORUM:
        advice = "use three primaries or more: with fewer, where one is lost, no majority is left to replace it"
        return Finding("coverage", "warning", found, advice)
    return Finding("coverage", "ok", found)


async def _strictest(targets: Iterable[Target], name: str) -> dict[str, str] | None:
    """A setting that is `no` where it is so on all servers that tell it."""
    told = await asyncio.gather(*(_setting(target, name) for target in targets))
    values = [value for value in told if value is not None]
    return {name: next((value for value in values if value != "no"), "no")} if values else None


async def _setting(target: Target, name: str) -> str | None:
    try:
        settings = await target.settings(name)
    except NoAnswer:
        return None
    return (settings or {}).get(name)
