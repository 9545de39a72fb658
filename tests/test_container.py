"""The container's files keep their promises, and the Dockerfile's steps lead to a service that runs."""

import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import ValidationError
from redis import Redis

from streamlimit.settings import Settings
from tests.composed import COMPOSE, SERVICES, Composed, of_profile, store_url
from tests.conftest import missing
from tests.documents import ROOT
from tests.image import DOCKERFILE, LAST_STAGE, Image, Instruction, in_context
from tests.issuer import SERVICE_KEY, bearer, digest
from tests.locks import pinned
from tests.servers import HAVE_SUBNETS, RedisServer, Service, free_port, redis7, running, serving

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
APPS = {name for name, service in SERVICES.items() if "build" in service}
ONE_SHOTS = {"create-cluster"}
DATA_NODES = set(SERVICES) - APPS - ONE_SHOTS - {name for name in SERVICES if name.startswith("sentinel-")}
LOCKS = {
    "requirements.lock": PYPROJECT["project"]["dependencies"],
    "requirements-build.lock": PYPROJECT["build-system"]["requires"],
}
# What compose.yaml gives to the service, with what it asks for in .env: a secret, and the digest of a key.
DOT_ENV = {"STREAMLIMIT_SECRET": "0" * 64, "STREAMLIMIT_SERVICE_KEYS": digest(SERVICE_KEY)}
ENVIRONMENT = {
    name: re.sub(r"\$\{(\w+):[?-][^}]*\}", lambda match: DOT_ENV.get(match[1], ""), value)
    for name, value in SERVICES["streamlimit"]["environment"].items()
}

each_service = pytest.mark.parametrize("name", SERVICES)
each_profile = pytest.mark.parametrize(
    ("profile", "app"), [("sentinel", "with-sentinels"), ("cluster", "with-cluster")], ids=["sentinel", "cluster"]
)
each_lock = pytest.mark.parametrize("lock", LOCKS)


def last(name: str) -> Instruction:
    return next(one for one in reversed(LAST_STAGE) if one.name == name)


def healthcheck() -> list[str]:
    options, _, command = last("HEALTHCHECK").text.partition("CMD ")
    assert "--interval=" in options
    return Instruction("CMD", command).words


def test_the_base_image_is_pinned_once() -> None:
    parents = [one.text.partition(" AS ")[0] for one in DOCKERFILE if one.name == "FROM"]
    (foreign,) = [parent for parent in parents if parent != "base"]

    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", foreign)


def test_the_image_runs_as_a_user_without_rights() -> None:
    user, group = last("USER").text.split(":")

    assert 0 not in (int(user), int(group))
    assert LAST_STAGE.index(last("USER")) > LAST_STAGE.index(last("RUN"))


def test_the_last_stage_takes_only_what_was_built() -> None:
    copies = [one.text for one in LAST_STAGE if one.name in ("COPY", "ADD")]
    commands = " ".join(one.text for one in LAST_STAGE if one.name == "RUN")

    assert copies == ["--from=build /opt/streamlimit /opt/streamlimit"]
    assert re.findall(r"\b(apt|apt-get|gcc|curl|wget|pip install)\b", commands) == []


def test_signals_reach_the_service_and_nothing_needs_a_shell() -> None:
    assert last("ENTRYPOINT").words == ["streamlimit", "serve"]
    assert healthcheck()[0] == "python"


@pytest.mark.parametrize(
    "path", [".env", ".git/config", ".venv/pyvenv.cfg", "data/secret", "tests/conftest.py", "streamlimit/__pycache__/x"]
)
def test_the_build_sees_nothing_that_it_does_not_need(path: str) -> None:
    assert not in_context(path)


def test_git_leaves_out_the_file_with_the_secret() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


@each_lock
def test_the_lock_agrees_with_pyproject(lock: str) -> None:
    locked = pinned(lock)

    for wanted in map(Requirement, LOCKS[lock]):
        assert wanted.name in locked, f"{wanted} is not locked: run scripts/lock"
        (version,) = locked[wanted.name].specifier
        assert version.operator == "=="
        assert wanted.specifier.contains(version.version), f"{wanted} is locked as {version}: run scripts/lock"


@each_lock
def test_a_lock_knows_every_package_by_its_hash_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()

    entries = re.split(r"\n(?=[a-z])", text)[1:]
    assert len(entries) == len(pinned(lock))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--(extra-)?index|--find-links|(^|\s)/", text)


@each_service
def test_a_service_is_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))
    assert "network_mode" not in SERVICES[name]


def test_the_apps_and_the_single_redis_are_published_and_nothing_else() -> None:
    assert {name for name, service in SERVICES.items() if service.get("ports")} == {*APPS, "redis"}


@each_service
def test_a_service_can_change_nothing_and_has_no_capabilities(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "devices"} & set(service)
    assert "build" in service or service["user"] == "redis"  # the Dockerfile has one


@each_service
def test_a_service_comes_back_and_stays_within_bounds(name: str) -> None:
    service = SERVICES[name]

    assert service["restart"] == ("on-failure" if name in ONE_SHOTS else "unless-stopped")
    assert {"mem_limit", "pids_limit", "ulimits"} <= set(service)
    assert service["logging"]["driver"] == "local"


@each_service
def test_a_service_has_a_health_check_unless_it_ends(name: str) -> None:
    service = SERVICES[name]

    assert name in ONE_SHOTS or "build" in service or "test" in service["healthcheck"]  # the Dockerfile has one


@each_service
def test_a_service_waits_until_what_it_needs_is_healthy_or_done(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": f"service_{'completed_successfully' if needed in ONE_SHOTS else 'healthy'}"}
        assert set(SERVICES[needed].get("profiles", ())) == set(SERVICES[name].get("profiles", ()))


@pytest.mark.parametrize("name", sorted(DATA_NODES))
def test_a_server_drops_no_keys_and_keeps_them_in_a_volume_of_its_own(name: str) -> None:
    command = " ".join(SERVICES[name]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory 256mb --maxmemory-policy noeviction" in command
    assert SERVICES[name]["volumes"] == [f"{name}:/data"]


def test_every_volume_belongs_to_one_service() -> None:
    used = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]

    assert sorted(used) == sorted(COMPOSE["volumes"])


def test_redis_is_pinned_once_and_the_same_for_all() -> None:
    (image,) = {service["image"] for name, service in SERVICES.items() if name not in APPS}

    assert re.fullmatch(r"redis:\d+\.\d+\.\d+-\w+", image)


def test_without_a_profile_there_are_the_service_and_one_redis() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"streamlimit", "redis"}
    assert set(SERVICES["streamlimit"]["depends_on"]) == {"redis"}


@each_profile
def test_the_service_of_a_profile_differs_in_its_store_only(profile: str, app: str) -> None:
    differs = {"profiles", "depends_on", "environment"}
    usual = SERVICES["streamlimit"]

    assert SERVICES[app]["profiles"] == [profile]
    assert {name: value for name, value in SERVICES[app].items() if name not in differs} == {
        name: value for name, value in usual.items() if name not in differs
    }
    assert SERVICES[app]["environment"] | {"STREAMLIMIT_REDIS_URL": store_url("streamlimit")} == usual["environment"]
    assert {app} == APPS & set(of_profile(profile))


@pytest.mark.slow
@pytest.mark.skipif(not HAVE_SUBNETS, reason="each service needs a loopback address of its own")
@each_profile
def test_the_servers_of_a_profile_come_up_and_the_service_admits(profile: str, app: str, tmp_path: Path) -> None:
    for tool in ("redis-server", "redis-cli"):
        if shutil.which(tool) is None:
            missing(tool)
    servers = tmp_path / "servers"
    servers.mkdir()
    composed = Composed(servers, profile)
    with composed.running():
        for name in composed.one_shots():
            assert (done := composed.run_to_its_end(name)).returncode == 0, done.stdout + done.stderr
        environment = ENVIRONMENT | {"STREAMLIMIT_REDIS_URL": composed.here(store_url(app))}
        with serving(Service(tmp_path, env=environment)) as service:
            assert service.http.get("/readyz").json()["warnings"] == []
            key = bearer(SERVICE_KEY)
            admitted = [service.http.post("/v1/users/alice/streams", headers=key).status_code for _ in range(4)]
            assert admitted == [201, 201, 201, 409]

        # As at the next `docker compose up`.
        for name in composed.one_shots():
            assert (done := composed.run_to_its_end(name)).returncode == 0, done.stdout + done.stderr


def test_compose_asks_for_what_the_service_needs() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()))

    assert asked == set(DOT_ENV)


def test_compose_asks_for_the_secret_and_has_none() -> None:
    secret = SERVICES["streamlimit"]["environment"]["STREAMLIMIT_SECRET"]

    assert re.fullmatch(r"\$\{STREAMLIMIT_SECRET:\?[^${}]*openssl rand -hex 32[^${}]*\}", secret)
    assert not re.search(r"[0-9a-fA-F]{32}", (ROOT / "compose.yaml").read_text())


def settings_of_the_container(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    image = dict(re.findall(r"(STREAMLIMIT_\w+)=(\S+)", last("ENV").text))
    for name, value in (image | environment).items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_the_service_is_reachable_from_outside_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of_the_container(monkeypatch, ENVIRONMENT)

    assert settings.public_addresses == {"HOST": "0.0.0.0"}
    assert settings.redis_url == "redis://redis:6379/0"
    assert SERVICES["streamlimit"]["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]
    assert last("EXPOSE").text == str(settings.port)
    assert last("VOLUME").text == str(settings.data_dir)


@pytest.mark.parametrize("name", DOT_ENV)
def test_the_image_refuses_to_start_without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ValidationError, match=r"0\.0\.0\.0 is public"):
        settings_of_the_container(monkeypatch, ENVIRONMENT | {name: ""})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    program, *options = SERVICES["redis"]["command"]
    assert program == "redis-server"
    server = redis7(tmp_path, *options)
    if server is None:
        missing("redis-server")
    with running(server):
        yield server


def distributions(python: Path) -> set[str]:
    code = "from importlib.metadata import distributions as d; print(*(one.name for one in d()))"
    done = subprocess.run([python, "-Ic", code], check=True, capture_output=True, text=True)
    return {canonicalize_name(name) for name in done.stdout.split()}


def files(root: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.slow
def test_the_image_holds_what_the_lock_says_and_no_tools(image: Image) -> None:
    python = image.root / "opt" / "streamlimit" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "check"], check=True)

    locked = {
        canonicalize_name(name)
        for name, requirement in pinned("requirements.lock").items()
        if requirement.marker is None or requirement.marker.evaluate()
    }
    assert distributions(python) == {"streamlimit", *locked}
    assert "pip" not in distributions(image.root / "usr" / "local" / "bin" / "python")
    assert {path.name for path in image.root.iterdir()} == {"opt", "usr", "var"}


@pytest.mark.slow
def test_the_image_serves_with_the_redis_of_compose(image: Image, store: RedisServer, tmp_path: Path) -> None:
    with Redis(port=store.port, decode_responses=True) as client:
        settings: Any = client.config_get("appendonly", "maxmemory", "maxmemory-policy", "save")
    assert int(settings.pop("maxmemory")) > 0
    assert settings == {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": ""}

    environment = image.environment | ENVIRONMENT
    service = Service(tmp_path)
    service.command = last("ENTRYPOINT").words
    service._env = environment | {
        "STREAMLIMIT_REDIS_URL": environment["STREAMLIMIT_REDIS_URL"].replace("redis:6379", f"127.0.0.1:{store.port}"),
        "STREAMLIMIT_HOST": "127.0.0.1",  # on this machine, 0.0.0.0 would be for everybody
        "STREAMLIMIT_PORT": str(service.port),
    }

    def is_healthy() -> bool:
        done = subprocess.run(healthcheck(), env=service._env, stderr=subprocess.DEVNULL, check=False)
        return done.returncode == 0

    assert not is_healthy()
    before = files(image.root)
    with serving(service):
        key = bearer(SERVICE_KEY)
        admitted = [service.http.post("/v1/users/alice/streams", headers=key).status_code for _ in range(4)]
        assert admitted == [201, 201, 201, 409]
        assert service.http.post("/v1/users/alice/streams").status_code == 401
        assert is_healthy()
        assert service.stop(signal.SIGTERM) == 0
    assert not is_healthy()
    assert files(image.root) == before  # a read-only root will do


def test_the_health_check_of_redis_tells_whether_it_answers(store: RedisServer) -> None:
    kind, program, *arguments = SERVICES["redis"]["healthcheck"]["test"]
    path = shutil.which(program)
    if path is None:
        missing(program)

    def is_healthy(port: int) -> bool:
        command = [path, "-p", str(port), *arguments]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert kind == "CMD"
    assert is_healthy(store.port)
    assert not is_healthy(free_port())
    with Redis(port=store.port) as client:
        client.config_set("requirepass", "x")
    assert not is_healthy(store.port)  # it answers, but with an error
