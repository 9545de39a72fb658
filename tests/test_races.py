"""Many client processes at once, through several workers: exactly the limit, never more, never less."""

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import local

import pytest
from redis import Redis

from tests.servers import Service, serving

pytestmark = pytest.mark.slow

USERS = 50
ADMISSIONS = 5_000
PROCESSES = 4
THREADS = 8
LIMIT = 3


def race(port: int, attempts: range) -> Counter[tuple[str, int]]:
    """Ask for admission again and again, and count the answers by user and status."""
    connections = local()

    def admit(attempt: int) -> tuple[str, int]:
        if not hasattr(connections, "connection"):
            connections.connection = HTTPConnection("127.0.0.1", port, timeout=20)
        user_id = f"user-{attempt % USERS}"
        connections.connection.request("POST", f"/v1/users/{user_id}/streams")
        with connections.connection.getresponse() as response:
            response.read()
            return user_id, response.status

    with ThreadPoolExecutor(THREADS) as threads:
        return Counter(threads.map(admit, attempts))


def test_racing_admissions_get_exactly_the_limit(tmp_path: Path) -> None:
    with serving(Service(tmp_path, "--workers", "2")) as service:
        share = ADMISSIONS // PROCESSES
        # Each process runs through the users on its own, so that all ask for the same user at the same time.
        with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as processes:
            clients = [processes.submit(race, service.port, range(share)) for _ in range(PROCESSES)]
            answers = sum((client.result() for client in clients), Counter[tuple[str, int]]())
        with Redis(port=service.embedded_port, decode_responses=True) as store:
            live = Counter(key.partition("{")[2].partition("}")[0] for key in store.keys("stream:*"))

    users = [f"user-{number}" for number in range(USERS)]
    assert answers.total() == ADMISSIONS
    assert {user: answers[user, 201] for user in users} == dict.fromkeys(users, LIMIT)
    assert {status for _, status in answers} == {201, 409}
    assert live == dict.fromkeys(users, LIMIT)
