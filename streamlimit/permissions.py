"""What the service may do on its store: the commands of the scripts, each on the keys on which they use it.

Each command is sent in a form that changes nothing: on keys that do not exist, and HSET with a value too few, which the
server notices only after it has looked at the permissions. This needs no permission of its own, as ACL DRYRUN would.
"""

import re
from collections.abc import Callable
from typing import Final

from redis.exceptions import NoPermissionError, ResponseError

from streamlimit.findings import Finding
from streamlimit.scripts import LIST
from streamlimit.targets import Target

NEEDED: Final = {
    "stream": ("EXISTS", "PTTL", "HMGET", "HLEN", "HSET", "PEXPIRE", "DEL"),
    "user": ("HGET", "HLEN", "HSET", "DEL"),
    "ended": ("HGET", "HGETALL", "HEXISTS", "HLEN", "HSET", "HDEL", "PEXPIRE", "DEL"),
    "epoch": ("PERSIST", "HMGET", "HGETALL", "HSET", "HDEL", "DEL"),
    "admissions": ("INCRBY", "PTTL", "PEXPIRE", "DEL"),
}
"""The commands of the scripts and of `Store`, by the kind of key. Beside them: TIME, and to run the scripts at all
EVALSHA and SCRIPT LOAD; and TYPE, without which the log names a damaged key, but not its type."""

_ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "HMGET": ("id",),
    "HGET": ("id",),
    "HEXISTS": ("id",),
    "HDEL": ("id",),
    "HSET": ("id", "value", "one too many"),
    "PEXPIRE": ("1",),
    "INCRBY": ("no number",),
}


async def check_permissions(target: Target, user: str, keys: dict[str, str], pattern: Callable[[str], str]) -> Finding:
    """Find out what the user may not do.

    Args:
        target: Which server.
        user: Name of the ACL user, for people.
        keys: A key of each kind, none of which exists.
        pattern: How the keys of a kind are called in an ACL.

    Raises:
        NoAnswer: The server cannot be talked to.
    """
    # ASKING holds for the next command of its connection only.
    attempts: list[tuple[str, ...]] = [("ASKING",)] if target.slots is not None else []
    attempts += [("TIME",), ("SCRIPT", "LOAD", LIST.source)]
    attempts += [("EVALSHA", LIST.sha, "3", keys["user"], keys["ended"], keys["epoch"], "")]
    attempts += [
        (command, keys[kind], *_ARGUMENTS.get(command, ())) for kind, used in NEEDED.items() for command in used
    ]
    commands: set[str] = set()
    kinds: set[str] = set()
    unknown: set[str] = set()
    for attempt in attempts:
        try:
            await target.ask(*attempt)
        except NoPermissionError as error:
            # The server names what it refuses, which may be a command that our client sends with every connection.
            named = re.search(r"run the '([\w|]+)' command", str(error))
            if named:
                commands.add(named[1])
            elif attempt[0] != "EVALSHA":  # which has keys of several kinds, and tells of none alone
                kinds |= {kind for kind, key in keys.items() if key in attempt}
        except ResponseError as error:
            if str(error).startswith("unknown command"):
                unknown.add(attempt[0].lower())
    patterns = [pattern(kind) for kind in NEEDED if kind in kinds]
    if unknown:
        return Finding(
            "permissions",
            "problem",
            f"the server does not know {_listed(unknown)}",
            "let it have these commands under their own names; they may be renamed or disabled in its settings",
        )
    if not commands and not patterns:
        return Finding("permissions", "ok", f"user {user}: all commands of the scripts, on all their keys")
    refused = [f"may not run {_listed(commands)}"] if commands else []
    refused += [f"may not use the keys {', '.join(patterns)}"] if patterns else []
    granted = [f"'+{name}'" for name in sorted(commands)] + [f"'~{name}'" for name in patterns]
    return Finding(
        "permissions",
        "problem",
        f"user {user} {' and '.join(refused)}",
        f"as an administrator: ACL SETUSER {user} {' '.join(granted)}, then ACL SAVE; README.md has all that is needed",
    )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
