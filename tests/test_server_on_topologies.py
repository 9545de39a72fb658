"""`streamlimit serve` on Sentinels and on a Cluster, with what keeps strangers out."""

import shutil
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.conftest import missing
from tests.nodes import Security
from tests.sentinels import Sentinels
from tests.servers import HAVE_SUBNETS, Service, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAVE_SUBNETS, reason="without an address of its own for each server"),
]

SECURITY = {
    "open": Security(),
    "passwords": Security(password="an operator's", sentinel_password="a watcher's"),
    "users": Security(
        password="an operator's",
        users=("streamlimit on >p@ss/word ~* +@all",),
        sentinel_password="a watcher's",
        sentinel_users=("streamlimit on >eyes,only +@all",),
    ),
    "tls": Security(password="an operator's", sentinel_password="a watcher's", tls=True),
}


@pytest.mark.parametrize("kind", [Sentinels, Cluster])
@pytest.mark.parametrize("security", SECURITY)
def test_nothing_changes_but_the_url(tmp_path: Path, kind: type[Sentinels | Cluster], security: str) -> None:
    secured = SECURITY[security]
    binary = (shutil.which("redis-server") or missing("redis-server")) if secured.tls else None
    login = ("streamlimit", "p@ss/word") if secured.users else ("", secured.password)
    query = {}
    if kind is Sentinels and secured.sentinel_password:
        query["sentinel_password"] = "eyes,only" if secured.users else secured.sentinel_password
        if secured.users:
            query["sentinel_username"] = "streamlimit"
    stores = tmp_path / "stores"
    stores.mkdir()
    with (
        kind(stores, binary=binary, security=secured) as topology,
        serving(Service(tmp_path, "--redis-url", topology.url(*login, **query))) as service,
    ):
        answers = [service.http.post("/v1/users/alice/streams").status_code for _ in range(4)]

        assert answers == [201, 201, 201, 409]
        log = service.log.read_text()
        assert f"store {topology.url().partition('?')[0]}," in log
        assert not any(secret in log for secret in (login[1], *query.values()) if secret)
