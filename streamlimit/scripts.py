"""The Lua scripts: package data, read once, run by their SHA-1 (EVALSHA)."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script. Its file opens with its contract: KEYS, ARGV, what it returns and writes."""

    name: str
    source: str
    sha: str
    """SHA-1 of the source, by which Redis knows a loaded script. It is a name, not a safeguard."""


@dataclass(slots=True)
class Call:
    """A script with its KEYS and ARGV."""

    script: Script
    keys: Sequence[str]
    args: Sequence[str | int]
    slot: int = 0
    """That of all its keys; 0 where one server holds all."""
    in_epoch: bool = False
    """Its first argument, not in `args`, is the epoch, and its last one how long it may be carried out; it answers
    ['epoch'] where the epoch is another one, or it comes too late."""
    in_turn: bool = False
    """Its last argument, not in `args`, is how long it may be carried out; later it answers ['late']. It has no REF by
    which the store would know a repetition, so an attempt begins only when the one before it can have no effect any
    more: that would undo what was acknowledged in between."""
    pending_until: float = 0
    """When the last attempt that got no answer can have no effect any more, in the event loop's time."""
    meetings: int = 0
    """How often its server had been met when the last attempt was sent: what was met since is newer than its answer."""
    in_doubt: bool = False
    """An attempt got no answer. It may still be carried out, even after a later attempt was answered."""


def _load(name: str) -> Script:
    source = files("streamlimit").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


ADMIT = _load("admit")
HEARTBEAT = _load("heartbeat")
RESUME = _load("resume")
RELEASE = _load("release")
TRIM = _load("trim")
LIST = _load("list")
EPOCH = _load("epoch")
DELETE = _load("delete")
COUNT = _load("count")
GET = _load("get")
SECRETS = _load("secrets")
