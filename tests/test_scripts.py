"""The Lua files: their contracts, and that each runs by hand."""

import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from streamlimit import scripts
from streamlimit.keys import Keys
from streamlimit.scripts import Script
from tests.conftest import missing
from tests.documents import ROOT
from tests.servers import RedisServer

sys.path.insert(0, str(ROOT / "scripts"))

import shared_lua

SCRIPTS = [value for value in vars(scripts).values() if isinstance(value, Script)]
KEYS = Keys().all_of("alice")


def code(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("--")]


def test_every_file_is_loaded() -> None:
    found = {path.name for path in files("streamlimit").joinpath("lua").iterdir() if path.is_file()}

    assert found == {f"{script.name}.lua" for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_opens_with_its_contract(script: Script) -> None:
    header = script.source.partition("\n\n")[0]

    assert header.startswith(f"-- {script.name}: ")
    for part in ("KEYS", "ARGV", "Returns", "Writes"):
        assert re.search(rf"^-- {part}\b", header, re.MULTILINE), part


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_searches_no_keys_and_uses_no_other_clock(script: Script) -> None:
    text = "\n".join(code(script.source))

    assert not re.search(r"'(KEYS|SCAN)'|os\.|math\.random|cjson", text)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_short_enough_to_be_read_at_night(script: Script) -> None:
    own = re.sub(r"(?ms)^-- shared: .*?^-- end shared$", "", script.source)

    assert len(code(own)) < 80


def test_a_block_of_several_scripts_is_copied_from_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(shared_lua.LUA, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(shared_lua, "LUA", tmp_path)
    monkeypatch.setattr("sys.argv", ["shared_lua.py", "--check"])
    (tmp_path / "shared" / "whole_number.lua").write_text("-- another\n")

    assert "list.lua" in str(shared_lua.main())
    monkeypatch.setattr("sys.argv", ["shared_lua.py"])
    assert shared_lua.main() is None
    assert "-- shared: whole_number\n-- another\n-- end shared\n" in (tmp_path / "list.lua").read_text()


ADMIT = ["", "R1", "S1", "3", "3000", "1000", "", "3", "", "", "tv-1", "", "", "", "1", ""]
BY_HAND = [
    ("list", KEYS, ["3"], r"^\d+ 3$"),
    ("admit", KEYS, ADMIT, r"^admitted \d+ 1 3 1 3000 R1 \d+ tv-1 S1 0$"),
    ("admit", KEYS, [*ADMIT[:-1], "1"], r"^admissible \d+ 1 3$"),
    ("heartbeat", [KEYS[3]], ["3000", "R1", "S1"], r"^\d+$"),
    ("heartbeat", [KEYS[3]], ["3000", "R1", "wrong"], r"^0$"),
    ("get", [KEYS[3]], ["R1", "S1"], r"^\d+ \d+ \d+ tv-1$"),
    ("get", [KEYS[3]], ["R1", "wrong"], r"^0$"),
    ("resume", KEYS, ["", "R1", "S1", "", "2", "0", "3", "3000", "1", ""], r"^live \d+ 1 3000 R1 \d+ tv-1$"),
    ("epoch", [KEYS[2]], ["", "E1", "3000", ""], r"^E1 \d+ 0$"),
    ("epoch", [KEYS[2]], ["E0", "E2", "3000", ""], r"^E1 \d+ \d+$"),
    ("secrets", [KEYS[2]], ["600000", "F1"], r"^1$"),
    ("secrets", [KEYS[2]], ["600000", "F2"], r"^0 F1$"),
    ("release", KEYS, ["R1", "", "", "terminated", ""], r"^1$"),
    ("resume", KEYS, ["", "R1", "S1", "1", "2", "0", "3", "3000", "1", ""], r"^ended terminated$"),
    ("trim", KEYS, ["0", "terminated", "1000", ""], r"^\d+$"),
    ("delete", KEYS[:1], [], r"^0$"),
    ("count", ["admissions:{alice}"], ["10", "10", "60000"], r"^0$"),
    ("count", ["admissions:{alice}"], ["1", "10", "60000"], r"^[1-9]\d+$"),
]


def test_every_script_runs_by_hand(valkey_server: RedisServer) -> None:
    cli = shutil.which("redis-cli")
    if cli is None:
        missing("redis-cli")
    connected = [cli, "-p", str(valkey_server.port)]
    subprocess.run([*connected, "flushall"], check=True, capture_output=True)
    for name, keys, arguments, expected in BY_HAND:
        path = files("streamlimit").joinpath("lua", f"{name}.lua")
        command = [*connected, "--eval", str(path), *keys, ",", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert re.match(expected, " ".join(done.stdout.split())), (name, done.stdout)

    assert {name for name, *_ in BY_HAND} == {script.name for script in SCRIPTS}
