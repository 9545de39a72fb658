"""What Redis takes to set a TTL natively: PEXPIRE in pipelines, with nothing around it."""

import random
import socket
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

import hiredis

from bench.plan import TTL_SECONDS, Plan
from bench.processes import HOST, Process
from bench.streams import Stream
from streamlimit.keys import Keys

PIPELINED: Final = 128
"""Commands in a pipeline."""


def pipelines(streams: Sequence[Stream]) -> list[bytes]:
    """All that is to be sent, ready to be sent, so that the client takes nearly nothing."""
    names = [Keys().stream(user, int(stream.partition(".")[0])) for user, stream in streams]
    random.shuffle(names)
    # hiredis says that a command is a tuple of one.
    whole: list[Any] = [("PEXPIRE", name, TTL_SECONDS * 1000) for name in names]
    commands = [hiredis.pack_command(one) for one in whole]
    ends = range(PIPELINED, len(commands) + 1, PIPELINED)
    return [b"".join(commands[end - PIPELINED : end]) for end in ends]


def measure_native(store: Process, streams: Sequence[Stream], plan: Plan) -> float:
    """CPU time of the store a PEXPIRE, in microseconds: the median of all rounds."""
    sent = pipelines(streams)
    answer = b":1\r\n" * PIPELINED
    measured = []
    with socket.create_connection((HOST, store.port)) as connection:
        for _ in range(plan.rounds):
            before, count, end = store.cpu_seconds(), 0, time.monotonic() + plan.seconds
            while time.monotonic() < end:
                connection.sendall(sent[count % len(sent)])
                received = 0
                while received < len(answer):
                    received += len(connection.recv(65536))
                count += 1
            measured.append((store.cpu_seconds() - before) / (count * PIPELINED) * 1e6)
    return median(measured)
