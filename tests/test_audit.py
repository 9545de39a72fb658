"""What the log says, and what must never stand in it."""

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from streamlimit.audit import Audit, Naming
from tests.conftest import SECRET, Serve
from tests.documents import ROOT, blocks
from tests.issuer import OPERATOR_KEY, SERVICE_KEY, bearer, digest, public_pem, token
from tests.servers import Service, serving
from tests.test_auth import OPERATOR, SERVICE, make_authenticator
from tests.test_start_up import KEYS, PLAYERS
from tests.web import ALICE, STREAMS, started

AUDIT = Audit("full", SECRET)


@pytest.fixture
async def guarded(serve: Serve, caplog: pytest.LogCaptureFixture) -> httpx2.AsyncClient:
    caplog.set_level("INFO", "streamlimit.audit")
    return await serve(make_authenticator(), audit=AUDIT)


@pytest.mark.anyio
async def test_changes_by_back_ends_and_operators_are_logged(
    guarded: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await guarded.put(ALICE, json={"limit": 3}, headers=SERVICE)
    await guarded.delete(STREAMS, headers=OPERATOR)

    assert caplog.messages == [
        f"PUT /v1/users/{{user_id}} of user alice by service key {digest(SERVICE_KEY)[:8]}",
        f"DELETE /v1/users/{{user_id}}/streams of user alice by operator key {digest(OPERATOR_KEY)[:8]}",
    ]


@pytest.mark.anyio
async def test_the_end_of_one_stream_is_logged_without_its_id(
    guarded: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.headers = SERVICE
    stream = await started(guarded)
    await guarded.delete(f"{STREAMS}/{stream['stream_id']}")

    (line,) = caplog.messages
    assert line.startswith("DELETE /v1/users/{user_id}/streams/{stream_id} of user alice by service key")


@pytest.mark.anyio
async def test_what_players_do_and_what_changes_nothing_is_not_logged(
    guarded: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.headers = bearer(token())
    stream = await started(guarded)
    await guarded.delete(f"{STREAMS}/{stream['stream_ref']}")
    await guarded.delete(STREAMS)
    await guarded.get(STREAMS, headers=OPERATOR)
    await guarded.put(ALICE, json={"limit": -1}, headers=OPERATOR)

    assert caplog.messages == []


@pytest.mark.anyio
@pytest.mark.parametrize("user_id", ["a%0AINFO%20forged", "%1B[2J", "*", "x" * 2000])
async def test_no_path_makes_a_line_of_the_log(
    guarded: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, user_id: str
) -> None:
    assert (await guarded.put(f"/v1/users/{user_id}", json={"limit": 3}, headers=OPERATOR)).status_code == 422
    assert (await guarded.delete(f"/v1/users/{user_id}/streams", headers=OPERATOR)).status_code == 422

    assert caplog.messages == []


@pytest.mark.parametrize(
    ("naming", "user_id", "expected"),
    [
        ("full", "alice", "alice"),
        ("cut", "alice", "al…"),
        ("cut", "alice@example.org", "ali…"),
        ("cut", "a", "…"),
        ("hashed", "alice", "e0a6c8b6b3f5"),
    ],
)
def test_users_are_named_as_chosen(naming: Naming, user_id: str, expected: str) -> None:
    assert Audit(naming, SECRET).name(user_id) == expected


def test_whoever_has_the_secret_finds_a_user_by_the_command_of_the_documents(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    command = blocks(ROOT / "docs" / "security.md", "sh")[0]
    command = command.replace("data/secret", str(tmp_path / "secret")).replace(".venv/bin/python", sys.executable)

    done = subprocess.run(["bash", "-euc", command], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == Audit("hashed", SECRET).name("alice")


@pytest.mark.slow
def test_no_user_and_no_secret_stands_in_the_log_of_a_service(tmp_path: Path) -> None:
    env = KEYS | PLAYERS | {"STREAMLIMIT_JWT_KEY": public_pem("RS256")}
    player, forged = token(), token(sub="mallory")[:-4]
    with serving(Service(tmp_path, env=env)) as service:
        stream = service.http.post(STREAMS, headers=bearer(player), json={"device_name": "Living-room TV"}).json()
        for headers in (bearer(SERVICE_KEY), bearer(OPERATOR_KEY), bearer(forged), {}):
            service.http.put(ALICE, json={"limit": 1}, headers=headers)
            service.http.delete(STREAMS, headers=headers)
            service.http.post(f"{STREAMS}/{stream['stream_id']}/heartbeat", headers=headers)
        said = service.log.read_text()
    assert f"by service key {digest(SERVICE_KEY)[:8]}" in said
    secret = (tmp_path / "data" / "secret").read_text()
    for leak in (
        *("alice", "mallory", "Living-room", player, player.split(".")[1], forged, SERVICE_KEY, OPERATOR_KEY, secret),
        *(stream["stream_ref"], stream["stream_id"].rpartition(".")[2], *KEYS.values()),
    ):
        assert leak not in said
