"""The parent of several workers, without any: which it starts again, what it tells them, and when it ends.

How true ones end is in test_drain.py.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from streamlimit import workers
from streamlimit.workers import OF_TERMINAL, WorkerFailed, Workers

KILLED = -9


class World:
    """Workers that begin as the test says, and die of any signal."""

    def __init__(self) -> None:
        self.exit_codes: list[int | None] = []
        """Of the next ones: None of one that lives."""
        self.on_start: Callable[[], None] = lambda: None
        self.started: list[Worker] = []
        self.told: list[tuple[int, int]] = []
        self._rounds = 0

    def sleep(self, _: float) -> None:
        self._rounds += 1
        assert self._rounds < 100, "it goes on for ever"

    def kill(self, pid: int, number: int) -> None:
        self.told.append((pid, number))
        self.started[pid - 1].exitcode = 0


class Worker:
    def __init__(self, world: World) -> None:
        self._world = world
        self.exitcode = world.exit_codes.pop(0) if world.exit_codes else None
        self.pid = len(world.started) + 1
        self.process = SimpleNamespace(ident=self.pid, is_alive=self.is_alive)

    def start(self) -> None:
        self._world.started.append(self)
        self._world.on_start()

    def is_alive(self, timeout: float = 0) -> bool:
        del timeout
        return self.exitcode is None

    def kill(self) -> None:
        pass

    def join(self) -> None:
        pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    monkeypatch.setattr(workers, "_Worker", lambda *_: Worker(world))
    monkeypatch.setattr(workers, "time", SimpleNamespace(sleep=world.sleep))
    monkeypatch.setattr(resource_tracker, "ensure_running", lambda: None)
    monkeypatch.setattr(os, "kill", world.kill)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield world
    for number, handler in before:
        signal.signal(number, handler)


def two(listeners: Any = (), drain_seconds: float = 0) -> Workers:
    return Workers(uvicorn.Config("app", workers=2), list(listeners), drain_seconds, 5)


def ends_after(world: World, count: int) -> None:
    """Have SIGTERM come when so many workers have been started."""

    def stop() -> None:
        if len(world.started) == count:
            signal.raise_signal(signal.SIGTERM)

    world.on_start = stop


def test_one_that_died_is_started_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.exit_codes = [KILLED]
    ends_after(world, 3)
    two().run()

    assert len(world.started) == 3
    assert caplog.messages == ["Worker 1 ended by itself (-9) and is started again"]


def test_one_that_cannot_start_ends_all(world: World) -> None:
    world.exit_codes = [None, STARTUP_FAILURE]
    ends_after(world, 3)

    with pytest.raises(WorkerFailed):
        two().run()
    assert len(world.started) == 2
    assert world.told == [(1, signal.SIGINT)]


@pytest.mark.parametrize(("drain_seconds", "number"), [(5, signal.SIGTERM), (0, signal.SIGINT)])
def test_a_signal_closes_the_listeners_and_reaches_all_workers(world: World, drain_seconds: float, number: int) -> None:
    ends_after(world, 2)
    with socket.socket() as listener:
        two([listener], drain_seconds).run()

        assert listener.fileno() == -1
    assert world.told == [(1, number), (2, number)]


def test_a_signal_of_the_terminal_waits_until_a_worker_can_take_it(world: World) -> None:
    blocked: list[set[int]] = []
    ends_after(world, 2)
    stop = world.on_start

    def start() -> None:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        stop()

    world.on_start = start
    two().run()

    assert blocked == [OF_TERMINAL] * 2
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & OF_TERMINAL
