"""Builds an image as far as that goes without a container engine: in a directory that stands for the root directory."""

import json
import os
import re
import shutil
import subprocess
import venv
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

from tests.documents import ROOT


class Instruction(NamedTuple):
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The command of an ENTRYPOINT or a CMD in exec form."""
        words: list[str] = json.loads(self.text)
        return words


def instructions(dockerfile: str) -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line]


DOCKERFILE: Final = instructions((ROOT / "Dockerfile").read_text())
LAST_STAGE: Final = DOCKERFILE[max(n for n, one in enumerate(DOCKERFILE) if one.name == "FROM") :]


def in_context(path: str) -> bool:
    """Whether .dockerignore lets a path of the project into the build: the last pattern that fits decides."""
    found = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if any(fnmatch(str(part), pattern) for part in (Path(path), *Path(path).parents)):
            found = line.startswith("!")
    return found


class Image:
    """What the Dockerfile makes, with this machine's Python for the base image's, and this user for the image's."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.environment = {"PATH": f"{self.root}/usr/local/bin:{os.defpath}"}
        self._stages: dict[str, tuple[Path, dict[str, str]]] = {}
        self._stage, self._working_directory = "", self.root
        steps = {"FROM": self._from, "ENV": self._env, "WORKDIR": self._workdir, "COPY": self._copy, "RUN": self._run}
        for name, text in DOCKERFILE:
            if name in steps:
                steps[name](text)

    def _from(self, text: str) -> None:
        parent, _, name = text.partition(" AS ")
        if self._stage:
            # Every stage is built at the same place, since environments and scripts know where they are.
            self._stages[self._stage] = (self.root.rename(self.root.with_name(self._stage)), self.environment)
        self._stage, self._working_directory = name, self.root
        if parent in self._stages:
            tree, environment = self._stages[parent]
            shutil.copytree(tree, self.root, symlinks=True)
            self.environment = dict(environment)
        else:
            venv.create(self.root / "usr" / "local", with_pip=True)

    def _env(self, text: str) -> None:
        for name, value in re.findall(r"(\w+)=(\S+)", text):
            self.environment[name] = self._here(value).replace("$PATH", self.environment["PATH"])

    def _workdir(self, text: str) -> None:
        self._working_directory = Path(self._here(text))
        self._working_directory.mkdir(parents=True)

    def _copy(self, text: str) -> None:
        *sources, target = text.split()
        base = ROOT
        if sources[0].startswith("--from="):
            base, _ = self._stages[sources.pop(0).removeprefix("--from=")]
        for source in sources:
            path = base / source.lstrip("/")
            to = self._working_directory / self._here(target)
            if path.is_dir():
                shutil.copytree(path, to, symlinks=True, ignore=None if base != ROOT else _ignored)
            elif in_context(source):
                shutil.copy2(path, to)

    def _run(self, text: str) -> None:
        command = self._here(text)
        if os.geteuid() != 0:
            command = re.sub(r"--(owner|group)=\d+", "", command)
        # How this machine reaches a package index is its own affair; all else is the image's.
        machine = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "HOME"}
        subprocess.run(
            ["/bin/sh", "-euc", command],
            cwd=self._working_directory,
            env={**machine, **self.environment, "PIP_CACHE_DIR": f"{self.root}/root/.cache/pip"},
            check=True,
        )

    def _here(self, text: str) -> str:
        """Put absolute paths below the directory that stands for the root."""
        return re.sub(r"(?<![\w./])/(?=\w)", f"{self.root}/", text)


def _ignored(directory: str, names: list[str]) -> set[str]:
    return {name for name in names if not in_context(str(Path(directory, name).relative_to(ROOT)))}
