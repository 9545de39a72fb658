"""The Redis users that the documents describe may do what is needed, and nothing else."""

import asyncio
import dataclasses
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis, RedisCluster
from redis.exceptions import ResponseError

from streamlimit import (
    Admission,
    DamagedKey,
    EndedBy,
    Lease,
    Recovering,
    Rules,
    StoreUnavailable,
    StreamEnded,
    StreamTracker,
    TooManyAdmissions,
    hash_slots,
)
from streamlimit.connection import connect
from streamlimit.doctor import examine
from streamlimit.findings import Finding
from streamlimit.keys import Keys
from streamlimit.permissions import NEEDED
from tests.conftest import RULES, SECRET
from tests.documents import ROOT, blocks
from tests.servers import RedisServer

README: Final = ROOT / "README.md"
OPERATORS: Final = ROOT / "docs" / "redis-cli.md"
PASSWORD: Final = "PASSWORD"

FOR_EVERYBODY: Final = {"auth", "hello", "quit", "reset"}
"""What Redis lets everybody run, before they have said who they are, too."""


def run(client: Redis, *command: str | int) -> Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def granted(document: Path, user: str) -> list[list[str]]:
    """The rules of a user, as its document has them: those of each ACL SETUSER."""
    lines = "".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    rules = [shlex.split(line.partition(f"ACL SETUSER {user} ")[2], comments=True) for line in lines]
    return [some for some in rules if some]


def set_up(operator: Redis, document: Path, user: str) -> None:
    run(operator, "ACL", "DELUSER", user)
    first, *others = granted(document, user)
    run(operator, "ACL", "SETUSER", user, *first)
    for rules in others:
        try:
            run(operator, "ACL", "SETUSER", user, *rules)
        except ResponseError:
            assert operator.info("server")["redis_version"].startswith("7.0.")
    operator.acl_log_reset()


@pytest.fixture(params=["valkey", "redis"])
def operator(request: pytest.FixtureRequest) -> Iterator[Redis]:
    """An administrator of a server that has the users of the documents, and no keys."""
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    with Redis(port=server.port, decode_responses=True) as client:
        client.flushall()
        set_up(client, README, "streamlimit")
        set_up(client, OPERATORS, "operator")
        yield client
        client.execute_command("ACL", "DELUSER", "streamlimit", "operator")


def url(operator: Redis, user: str = "streamlimit") -> str:
    return f"redis://{user}:{PASSWORD}@127.0.0.1:{operator.connection_pool.connection_kwargs['port']}/0"


async def contract(operator: Redis | RedisCluster, url: str) -> None:
    """Everything that the service does on its store, down to the last branch of its scripts."""
    operator.flushall()
    operator.script_flush()
    async with StreamTracker.from_url(url, [SECRET], RULES) as tracker:
        operator.hset("epoch:{0}", "secret:forgotten", "1")
        await tracker.health()
        first = await tracker.admit("alice", device_id="tv-1")
        assert isinstance(first, Admission)
        operator.pexpire("stream:{alice}:1", 1_000)  # else a heartbeat so soon writes nothing
        assert isinstance(await tracker.heartbeat("alice", first.lease.stream_id), Lease)
        operator.delete("stream:{alice}:1")
        assert isinstance(await tracker.heartbeat("alice", first.lease.stream_id), Lease)
        operator.hset("ended:{alice}", mapping={f"{number}": f"expired {number}" for number in range(64)})
        second = await tracker.admit("alice", take_over=first.stream.stream_ref)
        assert isinstance(second, Admission)
        assert await tracker.heartbeat("alice", first.lease.stream_id) == StreamEnded(
            "taken_over", EndedBy(second.stream.stream_ref)
        )
        assert operator.hlen("ended:{alice}") == 64
        await tracker.release("alice", second.lease.stream_id)
        await tracker.release("alice", second.lease.stream_id)
        assert isinstance(await tracker.admit("alice"), Admission)
        assert len(await tracker.set_user_limit("alice", 0, end_excess=True)) == 1
        assert (await tracker.list("alice")).limit == 0
        assert await tracker.delete_user("alice")
        assert (await tracker.check("alice")).admissible
        for key in ("user:{alice}", "ended:{alice}", "stream:{alice}:1"):
            operator.delete(key)
            operator.set(key, "by hand")
        with pytest.raises(DamagedKey):
            await tracker.admit("alice")
        await tracker.set_user_limit("alice", 1, end_excess=True)
        assert isinstance(await tracker.admit("alice"), Admission)
        operator.flushall()
        assert (await tracker.health()).recovering_ms > 0
        tags = hash_slots.tags() if isinstance(operator, RedisCluster) else ("0",)
        operator.set(Keys("", 10, tags).all_of("alice")[2], "by hand")  # its epoch
        assert isinstance(await tracker.admit("alice"), Recovering)
    async with StreamTracker.from_url(url, [SECRET], dataclasses.replace(RULES, admissions_per_minute=1)) as tracker:
        operator.set("admissions:{bob}", "by hand")
        await tracker.admit("bob")
        assert isinstance(await tracker.admit("bob"), TooManyAdmissions)


def failure(operator: Redis) -> BaseException | None:
    """How the contract fails, if it does."""
    try:
        asyncio.run(contract(operator, url(operator)))
    except (StoreUnavailable, AssertionError) as error:
        return error
    return None


def test_where_scripts_cannot_be_loaded_they_run_by_eval_and_the_log_says_so_once(
    operator: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a proxy: Envoy, twemproxy and Codis know no SCRIPT LOAD."""
    run(operator, "ACL", "SETUSER", "streamlimit", "-script|load", "+eval")
    asyncio.run(contract(operator, url(operator)))

    assert caplog.text.count("scripts run by EVAL") == 2, "once for each of the two trackers"


def examined(operator: Redis, database: int = 0) -> dict[str, Finding]:
    async def examine_it() -> list[Finding]:
        async with connect(url(operator).replace("/0", f"/{database}")) as client:
            return await examine(client, Rules())

    return {one.check: one for one in asyncio.run(examine_it())}


def allowed(operator: Redis, user: str) -> set[str]:
    """Every command that the user may run, on whatever keys."""
    names: dict[str, int] = {}
    for command in run(operator, "COMMAND").values():
        names[command["name"]] = abs(command["arity"])
        for subcommand in command.get("subcommands", []):
            name, arity, *_ = subcommand
            names[str(name)] = abs(int(arity))
    may = set()
    for name, arity in names.items():
        words = name.split("|")
        try:
            answer = str(run(operator, "ACL", "DRYRUN", user, *words, *["1"] * (arity - len(words))))
        except ResponseError as error:
            if "not found" not in str(error):
                raise
            continue  # the first of two words, which alone is no command
        if not re.search(r"no permissions to run|can't run", answer):
            may.add(name)
    return may


def commands(rules: Sequence[Sequence[str]]) -> set[str]:
    return {rule.removeprefix("+") for some in rules for rule in some if rule.startswith("+")}


def known(operator: Redis, names: set[str]) -> set[str]:
    """Those that this version has."""
    return names - ({"client|setinfo"} if "valkey_version" not in operator.info("server") else set())


def test_the_user_of_the_readme_may_do_the_whole_contract(operator: Redis) -> None:
    assert failure(operator) is None
    assert operator.acl_log() == []


def test_the_doctor_gets_on_with_the_user_of_the_readme(operator: Redis) -> None:
    findings = examined(operator)

    told = findings["permissions"]
    assert (told.state, told.found) == ("ok", "user streamlimit: all commands of the scripts, on all their keys")
    assert findings["maxmemory-policy"].state == "ok"
    assert {one.check for one in findings.values() if one.state == "skipped"} == {"appendfsync", "timeout"}
    assert {entry["object"] for entry in operator.acl_log()} == {"config|get"}


def test_without_any_one_of_its_commands_something_is_refused(operator: Redis) -> None:
    for name in known(operator, commands(granted(README, "streamlimit"))):
        operator.acl_log_reset()
        run(operator, "ACL", "SETUSER", "streamlimit", f"-{name}")

        assert failure(operator) is not None or operator.acl_log() != [], name

        run(operator, "ACL", "SETUSER", "streamlimit", f"+{name}")


@pytest.mark.parametrize("kind", NEEDED)
def test_without_any_one_kind_of_keys_something_is_refused(operator: Redis, kind: str) -> None:
    others = [f"~{other}:*" for other in NEEDED if other != kind]
    run(operator, "ACL", "SETUSER", "streamlimit", "resetkeys", *others)

    assert failure(operator) is not None


def test_it_may_run_no_other_command(operator: Redis) -> None:
    expected = known(operator, commands(granted(README, "streamlimit"))) | FOR_EVERYBODY

    assert allowed(operator, "streamlimit") == expected


@pytest.mark.parametrize("key", ["stream", "streams:{alice}", "other:{alice}", "tv:stream:{alice}:1", "session:1"])
def test_it_may_use_no_other_key(operator: Redis, key: str) -> None:
    for command in (("HGETALL",), ("HSET",), ("DEL",)):
        arguments = [key, "field", "value"] if command == ("HSET",) else [key]
        assert "OK" not in str(run(operator, "ACL", "DRYRUN", "streamlimit", *command, *arguments))


def test_the_doctor_names_each_command_that_is_missing(operator: Redis) -> None:
    used = {command.lower() for commands_of_a_kind in NEEDED.values() for command in commands_of_a_kind}
    for name in used | {"time", "evalsha", "script|load", "client|setname"}:
        run(operator, "ACL", "SETUSER", "streamlimit", f"-{name}")

        findings = examined(operator)

        assert findings["permissions"].state == "problem", name
        assert findings["permissions"].found == f"user streamlimit may not run {name}"
        assert f"ACL SETUSER streamlimit '+{name}'" in findings["permissions"].advice
        assert findings["scripts"].state == "skipped"
        run(operator, "ACL", "SETUSER", "streamlimit", f"+{name}")


@pytest.mark.parametrize("kind", NEEDED)
def test_the_doctor_names_the_keys_that_are_missing(operator: Redis, kind: str) -> None:
    others = [f"~{other}:*" for other in NEEDED if other != kind]
    run(operator, "ACL", "SETUSER", "streamlimit", "resetkeys", *others)

    told = examined(operator)["permissions"]

    assert (told.state, told.found) == ("problem", f"user streamlimit may not use the keys {kind}:*")
    assert f"'~{kind}:*'" in told.advice


def test_another_database_needs_select(operator: Redis) -> None:
    assert examined(operator, database=1)["permissions"].found == "user streamlimit may not run select"

    run(operator, "ACL", "SETUSER", "streamlimit", "+select")
    assert examined(operator, database=1)["permissions"].state == "ok"


def test_what_the_doctor_is_not_told_it_skips(operator: Redis) -> None:
    run(operator, "ACL", "SETUSER", "streamlimit", "-info")

    findings = examined(operator)

    skipped = {one.check for one in findings.values() if one.state == "skipped"}
    assert skipped >= {"version", "maxmemory-policy", "maxmemory", "persistence", "replicas", "timeout"}
    assert all("redis-cli" in findings[check].advice for check in skipped)
    assert findings["permissions"].state == "ok"


def test_the_scripts_use_just_what_the_table_of_permissions_has(operator: Redis) -> None:
    with operator.monitor() as monitor:  # type: ignore[no-untyped-call]
        assert failure(operator) is None
        operator.echo("the end")
        used: set[tuple[str, str]] = set()
        for event in monitor.listen():
            name, _, arguments = event["command"].partition(" ")
            if name.upper() == "ECHO":
                break
            kinds = re.findall(r"\b(stream|user|ended|epoch|admissions):\{", arguments)
            if event["client_type"] == "lua" or name == "DEL":
                used |= {(kind, name.upper()) for kind in kinds}

    assert used == {(kind, name) for kind, names in NEEDED.items() for name in names}


def test_the_operators_user_may_run_no_command_that_writes(operator: Redis) -> None:
    may = allowed(operator, "operator")

    assert may == commands(granted(OPERATORS, "operator")) | FOR_EVERYBODY
    flags: dict[str, Any] = {name: command["flags"] for name, command in run(operator, "COMMAND").items()}
    assert not any("write" in flags[name.partition("|")[0]] for name in may)


def test_the_operators_user_may_not_write_by_a_script(operator: Redis) -> None:
    with Redis.from_url(url(operator, "operator")) as looking, pytest.raises(ResponseError):
        run(looking, "EVAL_RO", "redis.call('HSET', KEYS[1], 'limit', 9)", 1, "user:{alice}")

    assert operator.keys() == []


def test_the_operators_user_sees_only_the_keys_of_the_service(operator: Redis) -> None:
    operator.hset("session:{alice}", "secret", "word")
    with Redis.from_url(url(operator, "operator")) as looking, pytest.raises(ResponseError):
        looking.hgetall("session:{alice}")
