"""Runs services of compose.yaml without a container engine, each on a loopback address in place of its name there."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from tests.documents import ROOT
from tests.servers import free_subnet, wait_for

COMPOSE: Final = YAML(typ="safe").load(ROOT / "compose.yaml")
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]


def of_profile(profile: str) -> dict[str, Any]:
    return {name: service for name, service in SERVICES.items() if profile in service.get("profiles", ())}


def store_url(service: str) -> str:
    url: str = SERVICES[service]["environment"]["STREAMLIMIT_REDIS_URL"]
    return url


class Composed:
    """The Redis services of a profile, with this machine's redis-server.

    Args:
        directory: An empty one, for what the services keep in their volumes.
        profile: Whose services.
    """

    def __init__(self, directory: Path, profile: str) -> None:
        self._directory = directory
        self._services = {
            name: service for name, service in of_profile(profile).items() if service["image"] != "streamlimit"
        }
        subnet = free_subnet()
        self._addresses = {name: f"{subnet}.{number}" for number, name in enumerate(self._services, 1)}

    def here(self, text: str) -> str:
        """The same text with addresses for names, and as Compose reads a dollar."""
        names = "|".join(map(re.escape, self._addresses))
        return re.sub(rf"\b({names})\b", lambda name: self._addresses[name[0]], text).replace("$$", "$")

    def one_shots(self) -> list[str]:
        """Those that end, and are waited for by others."""
        waits = [service.get("depends_on", {}) for service in SERVICES.values()]
        ends = {name for wait in waits for name, how in wait.items() if how["condition"].endswith("successfully")}
        return [name for name in self._services if name in ends]

    def is_healthy(self, name: str) -> bool:
        """What its health check says."""
        kind, *command = self._services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self._run(name, command).returncode == 0

    def run_to_its_end(self, name: str) -> subprocess.CompletedProcess[str]:
        return self._run(name, self._services[name]["command"], timeout=60)

    @contextmanager
    def running(self) -> Iterator[None]:
        """All but those that end, in the order of their dependencies, until each is healthy; killed afterwards."""
        waiting = [name for name in self._services if name not in self.one_shots()]
        with ExitStack() as stack:
            while waiting:
                ready = [name for name in waiting if not set(self._services[name].get("depends_on", ())) & set(waiting)]
                for name in ready:
                    stack.enter_context(self._process(name))
                for name in ready:
                    wait_for(lambda name=name: self.is_healthy(name), f"{name} to be healthy")  # type: ignore[misc]
                waiting = [name for name in waiting if name not in ready]
            yield

    @contextmanager
    def _process(self, name: str) -> Iterator[None]:
        command, options = self._prepared(name, self._services[name]["command"])
        with (self._directory / name / "log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def _run(self, name: str, command: Sequence[str], timeout: float = 20) -> subprocess.CompletedProcess[str]:
        words, options = self._prepared(name, command)
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout, **options)

    def _prepared(self, name: str, command: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        directory = self._directory / name
        if not directory.exists():
            directory.mkdir()
            self._install_tools(directory, self._addresses[name])
        given = {key: self.here(value) for key, value in self._services[name].get("environment", {}).items()}
        path = f"{directory}:{os.environ['PATH']}"
        program = shutil.which(command[0], path=path)
        assert program
        words = [program, *(self.here(word) for word in command[1:])]
        return words, {"cwd": directory, "env": {"PATH": path, **given}}

    def _install_tools(self, directory: Path, address: str) -> None:
        """What a container has by itself: an address of its own to listen on, and to which 127.0.0.1 leads."""
        own = f"--bind {address} --bind-source-addr {address} --protected-mode no"
        for tool, words in {"redis-server": f'"$@" {own}', "redis-cli": f'-h {address} "$@"'}.items():
            (directory / tool).write_text(f"#!/bin/sh\nexec {shutil.which(tool)} {words}\n")
            (directory / tool).chmod(0o700)
