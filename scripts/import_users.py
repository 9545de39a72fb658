"""Import users and their limits from a file, into the store that the service reads.

The file is CSV whose first line names the columns user_id and max_streams, or JSON lines, each like
{"user_id": "alice", "max_streams": 3}. What else stands in it is ignored. All of it is checked before the first user is
written; a bad line is told with its number, and then nothing is written. A user who is there gets the new limit, and no
stream is ended. Run again, it does what is left to do.
"""

import argparse
import asyncio
import csv
import itertools
import json
import logging
import re
import secrets
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    from pydantic import ValidationError
    from pydantic_settings import SettingsError
    from tqdm import tqdm

    from streamlimit import InvalidInput, StoreUnavailable, StreamTracker
    from streamlimit.connection import MEMORY_URL
    from streamlimit.fields import check_user_id, checked
    from streamlimit.settings import Settings, explain
except ModuleNotFoundError as error:
    sys.exit(f"import_users: {error}: scripts/import_users installs what is missing")

COLUMNS = ("user_id", "max_streams")
SETTINGS = ("redis_url", "key_prefix", "max_limit", "embedded_port")
MAX_TOLD = 100
CONCURRENT = 16  # more is no faster, and would crowd out a live service on the same store

Row = Mapping[str, Any]


class BadFileError(Exception):
    """The file cannot be imported; the message has all lines that say why."""


def read_users(path: str, max_limit: int) -> tuple[dict[str, int], int]:
    """Read and check the whole file.

    Args:
        path: Of the file; "-" is standard input.
        max_limit: The highest limit there may be.

    Returns:
        The limit of each user, and how many lines repeat an earlier one.

    Raises:
        BadFileError: A line is bad.
        OSError: The file cannot be read.
    """
    users: dict[str, tuple[int, int]] = {}
    told: list[str] = []
    bad = repeated = 0
    source = Path("/dev/stdin" if path == "-" else path)
    # Excel begins a file with a byte order mark. What is no UTF-8 is bad in a user id, and harmless elsewhere.
    with source.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = tqdm(file, desc="Checking", unit=" lines", unit_scale=True, leave=False, disable=None)
        for number, row in read_rows(lines):
            try:
                user_id, limit = check_row(row, max_limit)
                known, at = users.setdefault(user_id, (limit, number))
                if known != limit:
                    raise InvalidInput("max_streams", f"is {limit}, but {known} for the same user in line {at}")
                repeated += at != number
            except ValueError as error:
                bad += 1
                if bad <= MAX_TOLD:
                    told.append(f"{path}:{number}: {error}")
    if bad > MAX_TOLD:
        told.append(f"{path}: and {bad - MAX_TOLD:,} more")
    if bad:
        raise BadFileError("\n".join([*told, f"{path}: bad lines: {bad:,}; nothing was imported"]))
    if not users:
        raise BadFileError(f"{path}: has no users; nothing was imported")
    return {user_id: limit for user_id, (limit, _) in users.items()}, repeated


def read_rows(lines: Iterable[str]) -> Iterator[tuple[int, Row | ValueError]]:
    """Read CSV or JSON lines: the number of each row's first line, and the row or what is wrong with it."""
    lines = iter(lines)
    first = next(lines, "")
    lines = itertools.chain([first], lines)
    if first.lstrip().startswith(("{", "[")):
        return read_json(lines)
    # Excel writes semicolons where the comma is the decimal sign.
    return read_csv(lines, delimiter=max(",;\t", key=first.count))


def read_json(lines: Iterable[str]) -> Iterator[tuple[int, Row | ValueError]]:
    """Read an object a line; blank lines are skipped."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            bad = ValueError("is no JSON object; there must be one a line, and no array")
            yield number, row if isinstance(row, dict) else bad


def read_csv(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, Row | ValueError]]:
    """Read a row a record, by the names in the header."""
    # strict: a quote that is never closed would swallow the rest of the file in silence.
    rows = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    header: list[str] = []
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, ValueError(f"is no CSV from here on ({error})")
            return
        if not header:
            header = [name.strip() for name in row]
            if any(header.count(name) != 1 for name in COLUMNS):
                yield number, ValueError(f"must name {' and '.join(COLUMNS)}, each once, or be a JSON object")
                return
        elif row and len(row) != len(header):
            yield number, ValueError(f"has {len(row)} columns where the first line has {len(header)}")
        elif row:
            yield number, dict(zip(header, row, strict=True))


def check_row(row: Row | ValueError, max_limit: int) -> tuple[str, int]:
    """Return the user id and the limit of a row, or raise ValueError."""
    if isinstance(row, ValueError):
        raise row
    user_id, limit = (row.get(name) for name in COLUMNS)
    # The old path had the id as text, whatever its database took it for.
    user_id = checked("user_id", check_user_id, str(user_id) if type(user_id) in (int, str) else "")
    # MongoDB writes 3.0 where the number was stored as a double.
    match = re.fullmatch(r"([0-9]{1,9})(\.0)?", str(limit), re.ASCII)
    if not match or int(match[1]) > max_limit:
        raise InvalidInput("max_streams", f"must be a whole number from 0 to {max_limit} (STREAMLIMIT_MAX_LIMIT)")
    return user_id, int(match[1])


async def write_users(settings: Settings, users: dict[str, int], done: Counter[str], *, dry_run: bool) -> None:
    """Write the limits that are not in the store, and count in `done` which users are new, changed or unchanged.

    Raises:
        StoreUnavailable: The store gave no usable answer; `done` says how far it came.
    """
    # It starts no stream, so any secret will do.
    secret = secrets.token_hex()
    async with StreamTracker.from_url(settings.store_url, [secret], settings.rules, settings.key_prefix) as tracker:
        for warning in (await tracker.health()).warnings:
            tell(f"warning: {warning}")
        todo = deque(users.items())
        # Those under way are finished, so that the count is exact. Cancelling would not do: on Python 3.11 a write that
        # is done at the same moment swallows it.
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, todo.clear)
        does = "Comparing" if dry_run else "Importing"
        with tqdm(total=len(users), desc=does, unit=" users", unit_scale=True, disable=None) as bar:

            async def work() -> None:
                try:
                    while todo:
                        user_id, limit = todo.popleft()
                        known = await tracker.user_limit(user_id)
                        if known != limit and not dry_run:
                            await tracker.set_user_limit(user_id, limit)
                        done["new" if known is None else "unchanged" if known == limit else "changed"] += 1
                        bar.update()
                finally:
                    todo.clear()  # where one fails, all stop

            outcomes = await asyncio.gather(*(work() for _ in range(CONCURRENT)), return_exceptions=True)
    for error in filter(None, outcomes):
        raise error


def tell(message: str) -> None:
    """Say something that is no result."""
    print(f"import_users: {message}", file=sys.stderr)


def main() -> int:
    """Run the command; return its exit code: 0 done, 1 not all is imported, 2 an option is wrong, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="import_users",
        description=__doc__,
        epilog="The settings are taken from the environment variables STREAMLIMIT_*, too, as by the service.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="- is standard input")
    parser.add_argument("--dry-run", action="store_true", help="check the file, say what would change, write no user")
    for name in SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=Settings.model_fields[name].description)
    options = vars(parser.parse_args())
    try:
        settings = Settings(**{name: options[name] for name in SETTINGS if options[name] is not None})
    except (ValidationError, SettingsError) as error:
        tell(explain(error) if isinstance(error, ValidationError) else str(error))
        return 2
    if settings.redis_url == MEMORY_URL:
        tell("memory:// lives in the service's own process: nothing can be imported into it")
        return 2

    # What the tracker logs while a store is away is told once, below.
    logging.getLogger("streamlimit").setLevel(logging.CRITICAL)
    where = settings.store_address + (f" with key prefix {settings.key_prefix}" if settings.key_prefix else "")
    users: dict[str, int] = {}
    repeated = 0
    done: Counter[str] = Counter()
    stopped = "interrupted"
    try:
        users, repeated = read_users(options["file"], settings.max_limit)
        asyncio.run(write_users(settings, users, done, dry_run=options["dry_run"]))
    except BadFileError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        tell(f"{options['file']}: {error.strerror}")
        return 1
    except StoreUnavailable as error:
        stopped = f"no usable answer from the store {where} ({error})"
    except KeyboardInterrupt:
        pass

    if not users or done.total() < len(users):
        known = f"{done.total():,} of {len(users):,} users are known to be imported; run it again for the rest"
        tell(f"{stopped}: {known if done and not options['dry_run'] else 'nothing was imported'}")
        return 130 if stopped == "interrupted" else 1
    if repeated:
        tell(f"lines that repeat an earlier one: {repeated:,}")
    what = "Users to import" if options["dry_run"] else "Users imported"
    counts = ", ".join(f"{done[kind]:,} {kind}" for kind in ("new", "changed", "unchanged"))
    print(f"{what} into {where}: {len(users):,} ({counts})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
