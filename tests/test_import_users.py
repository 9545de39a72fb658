"""`scripts/import_users`: users of the service before this one, from a file into the store."""

import logging
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.documents import ROOT
from tests.servers import RedisServer, free_port, running, valkey, wait_for

sys.path.insert(0, str(ROOT / "scripts"))
import import_users  # the scripts are no package

SCRIPT = [sys.executable, str(ROOT / "scripts" / "import_users.py")]
MANY = 10_000


class Import:
    """Runs the import on one store: called, in this process, which is quicker; started, in one of its own."""

    def __init__(self, directory: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.file = directory / "users"
        self.url = url
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIMIT_")}
        self.environment["STREAMLIMIT_REDIS_URL"] = url

    def __call__(self, content: str | bytes, *options: str) -> subprocess.CompletedProcess[str]:
        self.write(content)
        with pytest.MonkeyPatch.context() as patches:
            patches.chdir(self.file.parent)
            patches.setattr(os, "environ", self.environment)
            patches.setattr(sys, "argv", ["import_users", self.file.name, *options])
            code = import_users.main()
        logging.getLogger("streamlimit").setLevel(logging.NOTSET)  # which it has raised
        said = self._capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, said.out, said.err)

    def write(self, content: str | bytes) -> None:
        self.file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def start(self, **streams: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SCRIPT, self.file.name], text=True, cwd=self.file.parent, env=self.environment, **streams
        )


@pytest.fixture
def store(valkey_server: RedisServer) -> Iterator[Any]:
    with Redis.from_url(valkey_server.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def run_import(
    tmp_path: Path,
    valkey_server: RedisServer,
    store: Any,  # noqa: ARG001 - it is emptied
    capsys: pytest.CaptureFixture[str],
) -> Import:
    return Import(tmp_path, valkey_server.url, capsys)


def csv(count: int) -> str:
    return "user_id,max_streams\n" + "".join(f"user-{number},{number % 11}\n" for number in range(count))


def limits(store: Any) -> dict[str, str]:
    return {key.removeprefix("user:{")[:-1]: store.hget(key, "limit") for key in store.keys("user:*")}


def test_users_are_imported_from_csv(run_import: Import, store: Any) -> None:
    done = run_import("user_id,max_streams\nalice,3\nbob,0\n")

    assert limits(store) == {"alice": "3", "bob": "0"}
    assert done.stdout == f"Users imported into {run_import.url}: 2 (2 new, 0 changed, 0 unchanged)\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_users_are_imported_from_json_lines_as_mongoexport_writes_them(run_import: Import, store: Any) -> None:
    done = run_import(
        '{"_id":{"$oid":"65a0"},"user_id":"alice","max_streams":3}\n\n{"user_id":17,"max_streams":2.0,"plan":"family"}\n'
    )

    assert limits(store) == {"alice": "3", "17": "2"}
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfuser_id,max_streams\r\nalice,3\r\n\r\nbob,1\r\n",
        b"max_streams;user_id\n3;alice\n1;bob",
        b'"user_id"\t"max_streams"\n"alice"\t"3"\n"bob"\t"1"\n',
        b'note,user_id, max_streams\n"two\nlines, \xff",alice, 3\n,bob, 1\n',
    ],
    ids=["from Excel", "semicolons", "tabs and quotes", "other columns and blanks"],
)
def test_csv_may_look_as_programs_write_it(run_import: Import, store: Any, content: bytes) -> None:
    done = run_import(content)

    assert (done.returncode, done.stderr) == (0, "")
    assert limits(store) == {"alice": "3", "bob": "1"}


def test_every_bad_line_of_csv_is_told_with_its_number(run_import: Import, store: Any) -> None:
    done = run_import(
        "user_id,note,max_streams\n"
        'alice,"two\nlines",3\n'
        "\n"
        "{alice},,3\n"
        ",,3\n"
        "bob,,11\n"
        "bob,,-1\n"
        "bob,,three\n"
        "bob,,\n"
        "bob,3\n"
        "bob,,3,\n"
        "bob,,2\n"
        "alice,,2\n"
        'bob,"never closed,2\n'
        "carol,,x\n"
    )

    user_id = "user_id: must be 1 to 128 of A-Z a-z 0-9 . _ ~ @ | : + = - and neither '.' nor '..'"
    max_streams = "max_streams: must be a whole number from 0 to 10 (STREAMLIMIT_MAX_LIMIT)"
    assert done.stderr.splitlines() == [
        f"users:5: {user_id}",
        f"users:6: {user_id}",
        f"users:7: {max_streams}",
        f"users:8: {max_streams}",
        f"users:9: {max_streams}",
        f"users:10: {max_streams}",
        "users:11: has 2 columns where the first line has 3",
        "users:12: has 4 columns where the first line has 3",
        "users:14: max_streams: is 2, but 3 for the same user in line 2",
        "users:15: is no CSV from here on (unexpected end of data)",
        "users: bad lines: 10; nothing was imported",
    ]
    assert (done.returncode, done.stdout) == (1, "")
    assert store.keys() == []


def test_every_bad_line_of_json_is_told_with_its_number(run_import: Import, store: Any) -> None:
    lines = [
        '{"user_id":"alice","max_streams":3}',
        '{"user_id":"bob"}',
        '{"max_streams":3}',
        '{"user_id":true,"max_streams":3}',
        '{"user_id":17.0,"max_streams":3}',
        '{"user_id":"bob","max_streams":true}',
        '{"user_id":"bob","max_streams":2.5}',
        '{"user_id":"bob","max_streams":[3]}',
        '{"user_id":"bob","max_streams":NaN}',
        '{"user_id":"b\\u00f6b","max_streams":3}',
        '["bob",3]',
        '{"user_id":"bob"',
        '{"a":' * 100_000,
    ]
    done = run_import("\n".join(lines))

    told = [line.split(": ")[:2] for line in done.stderr.splitlines()]
    assert told[:-1] == [
        *(["users:2", "max_streams"], ["users:3", "user_id"], ["users:4", "user_id"], ["users:5", "user_id"]),
        *([f"users:{number}", "max_streams"] for number in range(6, 10)),
        ["users:10", "user_id"],
        *([f"users:{number}", "is no JSON object; there must be one a line, and no array"] for number in range(11, 14)),
    ]
    assert (done.returncode, store.keys()) == (1, [])


def test_nothing_is_written_where_only_the_last_of_many_lines_is_bad(run_import: Import, store: Any) -> None:
    done = run_import(f"{csv(MANY)}alice,many\n")

    assert done.returncode == 1
    assert done.stderr.startswith(f"users:{MANY + 2}: max_streams: ")
    assert store.keys() == []


def test_of_many_bad_lines_a_hundred_are_told(run_import: Import) -> None:
    done = run_import("user_id,max_streams\n" + "alice,x\n" * 1_234)

    assert done.stderr.splitlines()[99:] == [
        "users:101: max_streams: must be a whole number from 0 to 10 (STREAMLIMIT_MAX_LIMIT)",
        "users: and 1,134 more",
        "users: bad lines: 1,234; nothing was imported",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "users:1: must name user_id and max_streams, each once, or be a JSON object"),
        ("_id,max_streams\nalice,3\n", "users:1: must name user_id and max_streams, each once, or be a JSON object"),
        ('[{"user_id":"alice"}]', "users:1: is no JSON object; there must be one a line, and no array"),
        ("user_id,max_streams\n", "users: has no users; nothing was imported"),
    ],
    ids=["empty", "another name", "a JSON array", "a header alone"],
)
def test_a_file_without_users_is_bad(run_import: Import, content: str, message: str) -> None:
    done = run_import(content)

    assert (done.returncode, done.stderr.splitlines()[0]) == (1, message)


def test_a_repeated_line_is_told_and_does_no_harm(run_import: Import, store: Any) -> None:
    done = run_import("user_id,max_streams\nalice,3\nbob,1\nalice,3\n")

    assert (done.returncode, done.stderr) == (0, "import_users: lines that repeat an earlier one: 1\n")
    assert limits(store) == {"alice": "3", "bob": "1"}


def test_who_is_there_already_gets_the_new_limit_and_keeps_the_streams(run_import: Import, store: Any) -> None:
    for user_id, limit in {"alice": 3, "bob": 3}.items():
        store.hset(f"user:{{{user_id}}}", "limit", limit)
    for seat in (1, 2):
        store.hset(f"stream:{{bob}}:{seat}", mapping={"ref": f"R{seat}", "started_at": seat})

    done = run_import("user_id,max_streams\nalice,3\nbob,1\ncarol,2\n")

    assert done.stdout.endswith(": 3 (1 new, 1 changed, 1 unchanged)\n")
    assert limits(store) == {"alice": "3", "bob": "1", "carol": "2"}
    assert len(store.keys("stream:*")) == 2


def test_a_dry_run_says_what_would_change_and_writes_no_user(run_import: Import, store: Any) -> None:
    store.hset("user:{alice}", "limit", 1)

    done = run_import("user_id,max_streams\nalice,3\nbob,3\n", "--dry-run")

    assert done.stdout == f"Users to import into {run_import.url}: 2 (1 new, 1 changed, 0 unchanged)\n"
    assert limits(store) == {"alice": "1"}


def test_the_settings_are_those_of_the_service(run_import: Import, store: Any) -> None:
    run_import.environment |= {"STREAMLIMIT_KEY_PREFIX": "tv", "STREAMLIMIT_MAX_LIMIT": "20"}

    done = run_import("user_id,max_streams\nalice,20\n")

    assert done.stdout.startswith(f"Users imported into {run_import.url} with key prefix tv: 1 ")
    assert store.hgetall("tv:user:{alice}") == {"limit": "20"}


def test_options_go_before_the_environment(run_import: Import, store: Any) -> None:
    run_import.environment["STREAMLIMIT_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"

    done = run_import("user_id,max_streams\nalice,3\n", "--redis-url", run_import.url, "--key-prefix", "tv")

    assert (done.returncode, done.stderr) == (0, "")
    assert store.exists("tv:user:{alice}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--key-prefix", "{"], "STREAMLIMIT_KEY_PREFIX (--key-prefix): must be"),
        (["--redis-url", "memory://"], "memory:// lives in the service's own process"),
    ],
)
def test_a_bad_setting_is_one_line(run_import: Import, options: list[str], message: str) -> None:
    done = run_import("user_id,max_streams\nalice,3\n", *options)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_missing_file_of_a_secret_is_one_line(run_import: Import) -> None:
    run_import.environment["STREAMLIMIT_SECRET_FILE"] = "/nowhere"

    done = run_import("user_id,max_streams\nalice,3\n")

    assert done.returncode == 2
    assert done.stderr.splitlines() == ["import_users: STREAMLIMIT_SECRET_FILE: /nowhere: No such file or directory"]


@pytest.mark.slow
def test_a_store_out_of_reach_is_one_line_without_the_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    done = Import(tmp_path, f"redis://admin:hush@127.0.0.1:{port}/0", capsys)("user_id,max_streams\nalice,3\n")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"import_users: no usable answer from the store redis://127.0.0.1:{port}/0 (")
    assert line.endswith("): nothing was imported")
    assert "hush" not in done.stderr


def test_the_password_of_the_store_is_never_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(valkey(tmp_path)) as server:
        with Redis.from_url(server.url) as client:
            client.acl_setuser("admin", enabled=True, passwords=["+hush"], keys=["*"], commands=["+@all"])
        url = server.url.replace("//", "//admin:hush@")
        done = Import(tmp_path, url, capsys)("user_id,max_streams\nalice,3\n")

    assert done.stdout == f"Users imported into {server.url}: 1 (1 new, 0 changed, 0 unchanged)\n"
    assert "hush" not in done.stderr


def test_a_missing_file_is_one_line(run_import: Import) -> None:
    command = [*SCRIPT, "missing.csv"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=run_import.file.parent, env=run_import.environment
    )

    assert (done.returncode, done.stderr) == (1, "import_users: missing.csv: No such file or directory\n")


def test_a_file_may_come_through_a_pipe(run_import: Import, store: Any) -> None:
    command = [*SCRIPT, "-"]
    subprocess.run(command, input="user_id,max_streams\nalice,3\n", text=True, check=True, env=run_import.environment)

    assert limits(store) == {"alice": "3"}


def test_the_command_works_from_any_directory(run_import: Import, store: Any) -> None:
    run_import.write("user_id,max_streams\nalice,3\n")
    command = [str(ROOT / "scripts" / "import_users"), run_import.file.name]
    subprocess.run(command, check=True, cwd=run_import.file.parent, env=run_import.environment)

    assert limits(store) == {"alice": "3"}


def test_a_missing_package_is_one_line(run_import: Import) -> None:
    command = [sys.executable, "-IS", *SCRIPT[1:], run_import.file.name]  # without what is installed
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=run_import.environment)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"import_users: No module named '\w+': scripts/import_users installs what is missing", line)


@pytest.mark.slow
def test_in_a_terminal_a_bar_shows_the_progress(run_import: Import, store: Any) -> None:
    run_import.write(csv(MANY))
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    importing = run_import.start(stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # so Linux reports that nobody writes any more
        while part := os.read(screen, 4096):
            shown += part
    os.close(screen)
    said, _ = importing.communicate()

    assert said == f"Users imported into {run_import.url}: 10,000 (10,000 new, 0 changed, 0 unchanged)\n"
    steps = [step for step in shown.decode().split("\r") if step.startswith("Importing: ")]
    assert "0.00/10.0k" in steps[0]
    assert any(re.search(r"[1-9]\d?%.* users/s", step) for step in steps)
    assert "100%" in steps[-1]
    assert len(limits(store)) == MANY


@pytest.mark.slow
def test_after_ctrl_c_it_says_how_far_it_came_and_a_second_run_does_the_rest(run_import: Import, store: Any) -> None:
    run_import.write(csv(MANY))
    importing = run_import.start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: store.dbsize() > 100, "the first users")
    importing.send_signal(signal.SIGINT)
    said, told = importing.communicate()
    written = len(limits(store))

    assert (importing.returncode, said) == (130, "")
    rest = "users are known to be imported; run it again for the rest"
    assert told == f"import_users: interrupted: {written:,} of 10,000 {rest}\n"
    assert written < MANY
    again = run_import(csv(MANY))
    assert again.stdout.endswith(f": 10,000 ({MANY - written:,} new, 0 changed, {written:,} unchanged)\n")
    assert len(limits(store)) == MANY


@pytest.mark.slow
def test_when_the_store_goes_away_it_is_told_and_a_second_run_does_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = valkey(tmp_path, "--appendonly", "yes")
    run_import = Import(tmp_path, server.url, capsys)
    run_import.write(csv(MANY))
    with running(server), Redis.from_url(server.url, decode_responses=True) as store:
        importing = run_import.start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: store.dbsize() > 100, "the first users")
        server.stop()
        said, told = importing.communicate()

        assert (importing.returncode, said) == (1, "")
        (line,) = told.splitlines()
        assert line.startswith(f"import_users: no usable answer from the store {server.url} (")
        known = int(line.partition("): ")[2].partition(" of 10,000 users are known")[0].replace(",", ""))
        server.start()
        assert known <= len(limits(store)) < MANY
        again = run_import(csv(MANY))
        assert again.returncode == 0
        assert len(limits(store)) == MANY
