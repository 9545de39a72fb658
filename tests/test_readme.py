"""The README does not lie: its commands are run and its answers compared."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamlimit.routes import OPERATIONS
from streamlimit.settings import Settings
from tests.conftest import missing
from tests.servers import RedisServer, Service, serving

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def without_chance(text: str) -> str:
    """Blank out what is different each time: ids, times, and the spread of heartbeats."""
    text = re.sub(r"[A-Za-z0-9_-]{19}(\.[A-Za-z0-9_-]{16})?", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME", text)
    return re.sub(r'("heartbeat_seconds":)[0-9.]+', r"\1N", text)


@pytest.mark.slow
def test_the_commands_of_the_readme_answer_as_it_says(tmp_path: Path) -> None:
    for tool in ("curl", "redis-cli"):
        if shutil.which(tool) is None:
            missing(tool)
    commands, expected = [], []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            commands.append(line.removeprefix("$ "))
            expected.append("")
        else:
            expected[-1] += f"{line}\n"
    with serving(Service(tmp_path)) as service:
        mark = "-- next --"
        script = "".join(f"{command}\necho; echo '{mark}'\n" for command in commands)
        script = script.replace("8080", str(service.port)).replace("6390", str(service.embedded_port))
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    answers = done.stdout.split(f"{mark}\n")[:-1]
    for command, said, answer in zip(commands, expected, answers, strict=True):
        assert without_chance(answer).strip() == without_chance(said).strip(), command


def test_the_library_example_runs(valkey_server: RedisServer) -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line]) <= 12
    code = example.replace("6390", str(valkey_server.port))
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert done.stdout.startswith("Lease(stream_id='1.")


def test_the_readme_knows_every_setting_and_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\| ", README, re.MULTILINE))

    settings = Settings.model_construct()
    actual = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        actual[name.upper()] = "" if name == "secret" else str(value).lower() if isinstance(value, bool) else str(value)
    assert rows == actual


def test_the_readme_knows_every_route() -> None:
    table = README.partition("| route | does |")[2].partition("\n\n")[0]
    paths = {operation.path.rstrip("/") for operation in OPERATIONS}

    undocumented = {
        path for path in paths if path not in table and path.replace("stream_id", "stream_ref") not in table
    }
    assert undocumented == set()
