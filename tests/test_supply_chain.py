"""What the service is made of: told as a whole, and looked up for known weaknesses without a false all-clear."""

import json
import subprocess
import sys
from datetime import date
from typing import Any

import pytest

from tests.documents import ROOT
from tests.locks import pinned

sys.path.insert(0, str(ROOT / "scripts"))
import audit  # the scripts are no package

TODAY = date(2026, 11, 25)


def report(*vulns: dict[str, Any], **more: Any) -> dict[str, Any]:
    sound = {"name": "sound", "version": "1", "vulns": []}
    return {"dependencies": [sound, {"name": "weak", "version": "2", "vulns": [*vulns]} | more]}


WEAKNESS = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3"]}


@pytest.mark.slow
def test_the_bill_of_materials_has_every_package_of_the_lock_with_its_hashes() -> None:
    done = subprocess.run([ROOT / "scripts" / "sbom"], capture_output=True, text=True, check=True)
    bill = json.loads(done.stdout)
    listed = {(one["name"], f"=={one['version']}") for one in bill["components"]}
    locked = {(name, str(requirement.specifier)) for name, requirement in pinned("requirements.lock").items()}

    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "streamlimit"
    assert locked
    assert locked == listed
    assert all(one["externalReferences"][0]["hashes"] for one in bill["components"])


def test_a_known_weakness_is_an_error() -> None:
    assert audit.judge(report(WEAKNESS), TODAY) == (1, ["weak 2: PYSEC-1, mended in 3"])


@pytest.mark.parametrize(("until", "code"), [(date(2026, 11, 25), 0), (date(2026, 11, 24), 1)])
def test_a_weakness_may_be_accepted_for_a_reason_until_a_day(
    monkeypatch: pytest.MonkeyPatch, until: date, code: int
) -> None:
    monkeypatch.setattr(audit, "ACCEPTED", {"CVE-1": ("needs a feature that is off", until)})

    assert audit.judge(report(WEAKNESS), TODAY)[0] == code


@pytest.mark.parametrize(
    "told", [report(skip_reason="not found on the index"), {"dependencies": []}], ids=["of one", "of all"]
)
def test_where_nobody_tells_nothing_is_said_to_be_sound(told: dict[str, Any]) -> None:
    code, (line,) = audit.judge(told, TODAY)

    assert code == 2
    assert line.startswith("Not audited")


def test_sound_packages_are_told() -> None:
    assert audit.judge(report(), TODAY)[0] == 0
