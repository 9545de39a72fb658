"""Examines the keys of one user: types, times to live, fields, and seats above `max_limit`.

Nothing but a hand, or another program on the same Redis, makes what is found here.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

from streamlimit import hash_slots
from streamlimit.damage import is_damage
from streamlimit.fields import MAX_SEATS
from streamlimit.findings import Finding
from streamlimit.keys import SINGLE_SERVER, Keys
from streamlimit.rules import Rules
from streamlimit.stream_id import ref_of_seat
from streamlimit.survey import surveyed
from streamlimit.targets import NoAnswer, Target

_MAX_ENDED: Final = 64
_SIG: Final = re.compile(r"[A-Za-z0-9_-]{16}")
_ENDED: Final = re.compile(r"[a-z_]+(\t.*\t| )\d+")
_LIMIT: Final = re.compile(r"\s*(-?\d+)\.?\d*\s*", re.ASCII)


async def examine_user(client: Redis | RedisCluster, rules: Rules, user_id: str, key_prefix: str = "") -> list[Finding]:
    """Examine the keys of a user, and write nothing. It never fails.

    Args:
        client: As `connect` makes it; still to be closed.
        rules: Of the deployment.
        user_id: A valid one.
        key_prefix: Of the deployment.

    Returns:
        A finding for each key that is there, under its name, and what is not well with the servers.
    """
    tags = hash_slots.tags() if isinstance(client, RedisCluster) else SINGLE_SERVER
    # Also the seats that were in use when MAX_LIMIT was higher.
    keys = Keys(key_prefix, MAX_SEATS, tags)
    async with surveyed(client) as survey:
        findings = [finding for finding in survey.findings if finding.state != "ok"]
        for target in survey.targets:
            if target.slots is None or keys.slot(user_id) in target.slots:
                findings += await _Examination(target, keys, rules, user_id).run()
        return findings


@dataclass(frozen=True, slots=True)
class _Key:
    """What a key holds."""

    name: str
    kind: str
    """As TYPE says it; `none` where there is no such key."""
    pttl: int = -1
    fields: dict[str, str] = field(default_factory=dict)


class _Examination:
    def __init__(self, target: Target, keys: Keys, rules: Rules, user_id: str) -> None:
        self._target = target
        self._keys = keys
        self._rules = rules
        self._user_id = user_id
        self._streams = f"/v1/users/{user_id}/streams"
        self._found: list[Finding] = []

    async def run(self) -> list[Finding]:
        try:
            user, ended, epoch, *seats = [await self._read(key) for key in self._keys.all_of(self._user_id)]
            admissions = await self._read(self._keys.admissions(self._user_id))
        except NoAnswer as error:
            return [Finding("reachable", "problem", error.found, error.advice, self._target.name)]
        except ResponseError as error:
            advice = "give it the permissions that README.md lists"
            return [Finding("permissions", "problem", str(error), advice, self._target.name)]
        self._judge_record(user)
        self._judge_ended(ended)
        if epoch.kind not in ("hash", "none"):
            advice = "none is needed: with the next admission the service makes it anew and recovers for one TTL"
            self._add(epoch, "warning", f"its type is {epoch.kind}, not hash", advice)
        if admissions.kind not in ("string", "none"):
            advice = "none is needed: the service begins it anew"
            self._add(admissions, "warning", f"its type is {admissions.kind}, not string", advice)
        for seat, key in enumerate(seats, 1):
            if key.kind != "none":
                self._judge_stream(key, seat)
        live = sum(key.kind != "none" for key in seats[: self._rules.max_limit])
        self._found.append(Finding("seats", "ok", f"{live} in use", node=self._target.name))
        return self._found

    async def _read(self, name: str) -> _Key:
        kind = await self._kind(name)
        if kind == "none":
            return _Key(name, kind)
        fields: Any = await self._target.ask("HGETALL", name) if kind == "hash" else {}
        return _Key(name, kind, int(await self._target.ask("PTTL", name)), fields)

    async def _kind(self, name: str) -> str:
        try:
            return str(await self._target.ask("TYPE", name))
        except ResponseError:  # not permitted
            try:
                return "hash" if await self._target.ask("HLEN", name) else "none"
            except ResponseError as error:
                if is_damage(error):
                    return "another one"
                raise

    def _add(self, key: _Key, state: Any, found: str, advice: str = "") -> None:
        self._found.append(Finding(key.name, state, found, advice, self._target.name))

    def _is_damaged(self, key: _Key, repair: str) -> bool:
        if key.kind == "hash":
            return False
        found = f"its type is {key.kind}, not hash: requests for this user fail (503 damaged-key)"
        self._add(key, "problem", found, f"{repair}, or redis-cli DEL '{key.name}'")
        return True

    def _judge_record(self, key: _Key) -> None:
        default = "the default limit holds" if self._rules.unknown_users == "admit" else "the user is unknown"
        if key.kind == "none":
            self._add(key, "ok", f"no record: {default}")
            return
        repair = f"PUT /v1/users/{self._user_id} with the limit"
        if self._is_damaged(key, repair):
            return
        limit = _LIMIT.fullmatch(key.fields.get("limit", ""))
        if limit is None:
            self._add(key, "warning", f"its limit is no whole number: {default}", repair)
        elif not 0 <= int(limit[1]) <= self._rules.max_limit:
            bounds = f"0 to MAX_LIMIT ({self._rules.max_limit})"
            self._add(key, "warning", f"limit {limit[1]} is outside {bounds} and counts as the nearest", repair)
        elif key.pttl >= 0:
            found = f"the limit goes away in {key.pttl / 1000:.0f} s: a record should have no TTL"
            self._add(key, "warning", found, f"redis-cli PERSIST '{key.name}'")
        else:
            self._add(key, "ok", f"limit {limit[1]}")

    def _judge_ended(self, key: _Key) -> None:
        if key.kind == "none" or self._is_damaged(key, f"DELETE {self._streams}, which ends all streams"):
            return
        strange = sum(_ENDED.fullmatch(entry) is None for entry in key.fields.values())
        if key.pttl < 0 or len(key.fields) > _MAX_ENDED or strange:
            found = f"{len(key.fields)} ended streams, at most {_MAX_ENDED} are kept; {strange} without reason and time"
            found += "; it has no TTL" if key.pttl < 0 else ""
            self._add(key, "warning", found, f"redis-cli PEXPIRE '{key.name}' 600000: it is forgotten after that")
        else:
            self._add(key, "ok", f"{len(key.fields)} ended streams")

    def _judge_stream(self, key: _Key, seat: int) -> None:
        if self._is_damaged(key, f"DELETE {self._streams}, which ends all streams"):
            return
        ref = key.fields.get("ref")
        stream_ref = f"{seat}.{ref_of_seat(ref, seat)}"
        wrong = []
        if seat > self._rules.max_limit:
            wrong.append(f"its seat is above MAX_LIMIT ({self._rules.max_limit}), where nothing counts or ends it")
        if ref_of_seat(ref, seat) != ref:
            wrong.append("it has no usable ref")
        if not _SIG.fullmatch(key.fields.get("sig", "")):
            wrong.append("it has no usable sig, so that no player can keep it live")
        if not key.fields.get("started_at", "").isdecimal():
            wrong.append("its started_at is no time in ms, so that it counts as the oldest")
        if key.pttl < 0:
            wrong.append("it has no TTL and never ends by itself")
        elif key.pttl > self._rules.ttl_ms:
            wrong.append(f"its TTL is longer than TTL_SECONDS ({self._rules.ttl_ms // 1000})")
        if not wrong:
            self._add(key, "ok", f"{stream_ref} is live for another {key.pttl / 1000:.0f} s")
        elif seat > self._rules.max_limit:
            self._add(key, "warning", "; ".join(wrong), f"redis-cli DEL '{key.name}', or a higher MAX_LIMIT")
        else:
            self._add(key, "warning", "; ".join(wrong), f"DELETE {self._streams}/{stream_ref}")
