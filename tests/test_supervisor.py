"""The embedded store as it is when all is well: how its server is set up, and whom its supervisor obeys.

What happens after crashes and damage is in test_embedded.py.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.documents import ROOT
from tests.servers import PATIENCE_SECONDS, answers, free_port, wait_for

RUN = """
import sys
from pathlib import Path
from streamlimit.embedded import EmbeddedStore

with EmbeddedStore(int(sys.argv[1]), Path(sys.argv[2])):
    print("ready", flush=True)
    sys.stdin.read()
"""


class Embedded(NamedTuple):
    process: "subprocess.Popen[str]"
    port: int

    def server(self) -> int:
        """Its process; 0 while there is none."""
        try:
            with Redis(port=self.port, decode_responses=True) as client:
                return int(client.info("server")["process_id"])
        except RedisConnectionError:
            return 0


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(port), str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield Embedded(process, port)
        finally:
            process.kill()
    wait_for(lambda: not answers(port), "the server to stop")


def parent_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)


def test_the_server_keeps_what_it_is_told_on_disk_and_drops_nothing(embedded: Embedded) -> None:
    with Redis(port=embedded.port, decode_responses=True) as client:
        told = client.config_get("appendonly", "appendfsync", "save", "maxmemory-policy", "bind", "dir")

    assert told.pop("dir").endswith("/valkey")
    assert told == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_supervisor_stays_whatever_signal_the_service_is_sent(embedded: Embedded, number: signal.Signals) -> None:
    """They go to all processes of a group or a container, and the service still has requests to finish."""
    first = embedded.server()
    supervisor = parent_of(first)
    assert supervisor != embedded.process.pid
    os.kill(supervisor, number)
    os.kill(first, signal.SIGKILL)

    wait_for(lambda: embedded.server() not in (0, first), "the supervisor to start another server")
    assert parent_of(embedded.server()) == supervisor


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_server(embedded: Embedded) -> None:
    assert os.getsid(embedded.server()) != os.getsid(embedded.process.pid)


def test_the_server_stops_with_the_service(embedded: Embedded) -> None:
    assert embedded.process.stdin
    embedded.process.stdin.close()

    assert embedded.process.wait(PATIENCE_SECONDS) == 0
    assert not answers(embedded.port)


def test_the_server_stops_when_the_service_is_killed(embedded: Embedded) -> None:
    embedded.process.kill()

    wait_for(lambda: not answers(embedded.port), "the server to stop")
