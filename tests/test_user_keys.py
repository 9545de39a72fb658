"""`streamlimit doctor --user`: what it finds in the keys of one user."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import pytest
from redis import Redis

from streamlimit import Rules
from streamlimit.cli import main
from streamlimit.connection import connect
from streamlimit.doctor import examine
from streamlimit.findings import Finding, worst
from streamlimit.stream_id import mint_ref
from streamlimit.user_keys import examine_user
from tests.cluster import Cluster
from tests.servers import RedisServer, free_port

SOUND: Final[dict[str, str | int]] = {"ref": mint_ref(3), "sig": "s" * 16, "started_at": 1_795_478_462_516}
SEAT: Final = "stream:{alice}:3"


@pytest.fixture
def store(valkey_server: RedisServer) -> Iterator[Redis]:
    with Redis(port=valkey_server.port, decode_responses=True) as client:
        client.flushall()
        yield client


def url_of(store: Redis) -> str:
    return f"redis://127.0.0.1:{store.connection_pool.connection_kwargs['port']}/0"


def examined(store: Redis, url: str = "", **rules: Any) -> dict[str, Finding]:
    async def run() -> list[Finding]:
        async with connect(url or url_of(store)) as client:
            return await examine_user(client, Rules(**rules), "alice")

    return {finding.check: finding for finding in asyncio.run(run())}


def write_stream(store: Redis, key: str = SEAT, ttl_ms: int | None = 90_000, **fields: Any) -> None:
    for name, value in (SOUND | fields).items():
        if value != "":
            store.hset(key, name, value)
    if ttl_ms:
        store.pexpire(key, ttl_ms)


def test_of_sound_keys_all_is_well(store: Redis) -> None:
    write_stream(store)
    store.hset("user:{alice}", "limit", "4")
    store.hset("ended:{alice}", mint_ref(3), "released 1795478462516")
    store.hset("ended:{alice}", mint_ref(3), "replaced\t1.x\tTV\t1\t1\t1\ttv-1\tTV\t\t1795478462516")
    store.pexpire("ended:{alice}", 600_000)
    store.set("admissions:{alice}", 7, px=60_000)
    store.hset("epoch:{0}", mapping={"id": "x", "since": 1, "recovering_until": 0})

    found = examined(store)

    assert worst([*found.values()]) == "ok"
    assert found["user:{alice}"].found == "limit 4"
    assert found["ended:{alice}"].found == "2 ended streams"
    assert found[SEAT].found.startswith(f"3.{SOUND['ref']} is live for another 90 s")
    assert found["seats"].found == "1 in use"


def test_of_no_keys_all_is_well(store: Redis) -> None:
    assert {check: one.found for check, one in examined(store).items()} == {
        "user:{alice}": "no record: the default limit holds",
        "seats": "0 in use",
    }
    assert examined(store, unknown_users="reject")["user:{alice}"].found == "no record: the user is unknown"


@pytest.mark.parametrize(
    ("key", "repair"),
    [
        (SEAT, "DELETE /v1/users/alice/streams, which ends all streams, or redis-cli DEL 'stream:{alice}:3'"),
        ("ended:{alice}", "DELETE /v1/users/alice/streams, which ends all streams, or redis-cli DEL 'ended:{alice}'"),
        ("user:{alice}", "PUT /v1/users/alice with the limit, or redis-cli DEL 'user:{alice}'"),
    ],
)
def test_a_key_of_another_type_is_a_problem(store: Redis, key: str, repair: str) -> None:
    store.rpush(key, "x")

    told = examined(store)[key]

    assert (told.state, told.advice) == ("problem", repair)
    assert "its type is list, not hash" in told.found
    assert told.node in url_of(store)


@pytest.mark.parametrize("key", ["epoch:{0}", "admissions:{alice}"])
def test_what_the_service_repairs_by_itself_is_a_warning(store: Redis, key: str) -> None:
    store.rpush(key, "x")

    told = examined(store)[key]

    assert told.state == "warning"
    assert told.advice.startswith("none is needed")


@pytest.mark.parametrize(
    ("ttl_ms", "fields", "found", "advice"),
    [
        (90_000, {"ref": ""}, "it has no usable ref", "DELETE /v1/users/alice/streams/3.no-ref-in-seat-0003"),
        (90_000, {"ref": "short"}, "it has no usable ref", "DELETE /v1/users/alice/streams/3.no-ref-in-seat-0003"),
        (90_000, {"sig": ""}, "it has no usable sig", f"DELETE /v1/users/alice/streams/3.{SOUND['ref']}"),
        (90_000, {"started_at": "noon"}, "its started_at is no time", "DELETE"),
        (None, {}, "it has no TTL and never ends by itself", "DELETE"),
        (600_000, {}, "its TTL is longer than TTL_SECONDS (90)", "DELETE"),
    ],
)
def test_a_stream_written_by_hand_is_a_warning(
    store: Redis, ttl_ms: int | None, fields: dict[str, str], found: str, advice: str
) -> None:
    write_stream(store, ttl_ms=ttl_ms, **fields)

    told = examined(store)[SEAT]

    assert told.state == "warning"
    assert found in told.found
    assert told.advice.startswith(advice)


def test_a_seat_above_the_seats_is_a_warning_and_is_not_counted(store: Redis) -> None:
    write_stream(store, "stream:{alice}:11")

    found = examined(store)

    assert "above MAX_LIMIT (10)" in found["stream:{alice}:11"].found
    assert found["stream:{alice}:11"].advice.startswith("redis-cli DEL 'stream:{alice}:11'")
    assert found["seats"].found == "0 in use"
    assert examined(store, max_limit=11)["stream:{alice}:11"].state == "ok"


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ("abc", "its limit is no whole number: the default limit holds"),
        ("nan", "its limit is no whole number: the default limit holds"),
        ("50", "limit 50 is outside 0 to MAX_LIMIT (10) and counts as the nearest"),
        ("-1", "limit -1 is outside 0 to MAX_LIMIT (10) and counts as the nearest"),
    ],
)
def test_a_limit_that_counts_as_another_is_a_warning(store: Redis, limit: str, found: str) -> None:
    store.hset("user:{alice}", "limit", limit)

    told = examined(store)["user:{alice}"]

    assert (told.state, told.found) == ("warning", found)


def test_a_record_that_goes_away_is_a_warning(store: Redis) -> None:
    store.hset("user:{alice}", "limit", 4)
    store.pexpire("user:{alice}", 60_000)

    assert examined(store)["user:{alice}"].found == "the limit goes away in 60 s: a record should have no TTL"


@pytest.mark.parametrize(
    ("entries", "ttl_ms", "found"),
    [
        ({"x": "because"}, 600_000, "1 without reason and time"),
        ({"x": "released 1"}, None, "it has no TTL"),
        ({str(number): "released 1" for number in range(65)}, 600_000, "65 ended streams, at most 64 are kept"),
    ],
)
def test_ended_streams_written_by_hand_are_a_warning(
    store: Redis, entries: dict[str, str], ttl_ms: int | None, found: str
) -> None:
    for ref, entry in entries.items():
        store.hset("ended:{alice}", ref, entry)
    if ttl_ms:
        store.pexpire("ended:{alice}", ttl_ms)

    told = examined(store)["ended:{alice}"]

    assert told.state == "warning"
    assert found in told.found


@pytest.mark.parametrize(("kind", "state"), [("hash", "ok"), ("string", "problem")])
def test_without_permission_for_type_it_still_tells_what_is_no_hash(store: Redis, kind: str, state: str) -> None:
    write_stream(store) if kind == "hash" else store.set(SEAT, "x")
    store.acl_setuser("looking", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-type"])

    found = examined(store, url_of(store).replace("//", "//looking:x@"))

    store.acl_deluser("looking")
    assert found[SEAT].state == state


def test_it_writes_nothing(store: Redis) -> None:
    write_stream(store, ttl_ms=None)
    store.rpush("user:{alice}", "x")
    before = {key: store.dump(key) for key in store.scan_iter()}

    examined(store)

    assert {key: store.dump(key) for key in store.scan_iter()} == before


def test_a_server_that_is_not_there_is_told_in_one_finding(store: Redis) -> None:
    found = examined(store, f"redis://127.0.0.1:{free_port()}/0")

    assert [(one.check, one.state) for one in found.values()] == [("reachable", "problem")]


@pytest.mark.slow
def test_on_a_cluster_the_server_of_the_user_is_examined(empty_cluster: Cluster) -> None:
    async def run() -> list[Finding]:
        async with connect(empty_cluster.url()) as client:
            await client.set("user:{alice}", "x")
            return await examine_user(client, Rules(), "alice")

    found = {finding.check: finding for finding in asyncio.run(run())}

    assert found["user:{alice}"].state == "problem"
    assert found["user:{alice}"].node == found["seats"].node != ""


def test_the_command_examines_one_user(store: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    store.set(SEAT, "x")

    code = main(["doctor", "--redis-url", url_of(store), "--user", "alice"])

    assert code == 1
    assert "problem  stream:{alice}:3" in capsys.readouterr().out


def test_a_user_that_cannot_be_one_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--user", "a b"]) == 2
    assert "--user: must be 1 to 128" in capsys.readouterr().err


def test_the_examination_of_the_store_says_that_its_epoch_is_damaged(store: Redis) -> None:
    store.set("epoch:{0}", "x")

    async def run() -> list[Finding]:
        async with connect(url_of(store)) as client:
            return await examine(client, Rules())

    (told,) = [finding for finding in asyncio.run(run()) if finding.check == "recovery"]

    assert told.state == "warning"
    assert "epoch:{0} or another epoch key is no hash" in told.found
