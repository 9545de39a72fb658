"""What a process of the service asks of the system: open files, and to be told when its parent has gone."""

import asyncio
import multiprocessing
import os
import resource
import signal
from types import SimpleNamespace

import pytest

from streamlimit import server
from tests.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("allowed", "wanted", "expected"),
    [
        ((1_024, 4_096), 2_000, [(2_000, 4_096)]),
        ((1_024, 4_096), 1_024, []),
        ((1_024, 4_096), 5_000, [(4_096, 4_096)]),
        ((1_024, resource.RLIM_INFINITY), 5_000, [(5_000, resource.RLIM_INFINITY)]),
    ],
    ids=["more", "enough", "not as many", "without an end"],
)
def test_so_many_files_may_be_open_as_connections_may_come(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    allowed: tuple[int, int],
    wanted: int,
    expected: list[tuple[int, int]],
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: allowed)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))

    server._allow_open_files(wanted)

    assert asked == expected
    told = [f"The system allows {limit[0]} open files" for limit in expected if limit[0] < wanted]
    assert [message.partition(";")[0] for message in caplog.messages] == told


async def test_a_worker_ends_when_its_parent_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    sentinel, parent = os.pipe()  # as that of multiprocessing, it can be read when the parent has gone
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(sentinel=sentinel))
    told: asyncio.Queue[int] = asyncio.Queue()
    monkeypatch.setattr(signal, "raise_signal", told.put_nowait)

    server._stop_with_parent()
    await asyncio.sleep(0.01)
    assert told.empty()
    os.close(parent)

    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await told.get() == signal.SIGINT  # who would tell it to stop after a drain has gone
    await asyncio.sleep(0.01)
    assert told.empty()  # once
    os.close(sentinel)


async def test_the_only_process_has_no_parent_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: None)

    server._stop_with_parent()
