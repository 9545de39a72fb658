"""Settings: every one an environment variable and an option, and a wrong value one clear line and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from streamlimit import InvalidInput, Rules
from streamlimit.cli import main
from streamlimit.settings import ENV_PREFIX, Settings, explain

LONG = "x" * 32


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


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
        ({"SECRET": f"{LONG},short"}, "STREAMLIMIT_SECRET: each secret must have at least 32 characters"),
        ({"KEY_PREFIX": "{}"}, "STREAMLIMIT_KEY_PREFIX (--key-prefix): must be at most 32 of"),
        ({"REDIS_URL": "http://x"}, "STREAMLIMIT_REDIS_URL (--redis-url): must begin with redis://, rediss:// or"),
        ({"REDIS_URL": "redis://h/x"}, "STREAMLIMIT_REDIS_URL (--redis-url): the path must be a database number"),
        ({"REDIS_URL": "redis://h?x=1"}, "(--redis-url): has an option that redis-py does not know: 'x'"),
        ({"REDIS_URL": "redis://h:x"}, "STREAMLIMIT_REDIS_URL (--redis-url): the port must be a number"),
        ({"REDIS_URL": "redis://u:short#pass@h"}, "(--redis-url): the port must be a number; in a password write #"),
        ({"REDIS_URL": "memory://", "WORKERS": "2"}, "STREAMLIMIT_WORKERS: must be 1 with REDIS_URL memory://"),
        ({"HOST": "example.org"}, "STREAMLIMIT_HOST (--host): must be an IP address, or localhost"),
        ({"HOST": "0.0.0.0", "SECRET": LONG}, "STREAMLIMIT_HOST: 0.0.0.0 is public, and callers are not authenticated"),
        ({"HOST": "0.0.0.0", "INSECURE": "1"}, "STREAMLIMIT_HOST: 0.0.0.0 is public: set STREAMLIMIT_SECRET"),
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


@pytest.mark.parametrize("options", [["--limt", "3"], ["--limit"], ["--limit", "x"], ["--secret", LONG]])
def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert main(["serve", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert options[0] in line


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"limit": 11}, "limit"),
        ({"max_limit": 65}, "max_limit"),
        ({"ttl_ms": 600_001}, "ttl_ms"),
        ({"ttl_ms": 89_999}, "ttl_ms"),
        ({"heartbeat_ms": 0}, "heartbeat_ms"),
    ],
)
def test_the_library_checks_its_rules_too(rules: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Rules(**rules)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_public_address_needs_both_a_secret_and_consent() -> None:
    settings = Settings(host="0.0.0.0", insecure=True, secret=LONG)

    assert not settings.listens_on_loopback


def test_several_secrets_are_separated_by_commas() -> None:
    assert Settings(secret=f"{LONG}, {'y' * 32}").secrets == [LONG, "y" * 32]


def test_a_secret_does_not_show() -> None:
    assert LONG not in repr(Settings(secret=LONG))
    with pytest.raises(ValidationError) as caught:
        Settings(secret="too-short")
    assert "too-short" not in explain(caught.value)


def test_workers_get_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(limit=5, secret=LONG, data_dir=Path("/tmp/streams"), enforce=False)
    for name, value in given.as_environment().items():
        monkeypatch.setenv(name, value)

    assert Settings() == given


def test_a_variable_that_is_no_setting_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIMIT_LIMTI", "5")
    blocked = tmp_path / "file"
    blocked.touch()

    done = subprocess.run(
        [sys.executable, "-m", "streamlimit", "serve", "--data-dir", str(blocked)],
        capture_output=True,
        text=True,
        check=False,
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
    options = {f"--{name.replace('_', '-')}" for name in Settings.model_fields} - {"--secret"}
    assert {option for option in options if option not in text} == set()


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("streamlimit 0.")
