"""A load generator that keeps a rate, as many independent players do, whatever the server does meanwhile.

Arrivals are a Poisson process. A request that finds all connections busy waits, and its latency counts from when it was
due, so that a server that stalls does not hide it. `select` rather than an event loop, for timers of microseconds.
"""

import gc
import itertools
import json
import random
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.processes import HOST

MAX_CONNECTIONS: Final = 256
PATIENCE_SECONDS: Final = 2
"""How long answers may take when nothing more is sent."""
SEED: Final = 6
"""The same arrivals for every server."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def read_requests(file: Path) -> list[bytes]:
    """Read what bench/load.lua reads, from anywhere on."""
    requests = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            path, _, body = line.rstrip("\n").partition("\t")
            head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\n"
            head += "Content-Type: application/json\r\n" if body else ""
            requests.append(f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode())
    start = random.randrange(len(requests))
    return requests[start:] + requests[:start]


def success(answer: bytes) -> bool | None:
    """Whether a whole answer is a success; None where it is not all there yet."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return None
    length = _LENGTH.search(head + b"\r\n")
    if length is None or len(body) < int(length[1]):
        return None if length else False
    return head[9:10] == b"2"


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


class Generator:
    """Sends requests when they are due."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._port = port
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._free = [self._connect() for _ in range(MAX_CONNECTIONS)]
        self._busy: dict[socket.socket, tuple[float, bytes]] = {}
        """When the request of each was due, and what has come of the answer."""
        self._waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.errors = 0

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((HOST, self._port), timeout=5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def run(self, rate: float, seconds: float) -> int:
        """Generate load; return how many requests were due."""
        arrivals = random.Random(SEED)
        planned = 0
        start = due = time.perf_counter()
        end = start + seconds
        while True:
            now = time.perf_counter()
            while due <= now and due < end:
                planned += 1
                self.lateness.append(now - due)
                self._waiting.append(due)
                due += arrivals.expovariate(rate)
            while self._waiting and self._free:
                self._send(self._waiting.popleft())
            if due >= end and (not (self._busy or self._waiting) or now > end + PATIENCE_SECONDS):
                break
            wake = due if due < end else end + PATIENCE_SECONDS
            readable, _, _ = select.select(list(self._busy), [], [], max(0.0, wake - time.perf_counter()))
            for connection in readable:
                self._receive(connection)
        self.errors += len(self._busy) + len(self._waiting)
        return planned

    def _send(self, due: float) -> None:
        connection = self._free.pop()
        try:
            connection.sendall(next(self._requests))
        except OSError:
            self._replace(connection)
        else:
            self._busy[connection] = (due, b"")

    def _receive(self, connection: socket.socket) -> None:
        due, answer = self._busy[connection]
        try:
            received = connection.recv(65536)
        except OSError:
            received = b""
        answer += received
        good = success(answer) if received else False
        if good is None:
            self._busy[connection] = (due, answer)
            return
        del self._busy[connection]
        if good:
            self.latencies.append(time.perf_counter() - due)
            self._free.append(connection)
        else:
            self._replace(connection)

    def _replace(self, connection: socket.socket) -> None:
        self.errors += 1
        connection.close()
        self._free.append(self._connect())


def main(port: int, file: Path, seconds: float, rate: float) -> None:
    """Generate load, and say in JSON what was measured."""
    generator = Generator(port, read_requests(file))
    gc.disable()  # a collection would be measured as a stall of the server
    print("ready", flush=True)
    started = time.perf_counter()
    planned = generator.run(rate, seconds)
    measured = {
        "requests": len(generator.latencies),
        "errors": generator.errors,
        "seconds": time.perf_counter() - started,
        "p50_ms": percentile(generator.latencies, 0.5) * 1000,
        "p99_ms": percentile(generator.latencies, 0.99) * 1000,
        "late_p99_ms": percentile(generator.lateness, 0.99) * 1000,
        "planned": planned,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
