"""Processes of one deployment share a secret, and one that does not is told so."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from streamlimit import StreamTracker, known_secrets, report
from streamlimit.doctor import judged_secrets
from streamlimit.known_secrets import FIELD, fingerprints, kept_ms
from streamlimit.settings import Settings
from tests.conftest import RULES, SECRET, Serve, TrackerFactory
from tests.helpers import until
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

OTHER = "another secret for tests, long enough, too"
NEW = "a new secret for tests, long enough as well"
NONE_SHARED = "is none of those that other processes use"


async def remembered(redis: Redis) -> set[str]:
    """The fingerprints that the store has."""
    fields = await redis.hgetall("epoch:{0}")
    return {name.removeprefix(FIELD) for name in map(str, fields) if name.startswith(FIELD)}


async def warned(tracker: StreamTracker) -> bool:
    return any(NONE_SHARED in warning for warning in (await tracker.health()).warnings)


async def test_the_store_remembers_a_fingerprint_and_never_the_secret(tracker: StreamTracker, redis: Redis) -> None:
    assert not await warned(tracker)
    assert await remembered(redis) == set(fingerprints([SECRET]))
    assert len(fingerprints([SECRET])[0]) == 12
    assert SECRET not in str(await redis.hgetall("epoch:{0}"))


async def test_a_process_that_shares_none_says_so_at_its_start_and_whenever_it_is_asked(
    tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = await make_tracker(secrets=(OTHER,))

    assert sum(NONE_SHARED in message for message in caplog.messages) == 1
    assert await warned(stranger)
    assert not await warned(tracker)
    # It does not make itself the rule, and starting it again does not silence it.
    assert await remembered(redis) == set(fingerprints([SECRET]))
    assert await warned(await make_tracker(secrets=(OTHER,)))
    assert OTHER not in caplog.text


async def test_a_rotation_warns_nobody(tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis) -> None:
    both = await make_tracker(secrets=(NEW, SECRET))
    new = await make_tracker(secrets=(NEW,))

    assert [await warned(one) for one in (tracker, both, new)] == [False] * 3
    assert await remembered(redis) == set(fingerprints([NEW, SECRET]))


async def test_a_loss_of_everything_brings_them_back_with_the_next_look(tracker: StreamTracker, redis: Redis) -> None:
    await redis.flushall()

    async def are_back() -> bool:
        await tracker.health()
        return await remembered(redis) == set(fingerprints([SECRET]))

    await until(are_back)


async def test_a_secret_that_nobody_reported_for_long_is_forgotten(
    tracker: StreamTracker, make_tracker: TrackerFactory, redis: Redis
) -> None:
    stranger = await make_tracker(secrets=(OTHER,))
    assert await warned(stranger)
    (field,) = [FIELD + one for one in fingerprints([SECRET])]
    reported = int(await redis.hget("epoch:{0}", field) or 0)
    await redis.hset("epoch:{0}", field, str(reported - kept_ms(RULES.ttl_ms) - 1))

    assert not await warned(stranger)
    assert await remembered(redis) == set(fingerprints([OTHER]))
    assert await warned(tracker)


async def test_a_report_is_not_written_again_and_again(tracker: StreamTracker, redis: Redis) -> None:
    before = await redis.hgetall("epoch:{0}")
    await asyncio.sleep(0.01)
    await tracker.health()

    assert await redis.hgetall("epoch:{0}") == before


async def test_a_process_that_nobody_asks_reports_all_the_same(
    monkeypatch: pytest.MonkeyPatch, make_tracker: TrackerFactory, redis: Redis
) -> None:
    monkeypatch.setattr(known_secrets, "_REPORT_SECONDS", 0.05)
    await make_tracker()
    (field,) = [FIELD + one for one in fingerprints([SECRET])]
    await redis.hdel("epoch:{0}", field)

    async def is_back() -> bool:
        return bool(await redis.hexists("epoch:{0}", field))

    await until(is_back)


async def test_an_epoch_that_is_not_there_is_not_made_by_a_report(make_tracker: TrackerFactory, redis: Redis) -> None:
    """It is the meeting that finds out that everything was lost."""
    tracker = await make_tracker()
    await redis.flushall()
    await tracker._store._secrets.report()

    assert not await redis.exists("epoch:{0}")


async def test_another_key_prefix_is_another_deployment(make_tracker: TrackerFactory) -> None:
    await make_tracker()

    assert not await warned(await make_tracker(secrets=(OTHER,), key_prefix="other"))


async def test_readyz_warns_and_stays_ready(fake_redis: Redis, serve: Serve) -> None:
    http = await serve()
    await fake_redis.hdel("epoch:{0}", FIELD + fingerprints([SECRET])[0])
    await fake_redis.hset("epoch:{0}", FIELD + fingerprints([OTHER])[0], "9999999999999")

    async def has_warning() -> bool:
        answer = await http.get("/readyz")
        assert answer.status_code == 200
        return NONE_SHARED in answer.text

    await until(has_warning)


def test_the_doctor_compares_fingerprints() -> None:
    ours, theirs = fingerprints([SECRET]), set(fingerprints([OTHER]))

    assert judged_secrets(set(), ours).state == "ok"
    assert judged_secrets({*theirs, *ours}, ours).state == "ok"
    assert judged_secrets(theirs, []).state == "skipped"
    strange = judged_secrets(theirs, ours)
    assert strange.state == "problem"
    assert ours[0] in strange.found
    assert "give all processes the same SECRET" in strange.advice


@pytest.mark.parametrize("source", ["SECRET", "DATA_DIR"])
async def test_the_doctor_is_sure_of_a_configured_secret_only(
    source: str, valkey_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lies in the data directory may be that of a service that ran here once."""
    async with StreamTracker.from_url(valkey_server.url, [SECRET], key_prefix=source):
        pass
    if source == "SECRET":
        monkeypatch.setenv("STREAMLIMIT_SECRET", OTHER.replace(",", ""))
    else:
        (tmp_path / "secret").write_text(OTHER)
    settings = Settings(redis_url=valkey_server.url, data_dir=tmp_path, key_prefix=source)

    (found,) = [one for one in await report._examine(settings, None) if one.check == "secret"]
    assert found.state == ("problem" if source == "SECRET" else "warning")
    assert (str(tmp_path / "secret") in found.found) == (source == "DATA_DIR")
