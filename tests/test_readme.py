"""The README does not lie: its commands are run and its answers compared."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamlimit.routes import OPERATIONS
from tests.conftest import missing
from tests.documents import ROOT, blocks, check_commands
from tests.servers import RedisServer, Service, serving

README = ROOT / "README.md"


@pytest.mark.slow
def test_the_commands_of_the_readme_answer_as_it_says(tmp_path: Path) -> None:
    for tool in ("curl", "redis-cli"):
        if shutil.which(tool) is None:
            missing(tool)
    with serving(Service(tmp_path)) as service:
        check_commands(README, {"8080": str(service.port), "6390": str(service.embedded_port)})


def test_the_library_example_runs(valkey_server: RedisServer) -> None:
    (example,) = blocks(README, "python")
    assert len([line for line in example.splitlines() if line]) <= 12
    code = example.replace("6390", str(valkey_server.port))
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert done.stdout.startswith("Lease(stream_id='1.")


def test_the_table_of_settings_is_the_settings() -> None:
    script = ROOT / "scripts" / "settings_table.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_knows_every_route() -> None:
    table = README.read_text().partition("| route | does |")[2].partition("\n\n")[0]
    paths = {operation.path.rstrip("/") for operation in OPERATIONS}

    undocumented = {
        path for path in paths if path not in table and path.replace("stream_id", "stream_ref") not in table
    }
    assert undocumented == set()
