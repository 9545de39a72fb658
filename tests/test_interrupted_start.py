"""Ctrl-C while the service starts: nothing is left behind, and no traceback is printed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.servers import Service, answers, connects, wait_for

pytestmark = pytest.mark.slow


def _loads(service: Service) -> bool:
    return "httptools" in Path(f"/proc/{service.process.pid}/maps").read_text()


def _has_a_store(service: Service) -> bool:
    return answers(service.embedded_port)


def _listens(service: Service) -> bool:
    return connects(service.port)


def _begins(service: Service) -> bool:
    return "_pydantic_core" in Path(f"/proc/{service.process.pid}/maps").read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("moment", [_begins, _loads, _has_a_store, _listens])
def test_ctrl_c_during_the_start_prints_no_traceback(
    tmp_path: Path, workers: str, moment: Callable[[Service], bool]
) -> None:
    service = Service(tmp_path, "--workers", workers)
    service.start()
    wait_for(lambda: moment(service), "that moment")
    os.killpg(service.process.pid, signal.SIGINT)

    assert service.process.wait(20) in (0, 130, -signal.SIGINT)
    service.stop()
    assert "Traceback" not in service.log.read_text()
    wait_for(lambda: not answers(service.embedded_port), "the end of the store")
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"http://127.0.0.1:{service.port}/livez")
