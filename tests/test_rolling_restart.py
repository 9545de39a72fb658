"""Two instances of two workers each are restarted, one after the other, under load: no request is lost."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.fronts import Nginx, trusting
from tests.servers import Service, running, serving, valkey
from tests.steady_load import SteadyLoad

pytestmark = pytest.mark.slow

RATE: Final = int(os.environ.get("ROLLING_RESTART_RATE", "400"))
"""Heartbeats a second; as many as a small machine with other work has time for."""
DRAIN_SECONDS: Final = "2"
NO_BOUNDS: Final = {"rate=50r/s": "rate=100000r/s", "burst=200": "burst=100000"}

_logger = logging.getLogger(__name__)


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[list[Service]]:
    with ExitStack() as stack:
        store = stack.enter_context(running(valkey(tmp_path)))
        env = {"STREAMLIMIT_SECRET": "s" * 32, "STREAMLIMIT_DRAIN_SECONDS": DRAIN_SECONDS}
        services = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            service = Service(tmp_path / name, "--redis-url", store.url, "--workers", "2", env=env)
            services.append(stack.enter_context(serving(service)))
        yield services


def heartbeats(service: Service) -> list[str]:
    """The paths to post to, of streams that have begun."""
    paths = []
    for number in range(50):
        streams = f"/v1/users/user-{number}/streams"
        paths.append(f"{streams}/{service.http.post(streams).json()['stream_id']}/heartbeat")
    return paths


def restart_in_turn(services: list[Service], load: SteadyLoad) -> None:
    time.sleep(1)
    for service in services:
        assert service.stop() == 0
        assert "Traceback" not in service.log.read_text()
        time.sleep(1)
        service.start()
        service.wait_until(200)
        before = sum(load.answered.values())
        time.sleep(1)
        assert sum(load.answered.values()) > before


def nothing_is_lost(services: list[Service], load: SteadyLoad) -> None:
    with load:
        restart_in_turn(services, load)
    _logger.info("%s at %d/s, %d refused connections, failed: %s", load.answered, RATE, load.refused, load.failed)
    assert not load.failed
    assert set(load.answered) == {200}


def test_behind_a_client_that_asks_in_turn(instances: list[Service]) -> None:
    load = SteadyLoad([one.port for one in instances], heartbeats(instances[0]), RATE)
    nothing_is_lost(instances, load)
    assert load.refused


def test_behind_nginx(instances: list[Service], tmp_path: Path) -> None:
    two = "\n".join(f"server 127.0.0.1:{service.port} fail_timeout=1s;" for service in instances)
    replace = {"server 127.0.0.1:8080;": two, **NO_BOUNDS}
    (tmp_path / "front").mkdir()
    with running(Nginx(tmp_path / "front", instances[0].port, "api", replace=replace)) as front:
        nothing_is_lost(instances, SteadyLoad([front.ports["api"]], heartbeats(instances[0]), RATE, trusting(front)))
