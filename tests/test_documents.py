"""The README and the other documents do not lie: commands are run and answers compared, names and links exist."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

import streamlimit
from streamlimit.callers import Role
from streamlimit.dispatch import new_counters, new_metrics
from streamlimit.routes import OPERATIONS, Operation
from streamlimit.secret import load_or_make_secret
from tests.conftest import missing
from tests.documents import CHANCE, ROOT, blocks, check_commands, commands
from tests.servers import RedisServer, Service, free_port, serving
from tests.test_scripts import SCRIPTS

README = ROOT / "README.md"
SECURITY = ROOT / "docs" / "security.md"
METRICS = ROOT / "docs" / "metrics.md"
MIGRATING = ROOT / "docs" / "migrating.md"
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]

CHANCE_IN_README: Final = CHANCE | {
    r"[\d.]+ ms": "TIME",
    r"(?s)^(ok|warning) +scripts .*?(?=^ok +clock)": "TIMES\n",
    r"\b(ahead of|behind) this": "BESIDE this",
    r"(?s)^ok +maxmemory .*?(?=^ok +persistence)": "SIZES\n",
    r"(?s)^ok +maxclients .*?(?=^ok +timeout)": "NUMBERS\n",
    r"\d{4}-\d\d-\d\dT[0-9:]+Z": "TIME",
    r"^ +[0-9a-f]{12}$": "FINGERPRINT",
    r"^(All is well\.|warnings: 1)$": "SUMMARY",
}
"""How fast the machine is, how large, and how much else it does."""


@pytest.mark.slow
def test_the_commands_of_the_readme_answer_as_it_says(tmp_path: Path) -> None:
    for tool in ("curl", "redis-cli"):
        if shutil.which(tool) is None:
            missing(tool)
    with serving(Service(tmp_path)) as service:
        replace = {"8080": str(service.port), "6390": str(service.embedded_port)}
        check_commands(README, replace | {"--data-dir data": f"--data-dir {tmp_path / 'data'}"}, CHANCE_IN_README)


@pytest.mark.slow
def test_the_commands_of_the_way_from_the_old_service_answer_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    *variables, command = blocks(MIGRATING, "sh")[0].split()
    assert command == "scripts/serve"
    (tmp_path / "users.csv").write_text(commands(MIGRATING)[0][1])
    with serving(Service(tmp_path, env=dict(variable.split("=") for variable in variables))) as service:
        monkeypatch.setenv("STREAMLIMIT_EMBEDDED_PORT", str(service.embedded_port))
        ports = {"8080": str(service.port), "6390": str(service.embedded_port)}
        check_commands(MIGRATING, ports | {"users.csv": str(tmp_path / "users.csv")})


@pytest.mark.slow
def test_the_commands_about_security_answer_as_they_say(tmp_path: Path) -> None:
    for tool in ("curl", "openssl"):
        if shutil.which(tool) is None:
            missing(tool)
    set_up, _, command = blocks(SECURITY, "sh")[1].rstrip().rpartition("\n")
    assert command == "scripts/serve"
    done = subprocess.run(
        ["bash", "-euc", f"{set_up}\nenv -0"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = (variable.partition("=")[::2] for variable in done.stdout.split("\0"))
    env = {name: value for name, value in found if name.startswith("STREAMLIMIT_")}
    assert {"STREAMLIMIT_SERVICE_KEYS_FILE", "STREAMLIMIT_JWT_KEY", "STREAMLIMIT_JWT_ISSUER"} <= set(env)
    with serving(Service(tmp_path, env=env)) as service:
        check_commands(SECURITY, {"8080": str(service.port), "data/": f"{tmp_path}/data/"})


def test_the_table_of_who_may_do_what_is_the_table_of_operations() -> None:
    table = SECURITY.read_text().partition("| operation | player |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(.*)` \| (.*) \| (.*) \| (.*) \|$", table, re.MULTILINE)
    told = {row[0]: tuple(row[1:]) for row in rows}

    def may(operation: Operation, role: Role) -> str:
        if not operation.roles:
            return "anybody"
        if role not in operation.roles:
            return "no"
        return "its own user" if role is Role.PLAYER else "yes"

    assert told == {
        f"{operation.method} {operation.path.rstrip('/')}": tuple(may(operation, role) for role in Role)
        for operation in OPERATIONS
    }


def test_the_page_about_metrics_has_them_all_with_their_labels() -> None:
    rows = dict(re.findall(r"^\| `(streamlimit_\w+)` \| (.*?) \|", METRICS.read_text(), re.MULTILINE))
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows.items()}
    exposed: dict[str, set[str]] = {}
    for family in new_metrics(new_counters()).collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label: value for sample in family.samples for label, value in sample.labels.items()}
        exposed[name] = set(labels)
        if len(labels) == 1:
            exposed[name] |= {value for sample in family.samples for value in sample.labels.values()}
    exposed["streamlimit_answers_total"] = {"method", "route", "status"}  # which has no series yet

    assert told == exposed


@pytest.mark.slow
def test_the_command_about_metrics_answers_as_it_says(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    with serving(Service(tmp_path)) as service:
        check_commands(METRICS, {"8080": str(service.port)})


def test_the_library_example_runs_with_the_secret_of_the_service(valkey_server: RedisServer, tmp_path: Path) -> None:
    (example,) = blocks(README, "python")
    assert len([line for line in example.splitlines() if line]) <= 12
    load_or_make_secret(tmp_path / "data")
    with Redis(port=valkey_server.port) as operator:
        operator.flushall()  # other tests have other secrets
    code = example.replace("6390", str(valkey_server.port))
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.stderr == ""
    assert done.stdout.startswith("Lease(stream_id='1.")


@pytest.mark.slow
def test_the_hostile_cases_are_as_many_as_the_page_says() -> None:
    page = SECURITY.read_text().partition("## What was tried")[2]
    rows = re.findall(r"^\| .+ \| (\d+) \| (`.+`) \|$", page, re.MULTILINE)
    tests = {name for _, names in rows for name in re.findall(r"`(test_\w+\.py::\w+)`", names)}
    files = sorted({f"tests/{name.partition('::')[0]}" for name in tests})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *files]
    collected = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    cases = Counter(re.findall(r"^tests/(test_\w+\.py::\w+)", collected, re.MULTILINE))

    assert tests <= cases.keys()
    counted = [sum(cases[name] for name in tests if f"`{name}`" in names) for _, names in rows]
    assert [int(count) for count, _ in rows] == counted
    assert f"\n{sum(counted)} in all." in page


def test_the_table_of_settings_is_the_settings() -> None:
    script = ROOT / "scripts" / "settings_table.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_ones_own_redis_as_the_readme_sets_it_up_is_all_that_is_needed(tmp_path: Path) -> None:
    for tool in ("redis-server", "redis-cli"):
        if shutil.which(tool) is None:
            missing(tool)
    port = str(free_port())
    (block,) = [block for block in blocks(README, "sh") if "ACL SETUSER" in block]
    set_up, _, serve = block.replace("6379", port).rpartition("STREAMLIMIT_REDIS_URL=")
    url, command = serve.split()
    assert command == "scripts/serve"
    subprocess.run(["bash", "-euc", set_up], cwd=tmp_path, check=True, capture_output=True)
    try:
        with serving(Service(tmp_path, "--redis-url", url)) as service, Redis(port=int(port)) as operator:
            assert service.http.get("/readyz").json()["warnings"] == []
            stream = service.http.post("/v1/users/alice/streams", json={"device_id": "tv-1"})
            path = f"/v1/users/alice/streams/{stream.json()['stream_id']}"
            assert service.http.post(f"{path}/heartbeat").status_code == 200
            assert service.http.put("/v1/users/alice", json={"limit": 0, "end_excess": True}).status_code == 200
            assert service.http.post(f"{path}/heartbeat").status_code == 410
            assert service.http.delete("/v1/users/alice").status_code == 204
            assert operator.acl_log() == []
    finally:
        subprocess.run(["redis-cli", "-p", port, "shutdown", "nosave"], check=True, capture_output=True)


def test_the_redis_user_of_the_readme_may_do_what_the_scripts_do() -> None:
    used = {name.lower() for script in SCRIPTS for name in re.findall(r"redis\.p?call\('(\w+)'", script.source)}
    allowed = set(re.findall(r"\+([a-z]+)", README.read_text().partition("ACL SETUSER")[2].partition("```")[0]))

    assert used - allowed == set()


def test_the_readme_knows_every_route() -> None:
    table = README.read_text().partition("| route | does |")[2].partition("\n\n")[0]
    paths = {operation.path.rstrip("/") for operation in OPERATIONS}

    undocumented = {
        path for path in paths if path not in table and path.replace("stream_id", "stream_ref") not in table
    }
    assert undocumented == set()


def test_the_architecture_has_every_module() -> None:
    named = set(re.findall(r"`(\w+)/?`", (ROOT / "docs" / "architecture.md").read_text()))
    package = Path(streamlimit.__file__).parent
    modules = {path.stem for path in package.iterdir() if not path.name.startswith("_") and path.name != "py.typed"}

    assert modules - named == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_links_to_is_there(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text())

    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_that_a_document_names_are_there(document: Path) -> None:
    named = set(re.findall(r"(?<![\w./-])(?:\.ci|docs|scripts|streamlimit|tests)/[\w./-]*\w", document.read_text()))

    assert [name for name in sorted(named) if "NAME" not in name and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tests_that_a_document_names_are_there(document: Path) -> None:
    named = re.findall(r"(test_\w+\.py)::(\w+)", document.read_text())

    assert [test for file, test in named if f"def {test}(" not in (ROOT / "tests" / file).read_text()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_diagram_has_a_semicolon_which_would_end_the_statement(document: Path) -> None:
    assert not any(";" in diagram for diagram in blocks(document, "mermaid"))
