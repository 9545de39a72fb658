"""The secret in the data directory: made once, and held to what one from the settings is held to."""

import stat
from pathlib import Path

import pytest

from streamlimit.cli import main
from streamlimit.secret import SecretError, load_or_make_secret, load_secret

GOOD = "g" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def test_it_is_made_once_and_for_its_owner_only(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = load_or_make_secret(path.parent)
    assert not caplog.messages  # it was never open to others

    assert load_or_make_secret(path.parent) == load_secret(path.parent) == secret
    assert len(secret) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_reading_makes_none(path: Path) -> None:
    assert load_secret(path.parent) == ""
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"abcd", "has 4 characters where 32 are needed"),
        (b"x" * 31 + b"\n", "has 31 characters"),
        (b"\xff" * 32, "is no UTF-8"),
    ],
)
def test_one_that_cannot_be_used_is_refused_and_kept(path: Path, content: bytes, found: str) -> None:
    write(path, content)

    with pytest.raises(SecretError, match=found) as raised:
        load_or_make_secret(path.parent)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o640, 0o602])
def test_one_that_is_open_to_others_is_closed(path: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    write(path, GOOD.encode(), mode)

    assert load_or_make_secret(path.parent) == GOOD
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    (record,) = caplog.records
    assert f"{path} was open to others (mode {mode:04o})" in record.message


def test_one_that_cannot_be_closed_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    write(path, GOOD.encode(), 0o666)
    monkeypatch.setattr(Path, "chmod", refuse)

    with pytest.raises(SecretError, match=r"mode 0666.*Operation not permitted.*chmod 600"):
        load_or_make_secret(path.parent)


def test_the_command_says_it_on_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, b"")

    assert main(["serve", "--data-dir", str(path.parent), "--redis-url", "memory://"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: is empty" in line
