"""What is logged or printed: nothing that others wrote looks like something else, and no line has a secret."""

import ast
import logging
import logging.config
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamlimit
from streamlimit import report, supervisor
from streamlimit.cli import main
from streamlimit.findings import Finding
from streamlimit.jwks import RemoteKeys
from streamlimit.log_lines import one_line
from streamlimit.server import _LOGGING
from streamlimit.settings import Settings
from streamlimit.token_settings import ASYMMETRIC
from tests.issuer import key_set, public_jwk
from tests.key_server import key_server
from tests.servers import Service, serving

PACKAGE: Final = Path(streamlimit.__file__).parent
LEVELS: Final = {"debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log"}
HOSTILE: Final = (
    "x\r\n2026-11-24 00:01:02,516 INFO forged\x1b[2J\x07\x00\x7f\x85\u2028\u202e\u2066\u200b\ufeff\U000e0041\ud800 "
    "redis://alice:hunter2@store/0 https://id.example/keys?token=hunter2 unknown command 'AUTH', with args beginning "
    "with: 'hunter2'"
)


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of the package to a function or method of this name, and where it stands."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def log_calls() -> list[Any]:
    found = [
        pytest.param(call.args[level == "log"], id=where)
        for level in sorted(LEVELS)
        for where, call in calls(level)
        if "log" in ast.unparse(call.func).rpartition(".")[0]
    ]
    assert found
    return found


def formatter() -> logging.Formatter:
    """That of the service."""
    configured = logging.config.DictConfigurator(_LOGGING).configure_formatter(_LOGGING["formatters"]["line"].copy())
    assert isinstance(configured, logging.Formatter)
    return configured


def written(message: str, *arguments: Any, error: Exception | None = None) -> str:
    """What the log of the service has then."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    return formatter().format(logging.LogRecord("streamlimit", logging.INFO, "", 1, message, arguments, exc_info))


def test_every_handler_of_the_service_writes_such_lines() -> None:
    assert {handler["formatter"] for handler in _LOGGING["handlers"].values()} == set(_LOGGING["formatters"])
    assert not any("handlers" in logger for logger in _LOGGING["loggers"].values())


@pytest.mark.parametrize("message", log_calls())
def test_every_line_of_the_log_is_one_without_secrets_whatever_others_wrote(message: ast.expr) -> None:
    assert isinstance(message, ast.Constant), "the message must be a literal, and what is told in it an argument"
    assert isinstance(message.value, str)
    kinds = re.findall(r"%[.0-9]*([a-z])", message.value)
    arguments = [HOSTILE if kind in "sr" else 1 for kind in kinds]

    line = written(message.value, *arguments)

    assert line.isprintable()
    assert "hunter2" not in line
    assert ("forged" in line) == ("s" in kinds)


def test_whatever_is_printed_is_made_one_line_first() -> None:
    prints = list(calls("print"))

    assert prints
    for where, call in prints:
        assert re.search(r"\bone_line\b|\bjson\.dumps\b", ast.unparse(call)), where


@pytest.mark.parametrize("name", ["print_exc", "print_exception", "print_stack", "warn", "showwarning", "lastResort"])
def test_nothing_is_written_past_the_log(name: str) -> None:
    assert [where for where, _ in calls(name)] == []


def test_nothing_is_written_to_the_terminal_by_hand() -> None:
    written = [where for where, call in calls("write") if ast.unparse(call.func).startswith("sys.")]

    # It writes to its supervisor, which says it on one line.
    assert [where for where in written if not where.startswith("append_only.py:")] == []


def failed(text: str) -> Exception:
    try:
        int(text)
    except ValueError as error:
        error.args = (text,)
        return error
    raise AssertionError


def test_what_an_exception_says_begins_no_line_of_the_log() -> None:
    first, *others = written("It failed", error=failed(HOSTILE)).split("\n")

    assert first.endswith(" INFO It failed")
    assert len(others) > 2
    for line in others:
        assert line.startswith("    ")
        assert line.isprintable()
        assert "hunter2" not in line


def test_a_traceback_that_uvicorn_logs_as_a_message_keeps_its_lines() -> None:
    first, second, _ = written("Traceback (most recent call last):\n  File x\nValueError: y\n").split("\n")

    assert first.endswith("INFO Traceback (most recent call last):")
    assert second == "      File x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wohnzimmer 📺 für Zoë", "Wohnzimmer 📺 für Zoë"),
        ("a\tb\\n", "a\\tb\\n"),
        ("redis://127.0.0.1:6379/0, limit 3", "redis://127.0.0.1:6379/0, limit 3"),
        ("redis+sentinel://u:p@a:1,b:2/main", "redis+sentinel://***@a:1,b:2/main"),
        ("at https://u:p@ss@w@id.example/a?b=c: no", "at https://***@id.example/a?*** no"),
        ("see redis://USER:PASSWORD@HOST:PORT", "see redis://USER:PASSWORD@HOST:PORT"),
        ("unix://:p@/run/redis.sock", "unix://***@/run/redis.sock"),
    ],
)
def test_what_shows_stays(text: str, expected: str) -> None:
    assert one_line(text) == expected


@given(st.text())
def test_any_text_becomes_one_line_that_stays_as_it_is(text: str) -> None:
    line = one_line(text)

    assert line.isprintable()
    assert one_line(line) == line


def test_the_doctor_shows_what_a_server_calls_itself_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def examine(*_: object) -> list[Finding]:
        return [Finding("reachable", "problem", HOSTILE, HOSTILE, HOSTILE)]

    monkeypatch.setattr(report, "_examine", examine)
    for as_json in (False, True):
        report.report(Settings(redis_url="redis://u:hunter2@127.0.0.1/0"), as_json=as_json, strict=False)
    said = capsys.readouterr().out

    assert "forged" in said
    assert said.replace("\n", "").isprintable()
    assert not re.search("^2026", said, re.MULTILINE)
    assert "hunter2" not in said


def test_the_supervisor_of_the_embedded_store_says_what_it_says_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.say(HOSTILE)

    assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_the_command_line_complains_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", HOSTILE.replace(" ", "")]) == 2
    said = capsys.readouterr().err

    assert said.removesuffix("\n").isprintable()
    assert "hunter2" not in said


@pytest.mark.anyio
async def test_a_key_set_that_is_all_names_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{number:04}-{'k' * 1000}" for number in range(50)]
    members = (public_jwk("ES256", kid=name) for name in names)
    with key_server(key_set(*members)) as server, caplog.at_level(logging.INFO):
        async with RemoteKeys(server.url, ASYMMETRIC):
            pass

    lines = [record.getMessage() for record in caplog.records if record.name == "streamlimit.jwks"]
    assert lines
    assert max(map(len, lines)) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_log_of_a_service_has_no_forged_line_and_no_password_of_a_url(tmp_path: Path, workers: str) -> None:
    forged = "k\r\n2026-11-24 00:01:02,516 INFO forged \u202e"
    env = {"STREAMLIMIT_JWT_ISSUER": "issuer", "STREAMLIMIT_JWT_AUDIENCE": "audience"}
    with key_server(key_set(public_jwk("ES256", kid=forged))) as server:
        url = server.url.replace("://", "://alice:hunter2@") + "?token=hunter3"
        service = Service(tmp_path, "--workers", workers, env=env | {"STREAMLIMIT_JWT_JWKS_URL": url})
        with serving(service):
            service.wait_until(200)
        said = service.log.read_text()
    assert "from http://127.0.0.1" in said
    assert r"k\r\n2026-11-24 00:01:02,516 INFO forged \u202e" in said
    assert not re.search("^2026-11-24 00:01:02", said, re.MULTILINE)
    assert "hunter" not in said
    assert "alice" not in said


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster", "rediss"])
def test_the_log_has_no_password_of_a_store_that_is_away(tmp_path: Path, scheme: str) -> None:
    path = "/main?sentinel_password=hunter3" if "sentinel" in scheme else ""
    env = {"STREAMLIMIT_REDIS_URL": f"{scheme}://alice:hunter2@127.0.0.1:1{path}"}
    service = Service(tmp_path, env=env)
    service.start()
    try:
        service.wait_until(503)
    finally:
        service.stop()
    said = service.log.read_text()
    assert "No usable answer from the store" in said
    assert "hunter" not in said
    assert "alice" not in said
