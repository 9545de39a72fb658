"""Who is let in by the service as a process: what it says at its start, when it refuses to, and what its workers do."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.issuer import (
    AUDIENCE,
    ISSUER,
    OPERATOR_KEY,
    SECRET,
    SERVICE_KEY,
    bearer,
    digest,
    key_set,
    public_jwk,
    public_pem,
    token,
)
from tests.key_server import key_server
from tests.servers import Service, serving, wait_for
from tests.web import STREAMS

pytestmark = pytest.mark.slow

LONG = "x" * 32
KEYS = {"STREAMLIMIT_SERVICE_KEYS": digest(SERVICE_KEY), "STREAMLIMIT_OPERATOR_KEYS": digest(OPERATOR_KEY)}
PLAYERS = {"STREAMLIMIT_JWT_ISSUER": ISSUER, "STREAMLIMIT_JWT_AUDIENCE": AUDIENCE}


def refusal(tmp_path: Path, *options: str, env: Mapping[str, str] | None = None) -> str:
    """The one line that a service which refuses to start leaves behind."""
    service = Service(tmp_path, *options, env=env)
    service.start()
    assert service.process.wait(20) == 2
    service.stop()
    (line,) = service.log.read_text().splitlines()
    return line


def test_without_keys_it_says_that_nobody_is_asked(tmp_path: Path) -> None:
    with serving(Service(tmp_path)) as service:
        assert service.http.post(STREAMS).status_code == 201
        said = service.log.read_text()
    assert "Nobody is asked for a key, since none is configured; only this machine can connect" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_a_public_address_is_refused(tmp_path: Path, host: str) -> None:
    line = refusal(tmp_path, "--host", host, env={"STREAMLIMIT_SECRET": LONG})

    assert f"{host} is public, and without keys everybody may do everything" in line
    assert "--insecure listens all the same" in line


@pytest.mark.parametrize("env", [{"STREAMLIMIT_INSECURE": "1"}, KEYS])
def test_without_a_secret_a_public_address_is_refused(tmp_path: Path, env: dict[str, str]) -> None:
    assert "0.0.0.0 is public: set STREAMLIMIT_SECRET" in refusal(tmp_path, "--host", "0.0.0.0", env=env)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_with_keys_callers_are_asked_on_loopback_too(tmp_path: Path, workers: str) -> None:
    env = KEYS | PLAYERS | {"STREAMLIMIT_JWT_KEY": public_pem("RS256")}
    with serving(Service(tmp_path, "--workers", workers, env=env)) as service:
        # Often enough that each worker answers some of them.
        for _ in range(10):
            assert service.http.post(STREAMS).status_code == 401
            assert service.http.get(STREAMS, headers=bearer(SERVICE_KEY)).status_code == 200
            assert service.http.get(STREAMS, headers=bearer(token())).status_code == 200
            assert service.http.delete(STREAMS, headers=bearer(SERVICE_KEY)).status_code == 403
            assert service.http.delete(STREAMS, headers=bearer(OPERATOR_KEY)).status_code == 200
        said = service.log.read_text()
    assert f"asked who they are: 1 service key(s), 1 operator key(s), players' tokens of {ISSUER}" in said
    for secret in (SERVICE_KEY, OPERATOR_KEY, *KEYS.values()):
        assert secret not in said


def test_users_are_seeded_where_keys_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{OPERATOR_KEY}\n")
    with serving(Service(tmp_path, env=KEYS)) as service:
        command = [str(ROOT / "scripts" / "seed_users.py"), "--url", f"http://127.0.0.1:{service.port}"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 1
        for more in ((), ("--remove",)):
            subprocess.run([*command, "--key-file", str(tmp_path / "key"), *more], check=True)


def test_secrets_may_all_stand_in_files(tmp_path: Path) -> None:
    values = {"SECRET": LONG, "SERVICE_KEYS": digest(SERVICE_KEY), "JWT_KEY": SECRET}
    env = PLAYERS | {"STREAMLIMIT_JWT_ALGORITHMS": "HS256"}
    for name, value in values.items():
        (tmp_path / name).write_text(f"{value}\n")
        env[f"STREAMLIMIT_{name}_FILE"] = str(tmp_path / name)
    with serving(Service(tmp_path, "--workers", "2", env=env)) as service:
        assert service.http.get(STREAMS, headers=bearer(SERVICE_KEY)).status_code == 200
        assert service.http.get(STREAMS, headers=bearer(token("HS256"))).status_code == 200
        assert not (tmp_path / "data" / "secret").exists()


def test_an_empty_file_does_not_leave_everything_open(tmp_path: Path) -> None:
    (tmp_path / "keys").touch()

    line = refusal(tmp_path, env={"STREAMLIMIT_SERVICE_KEYS_FILE": str(tmp_path / "keys")})

    assert line.endswith("keys: is empty")


def test_it_starts_while_its_keys_are_out_of_reach_and_gets_them_later(tmp_path: Path) -> None:
    with key_server("") as server:
        env = PLAYERS | {"STREAMLIMIT_JWT_JWKS_URL": server.url}
        with serving(Service(tmp_path, env=env)) as service:
            assert service.http.get(STREAMS, headers=bearer(token())).status_code == 503
            server.body = key_set(public_jwk("RS256")).encode()

            def gets_in() -> bool:
                return service.http.get(STREAMS, headers=bearer(token())).status_code == 200

            wait_for(gets_in, "the keys")
