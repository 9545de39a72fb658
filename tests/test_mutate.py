"""What `scripts/mutate.py` takes for the death of a mutant."""

import sys
from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.generated import generated
from tests.mutants import PACKAGE, Mutant

sys.path.insert(0, str(ROOT / "scripts"))

import mutate

pytestmark = pytest.mark.slow

DAMAGE = Mutant("damaged", "limit.py", "3", "4")
NOTICES = "from streamlimit.limit import LIMIT\n\ndef test_limit():\n    assert LIMIT == 3\n"
LOOKS_AWAY = "from streamlimit.limit import LIMIT\n\ndef test_limit():\n    assert LIMIT\n"
BY_CHANCE = """
from pathlib import Path

def test_at_its_first_run():
    first = not Path("ran").exists()
    Path("ran").touch()
    assert not first
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small one, to be damaged."""
    for path, text in {f"{PACKAGE}/__init__.py": "", f"{PACKAGE}/limit.py": "LIMIT = 3\n"}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("tests", "killed_by"),
    [
        (NOTICES, "test_small.py::test_limit"),
        (LOOKS_AWAY, None),
        (LOOKS_AWAY + BY_CHANCE, None),
        (BY_CHANCE + NOTICES, "test_small.py::test_limit"),
    ],
    ids=["noticed", "not noticed", "a failure by chance", "and then a true one"],
)
def test_a_mutant_is_killed_by_a_test_that_fails_again(project: Path, tests: str, killed_by: str | None) -> None:
    (project / "test_small.py").write_text(tests)

    assert mutate.killer(DAMAGE) == killed_by


def test_tests_that_cannot_be_run_kill_no_mutant(project: Path) -> None:
    (project / "test_small.py").write_text("import nowhere\n")

    with pytest.raises(mutate.DidNotRunError, match="ERROR test_small"):
        mutate.killer(DAMAGE)


def test_the_tests_that_import_the_damaged_module_run_first(project: Path) -> None:
    (project / "tests").mkdir()
    for name, text in {"test_admit.py": "", "test_limit.py": "", "test_other.py": NOTICES}.items():
        (project / "tests" / name).write_text(text)

    assert mutate.naming(project, "limit") == ["tests/test_limit.py", "tests/test_other.py"]
    assert mutate.naming(project, "lim") == []


def test_damage_is_found_by_a_machine(project: Path) -> None:
    """Each kind once, on a few lines."""
    text = "def f(a, b):\n    if a < b and True:\n        print(a + 1)\n    return a\n"
    (project / PACKAGE / "limit.py").write_text(text)

    found = generated(project, "limit.py")

    assert [one.new.decode() for one in found] == [
        "((a) <= (b))",
        "((a < b) or (True))",
        "(not (a < b and True))",
        "False",
        "pass",
        "((a) - (1))",
        "2",
    ]
    assert len({one.name for one in found}) == len(found)
    found[0].damage(project)
    assert (project / PACKAGE / "limit.py").read_text() == text.replace("a < b", "((a) <= (b))")


def test_damage_with_which_nothing_can_be_imported_is_noticed(project: Path) -> None:
    (project / "test_small.py").write_text(LOOKS_AWAY)
    (project / PACKAGE / "limit.py").write_text("LIMIT = {1: 3}[1]\n")

    assert mutate.killer(generated(project, "limit.py")[0]) == mutate.NOT_IMPORTED
