"""Schemathesis makes requests out of the OpenAPI document, right and wrong ones, and compares the answers with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from streamlimit.routes import OPERATIONS
from tests.issuer import OPERATOR_KEY, digest
from tests.servers import Service, serving

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    # It asks again and again, and with the same wrong key.
    options = ("--admissions-per-minute", "0", "--failures-per-minute", "0")
    with serving(Service(tmp_path, *options, env={"STREAMLIMIT_OPERATOR_KEYS": digest(OPERATOR_KEY)})) as service:
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run"]
        command += [f"http://127.0.0.1:{service.port}/openapi.json", "--checks", "all", "--no-color"]
        command += ["--header", f"Authorization: Bearer {OPERATOR_KEY}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {len(OPERATIONS)}" in done.stdout
