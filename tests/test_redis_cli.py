"""docs/redis-cli.md does not lie: its commands are run against real servers, and do to players what it says."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

from tests.conftest import missing
from tests.documents import ROOT, blocks, check_commands, commands, run
from tests.servers import Service, redis7, running, serving, wait_for

pytestmark = pytest.mark.slow

PAGE: Final = ROOT / "docs" / "redis-cli.md"
REFS: Final = list(dict.fromkeys(re.findall(r"\bAaI[\w-]{16}\b", PAGE.read_text())))
CHANCE: Final = {
    r"\b\d{13}$": "UNIX_MS",
    r"(?<=\t)\d{13}(?=\t)": "UNIX_MS",
    r"(?<=^\d:)\d{5}(?=\t)": "PTTL",
    r"(?<=   2\) \(integer\) )\d{5}$": "PTTL",
    r"^\d{5}$": "PTTL",
    r"^[0-9a-f]{16}$": "EPOCH",
    r"^secret:[0-9a-f]{12}$": "SECRET",
    r"^\d+ \d+ \d+\.\d\d \d+$": "LATENCY",
    r"^(uptime_in_seconds|connected_clients):\d+$": r"\1:NUMBER",
    r"^(used_memory_human):[\d.]+[KM]$": r"\1:SIZE",
}


@dataclass
class Scene:
    """The users of the page, and the store behind the service."""

    service: Service
    store: Any
    replace: dict[str, str]

    def admit(self, user_id: str, **body: Any) -> Any:
        return self.service.http.post(f"/v1/users/{user_id}/streams", json=body)

    def admits(self, user_id: str) -> bool:
        """Whether it would admit the user now."""
        answer: bool = self.service.http.get(f"/v1/users/{user_id}/admission").json()["admissible"]
        return answer

    def beat(self, user_id: str, stream_id: str) -> tuple[int, str | None]:
        """The status, and the reason where the stream has ended."""
        answer = self.service.http.post(f"/v1/users/{user_id}/streams/{stream_id}/heartbeat")
        return answer.status_code, answer.json().get("reason")

    def answer(self, part: str) -> str:
        """What the one command of the page that holds this part answers."""
        connection, *others = [command for command, _ in commands(PAGE)]
        (command,) = [command for command in others if part in command]
        return run([connection, command], self.replace)[1]


def writes(command: str) -> bool:
    return "--eval" in command or "hset" in command or "redis-cli del" in command


@pytest.fixture(params=["embedded", "redis"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    for tool in ("curl", "redis-cli"):
        if shutil.which(tool) is None:
            missing(tool)
    with ExitStack() as stack:
        if request.param == "embedded":
            service = Service(tmp_path)
            port = service.embedded_port
        else:
            server = redis7(tmp_path, "--appendonly", "yes")
            if server is None:
                missing("redis-server")
            stack.enter_context(running(server))
            service = Service(tmp_path, "--redis-url", server.url)
            port = server.port
        stack.enter_context(serving(service))
        store = stack.enter_context(Redis(port=port, decode_responses=True))
        store.config_set("slowlog-log-slower-than", 1_000_000)  # the machine of a test may be busy
        yield Scene(service, store, {"8080": str(service.port), "6390": str(port)})


@pytest.fixture
def streams(scene: Scene) -> list[str]:
    """The scene of the page: the stream ids, in the order in which it tells of them."""
    for user_id, limit in {"alice": 3, "carol": 1, "dave": 5}.items():
        scene.service.http.put(f"/v1/users/{user_id}", json={"limit": limit})
    television = {"device_id": "tv-1", "device_name": "Living-room TV", "content_id": "film-7"}
    admissions = [
        replaced := scene.admit("alice", **television),
        scene.admit("alice", **television),
        scene.admit("alice", device_id="phone-1", device_name="Zoë's phone", content_id="series-3"),
        scene.admit("alice", device_id="tablet-1"),
        scene.admit("bob", device_id="phone-2", device_name="Bob's phone", content_id="film-7"),
        scene.admit("bob"),
    ]
    admissions[:4] = [*admissions[1:4], replaced]
    for user_id, count in {"carol": 1, "dave": 3, "auth0|erin": 3}.items():
        for _ in range(count):
            assert scene.admit(user_id).status_code == 201
    scene.store.set("admissions:{alice}", 130, px=59_000)
    scene.store.set("user:{frank}", 5)
    stream_ids: list[str] = [admission.json()["stream_id"] for admission in admissions]
    scene.replace |= dict(zip(REFS, [stream_id.split(".")[1] for stream_id in stream_ids], strict=True))
    return stream_ids


@pytest.mark.usefixtures("streams")
def test_the_commands_of_the_page_answer_as_it_says(scene: Scene) -> None:
    check_commands(PAGE, scene.replace, CHANCE)


@pytest.mark.usefixtures("streams")
def test_the_user_who_can_only_look_may_run_every_command_but_those_that_write(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (set_up,) = [block for block in blocks(PAGE, "sh") if "ACL SETUSER operator" in block]
    run([set_up], {"6379": scene.replace["6390"]})
    scene.store.acl_log_reset()
    connection, *others = [command for command, _ in commands(PAGE)]
    monkeypatch.setenv("REDISCLI_AUTH", "PASSWORD")
    run([connection, *[one for one in others if not writes(one)]], scene.replace | {"--raw": "--user operator --raw"})

    assert scene.store.acl_log() == []


@pytest.mark.usefixtures("streams")
def test_the_user_who_can_only_look_may_run_no_command_that_writes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (set_up,) = [block for block in blocks(PAGE, "sh") if "ACL SETUSER operator" in block]
    run([set_up], {"6379": scene.replace["6390"]})
    before = scene.store.dbsize()
    connection, *others = [command for command, _ in commands(PAGE)]
    monkeypatch.setenv("REDISCLI_AUTH", "PASSWORD")
    looking = scene.replace | {"--raw": "--user operator --raw"}
    _, *answers = run([connection, *[one for one in others if writes(one)]], looking)

    assert len(answers) == 4
    assert all("NOPERM" in answer for answer in answers)
    assert scene.store.dbsize() == before


def test_a_freed_seat_stays_free(scene: Scene, streams: list[str]) -> None:
    freed = streams[1]
    assert scene.answer("release.lua") == "1"

    assert scene.beat("alice", freed) == (410, "terminated")
    scene.store.hset("epoch:{0}", "recovering_until", time.time_ns() // 1_000_000 + 60_000)
    assert scene.beat("alice", freed) == (410, "terminated")
    assert scene.store.exists("stream:{alice}:2") == 0
    assert [scene.beat("alice", other)[0] for other in (streams[0], streams[2])] == [200, 200]


def test_a_bare_del_does_not_last(scene: Scene, streams: list[str]) -> None:
    scene.store.delete("stream:{alice}:2")

    assert scene.beat("alice", streams[1]) == (200, None)
    assert scene.store.exists("stream:{alice}:2") == 1


def test_everything_of_bob_ends(scene: Scene, streams: list[str]) -> None:
    scene.answer("trim.lua")

    assert [scene.beat("bob", stream_id) for stream_id in streams[4:]] == [(410, "terminated")] * 2
    assert scene.admit("bob").status_code == 201
    assert scene.beat("alice", streams[0]) == (200, None)


def test_bob_is_kept_out_by_limit_0_in_place_of_the_last_argument(scene: Scene, streams: list[str]) -> None:
    scene.replace[" 0 terminated 30000 ''"] = " 0 terminated 30000 0"
    scene.answer("trim.lua")

    assert [scene.beat("bob", stream_id) for stream_id in streams[4:]] == [(410, "terminated")] * 2
    assert scene.admit("bob").json()["type"] == "urn:streamlimit:limit-reached"


@pytest.mark.usefixtures("streams")
def test_a_raised_limit_admits_one_more(scene: Scene) -> None:
    assert scene.admit("alice").status_code == 409
    scene.answer("hset 'user:{alice}' limit")

    assert [scene.admit("alice").status_code for _ in range(2)] == [201, 409]


def test_the_users_at_their_limit_are_found_whatever_they_are_called(scene: Scene) -> None:
    users: dict[str, tuple[str | None, int]] = {
        "default-below": (None, 2),
        "a:1": (None, 3),
        "auth0|a:1@b.c+d=e~": ("4", 4),
        "-x": ("4", 3),
        "007": ("1", 1),
        "1e3": ("2", 1),
        "=": ("0", 1),
        "many": ("50", 10),
        "no-number": ("abc", 3),
        "fraction": (" 2.9", 2),
        "negative": ("-1", 1),
    }
    for user_id, (limit, live) in users.items():
        for _ in range(live):
            assert scene.admit(user_id, limit=10).status_code == 201
        if limit is not None:
            scene.store.hset(f"user:{{{user_id}}}", "limit", limit)

    found = {line.rpartition(": ")[0] for line in scene.answer("int($3)").splitlines()}

    assert found == {user_id for user_id in users if not scene.admits(user_id)}
    assert len(found) == 8


def test_damaged_keys_are_found_whatever_their_users_are_called(scene: Scene, streams: list[str]) -> None:
    assert scene.beat("alice", streams[0]) == (200, None)
    damaged = {"stream:{auth0|a:1@b.c+d=e~}:3": "string", "ended:{-x}": "string", "epoch:{7}": "string"}
    for key in damaged:
        scene.store.set(key, "x")
    scene.store.rpush("admissions:{=}", "x")
    scene.store.set("session:{alice}", "another program's")

    found = dict(line.split("\t") for line in scene.answer("$2 != (").splitlines())

    assert found == damaged | {"admissions:{=}": "list", "user:{frank}": "string"}


def test_recovery_is_told_with_the_seconds_left(scene: Scene, streams: list[str]) -> None:
    assert scene.answer("'recovering_until'") == "0"
    scene.store.flushall()
    wait_for(lambda: scene.admit("alice").status_code == 503, "recovery")

    assert 1 <= int(scene.answer("'recovering_until'")) <= 91
    assert scene.beat("alice", streams[0]) == (200, None)
