"""The hash slots of a Redis Cluster (see its specification), and for each a short hash tag that falls into it."""

from functools import cache
from typing import Final

from redis.crc import key_slot

SLOTS: Final = 16_384

_TAGS_BELOW: Final = 109_758
"""The decimal numbers below it reach every slot."""


def slot_of(tag: str) -> int:
    """The slot of all keys with this hash tag."""
    return key_slot(tag.encode())


@cache
def tags() -> tuple[str, ...]:
    """For each slot the smallest decimal number that falls into it. Found once a process, where a Cluster is used."""
    found: dict[int, str] = {}
    for number in range(_TAGS_BELOW):
        found.setdefault(slot_of(str(number)), str(number))
    return tuple(found[slot] for slot in range(SLOTS))
