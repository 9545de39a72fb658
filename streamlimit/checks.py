"""What a server's own INFO and CONFIG GET mean for streams. Pure: from what it says to findings.

`info` and `config` are None where the server does not tell, as managed services and small ACLs do.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from streamlimit.findings import Finding

Told = Mapping[str, Any] | None

SETTINGS: Final = ("appendfsync", "save", "min-replicas-to-write", "timeout")
"""What is asked of CONFIG GET."""

_CONNECTIONS: Final = 64
"""As many as a process of the service opens to one server."""

_MIN_REDIS: Final = 7
_MUCH: Final = 0.9
_LAG_SECONDS: Final = 10

_OTHERS: Final = {
    "dragonfly": "no append-only file, so a crash goes back to its last snapshot",
    "keydb": "a Redis 6; with active replication two servers take writes, and a limit holds for each of them alone",
    "kvrocks": "",
    "garnet": "",
}
"""Servers that speak Redis' language, and what is different there. `NAME_version` in INFO tells them."""

_EVICTIONS: Final = {
    "allkeys": "it drops any key: live streams, whose seats are given away while they play, the users' limits, and the "
    "epoch, which stops all admissions for one TTL",
    "volatile": "it drops keys that have a TTL, which are the live streams: their seats are given away while they play",
}
_FIRST: Final = {
    "lru": "those not used for longest first",
    "lfu": "those used least first",
    "lrm": "those not written for longest first",
    "random": "any of them",
    "ttl": "those that end soonest first",
}


def version(info: Told) -> Finding:
    """Which server it is, and whether the scripts are tested with it."""
    if info is None:
        return _untold("version", "redis-cli INFO server: Redis 7 or newer, or Valkey")
    if "valkey_version" in info:
        return Finding("version", "ok", f"Valkey {info['valkey_version']}")
    name = next((name for name in _OTHERS if f"{name}_version" in info), "")
    # KeyDB has no version of its own in INFO.
    if str(info.get("executable", "")).endswith("keydb-server") or "mvcc_depth" in info:
        name = "keydb"
    redis_version = str(info.get("redis_version", "unknown"))
    if name:
        own = info.get(f"{name}_version", redis_version)
        return Finding(
            "version",
            "warning",
            f"{name} {own}, with which streamlimit is not tested" + (f"; {_OTHERS[name]}" if _OTHERS[name] else ""),
            "use Redis 7 or newer, or Valkey; or run the contract tests against it before you trust it",
        )
    major = re.match(r"\d+", redis_version)
    if major and int(major[0]) >= _MIN_REDIS:
        return Finding("version", "ok", f"Redis {redis_version}")
    return Finding(
        "version",
        "problem",
        f"Redis {redis_version}, with which streamlimit is not tested",
        "use Redis 7 or newer, or Valkey",
    )


def eviction(info: Told) -> Finding:
    """What the server does when memory is short."""
    check = "maxmemory-policy"
    if info is None or "maxmemory_policy" not in info:
        return _untold(check, "redis-cli CONFIG GET maxmemory-policy: noeviction")
    policy = str(info["maxmemory_policy"])
    if policy == "noeviction":
        return Finding(check, "ok", "noeviction: short of memory, new streams are refused and running ones go on")
    kind, _, order = policy.partition("-")
    found = f"{policy}: short of memory, {_EVICTIONS.get(kind, 'it drops keys')}; {_FIRST.get(order, 'some of them')}"
    if evicted := int(info.get("evicted_keys", 0)):
        found += f"; it has dropped {evicted} since its start"
    if not int(info.get("maxmemory", 0)):
        found += "; without a maxmemory it never comes to that"
    return Finding(
        check,
        "problem" if int(info.get("maxmemory", 0)) else "warning",
        found,
        "CONFIG SET maxmemory-policy noeviction, and in its configuration file, too; a cache needs a server of its own",
    )


def memory(info: Told) -> Finding:
    """How much memory is left."""
    if info is None or "used_memory" not in info:
        return _untold("maxmemory", "redis-cli INFO memory: used_memory well below maxmemory")
    used, bound = int(info["used_memory"]), int(info.get("maxmemory", 0))
    if bound:
        found = f"{_size(used)} of {_size(bound)} in use"
        if used >= bound:
            return Finding("maxmemory", "problem", f"{found}: new streams are refused", "raise maxmemory")
        if used >= _MUCH * bound:
            return Finding("maxmemory", "warning", f"{found}: soon new streams will be refused", "raise maxmemory")
        return Finding("maxmemory", "ok", found)
    machine = int(info.get("total_system_memory", 0))
    found = f"{_size(used)} in use, and no maxmemory"
    if machine and used >= _MUCH * machine:
        return Finding(
            "maxmemory", "warning", f"{found} on a machine of {_size(machine)}", "set maxmemory, or add memory"
        )
    return Finding("maxmemory", "ok", f"{found}: the machine is the bound" + (f", {_size(machine)}" if machine else ""))


def persistence(info: Told, config: Told) -> list[Finding]:
    """What a crash costs."""
    check = "persistence"
    if info is None or "aof_enabled" not in info:
        return [_untold(check, "redis-cli INFO persistence: aof_enabled:1, aof_last_write_status:ok")]
    findings = []
    save = None if config is None else config.get("save")
    full = "see its log; the disk may be full or broken"
    if info.get("aof_last_write_status", "ok") != "ok":
        found = "the last write of the append-only file failed: until one succeeds, all writes are refused"
        findings.append(Finding(check, "problem", found, full))
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        found = "the last snapshot failed"
        if save != "":
            found += ": until one succeeds, all writes are refused, unless stop-writes-on-bgsave-error is no"
        findings.append(Finding(check, "warning" if save == "" else "problem", found, full))
    if int(info["aof_enabled"]):
        findings.append(Finding(check, "ok", "an append-only file: streams and limits survive a restart"))
        findings.append(_appendfsync(config))
        return findings
    advice = "CONFIG SET appendonly yes, and in its configuration file, too"
    if save == "":
        found = (
            "neither append-only file nor snapshots: a restart loses everything; running streams resume, new ones wait "
            "for one TTL, and the users' limits are gone. It empties the replicas, too"
        )
    elif save:
        found = (
            f"no append-only file, only snapshots (save {save}): a crash goes back to the last one, which the service "
            "cannot tell from the truth: streams begun since then, and longer than a TTL ago, end with a 410, and "
            "limits set since are gone"
        )
    else:
        found = "no append-only file: a crash goes back to the last snapshot, or to nothing where there is none"
    return [*findings, Finding(check, "warning", found, advice)]


def _appendfsync(config: Told) -> Finding:
    check = "appendfsync"
    match config.get(check) if config else None:
        case None:
            return _untold(check, "redis-cli CONFIG GET appendfsync, as an administrator: everysec")
        case "no":
            return Finding(
                check,
                "warning",
                "no: when the machine crashes, what its operating system has not yet written is lost, often 30 s",
                "CONFIG SET appendfsync everysec, and in its configuration file, too",
            )
        case "always":
            return Finding(check, "ok", "always: a crash loses nothing, and each write waits for the disk")
        case other:
            return Finding(check, "ok", f"{other}: when the machine crashes, a second or two are lost")


def replicas(info: Told, *, expected: bool) -> Finding:
    """Who could take over.

    Args:
        info: As told.
        expected: Whether Sentinel or a Cluster stands ready to promote one.
    """
    check = "replicas"
    if info is None or "role" not in info:
        return _untold(check, "redis-cli INFO replication: role:master, and of each replica state=online, lag=0 or 1")
    if info["role"] != "master":
        of = f" of {info.get('master_host')}:{info.get('master_port')}"
        return Finding(check, "problem", f"this is a replica{of}, and takes no writes", "connect to the primary")
    all_of_them = [value for name, value in info.items() if re.fullmatch(r"slave\d+", name) and isinstance(value, dict)]
    if not all_of_them:
        found = "none: while this server is down, nobody is admitted"
        if not expected:
            return Finding(check, "ok", found)
        return Finding(check, "warning", f"{found}, since nobody can take over", "add a replica")
    late = [
        f"{one.get('ip')}:{one.get('port')} ({one.get('state')}, {one.get('lag')} s behind)"
        for one in all_of_them
        if one.get("state") != "online" or int(one.get("lag", 0)) > _LAG_SECONDS
    ]
    if late:
        found = f"{len(late)} of {len(all_of_them)} are not up to date: {', '.join(late)}"
        advice = "see its log; after a failover what it has not got is lost"
        return Finding(check, "warning", found, advice)
    lag = max(int(one.get("lag", 0)) for one in all_of_them)
    return Finding(check, "ok", f"{len(all_of_them)} connected, at most {lag} s behind")


def min_replicas(info: Told, config: Told) -> Finding:
    """Whether the loss of a replica stops the service."""
    check = "min-replicas-to-write"
    wanted = None if config is None else config.get(check)
    # INFO has this line only where the setting is not 0.
    good = None if info is None else info.get("min_slaves_good_slaves")
    if wanted is None and info is None:
        return _untold(check, "redis-cli CONFIG GET min-replicas-to-write, as an administrator: 0")
    if wanted == "0" or (wanted is None and good is None):
        return Finding(check, "ok", "0: the loss of a replica stops nothing")
    found = f"{wanted or 'set'}: with fewer good replicas all writes are refused, heartbeats, too, so that streams end"
    if good is not None:
        found += f"; there are {good} now"
    lacking = good is not None and int(good) < int(wanted or 1)
    advice = (
        "CONFIG SET min-replicas-to-write 0, and in its configuration file, too; another value gives up streams in "
        "exchange for fewer admissions on a primary that was cut off and is replaced"
    )
    return Finding(check, "problem" if lacking else "warning", found, advice)


def connections(info: Told) -> Finding:
    """Whether there is room for the service's connections."""
    if info is None or "maxclients" not in info:
        return _untold("maxclients", "redis-cli INFO clients: connected_clients well below maxclients")
    connected, bound = int(info.get("connected_clients", 0)), int(info["maxclients"])
    found = f"{connected} of {bound} connections in use; a process of the service takes up to {_CONNECTIONS}"
    if bound - connected < _CONNECTIONS:
        return Finding("maxclients", "warning", found, "raise maxclients, and the limit of open files with it")
    return Finding("maxclients", "ok", found)


def timeout(config: Told, heartbeat_seconds: float) -> Finding:
    """Whether idle connections are cut."""
    check = "timeout"
    if config is None or check not in config:
        return _untold(check, "redis-cli CONFIG GET timeout, as an administrator: 0")
    seconds = int(config[check])
    if not seconds:
        return Finding(check, "ok", "0: idle connections are kept")
    found = f"{seconds} s: connections that are idle for so long are cut, and made again"
    if seconds < 2 * heartbeat_seconds:
        advice = f"CONFIG SET timeout 0, or well above the heartbeat interval of {heartbeat_seconds:g} s"
        return Finding(check, "warning", found, advice)
    return Finding(check, "ok", found)


def full_coverage(config: Told) -> Finding:
    """What the loss of some hash slots does to the others."""
    check = "cluster-require-full-coverage"
    match config.get(check) if config else None:
        case None:
            return _untold(check, f"redis-cli CONFIG GET {check}, as an administrator: no")
        case "no":
            return Finding(check, "ok", "no: where a primary is lost, the users of the others go on")
        case value:
            found = f"{value}: where a primary and its replicas are lost, all users are refused, not only theirs"
            return Finding(check, "warning", found, f"CONFIG SET {check} no on every server")


def _untold(check: str, by_hand: str) -> Finding:
    return Finding(check, "skipped", "the server does not tell us", f"look at it by hand: {by_hand}")


def _size(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - so many of a unit make the next
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
