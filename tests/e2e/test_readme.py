"""Every command of the README does what the README says, in the order in which it stands there."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_processes import Node, Process, Site, clean_environment, free_port
from readme_settings import README, with_current_tables

import restpipe
from restpipe.config import ClientSettings, ServerSettings, rows

TEXT = README.read_text()
ROOT = README.parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def block(language: str, containing: str) -> str:
    (found,) = [text for text in blocks(language) if containing in text]
    return found


def with_pattern_for_times(text: str) -> str:
    """Return a pattern for what a command prints: every number of seconds since 1970 will do."""
    return re.sub(r"\\d{10}\\\.\\d+|\d{10}\\\.\d+", r"\\d{10}\\.\\d+", re.escape(text))


class Reader:
    """A user who reads the README, in a directory, with ports of its own in place of the usual ones."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._others: list[Process] = []
        self._ports = {usual: str(free_port()) for usual in ("8080", "8081", "8082", "1234", "9000")}
        self._settings = {
            "RP_SERVER_CERT_PATH": str(site.directory / "var"),
            "RP_CLIENT_CERT_PATH": str(site.directory / "var"),
            "RP_SERVER_WEB_BIND": f"127.0.0.1:{self._ports['8080']}",
            "RP_CLIENT_WEB_BIND": f"127.0.0.1:{self._ports['8081']}",
            "RP_SERVER_BIND_PORT": self._ports["1234"],
            "RP_CLIENT_TARGET_PORT": self._ports["1234"],
        }

    def translate(self, text: str) -> str:
        return re.sub(r"\b(8080|8081|8082|9000)\b", lambda found: self._ports[found[1]], text)

    def shell(self, script: str) -> str:
        done = subprocess.run(
            ["sh", "-ec", self.translate(script)],
            cwd=self.site.directory,
            env=clean_environment(**self._settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, command: str) -> Node:
        """Start a node as the README says, variables in front of the command included."""
        words = self.translate(command).split()
        begin = words.index("restpipe")
        settings = dict(variable.split("=", 1) for variable in words[:begin])
        node = Node(
            *words[begin:], directory=self.site.directory, environment=clean_environment(**self._settings | settings)
        )
        self.site.adopt(node)
        node.wait_started()
        return node

    def run(self, command: str) -> Process:
        """Run a command to the end of the test."""
        words = self.translate(command).split()
        environment = clean_environment(PYTHONUNBUFFERED="1", **self._settings)
        process = Process(*words, directory=self.site.directory, environment=environment)
        self._others.append(process)
        return process

    def end(self) -> None:
        for process in self._others:
            process.kill()

    def try_console(self, console: str) -> None:
        """Type the lines behind `$`, and compare what they print with what stands below them."""
        for command, printed in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE):
            assert re.fullmatch(with_pattern_for_times(printed.strip()), self.shell(command).strip()), command


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Site(tmp_path_factory.mktemp("reader")) as site:
        (site.directory / "ca.key.pem").unlink()
        (site.directory / "ca.crt.pem").unlink()
        reader = Reader(site)
        yield reader
        reader.end()


def test_make_knows_the_targets_that_the_readme_names() -> None:
    named = set(re.findall(r"`make ([a-z]+)`", TEXT)) | set(
        re.findall(r"^make ([a-z]+)$", "".join(blocks("sh")), re.MULTILINE)
    )
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= known


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_the_configuration_of_nginx_is_one_that_nginx_accepts(tmp_path: Path) -> None:
    site = block("nginx", "upstream").replace("127.0.0.1:80;", f"127.0.0.1:{free_port()};")
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {site} }}")
    nginx = ["nginx", "-t", "-p", str(tmp_path), "-c", str(configuration), "-e", "stderr"]
    done = subprocess.run(nginx, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300)
def test_the_walkthrough_own_handler_web_service_and_file_server_work_as_they_stand(reader: Reader) -> None:
    reader.shell(block("sh", "restpipe ca init"))
    server = reader.start(f"RP_METRICS=1 {block('sh', 'restpipe server' + chr(10))}")
    client = reader.start("restpipe client")
    assert "restpipe client\n" in blocks("sh")
    client.wait_connected()
    reader.try_console(block("console", "/server/time"))
    reader.try_console(block("console", "/readyz"))
    reader.try_console(block("console", "/metrics"))
    reader.try_console(block("console", "/status?"))
    once, as_json = block("sh", "restpipe status").splitlines()
    assert reader.shell(once).startswith("server node server  ready")
    assert '"role": "client"' in reader.shell(as_json)
    reader.try_console(block("console", "restpipe call server"))
    for role in ("server", "client"):
        assert f"`restpipe check {role}`" in TEXT
        assert "would start" in reader.shell(f"restpipe check {role}")

    (reader.site.directory / "mine.py").write_text(block("python", "class Handler"))
    client.end()
    client = reader.start(block("sh", "RP_EVENT_HANDLER_FQ_CLASS=mine.Handler").strip())
    client.wait_connected()
    reader.try_console(block("console", "/square//12"))
    (reader.site.directory / "caller.py").write_text(reader.translate(block("python", "raise_for_exception(httpx")))
    assert reader.shell("python caller.py").strip() == "BadArgumentsError 252 no"
    client.end()

    (reader.site.directory / "streams.py").write_text(block("python", "class Streams"))
    client = reader.start(block("sh", "RP_EVENT_HANDLER_FQ_CLASS=streams.Streams").strip())
    client.wait_connected()
    reader.try_console(block("console", "/ticks//2"))
    client.end()

    (reader.site.directory / "till.py").write_text(block("python", "class Till(Client"))
    client = reader.start(block("sh", "till.Till").strip())
    client.wait_connected()
    reader.try_console(block("console", "operationId"))
    client.end()

    first, service = block("sh", "http.server").splitlines()
    reader.shell(first)
    reader.run(service).wait_for("Serving HTTP on")
    client = reader.start(block("sh", "--upstream"))
    client.wait_connected()
    reader.try_console(block("console", "client/hello.txt"))
    client.end()

    (reader.site.directory / "site_app.py").write_text(block("python", "async def hello"))
    client = reader.start(block("sh", "--asgi"))
    client.wait_connected()
    reader.try_console(block("console", "client/client/hello\n"))
    client.end()

    reader.shell(block("sh", "mkdir -p pub"))
    client = reader.start(block("sh", "--files pub"))
    client.wait_connected()
    reader.try_console(block("console", "/files//hello.txt"))
    client.end()
    server.end()

    (reader.site.directory / "policy.py").write_text(block("python", "RELAY ="))
    assert "`policy.py`" in TEXT
    server = reader.start(block("sh", "--config-module policy"))
    reader.shell(block("sh", "ca issue till-1"))
    client = reader.start("restpipe client")
    caller = reader.start(block("sh", "--key till-1"))
    client.wait_connected()
    caller.wait_connected()
    reader.try_console(block("console", "--node http://localhost:8082"))
    caller.end()
    client.end()
    server.end()


def test_tests_of_ones_own_pass_as_they_stand(tmp_path: Path) -> None:
    for name, content in (("mine", "class Handler(ClientEventHandler)"), ("test_mine", "restpipe_join")):
        (tmp_path / f"{name}.py").write_text(block("python", content))
        assert f"`{name}.py`" in TEXT
    options = ("-p", "no:cacheprovider", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
    done = subprocess.run(
        [sys.executable, "-m", *block("sh", "pytest test_mine.py").split(), *options],
        cwd=tmp_path,
        env=clean_environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_nodes_in_programs_of_ones_own_work_as_they_stand(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        reader = Reader(site)
        reader.shell(block("sh", "restpipe ca init"))
        for name, content in (("shop", "class Shop"), ("box", "class Box"), ("report", "restpipe.connect")):
            (site.directory / f"{name}.py").write_text(block("python", content))
            assert f"`{name}.py`:" in TEXT
        application = reader.run(block("sh", "uvicorn shop:app"))
        try:
            application.wait_for("Uvicorn running on")
            client = reader.start("restpipe client")
            client.wait_connected()
            reader.try_console(block("console", "/boxes/client/clock"))
            client.end()
            assert reader.shell("python box.py") == "{'price': 3, 'for': 'client'} 0\n"
            printed = reader.shell(block("sh", "python report.py"))
            assert "{'price': 4, 'for': 'script'}\n{\"price\": 5, \"for\": \"script\"}\n" in printed
        finally:
            reader.end()


def test_a_server_certificate_for_a_host_is_issued_as_the_readme_says(tmp_path: Path) -> None:
    (command,) = re.findall(r"`(restpipe ca issue server --server --host [^`]+)`", TEXT)
    with Site(tmp_path) as site:
        process: Process = site.run(*command.split())
        process.wait()
        shown = site.run("restpipe", "ca", "show", "server.crt.pem")
        assert "pipe.example.org" in shown.wait()


def test_certificates_are_renewed_and_revoked_as_the_readme_says(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        reader = Reader(site)
        reader.shell(block("sh", "restpipe ca init"))
        server, client = reader.start("restpipe server"), reader.start("restpipe client")
        client.wait_connected()
        reader.shell(block("sh", "restpipe ca renew"))
        client.wait_for("connected to the server anew")
        reader.shell(block("sh", "restpipe ca revoke").replace("/var/lib/restpipe", str(tmp_path / "var")))
        server.wait_for("ended the pipe to client .*: the certificate of client was revoked on ")
        # The client finds its own certificate on the list, which is in the directory of both.
        client.wait_for("was revoked on .*; issue it anew with `restpipe ca renew client`")
        shown = reader.shell(block("sh", "restpipe ca show"))
        assert len(re.findall(r"^client +client .* revoked on ", shown, re.MULTILINE)) == 2
        assert len(re.findall(r"^Revoked ", shown, re.MULTILINE)) == 2
        site.run("restpipe", "ca", "renew", "client", "--dir", "output").wait()
        reader.shell("cd output; rp_client_set_identity client.key.pem client.crt.pem ca.crt.pem")
        client.wait_connected(times=2)


def test_the_tables_of_settings_are_current() -> None:
    assert with_current_tables(TEXT) == TEXT, "run `python tests/readme_settings.py`"


def test_what_users_of_the_former_release_are_told_to_use_exists() -> None:
    (chapter,) = re.findall(r"^## Coming from RestPipe 0\.2\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    settings = {
        name for node in (ServerSettings, ClientSettings) for row in rows(node).values() for name in row.variables
    }
    named = set(re.findall(r"\b(?:RP|BIND|CLIENT)_[A-Z_]+[A-Z]\b|\bDEBUG\b", chapter))
    assert len(named) > 10
    assert named <= settings
    commands = set(re.findall(r"`(rp_[a-z]+_[a-z_]+)", chapter))
    assert commands <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].keys()
    for name in ("PipeFailError", "raise_for_exception", "ServerEventHandler", "ClientEventHandler"):
        assert f"`{name}" in chapter
        assert hasattr(restpipe, name)
