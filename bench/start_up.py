"""The part that starts the service with its embedded store, and imports the package."""

import http.client
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.plan import ROOT
from bench.processes import HOST, Process, free_port
from bench.run import Run

IMPORT = """\
import time
began = time.perf_counter()
from streamlimit import StreamTracker
print(time.perf_counter() - began)"""


def start_up(run: Run) -> None:
    """Time from nothing to the first admission, and of the import."""
    starts, imports = [], []
    for _ in range(run.plan.starts):
        with run.directory() as name:
            starts.append(start_once(run, Path(name)))
        done = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - ours
        imports.append(float(done.stdout))
    run.figures["start_seconds"] = median(starts)
    run.figures["import_seconds"] = median(imports)
    run.tell(f"start-up: first admission after {median(starts):.2f} s; import: {median(imports):.2f} s")


def start_once(run: Run, directory: Path) -> float:
    """Start it, ask for admission until it is given, and return how long that took."""
    port = free_port()
    command = [sys.executable, "-m", "streamlimit", "serve", "--port", str(port)]
    command += ["--embedded-port", str(free_port()), "--data-dir", str(directory / "data")]
    began = time.monotonic()
    with Process("streamlimit", command, port, cores=run.cores.all, directory=directory) as service:
        service.wait(lambda: _admits(port), pause=0.005)
        return time.monotonic() - began


def _admits(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("POST", "/v1/users/alice/streams")
        return connection.getresponse().status == http.client.CREATED
    except OSError:
        return False
    finally:
        connection.close()
