"""Repairs the append-only files of the embedded store after a power loss or a failing disk.

Valkey by itself drops a command that was cut off at the end of the last file, and refuses to start if anything else is
wrong. Here the files are read up to the first place that is damaged, by Valkey's own checker, which also drops a
transaction that is not complete. What can be read becomes the new `appendonlydir`; the old one is kept beside it as
`appendonlydir.damaged-DATE`. For example, 512 NUL bytes behind the last command are cut off, and nothing else is lost.

A damaged manifest, which lists the files, is rebuilt from their names. A checker that dies (for want of memory, for
example) says nothing about the file: then nothing is moved, and the repair fails.

How much was lost behind the damage is not known. So the repaired files end with a new epoch in recovery: for one TTL
running streams resume and new admissions wait, as after any loss of data.

Like the supervisor, which runs it when the server refuses to start, it imports nothing but the standard library.
"""

import errno
import itertools
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LIVE: Final = "appendonlydir"
_REPAIRED: Final = f"{LIVE}.repaired"  # the supervisor looks for it, too
_NAME: Final = "appendonly.aof"
_MANIFEST: Final = f"{_NAME}.manifest"
_FILE: Final = re.compile(rf"{re.escape(_NAME)}\.(\d+)\.(?:base\.rdb|(base|incr)\.aof)")
_LINE: Final = re.compile(rf"file ({_FILE.pattern}) seq (\d+) type ([bih])")
_BASE, _INCREMENT, _HISTORY = "b", "i", "h"
_VERDICTS: Final = {
    "rdb": (rb"^\[offset (\d+)\] Checksum OK", b"RDB ERROR DETECTED"),
    "aof": (rb"ok_up_to=(\d+)", b"RDB preamble of AOF file is not sane"),
}
"""How a checker says up to where the file can be read, and that nothing of it can be."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the files that together hold the data."""

    path: Path
    seq: int
    kind: str
    """`b`: what was there when the log began; `i`: the log since; `h`: no longer needed."""

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


def repair(directory: Path, binary: Path, epoch_key: str, ttl_ms: int) -> str:
    """Set damaged files aside and keep what can be read of them. No server may use them meanwhile.

    Args:
        directory: That of the server.
        binary: The server's program, which is its checker, too.
        epoch_key: The key of the store's epoch.
        ttl_ms: The stream TTL, for which recovery lasts.

    Returns:
        What was done; empty if nothing is damaged.

    Raises:
        OSError: The files cannot be read, checked or written; nothing was moved.
    """
    live, repaired = directory / LIVE, directory / _REPAIRED
    if not live.exists():
        if not repaired.exists():
            return ""
        repaired.rename(live)  # an earlier repair was interrupted between its last two steps
        return f"an interrupted repair was completed; the original is beside {live}"
    shutil.rmtree(repaired, ignore_errors=True)
    parts, manifest_is_whole = _parts(live)
    kept: list[tuple[_Part, int]] = []
    damaged: _Part | None = None
    for part in parts:
        readable = _readable_bytes(binary, part)
        kept.append((part, readable))
        if readable < part.size or not part.path.exists():
            damaged = part
            if part.kind == _BASE and not readable:
                kept.clear()  # changes to what is gone mean nothing
            if part.kind != _BASE or not readable:
                break
    if parts and not damaged and manifest_is_whole:
        return ""
    lost = sum(part.size for part in parts) - sum(size for _, size in kept)
    _write(repaired, kept, _new_epoch(epoch_key, ttl_ms))
    aside = _unused(directory / f"{LIVE}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    live.rename(aside)
    repaired.rename(live)
    if not kept:
        return f"nothing of them can be read, so that all limits and streams are lost; they are kept in {aside}"
    if not damaged:
        return f"the manifest was rebuilt from the names of the files, which are whole; the original is kept in {aside}"
    return f"the last {lost} bytes, from {damaged.path.name} on, cannot be read; the original is kept in {aside}"


def _parts(live: Path) -> tuple[list[_Part], bool]:
    """The files in the order in which the server reads them, and whether the manifest is whole."""
    try:
        manifest = (live / _MANIFEST).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        manifest = ""
    *lines, rest = manifest.split("\n")
    matches = [_LINE.fullmatch(line) for line in lines]
    listed = [_Part(live / match[1], int(match[4]), match[5]) for match in matches if match]
    if listed and len(listed) == len(matches) and not rest:
        return [part for part in listed if part.kind != _HISTORY], True
    return _rebuilt(live, listed), False


def _rebuilt(live: Path, listed: list[_Part]) -> list[_Part]:
    """The files by their names, where a part of the manifest is lost.

    What can still be read of it counts: the base, the first increment, and what is history. Otherwise the last base
    counts, with the increments from its number on, since a rewrite begins a new base and a new increment.
    """
    parts = {part.path: part for part in listed}
    for path in live.iterdir():
        if match := _FILE.fullmatch(path.name):
            kind = _INCREMENT if match[2] == "incr" else _BASE
            parts.setdefault(path, _Part(path, int(match[1]), kind))
    by_number = sorted(parts.values(), key=lambda part: part.seq)
    bases = [part for part in by_number if part.kind == _BASE]
    bases = [part for part in bases if part in listed] or bases
    firsts = [part.seq for part in listed if part.kind == _INCREMENT] or [part.seq for part in bases[-1:]]
    increments = [part for part in by_number if part.kind == _INCREMENT and firsts and part.seq >= min(firsts)]
    return bases[-1:] + increments


def _readable_bytes(binary: Path, part: _Part) -> int:
    """How many bytes from the beginning can be used."""
    if not part.size:
        return 0
    # The name by which the server's program is called makes it the checker.
    kind = "rdb" if part.path.suffix == ".rdb" else "aof"
    checked = subprocess.run(  # noqa: S603 - our own binary
        [f"valkey-check-{kind}", str(part.path)], executable=binary, capture_output=True, check=False
    )
    whole, unreadable = _VERDICTS[kind]
    if checked.returncode >= 0:
        if found := re.search(whole, checked.stdout, re.MULTILINE):
            return int(found[1])
        if checked.returncode and unreadable in checked.stdout:
            return 0
    raise OSError(errno.EIO, f"its checker ended ({checked.returncode}) without a result", str(part.path))


def _unused(path: Path) -> Path:
    """The path, or with `-2`, `-3`, … behind it, where it exists."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())


def _write(repaired: Path, kept: list[tuple[_Part, int]], last: bytes) -> None:
    repaired.mkdir(mode=0o700)
    manifest = []
    for part, size in kept:
        target = repaired / part.path.name
        with part.path.open("rb") as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            copy.truncate(size)
            os.fsync(copy.fileno())
        manifest.append(f"file {target.name} seq {part.seq} type {part.kind}\n")
    seq = 1 + max((part.seq for part, _ in kept), default=0)
    name = f"{_NAME}.{seq}.incr.aof"
    manifest.append(f"file {name} seq {seq} type i\n")
    for path, content in ((repaired / name, last), (repaired / _MANIFEST, "".join(manifest).encode())):
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _new_epoch(key: str, ttl_ms: int) -> bytes:
    """The commands that open recovery, as a log has them."""
    now = time.time_ns() // 1_000_000
    fields = {"id": secrets.token_hex(8), "since": now, "recovering_until": now + ttl_ms}
    commands = (("SELECT", "0"), ("HSET", key, *(str(word) for field in fields.items() for word in field)))
    return b"".join(
        f"*{len(words)}\r\n".encode()
        + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, words))
        for words in commands
    )


if __name__ == "__main__":
    try:
        sys.stdout.write(repair(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
