"""The list of mutants: each still finds what it damages. `scripts/mutate.py` runs the quick suite against each."""

import shutil
from pathlib import Path

import pytest
from redis import Redis

import streamlimit
from tests.generated import generated
from tests.mutants import EQUIVALENT, MUTANTS, PACKAGE, Mutant
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("intact")
    shutil.copytree(Path(streamlimit.__file__).parent, root / PACKAGE)
    return root


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_what_no_test_can_notice_is_still_found_by_the_machine(intact: Path) -> None:
    found = {one.name for path in (intact / PACKAGE).glob("*.py") for one in generated(intact, path.name)}

    assert set(EQUIVALENT) <= found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_does_damage_that_is_no_mere_syntax_error(
    intact: Path, tmp_path: Path, mutant: Mutant, valkey_server: RedisServer
) -> None:
    shutil.copytree(intact, tmp_path, dirs_exist_ok=True)
    mutant.damage(tmp_path)

    damaged = {
        path
        for path in tmp_path.rglob("*.*")
        if path.is_file() and path.read_bytes() != (intact / path.relative_to(tmp_path)).read_bytes()
    }
    assert damaged
    with Redis(port=valkey_server.port) as store:
        for path in damaged:
            if path.suffix == ".lua":
                store.script_load(path.read_text())
            else:
                compile(path.read_text(), path, "exec")
