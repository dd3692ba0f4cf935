"""The status of a node, as it is seen: in a real browser behind nginx, and in a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e_browser import Browser, browser_command
from e2e_curl import curl
from e2e_processes import PATIENCE, SCRIPTS, Node, Process, Site, clean_environment, free_port

TOKEN = "s3cret"
EVIL = '<img src=x onerror="document.title=1">'
CHROMIUM = browser_command()


class Nodes:
    """A server and a client that want a token, and what is typed beside them."""

    def __init__(self, site: Site, server: Node, client: Node) -> None:
        self.site, self.server, self.client = site, server, client
        self.environment = clean_environment(
            RP_SERVER_WEB_BIND=server.web.removeprefix("http://"),
            RP_CLIENT_WEB_BIND=client.web.removeprefix("http://"),
            RP_WEB_TOKEN=TOKEN,
            TERM="xterm",
        )

    def run(self, *words: str, **settings: str) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error of `restpipe`."""
        done = subprocess.run(
            [SCRIPTS / "restpipe", *words], cwd=self.site.directory, env=self.environment | settings,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Site(tmp_path_factory.mktemp("site"), RP_WEB_TOKEN=TOKEN) as site:
        server, client = site.pair()
        server.wait_for("client client connected")
        bearer = ("-H", f"Authorization: Bearer {TOKEN}")
        assert curl(f"{server.web}/client/client/time", *bearer, "-H", "X-Request-ID: seen-1").status == 200
        evil = "".join(f"%{byte:02x}" for byte in EVIL.encode())
        assert curl(f"{server.web}/client/client/{evil}", *bearer).status == 404
        yield Nodes(site, server, client)


@contextmanager
def under_a_path(node: Node, directory: Path) -> Iterator[str]:
    """Run nginx, which has the node at /deep/; yield where it listens."""
    host = f"127.0.0.1:{free_port()}"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    location = f"location /deep/ {{ proxy_pass {node.web}/; proxy_set_header Host $http_host; }}"
    site = f"server {{ listen {host}; {location} }}"
    file = directory / "nginx.conf"
    file.write_text(f"daemon off; pid {directory}/pid; events {{}} http {{ access_log off; {paths} {site} }}")
    command = "nginx", "-p", directory, "-c", file, "-e", "stderr"
    nginx = Process(*command, directory=directory, environment=clean_environment())
    retry = "--retry-connrefused", "--retry", "50", "--retry-delay", "0", "--retry-max-time", "20"
    try:
        assert curl(f"http://{host}/deep/healthz", *retry).status == 200
        yield host
        nginx.end()
    finally:
        if nginx.running:
            nginx.kill()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_a_browser_shows_it_below_a_path_with_the_token_and_runs_nothing_that_came_from_a_peer(
    nodes: Nodes, tmp_path: Path
) -> None:
    with under_a_path(nodes.server, tmp_path) as host:
        with Browser(CHROMIUM or "", tmp_path) as browser, browser.open(f"http://anyone:{TOKEN}@{host}/deep/") as page:
            page.wait_for("document.querySelector('#state').textContent === 'ready'")
            shown = page.value("document.documentElement.outerHTML")
            for width in (1600, 1200, 1000, 800, 320):
                page.resize(width, 1000)
                page.wait_for("[...document.querySelectorAll('.scroll')].every(it => it.scrollWidth <= it.clientWidth)")
                if width in (1600, 320):  # a table, and cards
                    page.wait_for(f"(document.querySelector('.cards') === null) === {str(width == 1600).lower()}")
        assert page.complaints == []
        assert page.hosts == {host}
    assert "<title>server - RestPipe</title>" in shown
    assert re.search(r'id="state" class="badge good">ready<', shown)
    assert re.search(r'<th [^>]*role="rowheader"[^>]*>client</th>', shown)
    assert "GET time" in shown
    assert ">seen-1<" in shown
    assert "GET &lt;img src=x onerror=" in shown
    assert "<img" not in shown


def test_the_server_is_shown_where_both_nodes_are_here_and_the_client_where_it_is_named(nodes: Nodes) -> None:
    code, output, errors = nodes.run("status")
    assert (code, errors) == (0, "")
    assert output.startswith("server node server  ready")
    assert re.search(r"^client +127\.0\.0\.1 ", output, re.MULTILINE)
    assert "GET time" in output
    assert "CA in " in output
    code, output, errors = nodes.run("status", "client", "--events", "0")
    assert (code, errors) == (0, "")
    assert output.startswith("client node client  ready")
    assert "GET time" not in output
    assert nodes.run("status", RP_SERVER_WEB_BIND=f"127.0.0.1:{free_port()}")[1].startswith("client node")


def test_json_is_what_the_web_server_tells(nodes: Nodes) -> None:
    code, output, _ = nodes.run("status", "--json", "--node", nodes.server.web)
    assert code == 0
    told = json.loads(output)
    assert (told["node"]["role"], [peer["name"] for peer in told["peers"]["list"]]) == ("server", ["client"])
    assert {event["noun"] for event in told["events"]} >= {"time", EVIL}
    told = json.loads(nodes.run("status", "--json", "--clients", "nobody")[1])
    assert told["peers"]["list"] == []


def test_a_failure_is_one_line_and_an_exit_code_that_says_which(nodes: Nodes) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for words, settings, code, line in (
        ((), {"RP_WEB_TOKEN": ""}, 5, "wants its token; set RP_WEB_TOKEN"),
        (("--node", nobody), {}, 3, f"no node answers at {nobody}: Connection refused"),
        (("--node", "ftp://x"), {}, 2, "should be http://HOST:PORT or unix:/PATH"),
        (("client",), {"RP_CLIENT_WEB_BIND": ""}, 2, "RP_CLIENT_WEB_BIND tells no address"),
    ):
        ended, output, errors = nodes.run("status", *words, **settings)
        assert (ended, output, errors.count("\n")) == (code, "", 1)
        assert line in errors
    with Screen(nodes, columns=100, RP_WEB_TOKEN="") as screen:
        screen.wait_for("wants its token; set RP_WEB_TOKEN")
        assert screen.ended() == 5


def test_what_is_no_node_and_what_breaks_off_are_told_apart(nodes: Nodes) -> None:
    code, _, errors = nodes.run("top")
    assert (code, errors) == (2, "restpipe top: this needs a terminal; `restpipe status` does not\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert nodes.run("status", "--node", url)[0] == 6
        code, _, errors = nodes.run("status", "--node", url)
        assert (code, "tells no status: 200" in errors) == (5, True)
        thread.join(PATIENCE)


class Screen:
    """`restpipe top` in a terminal of some size."""

    def __init__(self, nodes: Nodes, *words: str, columns: int, **settings: str) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self._text = ""
        # The terminal's own size counts: workers of pytest-xdist have variables for another one.
        environment = {k: v for k, v in nodes.environment.items() if k not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [SCRIPTS / "restpipe", "top", "--interval", "0.2", *words], env=environment | settings,
            stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self.slave)
        os.close(self.master)

    def wait_for(self, pattern: str) -> None:
        """Wait until what matches is written anew."""
        deadline = time.monotonic() + PATIENCE
        self._text = ""
        while not re.search(pattern, self._text):
            readable, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{self._text[-3000:]!r} should have had {pattern!r}"
            self._text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(self.master, 65536).decode(errors="replace"))

    def ended(self) -> int:
        """Wait for its end, and return the exit code; the terminal is as it was."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.05)[0]:
                os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.wait(0)


def test_top_shows_it_again_and_again_until_q_is_pressed(nodes: Nodes) -> None:
    with Screen(nodes, columns=120) as screen:
        screen.wait_for(r"server node server +ready[^\r\n]* by rate")
        screen.wait_for(r"client +127\.0\.0\.1")
        os.write(screen.master, b"s")
        screen.wait_for("by failed")
        os.write(screen.master, b"q")
        assert screen.ended() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_top_and_the_terminal_is_as_it_was(nodes: Nodes, number: signal.Signals, code: int) -> None:
    with Screen(nodes, "client", columns=40) as screen:
        screen.wait_for("client node client")
        screen.process.send_signal(number)
        assert screen.ended() == code


def test_top_stays_while_its_node_is_away(nodes: Nodes) -> None:
    bind = f"unix:{nodes.site.directory}/second.sock"
    second = nodes.site.client(nodes.server.pipe_port, name="second", RP_CLIENT_WEB_BIND=bind)
    with Screen(nodes, "client", columns=100, RP_CLIENT_WEB_BIND=bind) as screen:
        screen.wait_for("client node second")
        second.end()
        screen.wait_for(r"no node answers at unix:[\s\S]*trying on")
        os.write(screen.master, b"q")
        assert screen.ended() == 0
