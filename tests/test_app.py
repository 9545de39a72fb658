"""The HTTP contract, route by route: what callers send and what they get."""

import json
import re
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

import streamlimit
from streamlimit import StoreUnavailable, StreamTracker, problems, readiness
from streamlimit.openapi import document
from streamlimit.results import StreamEnded
from tests.conftest import Serve
from tests.helpers import until
from tests.web import (
    ADMISSION,
    ALICE,
    ENDED,
    INVENTED,
    JSON,
    LEASE,
    LISTED,
    MALFORMED_IDS,
    PLAYBACK,
    PROBLEM,
    STREAMS,
    legacy_error,
    no_content,
    nothing_is_stored,
    ok,
    problem,
    raising,
    refs,
    started,
)

pytestmark = pytest.mark.anyio


# Admission.


async def test_an_admission_has_all_that_its_player_needs(http: httpx2.AsyncClient) -> None:
    body = await started(http, device_id="tv-1", device_name="Wohnzimmer 📺", content_id="match-1")

    assert body["stream_id"].startswith(body["stream_ref"] + ".")
    assert (body["user_id"], body["seat"], body["live"], body["limit"]) == ("alice", 1, 1, 3)
    assert (body["device_id"], body["device_name"], body["content_id"]) == ("tv-1", "Wohnzimmer 📺", "match-1")
    assert (body["ttl_seconds"], body["over_limit"], body["ended"]) == (90, False, [])
    assert 0.85 * 30 <= body["heartbeat_seconds"] <= 0.95 * 30
    for time in (body["started_at"], body["expires_at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)


async def test_a_stream_is_shown_without_what_hides_in_its_names(http: httpx2.AsyncClient) -> None:
    body = await started(http, device_name="Kids' \u202eTV", content_id="match\u200b-1")

    assert (body["device_name"], body["content_id"]) == ("Kids' TV", "match-1")
    (listed,) = (await http.get(STREAMS)).json()["streams"]
    assert (listed["device_name"], listed["content_id"]) == ("Kids' TV", "match-1")


async def send_and_go_away(http: httpx2.AsyncClient, *headers: tuple[bytes, bytes], body: bytes = b"{}") -> None:
    """Ask for admission, as a client that is gone before the answer."""
    arriving = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return arriving.pop() if arriving else {"type": "http.disconnect"}

    async def send(_: object) -> None:
        pass

    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "scheme": "http", "method": "POST", "path": STREAMS}
    scope |= {"query_string": b"", "headers": [(b"content-type", b"application/json"), *headers]}
    await http._transport.app(scope, receive, send)  # type: ignore[attr-defined] # of httpx2.ASGITransport


async def test_an_admission_whose_client_has_gone_holds_no_seat_unless_the_client_may_come_back_for_it(
    http: httpx2.AsyncClient, fake_redis: Redis
) -> None:
    await send_and_go_away(http, (b"idempotency-key", b"k"))
    await send_and_go_away(http, body=b'{"device_id": "tv-1"}')
    await send_and_go_away(http)

    ended = await until(lambda: fake_redis.hvals("ended:{alice}"))
    assert [reason.split()[0] for reason in ended] == ["released"]
    assert [ref[0] for ref in await refs(http)] == ["1", "2"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"headers": {"Content-Type": "text/plain"}},
        {"content": b"{}", "headers": {"Content-Type": "Application/JSON; charset=utf-8"}},
        {"json": {"device_id": None, "device_name": None, "content_id": None, "take_over": None, "limit": None}},
        {"json": {"device_id": "~" * 64, "device_name": "ü" * 32, "content_id": "c" * 64, "limit": 10}},
        {"headers": {"Idempotency-Key": '"' + "~" * 254}},
    ],
    ids=["no body", "no body of a type", "charset", "null fields", "longest fields", "longest key"],
)
async def test_all_of_an_admission_is_optional(http: httpx2.AsyncClient, options: dict[str, Any]) -> None:
    ok(await http.post(STREAMS, **options), ADMISSION, 201)


@pytest.mark.parametrize("user_id", ["alice", "a%40b.c", "%7E%7C%3A%2B%3D-_.", "~|:+=@", "..a", "9" * 128])
async def test_the_location_of_an_admission_can_be_followed(http: httpx2.AsyncClient, user_id: str) -> None:
    location = (await http.post(f"/v1/users/{user_id}/streams")).headers["location"]

    assert (await http.get(location)).json()["seat"] == 1
    no_content(await http.delete(location))
    problem(await http.get(location), 410, "stream-ended")


async def test_at_the_limit_the_live_streams_are_shown_and_none_of_their_ids(http: httpx2.AsyncClient) -> None:
    streams = [await started(http, device_name=f"TV {number}") for number in range(3)]

    answer = await http.post(STREAMS)

    body = problem(answer, 409, "limit-reached")
    assert set(body) == PROBLEM | {"limit", "live", "streams"}
    assert (body["limit"], body["live"]) == (3, 3)
    assert [set(one) for one in body["streams"]] == [LISTED] * 3
    assert [one["stream_ref"] for one in body["streams"]] == [one["stream_ref"] for one in streams]
    assert [one["device_name"] for one in body["streams"]] == ["TV 0", "TV 1", "TV 2"]
    assert not any(sig_of(one) in answer.text for one in streams)


def sig_of(admission: Any) -> str:
    return str(admission["stream_id"].split(".")[2])


async def test_a_refusal_says_when_the_first_stream_would_expire(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    for _ in range(3):
        await started(http)
    await fake_redis.pexpire("stream:{alice}:2", 60_000)

    assert 30 < int((await http.post(STREAMS)).headers["retry-after"]) <= 60


@pytest.mark.parametrize(("milliseconds", "seconds"), [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (90_000, "90")])
def test_retry_after_is_whole_seconds_and_at_least_one(milliseconds: int, seconds: str) -> None:
    assert problems.retry_after(milliseconds) == {"Retry-After": seconds}


async def test_an_unknown_user_is_refused_where_unknown_users_are(serve: Serve, fake_redis: Redis) -> None:
    http = await serve(unknown_users="reject")

    problem(await http.post(STREAMS), 404, "unknown-user", "user_id")

    assert await nothing_is_stored(fake_redis)


async def test_a_new_admission_waits_after_a_loss(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    await fake_redis.flushall()

    answer = await http.post(STREAMS)

    problem(answer, 503, "recovering")
    assert 30 < int(answer.headers["retry-after"]) <= 90
    assert await nothing_is_stored(fake_redis)


async def test_an_admission_that_ended_before_its_answer_says_so(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def admit(*_: Any, **__: Any) -> StreamEnded:
        return StreamEnded("terminated")

    monkeypatch.setattr(StreamTracker, "admit", admit)

    assert problem(await http.post(STREAMS), 410, "stream-ended")["reason"] == "terminated"


@pytest.mark.parametrize(
    ("body", "reason"),
    [({"device_id": "tv"}, "replaced"), ({"take_over": ""}, "taken_over"), ({"on_limit": "evict"}, "evicted")],
)
async def test_an_admission_tells_what_it_ended_and_why(
    http: httpx2.AsyncClient, body: dict[str, str], reason: str
) -> None:
    first = await started(http, device_id="tv")
    for _ in range(2):
        await started(http)

    answer = await started(http, **{name: value or first["stream_ref"] for name, value in body.items()})

    (ended,) = answer["ended"]
    assert set(ended) == ENDED
    assert (ended["stream_ref"], ended["reason"]) == (first["stream_ref"], reason)
    assert sig_of(first) not in json.dumps(answer)
    gone = problem(await http.post(f"{STREAMS}/{first['stream_id']}/heartbeat"), 410, "stream-ended")
    assert gone["reason"] == reason


async def test_the_limit_of_a_back_end_goes_over_the_record(http: httpx2.AsyncClient) -> None:
    await http.put(ALICE, json={"limit": 0})

    assert (await started(http, limit=1))["limit"] == 1


async def test_the_same_idempotency_key_gives_the_same_stream(http: httpx2.AsyncClient) -> None:
    first = await started(http, key="k", device_id="tv-1")
    again = await started(http, key="k", device_id="tv-2", on_limit="evict")

    assert (again["stream_id"], again["device_id"]) == (first["stream_id"], "tv-1")
    assert (again["live"], again["ended"]) == (1, [])


async def test_idempotency_keys_are_taken_literally(http: httpx2.AsyncClient) -> None:
    ids = {(await started(http, key=key))["stream_id"] for key in ("k", '"k"', "K")}
    assert len(ids) == 3


# Heartbeat and release: no body, any body.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"content": b"bye", "headers": {"Content-Type": "text/plain;charset=UTF-8"}},
        {"content": b"{", "headers": JSON},
        {"data": {"a": "b"}},
        {"content": b"\xff\x00"},
    ],
    ids=["no body", "sendBeacon", "JSON", "form", "no type"],
)
async def test_heartbeat_and_release_take_any_body(http: httpx2.AsyncClient, options: dict[str, Any]) -> None:
    stream = f"{STREAMS}/{(await started(http))['stream_id']}"

    ok(await http.post(f"{stream}/heartbeat", **options), LEASE)
    no_content(await http.post(f"{stream}/release", **options))
    assert await refs(http) == []


async def test_a_heartbeat_gives_a_lease_for_one_more_ttl(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    admission = await started(http)
    await fake_redis.pexpire("stream:{alice}:1", 20_000)

    lease = ok(await http.post(f"{STREAMS}/{admission['stream_id']}/heartbeat"), LEASE)

    assert await fake_redis.pttl("stream:{alice}:1") > 20_000
    assert (lease["stream_id"], lease["ttl_seconds"]) == (admission["stream_id"], 90)
    assert lease["expires_at"] >= admission["expires_at"]
    assert 0.85 * 30 <= lease["heartbeat_seconds"] <= 0.95 * 30


async def test_a_heartbeat_brings_a_lost_stream_back(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    stream_id = (await started(http))["stream_id"]
    await fake_redis.flushall()

    assert ok(await http.post(f"{STREAMS}/{stream_id}/heartbeat"), LEASE)["stream_id"] == stream_id


@pytest.mark.parametrize(
    ("method", "path", "body", "reason"),
    [
        ("POST", f"{STREAMS}/ID/release", None, "released"),
        ("DELETE", f"{STREAMS}/ID", None, "released"),
        ("DELETE", f"{STREAMS}/REF", None, "terminated"),
        ("DELETE", STREAMS, None, "terminated"),
        ("PUT", ALICE, {"limit": 0, "end_excess": True}, "limit_lowered"),
    ],
)
async def test_an_ended_stream_is_gone_with_the_reason(
    http: httpx2.AsyncClient, method: str, path: str, body: Any, reason: str
) -> None:
    stream = await started(http)
    path = path.replace("ID", stream["stream_id"]).replace("REF", stream["stream_ref"])

    assert (await http.request(method, path, json=body)).is_success

    for answer in (
        await http.post(f"{STREAMS}/{stream['stream_id']}/heartbeat"),
        await http.get(f"{STREAMS}/{stream['stream_id']}"),
    ):
        gone = problem(answer, 410, "stream-ended")
        assert set(gone) == PROBLEM | {"reason", "by"}
        assert (gone["reason"], gone["by"]) == (reason, None)


async def test_the_same_idempotency_key_says_again_what_the_admission_ended(http: httpx2.AsyncClient) -> None:
    for number in range(3):
        await started(http, device_id=f"tv-{number}", device_name=f"TV {number}", content_id="match-1")

    first = await started(http, key="k", on_limit="evict", limit=2)

    assert [one["device_name"] for one in first["ended"]] == ["TV 0", "TV 1"]
    assert (await started(http, key="k"))["ended"] == first["ended"]


async def test_who_was_stopped_by_another_stream_is_told_by_whom(http: httpx2.AsyncClient) -> None:
    stream = await started(http)
    wish = {"take_over": stream["stream_ref"], "device_name": "Kids' tablet"}
    by = ok(await http.post(STREAMS, json=wish), ADMISSION, 201)

    gone = problem(await http.post(f"{STREAMS}/{stream['stream_id']}/heartbeat"), 410, "stream-ended")

    assert gone["by"] == {"stream_ref": by["stream_ref"], "device_name": "Kids' tablet"}
    assert "Kids' tablet" in gone["detail"]


async def test_a_stream_whose_key_is_gone_and_whose_place_is_taken_is_told_so(
    http: httpx2.AsyncClient, fake_redis: Redis
) -> None:
    stream_id = (await started(http))["stream_id"]
    await fake_redis.delete("stream:{alice}:1")
    for _ in range(3):
        await started(http)

    for answer in (await http.get(f"{STREAMS}/{stream_id}"), await http.post(f"{STREAMS}/{stream_id}/heartbeat")):
        assert problem(answer, 410, "stream-ended")["reason"] == "limit_reached"


@pytest.mark.parametrize("stream_id", [INVENTED, "99" + INVENTED[1:], INVENTED.rpartition(".")[0], *MALFORMED_IDS])
async def test_an_id_that_was_never_issued_is_unknown(
    http: httpx2.AsyncClient, fake_redis: Redis, stream_id: str
) -> None:
    problem(await http.post(f"{STREAMS}/{stream_id}/heartbeat"), 404, "unknown-stream", "stream_id")
    problem(await http.get(f"{STREAMS}/{stream_id}"), 404, "unknown-stream", "stream_id")
    assert await nothing_is_stored(fake_redis)


async def test_another_users_stream_is_unknown(http: httpx2.AsyncClient) -> None:
    stream_id = (await started(http, "bob"))["stream_id"]

    problem(await http.post(f"{STREAMS}/{stream_id}/heartbeat"), 404, "unknown-stream", "stream_id")
    problem(await http.get(f"{STREAMS}/{stream_id}"), 404, "unknown-stream", "stream_id")
    no_content(await http.post(f"{STREAMS}/{stream_id}/release"))
    no_content(await http.delete(f"{STREAMS}/{stream_id}"))
    assert len(await refs(http, "bob")) == 1


@pytest.mark.parametrize(("method", "action"), [("POST", "/release"), ("DELETE", "")])
async def test_a_stream_can_be_released_again_and_again(http: httpx2.AsyncClient, method: str, action: str) -> None:
    stream_id = (await started(http))["stream_id"]

    for _ in range(3):
        no_content(await http.request(method, f"{STREAMS}/{stream_id}{action}"))


@pytest.mark.parametrize("stream_id", [INVENTED, *MALFORMED_IDS])
async def test_releasing_what_never_was_does_no_harm(
    http: httpx2.AsyncClient, fake_redis: Redis, stream_id: str
) -> None:
    no_content(await http.post(f"{STREAMS}/{stream_id}/release"))
    assert await nothing_is_stored(fake_redis)


@pytest.mark.parametrize(("method", "action"), [("POST", "/release"), ("DELETE", "")])
async def test_a_guessed_signature_releases_nothing(http: httpx2.AsyncClient, method: str, action: str) -> None:
    ref = (await started(http))["stream_ref"]

    no_content(await http.request(method, f"{STREAMS}/{ref}.{'A' * 16}{action}"))

    assert await refs(http) == [ref]


# One stream, all streams.


async def test_a_ref_terminates_again_and_again(http: httpx2.AsyncClient) -> None:
    first, second = await started(http), await started(http)

    for _ in range(2):
        no_content(await http.delete(f"{STREAMS}/{first['stream_ref']}"))
    assert await refs(http) == [second["stream_ref"]]


@pytest.mark.parametrize("stream_id", MALFORMED_IDS)
async def test_what_is_neither_id_nor_ref_cannot_be_deleted(
    http: httpx2.AsyncClient, fake_redis: Redis, stream_id: str
) -> None:
    problem(await http.delete(f"{STREAMS}/{stream_id}"), 422, "invalid-request", "stream_id")
    assert await nothing_is_stored(fake_redis)


async def test_an_edge_may_ask_for_one_stream_and_remember_the_answer_for_seconds(http: httpx2.AsyncClient) -> None:
    admission = await started(http, device_id="tv-1")

    answer = await http.get(f"{STREAMS}/{admission['stream_id']}")

    assert answer.status_code == 200
    assert re.fullmatch("max-age=[1-9]", answer.headers["cache-control"])
    assert set(answer.json()) == LISTED | {"provisional"}
    assert answer.json()["provisional"] is False
    assert all(answer.json()[name] == admission[name] for name in PLAYBACK)


async def test_a_lost_stream_is_provisional_until_its_heartbeat(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    stream = f"{STREAMS}/{(await started(http))['stream_id']}"
    await fake_redis.flushall()

    answer = await http.get(stream)

    assert (answer.status_code, answer.json()["provisional"]) == (200, True)
    assert await nothing_is_stored(fake_redis)
    await http.post(f"{stream}/heartbeat")
    assert (await http.get(stream)).json()["provisional"] is False


async def test_the_list_shows_the_live_streams_and_none_of_their_ids(http: httpx2.AsyncClient) -> None:
    streams = [await started(http, device_id=f"tv-{number}") for number in range(2)]

    answer = await http.get(STREAMS)

    body = ok(answer, {"user_id", "limit", "live", "streams"})
    assert (body["user_id"], body["limit"], body["live"]) == ("alice", 3, 2)
    assert [set(one) for one in body["streams"]] == [LISTED] * 2
    assert [one["stream_ref"] for one in body["streams"]] == [one["stream_ref"] for one in streams]
    assert not any(sig_of(one) in answer.text for one in streams)


async def test_a_user_of_whom_nothing_is_known_has_an_empty_list(http: httpx2.AsyncClient) -> None:
    assert (await http.get(STREAMS)).json() == {"user_id": "alice", "limit": 3, "live": 0, "streams": []}


async def test_all_streams_of_a_user_are_terminated_and_told(http: httpx2.AsyncClient) -> None:
    streams = [await started(http) for _ in range(2)]
    other = await started(http, "bob")

    answer = await http.delete(STREAMS)

    ended = ok(answer, {"ended"})["ended"]
    assert [set(one) for one in ended] == [ENDED] * 2
    assert [(one["stream_ref"], one["reason"]) for one in ended] == [
        (one["stream_ref"], "terminated") for one in streams
    ]
    assert not any(sig_of(one) in answer.text for one in streams)
    assert (await refs(http), await refs(http, "bob")) == ([], [other["stream_ref"]])
    assert (await http.delete(STREAMS)).json() == {"ended": []}


@pytest.mark.parametrize(
    ("rules", "live", "query", "answer"),
    [
        ({}, 0, "", (True, 0, 3, None)),
        ({}, 2, "?device_id=new", (True, 2, 3, None)),
        ({}, 3, "", (False, 3, 3, "limit_reached")),
        ({}, 3, "?device_id=tv-0", (True, 3, 3, None)),
        ({"unknown_users": "reject"}, 0, "", (False, None, None, "unknown_user")),
    ],
)
async def test_the_check_says_whether_the_user_would_be_admitted(
    serve: Serve, rules: dict[str, Any], live: int, query: str, answer: tuple[Any, ...]
) -> None:
    http = await serve(**rules)
    for number in range(live):
        await started(http, device_id=f"tv-{number}")

    body = ok(await http.get(f"{ALICE}/admission{query}"), {"admissible", "live", "limit", "reason"})

    assert (body["admissible"], body["live"], body["limit"], body["reason"]) == answer
    assert len(await refs(http)) == live


async def test_the_check_says_that_the_store_recovers(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    await fake_redis.flushall()

    body = (await http.get(f"{ALICE}/admission")).json()

    assert (body["admissible"], body["reason"]) == (False, "recovering")


# Users' records.


async def test_a_record_is_written_read_and_deleted(http: httpx2.AsyncClient, fake_redis: Redis) -> None:
    problem(await http.get(ALICE), 404, "unknown-user", "user_id")
    assert (await http.put(ALICE, json={"limit": 5})).json() == {"user_id": "alice", "limit": 5, "ended": []}
    assert await fake_redis.hgetall("user:{alice}") == {"limit": "5"}
    assert ok(await http.get(ALICE), {"user_id", "limit"}) == {"user_id": "alice", "limit": 5}
    no_content(await http.delete(ALICE))
    problem(await http.get(ALICE), 404, "unknown-user", "user_id")
    problem(await http.delete(ALICE), 404, "unknown-user", "user_id")


@pytest.mark.parametrize("limit", [0, 10])
async def test_the_least_and_the_highest_limit_are_accepted(http: httpx2.AsyncClient, limit: int) -> None:
    assert ok(await http.put(ALICE, json={"limit": limit}), {"user_id", "limit", "ended"})["limit"] == limit


async def test_a_lowered_limit_ends_what_is_too_much_where_asked_to(
    http: httpx2.AsyncClient, fake_redis: Redis
) -> None:
    streams = [await started(http) for _ in range(3)]
    await fake_redis.pexpire("stream:{alice}:3", 20_000)  # stale

    answer = await http.put(ALICE, json={"limit": 1, "end_excess": True})

    body = ok(answer, {"user_id", "limit", "ended"})
    assert [set(one) for one in body["ended"]] == [ENDED] * 2
    assert {one["reason"] for one in body["ended"]} == {"limit_lowered"}
    assert [one["stream_ref"] for one in body["ended"]] == [streams[2]["stream_ref"], streams[0]["stream_ref"]]
    assert await refs(http) == [streams[1]["stream_ref"]]


async def test_a_change_of_the_record_ends_nobody_unless_asked_to(http: httpx2.AsyncClient) -> None:
    for _ in range(2):
        await started(http)

    assert (await http.put(ALICE, json={"limit": 1})).json()["ended"] == []
    no_content(await http.delete(ALICE))

    assert len(await refs(http)) == 2


# Heartbeats of a gateway.


async def beats(http: httpx2.AsyncClient, *streams: tuple[str, str]) -> Any:
    body = {"streams": [{"user_id": user_id, "stream_id": stream_id} for user_id, stream_id in streams]}
    return ok(await http.post("/v1/heartbeats", json=body), {"streams"})["streams"]


async def test_a_batch_is_answered_in_order_each_item_as_a_heartbeat(http: httpx2.AsyncClient) -> None:
    live, gone = (await started(http))["stream_id"], (await started(http, "bob"))["stream_id"]
    await http.delete(f"/v1/users/bob/streams/{gone}")

    sent = [("bob", gone), ("alice", live), ("alice", INVENTED), ("alice", "x"), ("{alice}", live), ("alice", live)]
    items = await beats(http, *sent)

    assert [item["status"] for item in items] == [410, 200, 404, 404, 422, 200]
    assert [item.get("type", "").removeprefix("urn:streamlimit:") for item in items] == [
        *("stream-ended", "", "unknown-stream", "unknown-stream", "invalid-request", "")
    ]
    assert set(items[1]) == LEASE | {"status"}
    assert items[1]["stream_id"] == live
    assert set(items[0]) == PROBLEM | {"reason", "by"}
    assert items[0]["reason"] == "released"
    assert [set(item) for item in items[2:5]] == [PROBLEM | {"errors"}] * 3
    assert [item["errors"][0]["field"] for item in items[2:5]] == ["stream_id", "stream_id", "user_id"]


async def test_an_error_of_the_store_stands_at_its_item(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def heartbeat_many(*_: Any) -> Any:
        return StoreUnavailable("down"), StreamEnded("evicted")

    monkeypatch.setattr(StreamTracker, "heartbeat_many", heartbeat_many)

    items = await beats(http, ("alice", INVENTED), ("bob", INVENTED))

    assert [(item["status"], item["type"]) for item in items] == [
        (503, "urn:streamlimit:store-unavailable"),
        (410, "urn:streamlimit:stream-ended"),
    ]


async def test_a_batch_may_be_empty(http: httpx2.AsyncClient) -> None:
    assert await beats(http) == []


async def test_a_thousand_heartbeats_are_a_batch_and_one_more_is_not(http: httpx2.AsyncClient) -> None:
    live = (await started(http))["stream_id"]
    sent = [("alice", "x")] * 999 + [("alice", live)]

    assert [item["status"] for item in await beats(http, *sent)] == [404] * 999 + [200]

    too_many = [{"user_id": "alice", "stream_id": live}] * 1001
    problem(await http.post("/v1/heartbeats", json={"streams": too_many}), 422, "invalid-request", "streams")


# The route of the service before this one.


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("limit", "live", "can_add"), [(2, 1, True), (2, 2, False), (0, 0, False)])
async def test_the_old_check_says_whether_a_stream_can_be_added(
    http: httpx2.AsyncClient, *, slash: str, limit: int, live: int, can_add: bool
) -> None:
    await http.put(ALICE, json={"limit": limit})
    for _ in range(live):
        await started(http)

    answer = await http.get(f"/add-stream/user/alice{slash}")

    assert ok(answer, {"can_add_stream", "errors"}) == {"can_add_stream": can_add, "errors": None}
    assert len(await refs(http)) == live


@pytest.mark.parametrize("slash", ["", "/"])
async def test_errors_of_the_old_check_keep_their_shape(
    http: httpx2.AsyncClient, fake_redis: Redis, monkeypatch: pytest.MonkeyPatch, slash: str
) -> None:
    path = f"/add-stream/user/alice{slash}"
    legacy_error(await http.get(path), 404)
    for wrong in ("%7Balice%7D", "a%2Fb", "%20", "x" * 129):
        legacy_error(await http.get(f"/add-stream/user/{wrong}{slash}"), 422)
    legacy_error(await http.post(path), 405)
    assert await nothing_is_stored(fake_redis)
    await fake_redis.flushall()
    await fake_redis.hset("user:{alice}", "limit", "3")
    recovering = await http.get(path)
    legacy_error(recovering, 503)
    assert int(recovering.headers["retry-after"]) >= 1
    monkeypatch.setattr(StreamTracker, "check", raising(StoreUnavailable("down")))
    unavailable = await http.get(path)
    legacy_error(unavailable, 503)
    assert int(unavailable.headers["retry-after"]) >= 1
    monkeypatch.setattr(StreamTracker, "check", raising(RuntimeError("a secret")))
    legacy_error(await http.get(path), 500)


async def test_an_unknown_path_of_the_old_service_keeps_its_shape(http: httpx2.AsyncClient) -> None:
    legacy_error(await http.get("/add-stream/user/alice/now"), 404)


# The process.


async def test_a_process_that_is_up_says_so(http: httpx2.AsyncClient) -> None:
    assert ok(await http.get("/livez"), {"status"})["status"] == "alive"


async def test_a_usable_store_is_ready(
    http: httpx2.AsyncClient, fake_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0)
    fields = {"status", "recovering_seconds", "warnings"}
    assert ok(await http.get("/readyz"), fields) == {"status": "ready", "recovering_seconds": 0, "warnings": []}
    await fake_redis.flushall()
    assert ok(await http.get("/readyz"), fields)["recovering_seconds"] > 30


async def test_the_openapi_document_is_served(http: httpx2.AsyncClient) -> None:
    answer = ok(await http.get("/openapi.json"), {"openapi", "info", "servers", "tags", "paths", "components"})
    assert answer == document("1", max_limit=10)


async def test_no_answer_tells_the_version_of_the_service(http: httpx2.AsyncClient) -> None:
    for path in ("/openapi.json", "/docs", "/livez", "/readyz", "/metrics", "/nowhere", STREAMS):
        answer = await http.get(path)
        assert streamlimit.__version__ not in answer.text
        assert streamlimit.__version__ not in str(answer.headers)


@pytest.mark.parametrize(
    "path",
    [
        ALICE,
        STREAMS,
        f"{STREAMS}/ID",
        f"{ALICE}/admission",
        "/add-stream/user/alice",
        "/add-stream/user/alice/",
        "/livez",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/docs/start.js",
        f"{STREAMS}/x",
        "/v1/users/bob",
        "/add-stream/user/bob",
        "/nowhere",
    ],
)
async def test_head_is_answered_as_get_without_the_body(http: httpx2.AsyncClient, path: str) -> None:
    await http.put(ALICE, json={"limit": 3})
    path = path.replace("ID", (await started(http))["stream_id"])

    head, get = await http.head(path), await http.get(path)

    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["cache-control"] == get.headers["cache-control"]
