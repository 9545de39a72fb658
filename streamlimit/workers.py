"""Several processes that serve on the same sockets, and their parent, which starts, replaces and stops them."""

import logging
import os
import signal
import socket
import time
from multiprocessing import resource_tracker
from types import FrameType
from typing import Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Process

from streamlimit.drain import DrainingServer, Phase, say_that_it_drains
from streamlimit.errors import StreamlimitError

OF_TERMINAL: Final = {signal.SIGINT, signal.SIGHUP}
"""Signals that a terminal sends to the workers, too. Blocked until a worker has handlers for them."""
_POLL_SECONDS: Final = 0.1
_ROUNDS_PER_PING: Final = 5
_SIGNALS: Final = {Phase.DRAINING: signal.SIGTERM, Phase.STOPPING: signal.SIGINT, Phase.GIVING_UP: signal.SIGKILL}
"""By which a worker is told that a phase begins. Each may be told twice."""
_logger = logging.getLogger(__name__)


class WorkerFailed(StreamlimitError):
    """A worker cannot start; the log says why."""


class _Worker(Process):
    """One process, and the pipe by which it shows that it is well."""

    def __init__(
        self, config: uvicorn.Config, listeners: list[socket.socket], drain_seconds: float, finish_seconds: float
    ) -> None:
        self._times = drain_seconds, finish_seconds
        super().__init__(config, listeners)

    @property
    def server(self) -> uvicorn.Server:
        """What runs in it."""
        if self._server is None:
            self._server = DrainingServer(self.config, *self._times)
        return self._server


class Workers:
    """Serves by `config.workers` processes, until a signal ends them all at the same time.

    Args:
        config: uvicorn's.
        listeners: What they share. The parent closes its own ones when the drain begins.
        drain_seconds: As of `DrainingServer`.
        finish_seconds: The same.
    """

    def __init__(
        self, config: uvicorn.Config, listeners: list[socket.socket], drain_seconds: float, finish_seconds: float
    ) -> None:
        self._config = config
        self._listeners = listeners
        self._times = drain_seconds, finish_seconds
        self._signals: list[int] = []

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and until the last worker has ended.

        Raises:
            WorkerFailed: One could not start; the others were stopped.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)
        resource_tracker.ensure_running()  # the first worker would start it, and that unblocks the signals
        self._workers = [self._started() for _ in range(self._config.workers)]
        phase, rounds, failed = Phase.SERVING, 0, False
        while phase is Phase.SERVING or any(worker.process.is_alive() for worker in self._workers):
            while self._signals:
                phase = self._enter(phase, phase.after(self._signals.pop(0), self._times[0]))
            rounds += 1
            if phase is Phase.SERVING and rounds % _ROUNDS_PER_PING == 0 and not self._replace_the_dead():
                failed = True
                phase = self._enter(phase, Phase.STOPPING)
            time.sleep(_POLL_SECONDS)
        if failed:
            raise WorkerFailed("a worker could not start; the log says why")

    def _take(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)

    def _enter(self, before: Phase, phase: Phase) -> Phase:
        if before is Phase.SERVING is not phase:
            # Else connections would still be made when no worker is there to answer them.
            for listener in self._listeners:
                listener.close()
            if phase is Phase.DRAINING:
                say_that_it_drains(self._times[0])
        if phase is not before:
            for worker in self._workers:
                if worker.process.is_alive():
                    os.kill(worker.process.ident or 0, _SIGNALS[phase])
        return phase

    def _started(self) -> _Worker:
        signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINAL)
        try:
            worker = _Worker(self._config, self._listeners, *self._times)
            worker.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINAL)
        return worker

    def _replace_the_dead(self) -> bool:
        """Start others in place of workers that died or hang; False where one could not start at all."""
        for place, worker in enumerate(self._workers):
            if self._signals or worker.is_alive(self._config.timeout_worker_healthcheck):
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                return False
            _logger.warning("Worker %d ended by itself (%s) and is started again", worker.pid, worker.exitcode)
            self._workers[place] = self._started()
        return True
