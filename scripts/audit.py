"""Look for known weaknesses in what requirements.lock names. Exit code 1: some were found; 2: nobody told."""

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parent.parent

ACCEPTED: Final[Mapping[str, tuple[str, date]]] = {}
"""Weaknesses that do no harm here: by id, why that is so, and until when it is believed."""

Report = Mapping[str, Any]
"""What `pip-audit --format json` writes."""


def look() -> Report:
    """Ask for all packages."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", "requirements.lock", "--require-hashes"]
    command += ["--disable-pip", "--progress-spinner", "off", "--format", "json", "--timeout", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    try:
        report: Report = json.loads(done.stdout)
    except ValueError:
        print(done.stderr.strip()[-500:], file=sys.stderr)
        report = {"dependencies": []}
    return report


def judge(report: Report, today: date) -> tuple[int, list[str]]:
    """Return the exit code, and lines for people."""
    packages = report["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", ())
        if not _is_accepted((found["id"], *found.get("aliases", ())), today)
    ]
    if lines:
        return 1, lines
    if unknown or not packages:
        return 2, [f"Not audited: nobody told of {len(unknown)} of {len(packages)} packages. Is the index in reach?"]
    return 0, [f"Nothing is known of {len(packages)} packages that would matter here."]


def _is_accepted(names: tuple[str, ...], today: date) -> bool:
    return any(name in ACCEPTED and today <= ACCEPTED[name][1] for name in names)


def main() -> int:
    """Run the command; return its exit code."""
    code, lines = judge(look(), datetime.now(UTC).date())
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
