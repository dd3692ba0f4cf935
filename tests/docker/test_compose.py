"""The image and the Compose stack: what their files promise, and, with an engine, that the stack runs and heals.

The second half is slow and needs an engine and the ports 8080 to 8082: RESTPIPE_DOCKER_TESTS=1 pytest tests/docker
"""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from restpipe.config import (
    ClientSettings,
    ServerSettings,
    TcpBind,
    load_client_settings,
    load_server_settings,
    rows,
)
from restpipe.identity import load_identity

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE_FILE = ROOT / "docker" / "compose.yaml"
CLIENTS = ("alpha", "beta")
NODES = ("server", *CLIENTS)
SERVICES = ("certificates", *NODES)
UID = 10001
MOUNT = "/var/lib/restpipe"


# What the files say.


def _services() -> dict[str, Any]:
    """Return the services of the Compose file, variables replaced by their defaults, as where none is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE_FILE.read_text())
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def _stages() -> list[list[tuple[str, str]]]:
    """Return the instructions of the Dockerfile and their arguments, by stage."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, text.splitlines()):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((instruction, " ".join(arguments.split())))
    return stages


def _arguments(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [arguments for name, arguments in stage if name == instruction]


def _copied() -> list[str]:
    """Return what the build takes from the project."""
    return [source for words in _arguments(_stages()[0], "COPY") for source in words.split()[:-1]]


def _settings(name: str, monkeypatch: pytest.MonkeyPatch) -> ServerSettings | ClientSettings:
    """Return the settings that a service of the Compose file has."""
    for variable in os.environ:
        if variable.startswith(("RP_", "BIND_")) or variable == "DEBUG":
            monkeypatch.delenv(variable)
    for variable, value in _services()[name]["environment"].items():
        monkeypatch.setenv(variable, value)
    return load_server_settings() if name == "server" else load_client_settings()


def test_there_are_one_server_and_two_clients_and_their_certificates() -> None:
    services = _services()
    assert sorted(services) == sorted(SERVICES)
    assert services["server"]["command"] == ["server"]
    assert all(services[name]["command"] == ["client"] for name in CLIENTS)


def test_every_service_runs_the_one_image_that_one_of_them_builds() -> None:
    services = _services()
    assert {service["image"] for service in services.values()} == {"restpipe"}
    # Several that build the same tag get into each other's way.
    built = {name: service["build"] for name, service in services.items() if "build" in service}
    assert list(built) == ["certificates"]
    build = built["certificates"]
    assert (COMPOSE_FILE.parent / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_privileges_and_writes_to_its_volumes_alone(name: str) -> None:
    service = _services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert not {"privileged", "cap_add", "user", "pid", "ipc", "devices"} & service.keys()
    assert service.get("network_mode", "none") == "none"


def test_ports_are_published_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in _services().items() if "ports" in service}
    assert published == {
        "server": ["127.0.0.1:8080:8080"],
        "alpha": ["127.0.0.1:8081:8081"],
        "beta": ["127.0.0.1:8082:8081"],
    }


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_told_nothing_but_settings_that_it_has(name: str) -> None:
    settings_class = ServerSettings if name == "server" else ClientSettings
    known = {variable for row in rows(settings_class).values() for variable in row.variables}
    assert not _services()[name]["environment"].keys() - known


@pytest.mark.parametrize("name", NODES)
def test_a_node_starts_listens_where_its_port_leads_and_has_a_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service, settings = _services()[name], _settings(name, monkeypatch)
    assert isinstance(settings.web_bind, TcpBind)
    (port,) = service["ports"]
    assert str(settings.web_bind.port) == port.rpartition(":")[2] == service["healthcheck"]["test"][2]
    assert service["healthcheck"]["test"][3:] == []
    assert not settings.web_bind.is_loopback
    assert settings.web_token.get_secret_value() == "dev"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_dials_the_server_by_its_service_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = _settings(name, monkeypatch), _settings("server", monkeypatch)
    assert isinstance(client, ClientSettings)
    assert isinstance(server, ServerSettings)
    assert client.target_hostname == "server"
    assert client.target_port == server.bind_port


@pytest.mark.parametrize("name", NODES)
def test_a_node_waits_for_the_certificates_and_reads_them_without_the_key_of_the_ca(name: str) -> None:
    services = _services()
    assert services[name]["depends_on"]["certificates"] == {"condition": "service_completed_successfully"}
    assert services[name]["volumes"] == [f"identities:{MOUNT}:ro"]
    # The CA's key is made in the working directory of the image.
    assert services["certificates"]["volumes"] == ["ca:/work", f"identities:{MOUNT}"]
    assert _arguments(_stages()[-1], "WORKDIR") == ["/work"]


@pytest.mark.parametrize("name", NODES)
def test_a_node_has_time_to_drain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grace = _services()[name]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > _settings(name, monkeypatch).drain_timeout_s


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_checked_by_what_the_image_brings(name: str) -> None:
    check = _services()[name]["healthcheck"]
    assert check["test"][:2] == ["CMD", "healthcheck"]
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()
    assert any("/opt/restpipe/bin/healthcheck" in line for line in _arguments(_stages()[0], "RUN"))


def test_the_certificates_are_made_once_for_each_node_and_keys_are_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _services()["certificates"]
    script = service["command"][0].replace("$$", "$").replace(MOUNT, str(tmp_path / "identities"))
    ca = tmp_path / "ca"
    ca.mkdir()
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run() -> str:
        command = [*service["entrypoint"], script]
        done = subprocess.run(command, cwd=ca, env=environment, capture_output=True, text=True, timeout=90, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        return done.stderr

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}

    assert run() == ""
    made = files()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in made if path.name.endswith(".key.pem"))
    for name in NODES:
        settings = _settings(name, monkeypatch)
        directory = tmp_path / "identities" / settings.cert_path.relative_to(MOUNT)
        key, certificate = directory / settings.key_filename, directory / settings.crt_filename
        identity = load_identity(key, certificate, directory / settings.ca_crt_filename, settings.node)
        assert identity.name == name
        if name == "server":
            assert "server" in identity.hosts  # which the clients dial
    assert run() == ""
    assert files() == made
    # Whoever lost the CA, or the identities alone, gets what fits together again.
    shutil.rmtree(tmp_path / "identities")
    assert run() == ""
    assert files() == made


def test_the_image_runs_restpipe_as_a_user_of_its_own() -> None:
    final = _stages()[-1]
    assert _arguments(final, "USER") == [f"{UID}:{UID}"]
    assert _arguments(final, "ENTRYPOINT") == ['["restpipe"]']
    names = [instruction for instruction, _ in final]
    assert "RUN" not in names[names.index("USER") :]
    # Volumes inherit the owner of the directory that they are mounted at.
    (setup,) = _arguments(final, "RUN")
    assert f"--owner={UID} --group={UID} {MOUNT} /work" in setup


def test_the_image_names_the_ports_that_nodes_listen_on_by_default() -> None:
    (exposed,) = _arguments(_stages()[-1], "EXPOSE")
    server, client = rows(ServerSettings), rows(ClientSettings)
    defaults = (server["bind_port"], server["web_bind"], client["web_bind"])
    assert exposed.split() == [row.default.rpartition(":")[2] for row in defaults]


def test_both_stages_have_the_same_base_and_only_the_installation_is_taken_over() -> None:
    build, final = _stages()
    assert _arguments(build, "FROM") == ["python:${PYTHON}-slim AS build"]
    assert _arguments(final, "FROM") == ["python:${PYTHON}-slim"]
    assert _arguments(final, "COPY") == ["--from=build /opt/restpipe /opt/restpipe"]


def test_the_build_sees_all_that_the_wheel_is_made_from_and_nothing_else() -> None:
    ignored, *exceptions = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert ignored == "*"
    assert sorted(line.removeprefix("!") for line in exceptions if line.startswith("!")) == sorted(_copied())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = [project["project"]["readme"], *project["project"]["license-files"], *packages]
    assert not {path.partition("/")[0] for path in needed} - set(_copied())


# What the stack does.

PROJECT = f"restpipe-test-{os.getpid()}"
TOKEN = ("-H", "Authorization: Bearer dev")
# Seconds; reached only where a test fails.
PATIENCE = 90

with_an_engine = pytest.mark.timeout(900)


def _run(*command: str, patience: float = PATIENCE, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    assert done.returncode == 0 or not check, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@cache
def _compose() -> tuple[str, ...]:
    """Return the command of Compose that is here: v2 or v1."""
    with suppress(OSError):
        if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
            return ("docker", "compose")
    return ("docker-compose",)


def _stack(*arguments: str, patience: float = PATIENCE) -> str:
    return _run(*_compose(), "-p", PROJECT, "-f", str(COMPOSE_FILE), *arguments, patience=patience)


def _container(service: str) -> str:
    return _run("docker", "ps", "-aq", *(f"--filter=label=com.docker.compose.{label}" for label in (
        f"project={PROJECT}", f"service={service}"
    )))  # fmt: skip


def _health(service: str) -> str:
    return _run("docker", "inspect", "--format", "{{.State.Health.Status}}", _container(service))


def _wait_for_health(wanted: str, *services: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not all(_health(service) == wanted for service in services):
        assert time.monotonic() < deadline, _stack("logs", "--tail", "50")
        time.sleep(0.2)


def _exec(service: str, command: str, *, check: bool = True) -> str:
    return _run("docker", "exec", _container(service), "sh", "-c", command, check=check)


def _curl(url: str, *options: str) -> Any:
    return json.loads(_run("curl", "-sS", "--noproxy", "*", *TOKEN, *options, url))


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    """The stack, healthy; it leaves nothing behind but the image."""
    if not os.environ.get("RESTPIPE_DOCKER_TESTS"):
        pytest.skip("slow: set RESTPIPE_DOCKER_TESTS=1 to run the Compose stack")
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers here")
    try:
        _stack("up", "--build", "--detach", patience=600)
        _wait_for_health("healthy", *NODES)
        yield
    finally:
        _stack("down", "--volumes")
    for kind in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
        assert _run("docker", *kind, "-q", f"--filter=label=com.docker.compose.project={PROJECT}") == ""


@with_an_engine
@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://localhost:8081/server/cat//hello%20/world", {"result_from_server": "hello world"}),
        ("http://localhost:8082/server/cat//hello%20/world", {"result_from_server": "hello world"}),
        ("http://localhost:8080/client/alpha/cat//hello%20/world", {"result_from_client": "hello world"}),
        ("http://localhost:8080/client/beta/cat//hello%20/world", {"result_from_client": "hello world"}),
    ],
)
def test_events_travel_both_ways_through_the_containers(stack: None, url: str, answer: object) -> None:
    assert _curl(url) == answer
    assert _curl(url.partition("cat")[0] + "time").keys() <= {"time_from_server", "time_from_client"}


@with_an_engine
def test_without_the_token_nobody_gets_in(stack: None) -> None:
    line = ("curl", "-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}")
    assert _run(*line, "http://localhost:8080/client/alpha/time") == "401"
    assert _run(*line, "-u", ":dev", "http://localhost:8080/client/alpha/time") == "200"


@with_an_engine
@pytest.mark.parametrize("name", NODES)
def test_a_node_owns_its_key_and_nothing_else(stack: None, name: str) -> None:
    assert _exec(name, "id -u") == str(UID)
    role = "server" if name == "server" else "client"
    assert _exec(name, f"stat -c '%a %u' {MOUNT}/{name}/restpipe.{role}.key.pem") == f"600 {UID}"
    assert _exec(name, f"find / -xdev -name 'ca.key.pem'; find {MOUNT} -name 'ca.key.pem'", check=False) == ""
    written = f"for place in / /etc /opt/restpipe /work {MOUNT} /tmp; do touch $place/x && echo $place; done"
    assert _exec(name, written, check=False) == "/tmp"
    assert _exec(name, "grep -c 'Cap...:.0000000000000000' /proc/1/status") == "5"
    assert _exec(name, "for tool in gcc cc c++ make; do command -v $tool; done", check=False) == ""


@with_an_engine
def test_up_once_more_changes_nothing(stack: None) -> None:
    sums = f"cat {MOUNT}/*/*.pem | sha256sum"
    before = [_container(name) for name in NODES], _exec("server", sums)
    _stack("up", "--detach")
    assert ([_container(name) for name in NODES], _exec("server", sums)) == before


@with_an_engine
def test_a_client_that_was_killed_is_back_once_it_is_started(stack: None) -> None:
    _run("docker", "kill", _container("alpha"))
    assert _curl("http://localhost:8080/client/alpha/time", "-H", "Prefer: wait=0")["status"] == 503
    assert "time_from_client" in _curl("http://localhost:8080/client/beta/time")
    _run("docker", "start", _container("alpha"))
    assert "time_from_client" in _curl("http://localhost:8080/client/alpha/time")


@with_an_engine
def test_clients_are_back_after_the_server_was_restarted(stack: None) -> None:
    _stack("restart", "server")
    assert "time_from_server" in _curl("http://localhost:8081/server/time")
    assert "time_from_client" in _curl("http://localhost:8080/client/beta/time")


@with_an_engine
def test_a_client_without_its_network_says_so_and_heals(stack: None) -> None:
    network, beta = f"{PROJECT}_default", _container("beta")
    _run("docker", "network", "disconnect", network, beta)
    try:
        _wait_for_health("unhealthy", "beta")
        assert _exec("beta", "healthcheck 8081", check=False).startswith("503 ")
    finally:
        _run("docker", "network", "connect", network, beta)
    assert "time_from_client" in _curl("http://localhost:8080/client/beta/time")
    assert "time_from_server" in _curl("http://localhost:8082/server/time")
    _wait_for_health("healthy", *NODES)
