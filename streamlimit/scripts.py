"""The Lua scripts: package data, read once, run by their SHA-1 (EVALSHA)."""

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
