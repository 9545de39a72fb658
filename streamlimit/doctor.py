"""Examines a store before it is trusted: what it is and lets us do, what it may lose, whether it is fast enough."""

import dataclasses
import math
import secrets
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoPermissionError, ResponseError

from streamlimit import checks, hash_slots
from streamlimit.damage import is_damage
from streamlimit.findings import Finding
from streamlimit.keys import SINGLE_SERVER, Keys
from streamlimit.known_secrets import FIELD, fingerprints, kept_ms
from streamlimit.permissions import check_permissions
from streamlimit.probe import check_scripts
from streamlimit.rules import Rules
from streamlimit.survey import surveyed
from streamlimit.targets import NoAnswer, Target, user_of

PROBE_USER: Final = "streamlimit-doctor"
"""Its streams are made and ended by an examination; a random part follows, since two may run at once."""

_EPOCHS: Final = 32
_CLOCK_READINGS: Final = 5
_CLOCK_MS: Final = 1_000
"""A REF from so far ahead of the store's clock does not count as young."""


async def examine(
    client: Redis | RedisCluster, rules: Rules, key_prefix: str = "", own_secrets: Sequence[str] = ()
) -> list[Finding]:
    """Ask everything. It leaves nothing behind, says what it cannot find out, and never fails.

    Args:
        client: As `connect` makes it; still to be closed.
        rules: Of the deployment.
        key_prefix: Of the deployment.
        own_secrets: Of the deployment, as far as they are known here.
    """
    async with surveyed(client) as survey:
        findings = list(survey.findings)
        # One after the other: they would make each other look slow.
        for target in survey.targets:
            examination = _Examination(
                target, user_of(client), rules, key_prefix, own_secrets, promotes=survey.promotes
            )
            findings += [dataclasses.replace(finding, node=target.name) for finding in await examination.run()]
        return findings


class _Examination:
    """That of one server."""

    def __init__(
        self,
        target: Target,
        user: str,
        rules: Rules,
        key_prefix: str,
        own_secrets: Sequence[str],
        *,
        promotes: bool,
    ) -> None:
        self._target = target
        self._user = user
        self._rules = rules
        self._promotes = promotes
        self._own_secrets = own_secrets
        tags = SINGLE_SERVER if target.slots is None else hash_slots.tags()
        self._keys = Keys(key_prefix, rules.max_limit, tags)
        self._found: list[Finding] = []

    async def run(self) -> list[Finding]:
        try:
            await self._run()
        except NoAnswer as error:
            if self._found:
                error.found = f"it stopped answering: {error.found}"
            self._found.append(Finding("reachable", "problem", error.found, error.advice))
        return self._found

    async def _run(self) -> None:
        target = self._target
        self._found.append(await _reach(target))
        info, config = await target.info(), await target.settings(*checks.SETTINGS)
        self._judge(checks.version, info)
        nobody = self._nobody()
        probe = self._probe_keys(nobody)
        kinds = {"admissions": self._keys.admissions(nobody)}
        kinds |= zip(("user", "ended", "epoch", "stream"), probe, strict=False)
        permissions = await check_permissions(target, self._user, kinds, self._pattern)
        self._found.append(permissions)
        if permissions.state == "problem":
            self._found.append(Finding("scripts", "skipped", "not run, since permissions are missing"))
        else:
            self._found.append(await check_scripts(target, probe))
        self._found.append(await check_clock(target))
        for about_memory in (checks.eviction, checks.memory):
            self._judge(about_memory, info)
        self._judge(checks.persistence, info, config)
        self._judge(checks.replicas, info, expected=self._promotes)
        self._judge(checks.min_replicas, info, config)
        self._judge(checks.connections, info)
        self._judge(checks.timeout, config, self._rules.heartbeat_ms / 1000)
        self._found.append(await check_recovery(target, self._epoch_keys()))
        slot = self._keys.slot("0")
        if target.slots is None or slot in target.slots:
            key = self._keys.epochs[slot]
            self._found.append(await check_secrets(target, key, self._own_secrets, self._rules.ttl_ms))

    def _judge(self, judge: Callable[..., Finding | list[Finding]], *told: Any, **options: Any) -> None:
        try:
            found = judge(*told, **options)
        except (ValueError, TypeError, AttributeError) as error:
            # It speaks Redis' language, but is something else.
            by_hand = "look at it by hand: redis-cli INFO and CONFIG GET"
            found = Finding(
                judge.__name__, "skipped", f"what the server tells us cannot be understood: {error}", by_hand
            )
        self._found += found if isinstance(found, list) else [found]

    @property
    def _epoch(self) -> str:
        """How the key of an epoch begins."""
        return self._keys.epochs[0].partition("{")[0]

    def _pattern(self, kind: str) -> str:
        """How the keys of a kind are called in an ACL."""
        return f"{self._epoch.removesuffix('epoch:')}{kind}:*"

    def _epoch_keys(self) -> list[str]:
        """The epoch key; on a Cluster those of some of its slots, which tell of all."""
        slots = sorted(self._target.slots or (0,))
        return [self._keys.epochs[slot] for slot in slots[:: math.ceil(len(slots) / _EPOCHS)]]

    def _nobody(self) -> str:
        """A user that there is not, whose keys are on this server."""
        while True:
            user_id = f"{PROBE_USER}-{secrets.token_hex(8)}"
            if self._target.slots is None or self._keys.slot(user_id) in self._target.slots:
                return user_id

    def _probe_keys(self, user_id: str) -> list[str]:
        """The keys of this user: user, ended, epoch, seats. None exists."""
        user, ended, _, *seats = self._keys.all_of(user_id)
        # Not the epoch itself, which nothing shall touch.
        return [user, ended, f"{self._epoch}{{{user_id}}}", *seats]


async def _reach(target: Target) -> Finding:
    times = []
    for _ in range(2):
        began = time.monotonic()
        try:
            await target.ask("TIME")
        except ResponseError as error:
            # What the user may not do is told by the permissions.
            if not isinstance(error, NoPermissionError):
                advice = "this goes for every command; see the logs of the server, or of what stands before it"
                raise NoAnswer(f"it refuses to talk: {error}", advice) from None
        times.append((time.monotonic() - began) * 1000)
    return Finding("reachable", "ok", f"connected and answered in {times[0]:.1f} ms, then in {times[1]:.1f} ms")


async def check_clock(target: Target) -> Finding:
    """Compare its clock with that of this machine."""
    readings = []
    try:
        for _ in range(_CLOCK_READINGS):
            sent = time.time()
            seconds, microseconds = await target.ask("TIME")
            received = time.time()
            half = (received - sent) / 2
            readings.append((half * 1000, (seconds + microseconds / 1e6 - sent - half) * 1000))
    except ResponseError as error:
        return Finding("clock", "skipped", f"the server does not tell us: {error}", "see redis-cli TIME by hand")
    # The shortest way says it most exactly.
    return judged_clock(*reversed(min(readings)))


def judged_clock(ahead_ms: float, uncertainty_ms: float) -> Finding:
    """Say whether the difference matters; to the service, on whose machines we should be."""
    direction = "ahead of" if ahead_ms >= 0 else "behind"
    found = f"{abs(ahead_ms):.1f} ms {direction} this machine's, ± {uncertainty_ms:.1f} ms"
    if abs(ahead_ms) - uncertainty_ms <= _CLOCK_MS:
        return Finding("clock", "ok", found)
    if ahead_ms > 0:
        found += ": a stream looks older than it is, and for so much less time comes back where a failover lost it"
    else:
        found += ": a new stream looks as if it came from the future, and does not come back where a failover lost it"
    return Finding("clock", "warning", found, "let NTP set the clocks of both machines")


async def check_recovery(target: Target, epoch_keys: Sequence[str]) -> Finding:
    """Say whether it recovers from a loss, by the epochs of some of its hash slots, or by the only one."""
    try:
        epochs = [await target.ask("HMGET", key, "id", "since", "recovering_until") for key in epoch_keys]
        seconds, microseconds = await target.ask("TIME")
    except ResponseError as error:
        if is_damage(error):
            found = f"{epoch_keys[0]} or another epoch key is no hash, overwritten by hand"
            advice = "none is needed: with the next admission the service makes it anew and recovers for one TTL"
            return Finding("recovery", "warning", found, advice)
        by_hand = f"look at it by hand: redis-cli HGETALL '{epoch_keys[0]}'"
        return Finding("recovery", "skipped", f"the server does not tell us: {error}", by_hand)
    return judged_recovery(epochs, seconds * 1000 + microseconds // 1000)


def judged_recovery(epochs: Sequence[Sequence[str | None]], now_ms: int) -> Finding:
    """Say what the epochs tell.

    Args:
        epochs: Of each its id, since when it is there, until when the store recovers (Unix ms); None for what is not.
        now_ms: By the clock of the store.
    """
    known = [(_number(since), _number(until)) for epoch, since, until in epochs if epoch]
    if not known:
        return Finding("recovery", "ok", "no service has met this store yet, or it has been emptied since")
    left = (max(until for _, until in known) - now_ms) / 1000
    if left > 0:
        found = f"for {left:.0f} s yet: it lost data, or was out of reach; running streams resume, new ones wait"
        return Finding("recovery", "warning", found, "wait; see in its log, or in that of the machine, what happened")
    if len(known) < len(epochs):
        found = f"{len(epochs) - len(known)} of {len(epochs)} epochs are not there: keys have been dropped"
        return Finding("recovery", "warning", found, "see maxmemory-policy, and who else uses this server")
    began = datetime.fromtimestamp(max(since for since, _ in known) / 1000, UTC).isoformat(timespec="seconds")
    return Finding("recovery", "ok", f"none; it has its data since {began.replace('+00:00', 'Z')}")


async def check_secrets(target: Target, epoch_key: str, own_secrets: Sequence[str], ttl_ms: int) -> Finding:
    """Say whether a process with these settings would share a secret with those that run."""
    by_hand = f"look at it by hand: redis-cli HGETALL '{epoch_key}' has a field {FIELD}FINGERPRINT for each in use"
    try:
        fields = await target.ask("HGETALL", epoch_key)
        seconds, _ = await target.ask("TIME")
    except ResponseError as error:
        return Finding("secret", "skipped", f"the server does not tell us: {error}", by_hand)
    since = seconds * 1000 - kept_ms(ttl_ms)
    in_use = {
        name.removeprefix(FIELD) for name, last in fields.items() if name.startswith(FIELD) and _number(last) > since
    }
    return judged_secrets(in_use, fingerprints(own_secrets))


def judged_secrets(in_use: AbstractSet[str], own: Sequence[str]) -> Finding:
    """Compare the fingerprints of the secrets that running processes use with those of the settings."""
    if not in_use:
        return Finding("secret", "ok", "no process with this key prefix has reported one lately")
    listed = ", ".join(sorted(in_use))
    if not own:
        by_hand = "run this with the SECRET or DATA_DIR of the service"
        return Finding("secret", "skipped", f"none is set here; fingerprints of those in use: {listed}", by_hand)
    if in_use.isdisjoint(own):
        found = f"the one set here ({', '.join(own)}) is none of those in use ({listed}; these are fingerprints)"
        advice = "give all processes the same SECRET: each calls streams unknown that another signed"
        return Finding("secret", "problem", found, advice)
    return Finding("secret", "ok", f"shared with the processes that use this store; fingerprints in use: {listed}")


def _number(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0
