"""The image and the Compose stack: what their files promise, and, with an engine, that the stack runs and heals.

The second half is slow and needs an engine: RESTPIPE_DOCKER_TESTS=1 pytest tests/docker
"""

import json
import os
import re
import shlex
import shutil
import socket
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
from unittest.mock import ANY

import pytest
import yaml  # type: ignore[import-untyped]

from restpipe.config import (
    ClientSettings,
    ServerSettings,
    TcpBind,
    UnixBind,
    load_client_settings,
    load_server_settings,
    rows,
)
from restpipe.identity import load_identity

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE_FILE = ROOT / "docker" / "compose.yaml"
CLIENTS = ("alpha", "beta")
NODES = ("server", *CLIENTS)
ONCE = ("certificates", "site")
OF_OTHERS = ("nginx", "app", "prometheus")
SERVICES = (*ONCE, *NODES, *OF_OTHERS)
# Those that run and are not asked for by a profile.
RUNNING = (*NODES, "nginx", "app")
NETWORKS = {"server": {"alpha", "beta"}, "alpha": {"alpha"}, "beta": {"beta", "lan"}, "app": {"lan"}, "nginx": {"web"}}
UID = 10001
MOUNT = "/var/lib/restpipe"


# What the files say.


def _document() -> dict[str, Any]:
    """Return the Compose file, variables replaced by their defaults, as where none is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE_FILE.read_text())
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def _services() -> dict[str, Any]:
    services: dict[str, Any] = _document()["services"]
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
        # The directory of the image is not here.
        monkeypatch.setenv(variable, str(ROOT) if variable == "RP_FILES" else value)
    return load_server_settings() if name == "server" else load_client_settings()


def test_there_are_a_server_behind_nginx_and_two_clients_and_what_they_need() -> None:
    services = _services()
    assert sorted(services) == sorted(SERVICES)
    assert services["server"]["command"] == ["server"]
    assert all(services[name]["command"] == ["client"] for name in CLIENTS)


def test_every_service_runs_the_one_image_that_one_of_them_builds() -> None:
    services = _services()
    assert {services[name]["image"] for name in (*ONCE, *NODES)} == {"restpipe"}
    # Several that build the same tag get into each other's way.
    built = {name: service["build"] for name, service in services.items() if "build" in service}
    assert list(built) == ["certificates", "app"]
    build = built["certificates"]
    assert (COMPOSE_FILE.parent / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_privileges_and_writes_to_its_volumes_alone(name: str) -> None:
    service = _services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & service.keys()
    assert service.get("network_mode", "none") == "none"
    assert "networks" in service or "network_mode" in service
    # The user of the nodes, who owns the socket.
    assert service.get("user", f"{UID}:{UID}") == f"{UID}:{UID}"


def test_ports_are_published_on_loopback_alone_and_of_no_node() -> None:
    published = {name: service["ports"] for name, service in _services().items() if "ports" in service}
    assert published == {"nginx": ["127.0.0.1:8080:8080"], "prometheus": ["127.0.0.1:9090:9090"]}
    assert _services()["prometheus"]["profiles"] == ["prometheus"]


def test_each_client_is_on_a_network_of_its_own_that_leads_nowhere_else() -> None:
    services = _services()
    assert {name: set(services[name]["networks"]) for name in NETWORKS} == NETWORKS
    internal = {name for name, network in _document()["networks"].items() if network and network["internal"]}
    assert internal == {"alpha", "beta", "lan"}


def test_prometheus_is_told_of_what_nginx_offers_it() -> None:
    scrape = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yaml").read_text())
    (target,) = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    services = _services()
    assert set(services[host]["networks"]) & set(services["prometheus"]["networks"])
    assert f"listen {port};" in (ROOT / "docker/nginx/nginx.conf").read_text()
    assert not any(port in published for published in services[host]["ports"])


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_told_nothing_but_settings_that_it_has(name: str) -> None:
    settings_class = ServerSettings if name == "server" else ClientSettings
    known = {variable for row in rows(settings_class).values() for variable in row.variables}
    assert not _services()[name]["environment"].keys() - known


@pytest.mark.parametrize("name", NODES)
def test_a_node_starts_and_listens_where_nobody_reaches_it_and_its_check_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, bind = _services()[name], _settings(name, monkeypatch).web_bind
    if name == "server":
        assert isinstance(bind, UnixBind)
        assert f"web:{bind.path.parent}" in service["volumes"]
        assert f"web:{bind.path.parent}" in _services()["nginx"]["volumes"]
    else:
        assert isinstance(bind, TcpBind)
        assert bind.is_loopback
    place = str(bind.path) if isinstance(bind, UnixBind) else str(bind.port)
    assert service["healthcheck"]["test"][2:] == [place]


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
    assert [volume for volume in services[name]["volumes"] if volume.startswith(("ca:", "identities:"))] == [
        f"identities:{MOUNT}:ro"
    ]
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
    assert f"--owner={UID} --group={UID} {MOUNT} /run/restpipe-server /srv/files /work" in setup


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
# Seconds; reached only where a test fails.
PATIENCE = 300

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


def _project() -> tuple[str, ...]:
    return (*_compose(), "-p", PROJECT, "-f", str(COMPOSE_FILE))


def _stack(*arguments: str, patience: float = PATIENCE) -> str:
    return _run(*_project(), *arguments, patience=patience)


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
    return json.loads(_run("curl", "-sS", "--noproxy", "*", *options, _url(url)))


def _url(path: str) -> str:
    return f"http://localhost:{os.environ['RESTPIPE_PORT']}{path}"


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    """The stack, healthy; it leaves nothing behind but the image."""
    if not os.environ.get("RESTPIPE_DOCKER_TESTS"):
        pytest.skip("slow: set RESTPIPE_DOCKER_TESTS=1 to run the Compose stack")
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers here")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESTPIPE_PORT", str(port))
        try:
            _stack("up", "--build", "--detach", patience=600)
            _wait_for_health("healthy", *RUNNING)
            yield
        finally:
            _stack("down", "--volumes")
    for kind in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
        assert _run("docker", *kind, "-q", f"--filter=label=com.docker.compose.project={PROJECT}") == ""


@with_an_engine
def test_the_lines_of_the_readme_work(stack: None) -> None:
    (lines,) = [
        block
        for block in re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
        if "compose" in block
    ]
    up, *others = lines.splitlines()
    assert up == "docker compose -f docker/compose.yaml up --build --detach --wait"
    answers = []
    for line in others:
        line = line.replace("http://localhost:8080", _url(""))
        line = line.replace("docker compose -f docker/compose.yaml", shlex.join(_project()))
        answers.append(_run("bash", "-c", line.replace("--upload-file README.md", f"--upload-file {README}")))
    assert [json.loads(answer or "null") for answer in answers][1:] == [
        None,
        [{"name": "README.md", "type": "file", "size": README.stat().st_size, "mtime": ANY}],
        [
            {"item": "cake", "price": 4, "pieces": 12},
            {"item": "coffee", "price": 2, "pieces": 80},
            {"item": "tea", "price": 3, "pieces": 50},
        ],
        {"time_from_server": ANY},
    ]


@with_an_engine
def test_events_travel_both_ways_through_the_containers(stack: None) -> None:
    assert "time_from_client" in _curl("/client/alpha/time")
    for name in CLIENTS:
        called = _exec(name, "restpipe call server cat//hello%20/world")
        assert json.loads(called) == {"result_from_server": "hello world"}


@with_an_engine
def test_one_client_hands_out_files_and_keeps_them_on_its_volume(stack: None, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("read from afar")
    _run("curl", "-sSf", "--noproxy", "*", "-T", str(tmp_path / "hello.txt"), _url("/client/alpha/files//a/hello.txt"))
    _stack("up", "--detach", "--force-recreate", "--no-deps", "alpha")
    assert [file["name"] for file in _curl("/client/alpha/files//a")] == ["hello.txt"]
    assert _run("curl", "-sS", "--noproxy", "*", _url("/client/alpha/files//a/hello.txt")) == "read from afar"


@with_an_engine
def test_the_other_one_hands_out_a_web_application(stack: None) -> None:
    page = _run("curl", "-sSf", "--noproxy", "*", _url("/client/beta/"))
    assert "<title>Datasette: shop</title>" in page
    for link in re.findall(r'"(/client/beta/[^"]*\.css[^"]*)"', page):
        assert _run("curl", "-sSf", "--noproxy", "*", _url(link))
    rows = _curl("/client/beta/shop/stock.json?_shape=array")
    assert {"item": "tea", "price": 3, "pieces": 50} in rows


def _reaches(service: str, host: str, port: int) -> bool:
    """Whether a program in the container of a node connects to that place. The image has Python, and no curl."""
    script = f"import socket; socket.create_connection(({host!r}, {port}), 2)"
    done = subprocess.run(
        ["docker", "exec", _container(service), "python3", "-c", script],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or "Error" in done.stderr, done.stderr
    return done.returncode == 0


@with_an_engine
def test_nothing_reaches_a_client_but_the_pipe_and_a_client_nothing_but_the_server(stack: None) -> None:
    assert _reaches("alpha", "server", 1234)
    assert _reaches("beta", "app", 8001)
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    for service, place, port in (
        ("server", "alpha", 8081), ("server", "beta", 8081), ("server", "app", 8001), ("alpha", "beta", 8081),
        ("alpha", "app", 8001), ("alpha", "nginx", 8080), ("beta", "nginx", 8080),
    ):  # fmt: skip
        for address in _run("docker", "inspect", "--format", networks, _container(place)).split():
            assert not _reaches(service, address, port), f"{service} reached {place}"


@with_an_engine
def test_a_page_whose_name_was_made_to_lead_here_gets_nothing(stack: None) -> None:
    line = ("curl", "-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: evil.example")
    assert _run(*line, _url("/client/alpha/time")) == "421"


@with_an_engine
def test_prometheus_would_find_its_figures(stack: None) -> None:
    figures = _exec("nginx", "curl -s http://nginx:9100/metrics")
    assert "restpipe_pipes 2.0" in figures
    assert _exec("nginx", "curl -s -o /dev/null -w '%{http_code}' http://nginx:9100/client/alpha/time") == "404"


@with_an_engine
@pytest.mark.parametrize("name", NODES)
def test_a_node_owns_its_key_and_nothing_else(stack: None, name: str) -> None:
    assert _exec(name, "id -u") == str(UID)
    role = "server" if name == "server" else "client"
    assert _exec(name, f"stat -c '%a %u' {MOUNT}/{name}/restpipe.{role}.key.pem") == f"600 {UID}"
    assert _exec(name, f"find / -xdev -name 'ca.key.pem'; find {MOUNT} -name 'ca.key.pem'", check=False) == ""
    places = f"/ /etc /opt/restpipe /work {MOUNT} /run/restpipe-server /srv/files /tmp"
    written = f"for place in {places}; do touch $place/x && echo $place; done"
    own = {"server": ["/run/restpipe-server"], "alpha": ["/srv/files"], "beta": []}
    assert _exec(name, written, check=False).split() == [*own[name], "/tmp"]
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
    assert _curl("/client/alpha/time", "-H", "Prefer: wait=0")["status"] == 503
    assert _curl("/client/beta/-/versions.json")["datasette"]
    _run("docker", "start", _container("alpha"))
    assert "time_from_client" in _curl("/client/alpha/time")


@with_an_engine
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_clients_are_back_after_the_server_was(stack: None, how: str) -> None:
    if how == "restart":
        _stack("restart", "server")
    else:
        _run("docker", "kill", _container("server"))
        _run("docker", "start", _container("server"))
    _wait_for_health("healthy", "server", *CLIENTS)
    assert "time_from_server" in json.loads(_exec("alpha", "restpipe call server time"))
    assert "time_from_client" in _curl("/client/alpha/time")
    assert _curl("/client/beta/-/versions.json")["datasette"]


@with_an_engine
def test_a_client_without_its_network_says_so_and_heals(stack: None) -> None:
    network, alpha = f"{PROJECT}_alpha", _container("alpha")
    assert "time_from_server" in json.loads(_exec("alpha", "restpipe call server time"))
    _wait_for_health("healthy", "alpha")  # and not still unhealthy by what was done to the server before
    _run("docker", "network", "disconnect", network, alpha)
    try:
        _wait_for_health("unhealthy", "alpha")
        assert _exec("alpha", "healthcheck 8081", check=False).startswith("503 ")
        assert _curl("/client/alpha/time", "-H", "Prefer: wait=0")["status"] in (502, 503, 504)
    finally:
        _run("docker", "network", "connect", network, alpha)
    assert "time_from_client" in _curl("/client/alpha/time")
    assert "time_from_server" in json.loads(_exec("alpha", "restpipe call server time"))
    _wait_for_health("healthy", *RUNNING)


@with_an_engine
def test_a_web_application_that_is_gone_is_said_to_be_and_is_back(stack: None) -> None:
    _run("docker", "kill", _container("app"))
    gone = _curl("/client/beta/")
    assert (gone["status"], gone["executed"]) == (502, "no")
    _run("docker", "start", _container("app"))
    _wait_for_health("healthy", "app")
    assert _curl("/client/beta/-/versions.json")["datasette"]
