"""What was measured, and on what: no name of a host or a person."""

import json
import platform
import shutil
import subprocess
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import stores
from bench.plan import Cores
from bench.servers import PEERS

PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "pydantic", "redis", "hiredis", "fastapi")
MODULES = ("fastify", "ioredis", "express")


def describe(cores: Cores) -> dict[str, str]:
    """The machine, the date, and the versions of all that is measured."""
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": str(len(cores.all)),
        "processor": _processor(),
        "kernel": platform.release().partition("-")[0],
        "Python": platform.python_version(),
    }
    found |= {package: version(package) for package in PACKAGES}
    for engine in stores.engines():
        with TemporaryDirectory() as directory, ExitStack() as stack:
            store = stores.start_store(engine, cores.store, Path(directory), stack)
            with stores.connect(store) as client:
                found[engine] = stores.version(engine, client.info("server"))
    if shutil.which("node"):
        found["Node.js"] = _said("node", "--version").removeprefix("v")
        found |= {name: _module(name) for name in MODULES if (PEERS / "node_modules" / name).exists()}
    found["wrk"] = _said("wrk", "-v").removeprefix("wrk ").removeprefix("debian/").partition(" ")[0]
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()


def _module(name: str) -> str:
    package: dict[str, str] = json.loads((PEERS / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
    return package["version"]


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return done.stdout.partition("\n")[0].strip()
