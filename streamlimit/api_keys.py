"""API keys: what services and operators prove themselves with. Only SHA-256 digests of them are known here."""

import hmac
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

from streamlimit.callers import Caller, Role

DIGEST_PATTERN: Final = "[0-9a-f]{64}"
_SHOWN: Final = 8


def parse_digests(text: str) -> tuple[str, ...]:
    """Read digests that are separated by commas, or raise ValueError."""
    found = tuple(part for part in re.split(r"[,\s]+", text.lower()) if part)
    if (text and not found) or not all(re.fullmatch(DIGEST_PATTERN, digest) for digest in found):
        raise ValueError('must be SHA-256 digests of keys, 64 hex digits each: printf %s "$KEY" | sha256sum')
    return found


class ApiKeys:
    """Knows whose key a key is.

    Args:
        digests: Of the keys of each role; several of one role, so that keys can be changed one caller after the other.
    """

    def __init__(self, digests: Mapping[Role, Iterable[str]]) -> None:
        self._callers = [
            (bytes.fromhex(digest), Caller(role, f"{role} key {digest[:_SHOWN]}"))
            for role, of_role in digests.items()
            for digest in of_role
        ]

    def find(self, key: str) -> Caller | None:
        """Return whose key it is. All are compared, each in constant time, whichever fits."""
        digest = sha256(key.encode()).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found
