"""Settings: every one an environment variable and an option, and a wrong value one clear line and exit code 2."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from streamlimit import server
from streamlimit.callers import Role
from streamlimit.cli import _unknown_variables, main
from streamlimit.secret_files import secret_names
from streamlimit.settings import ENV_PREFIX, Settings, explain
from tests.issuer import public_pem
from tests.servers import PATIENCE_SECONDS

LONG = "x" * 32
DIGEST = "0123456789abcdef" * 4
PLAYERS = {"JWT_KEY": public_pem("RS256"), "JWT_ISSUER": "https://id.example", "JWT_AUDIENCE": "streamlimit"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value that is taken must fail a test, not serve for ever."""

    def serve(_: Settings) -> None:
        raise AssertionError("it would serve")

    monkeypatch.setattr(server, "serve", serve)


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings()

    assert (settings.redis_url, settings.limit, settings.max_limit) == ("", 3, 10)
    assert (settings.ttl_seconds, settings.heartbeat_seconds) == (90, 30)
    assert (settings.unknown_users, settings.enforce, settings.key_prefix) == ("admit", True, "")
    assert (settings.host, settings.port, settings.workers, settings.embedded_port) == ("127.0.0.1", 8080, 1, 6390)
    assert settings.store_url == "redis://127.0.0.1:6390/0"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("redis_url", "redis://example:6379/1", "redis://example:6379/1"),
        ("limit", "5", 5),
        ("max_limit", "20", 20),
        ("ttl_seconds", "120", 120),
        ("heartbeat_seconds", "10", 10),
        ("unknown_users", "reject", "reject"),
        ("enforce", "false", False),
        ("key_prefix", "blue", "blue"),
        ("host", "::1", "::1"),
        ("port", "0", 0),
        ("workers", "4", 4),
        ("embedded_port", "6391", 6391),
        ("log_user_ids", "cut", "cut"),
        ("cors_origins", "https://a.example,http://[::1]:3000", "https://a.example,http://[::1]:3000"),
        ("operator_host", "::1", "::1"),
        ("operator_port", "9000", 9000),
        ("jwt_algorithms", "ES256", "ES256"),
        ("jwt_issuer", "https://id.example", "https://id.example"),
        ("jwt_audience", "tv", "tv"),
        ("jwt_leeway_seconds", "5", 5),
        ("data_dir", "/tmp/streams", Path("/tmp/streams")),
    ],
)
def test_every_setting_is_a_variable_and_an_option(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object
) -> None:
    option = Settings(_cli_parse_args=[f"--{name.replace('_', '-')}", value])
    monkeypatch.setenv(f"{ENV_PREFIX}{name.upper()}", value)

    assert getattr(option, name) == getattr(Settings(), name) == expected


def test_an_option_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIMIT_LIMIT", "5")

    assert Settings(_cli_parse_args=["--limit", "7"]).limit == 7


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIMIT_LIMIT", "")

    assert Settings().limit == 3


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LIMIT": "three"}, "STREAMLIMIT_LIMIT (--limit): Input should be a valid integer"),
        ({"LIMIT": "11"}, "STREAMLIMIT_LIMIT: must be 0 to max_limit (10)"),
        ({"MAX_LIMIT": "65"}, "STREAMLIMIT_MAX_LIMIT (--max-limit): Input should be less than or equal to 64"),
        ({"TTL_SECONDS": "60"}, "STREAMLIMIT_TTL_SECONDS: must be at least three heartbeats"),
        ({"TTL_SECONDS": "601"}, "STREAMLIMIT_TTL_SECONDS (--ttl-seconds): Input should be less than or equal to 600"),
        ({"UNKNOWN_USERS": "ignore"}, "STREAMLIMIT_UNKNOWN_USERS (--unknown-users): Input should be 'admit' or"),
        ({"ENFORCE": "perhaps"}, "STREAMLIMIT_ENFORCE (--enforce): Input should be a valid boolean"),
        ({"SECRET": "short"}, "STREAMLIMIT_SECRET: each secret must have at least 32 characters"),
        ({"SECRET": LONG[1:]}, "STREAMLIMIT_SECRET: each secret must have at least 32 characters"),
        ({"SECRET": ","}, "STREAMLIMIT_SECRET: each secret must have at least 32 characters"),
        ({"SECRET": f"{LONG},short"}, "STREAMLIMIT_SECRET: each secret must have at least 32 characters"),
        ({"KEY_PREFIX": "{}"}, "STREAMLIMIT_KEY_PREFIX (--key-prefix): must be at most 32 of"),
        ({"REDIS_URL": "http://x"}, "STREAMLIMIT_REDIS_URL (--redis-url): must begin with redis://, rediss:// or"),
        ({"REDIS_URL": "redis://h/x"}, "STREAMLIMIT_REDIS_URL (--redis-url): the path must be a database number"),
        ({"REDIS_URL": "redis://h?x=1"}, "(--redis-url): has an option that redis-py does not know: 'x'"),
        ({"REDIS_URL": "redis://h:x"}, "STREAMLIMIT_REDIS_URL (--redis-url): the port must be a number"),
        ({"REDIS_URL": "redis://u:short#pass@h"}, "(--redis-url): has an @ behind the host; in a password write #"),
        ({"REDIS_URL": "memory://", "WORKERS": "2"}, "STREAMLIMIT_WORKERS: must be 1 with REDIS_URL memory://"),
        ({"HOST": "example.org"}, "STREAMLIMIT_HOST (--host): must be an IP address, or localhost"),
        ({"HOST": "0.0.0.0", "SECRET": LONG}, "STREAMLIMIT_HOST: 0.0.0.0 is public, and without keys everybody may"),
        ({"HOST": "0.0.0.0", "INSECURE": "1"}, "STREAMLIMIT_HOST: 0.0.0.0 is public: set STREAMLIMIT_SECRET"),
        ({"HOST": "0.0.0.0", "OPERATOR_KEYS": DIGEST}, "STREAMLIMIT_HOST: 0.0.0.0 is public: set STREAMLIMIT_SECRET"),
        *(
            (
                {"CORS_ORIGINS": origin},
                "STREAMLIMIT_CORS_ORIGINS (--cors-origins): must be origins as browsers send them",
            )
            for origin in (
                "*",
                "null",
                "tv.example",
                "https://tv.example/",
                "https://*.example",
                "https://a b",
                "https:",
            )
        ),
        ({"OPERATOR_PORT": "8080"}, "STREAMLIMIT_OPERATOR_PORT: must be another than STREAMLIMIT_PORT"),
        (
            {"OPERATOR_HOST": "0.0.0.0", "OPERATOR_PORT": "9000", "SECRET": LONG},
            "STREAMLIMIT_OPERATOR_HOST: 0.0.0.0 is public, and without keys everybody may",
        ),
        ({"SERVICE_KEYS": "short"}, "STREAMLIMIT_SERVICE_KEYS: must be SHA-256 digests of keys"),
        ({"OPERATOR_KEYS": f"{DIGEST} short"}, "STREAMLIMIT_OPERATOR_KEYS: must be SHA-256 digests of keys"),
        ({"SERVICE_KEYS": ","}, "STREAMLIMIT_SERVICE_KEYS: must be SHA-256 digests of keys"),
        (PLAYERS | {"JWT_ISSUER": ""}, "STREAMLIMIT_JWT_ISSUER: must be set, since players' tokens are verified"),
        (PLAYERS | {"JWT_AUDIENCE": ""}, "STREAMLIMIT_JWT_AUDIENCE: must be set, since players' tokens are verified"),
        (PLAYERS | {"JWT_KEY": "short"}, "STREAMLIMIT_JWT_KEY: must be public keys in PEM"),
        (PLAYERS | {"JWT_JWKS_URL": "https://id.example/keys"}, "STREAMLIMIT_JWT_JWKS_URL: STREAMLIMIT_JWT_KEY is set"),
        (PLAYERS | {"JWT_ALGORITHMS": "ES256"}, "STREAMLIMIT_JWT_KEY: a key is for RS256"),
        (PLAYERS | {"JWT_ALGORITHMS": "HS256"}, "STREAMLIMIT_JWT_KEY: a public key is no secret"),
        ({"JWT_ALGORITHMS": "HS256,RS256"}, "STREAMLIMIT_JWT_ALGORITHMS (--jwt-algorithms): must be some of RS256"),
        ({"JWT_ALGORITHMS": "none"}, "STREAMLIMIT_JWT_ALGORITHMS (--jwt-algorithms): must be some of RS256"),
        ({"JWT_ALGORITHMS": ","}, "STREAMLIMIT_JWT_ALGORITHMS (--jwt-algorithms): must be some of RS256"),
        ({"JWT_JWKS_URL": "http://id.example/keys"}, "(--jwt-jwks-url): must begin with https://, or be an http://"),
        ({"JWT_JWKS_URL": "file:///etc/passwd"}, "(--jwt-jwks-url): must begin with https://, or be an http://"),
        ({"JWT_JWKS_URL": "https://[x/"}, "(--jwt-jwks-url): is not a URL; in a password write #"),
        *(
            ({name: f"{scheme}://{rest}"}, message)
            for name, scheme in (
                ("REDIS_URL", "redis"),
                ("REDIS_URL", "redis+sentinel"),
                ("REDIS_URL", "redis+cluster"),
                ("JWT_JWKS_URL", "https"),
            )
            for rest, message in (
                ("u:[short@h/0", "is not a URL; in a password write #"),
                ("u:\u2100short@h/0", "is not a URL; in a password write #"),
                ("u:12/short@h", "has an @ behind the host; in a password write #"),
                ("u:12?short@h", "has an @ behind the host; in a password write #"),
                ("u:12#short@h", "has an @ behind the host; in a password write #"),
                ("h:short/0", "the port must be a number; in a password write #"),
            )
        ),
        (
            {"JWT_JWKS_URL": "https://x/", "JWT_ALGORITHMS": "HS256", "JWT_ISSUER": "x", "JWT_AUDIENCE": "x"},
            "STREAMLIMIT_JWT_ALGORITHMS: HS256 needs a secret, which no URL gives",
        ),
        ({"SECRET_FILE": "/nowhere"}, "STREAMLIMIT_SECRET_FILE: /nowhere: No such file or directory"),
        ({"SECRET_FILE": "/dev/null"}, "STREAMLIMIT_SECRET_FILE: /dev/null: is empty"),
        ({"JWT_KEY_FILE": "/"}, "STREAMLIMIT_JWT_KEY_FILE: /: Is a directory"),
        (
            {"SERVICE_KEYS_FILE": __file__, "SERVICE_KEYS": DIGEST},
            "STREAMLIMIT_SERVICE_KEYS_FILE: STREAMLIMIT_SERVICE_KEYS is set, too; take one of them",
        ),
        ({"SERVICE_KEYS_FILE": __file__}, "STREAMLIMIT_SERVICE_KEYS: must be SHA-256 digests of keys"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"{ENV_PREFIX}{name}", value)

    assert main(["serve"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("streamlimit: ")
    assert message in line
    assert "short" not in line  # a secret is not shown


@pytest.mark.parametrize(
    "options",
    [
        *(["--limt", "3"], ["--limit"], ["--limit", "x"]),
        *(["--secret", LONG], ["--service-keys", DIGEST], [f"--jwt-key={LONG}"]),
    ],
)
def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert main(["serve", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert options[0].partition("=")[0] in line
    assert LONG not in line


@pytest.mark.parametrize("more", [{"insecure": True}, {"service_keys": DIGEST}, {"operator_keys": DIGEST}])
def test_a_public_address_needs_a_secret_and_keys_or_consent(more: dict[str, Any]) -> None:
    settings = Settings(host="0.0.0.0", secret=LONG, **more)

    assert settings.public_addresses == {"HOST": "0.0.0.0"}
    assert settings.authenticates == ("insecure" not in more)


def test_keys_of_players_are_keys_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (PLAYERS | {"HOST": "0.0.0.0", "SECRET": LONG}).items():
        monkeypatch.setenv(f"{ENV_PREFIX}{name}", value)

    assert Settings().authenticates


def test_without_a_port_of_operators_their_host_does_not_count() -> None:
    assert Settings(operator_host="0.0.0.0").public_addresses == {}


def test_without_keys_nobody_is_authenticated() -> None:
    assert not Settings().authenticates


def test_several_secrets_are_separated_by_commas() -> None:
    assert Settings(secret=f"{LONG}, {'y' * 32}").secrets == [LONG, "y" * 32]


@pytest.mark.parametrize("name", secret_names(Settings))
def test_a_secret_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    values = {"secret": LONG, "service_keys": DIGEST, "operator_keys": DIGEST, "jwt_key": public_pem("RS256").strip()}
    path = tmp_path / name
    path.write_text(f"{values[name]}\n")
    monkeypatch.setenv(f"{ENV_PREFIX}{name.upper()}_FILE", str(path))

    settings = Settings(jwt_issuer="x", jwt_audience="x")

    assert getattr(settings, name).get_secret_value() == values[name]


def test_a_variable_that_names_the_file_of_a_secret_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIMIT_SECRET_FILE", "x")
    monkeypatch.setenv("STREAMLIMIT_LIMIT_FILE", "x")

    assert _unknown_variables() == {"STREAMLIMIT_LIMIT_FILE"}


def test_keys_for_one_caller_after_the_other_stand_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{DIGEST}\n{'1' * 64}\n")
    monkeypatch.setenv("STREAMLIMIT_SERVICE_KEYS_FILE", str(path))

    assert Settings().digests == {Role.SERVICE: (DIGEST, "1" * 64), Role.OPERATOR: ()}


def test_a_secret_does_not_show() -> None:
    assert LONG not in repr(Settings(secret=LONG))
    with pytest.raises(ValidationError) as caught:
        Settings(secret="too-short")
    assert "too-short" not in explain(caught.value)


def test_workers_get_the_same_settings() -> None:
    given = Settings(limit=5, secret=LONG, data_dir=Path("/tmp/streams"), enforce=False)

    assert pickle.loads(pickle.dumps(given)) == given


def test_a_variable_that_is_no_setting_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIMIT_LIMTI", "5")
    blocked = tmp_path / "file"
    blocked.touch()

    done = subprocess.run(
        [sys.executable, "-m", "streamlimit", "serve", "--data-dir", str(blocked)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )

    assert done.returncode == 1
    warning, error = done.stderr.splitlines()
    assert warning == "streamlimit: warning: STREAMLIMIT_LIMTI is no setting and is ignored"
    assert error == f"streamlimit: {blocked}: File exists; choose another directory with --data-dir"


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])

    assert caught.value.code == 0
    text = capsys.readouterr().out
    options = {f"--{name.replace('_', '-')}" for name in set(Settings.model_fields) - set(secret_names(Settings))}
    assert {option for option in options if option not in text} == set()


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("streamlimit 0.")
