"""Live streams to send heartbeats for, and files of requests, as bench/load.lua reads them."""

import json
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench.load import generate, wrk
from bench.plan import BATCH, SECRET, TTL_SECONDS, BenchError
from bench.processes import Process
from streamlimit.keys import Keys
from streamlimit.stream_id import Signer, mint_ref

LIMIT: Final = 3
DEVICE_NAME: Final = "Living-room TV"
MINT_SECONDS: Final = 120
AT_ONCE: Final = 200

FILL: Final = """
for i = 1, #KEYS do
  redis.call('HSET', KEYS[i], 'ref', ARGV[3 * i], 'sig', ARGV[3 * i + 1], 'started_at', ARGV[1],
    'device_id', ARGV[3 * i + 2], 'device_name', 'Living-room TV')
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
"""
"""Writes what admit.lua writes; a test compares them."""

Stream = tuple[str, str]
"""User id and stream id."""


def device_id(number: int) -> str:
    """One of 16 bytes."""
    return f"device-{number:09d}"


def user_id(number: int) -> str:
    """One of 12 bytes."""
    return f"user-{number:07d}"


def admissions(users: int, devices: int) -> list[str]:
    """Requests for admission of some devices of some users, whose bodies name the device."""
    return [
        f"/v1/users/{user_id(user)}/streams\t"
        + json.dumps({"device_id": device_id(user * devices + device), "device_name": DEVICE_NAME})
        for device in range(devices)
        for user in range(users)
    ]


def heartbeats(streams: Iterable[Stream]) -> list[str]:
    """A request a stream, in no order."""
    lines = [f"/v1/users/{user}/streams/{stream}/heartbeat" for user, stream in streams]
    random.shuffle(lines)
    return lines


def batches(streams: Iterable[Stream]) -> list[str]:
    """Requests of a gateway, each with many streams, in no order."""
    items = [{"user_id": user, "stream_id": stream} for user, stream in streams]
    random.shuffle(items)
    groups = (items[start : start + BATCH] for start in range(0, len(items) - BATCH + 1, BATCH))
    return [f"/v1/heartbeats\t{json.dumps({'streams': group})}" for group in groups]


def write(lines: Iterable[str], path: Path) -> Path:
    """Write a file of requests."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def mint(server: Process, count: int, core: int, directory: Path) -> list[Stream]:
    """Admit so many streams through the service's API, three of each user.

    Raises:
        BenchError: Not all were admitted.
    """
    requests = write(admissions(count // LIMIT, LIMIT), directory / "mint.txt")
    answers = directory / "minted.txt"
    generate(wrk(server.port, requests, MINT_SECONDS, output=answers), core)
    minted = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    if len(minted) != count // LIMIT * LIMIT:
        raise BenchError(f"only {len(minted):,} of {count:,} streams were admitted")
    return [(one["user_id"], one["stream_id"]) for one in minted]


def fill(client: Any, count: int) -> list[Stream]:
    """Write so many streams into a store, three of each user: what the API would take minutes for."""
    keys, signer = Keys(), Signer([SECRET])
    script = client.register_script(FILL)
    streams: list[Stream] = []
    names: list[str] = []
    values: list[str] = []
    for number in range(count):
        user, seat = user_id(number // LIMIT), number % LIMIT + 1
        ref = mint_ref(LIMIT)
        sig = signer.sign(user, ref)
        streams.append((user, f"{seat}.{ref}.{sig}"))
        names.append(keys.stream(user, seat))
        values += [ref, sig, device_id(number)]
        if len(names) == AT_ONCE or number == count - 1:
            script(keys=names, args=[time.time_ns() // 1_000_000, TTL_SECONDS * 1000, *values])
            names, values = [], []
    return streams


def forged(streams: Iterable[Stream]) -> list[Stream]:
    """Ids of the same seats that nobody was given: a REF of now, and a SIG by a secret that is not the service's."""
    signer = Signer(["not " + SECRET])
    made: list[Stream] = []
    for user, stream in streams:
        ref = mint_ref(LIMIT)
        made.append((user, f"{stream.partition('.')[0]}.{ref}.{signer.sign(user, ref)}"))
    return made


def ended(client: Any) -> Stream:
    """A stream that has ended, as the store remembers it."""
    user, ref = user_id(0), mint_ref(LIMIT)
    client.hset(Keys().ended(user), ref, f"released {time.time_ns() // 1_000_000}")
    return user, f"1.{ref}.{Signer([SECRET]).sign(user, ref)}"


def fill_sorted_sets(client: Any, streams: Iterable[Stream]) -> None:
    """Write the same streams as bench/peers/sorted_set.py keeps them."""
    now = time.time_ns() // 1_000_000
    pipeline = client.pipeline(transaction=False)
    for user, stream in streams:
        pipeline.zadd(f"semaphore:{user}", {stream: now})
        pipeline.pexpire(f"semaphore:{user}", TTL_SECONDS * 1000)
    pipeline.execute()
