"""Real services behind a node, with the clients that were made for them: git over smart HTTP, and web sockets."""

import http.server
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import Node, Site, clean_environment, free_port
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

GIT = shutil.which("git")
SIZE = 24 * 1024 * 1024


def served(site: Site, upstream: str) -> tuple[Node, Node, str]:
    """Start both nodes, the client in front of a service; return them, and where callers find the service."""
    port = free_port()
    server = site.server(port=port)
    client = site.client(port, RP_UPSTREAM=upstream)
    return server, client, f"{server.web}/client/client"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    with Site(tmp_path / "site") as site:
        yield site


class GitHandler(http.server.BaseHTTPRequestHandler):
    """What a web server does for `git http-backend`: CGI (RFC 3875)."""

    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, *arguments: object) -> None:
        self._root = root
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = self._body()
        environment = os.environ | {
            "GIT_PROJECT_ROOT": str(self._root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": self.headers["X-Event-Caller"], "REMOTE_ADDR": "127.0.0.1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        done = subprocess.run([str(GIT), "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(HTTPStatus(int(headers.pop("Status", "200").split()[0])))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for begin in range(0, len(answer), 65536):
            piece = answer[begin : begin + 65536]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    do_POST = do_GET  # noqa: N815 - the name is the library's

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        return body

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def git_service(tmp_path: Path) -> Iterator[str]:
    """Serve a bare repository, which takes pushes, by git's own backend."""
    subprocess.run([str(GIT), "init", "-q", "--bare", tmp_path / "srv" / "big.git"], check=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(GitHandler, tmp_path / "srv")) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{service.server_address[1]}"
        finally:
            service.shutdown()
            thread.join()


@pytest.mark.skipif(GIT is None, reason="git is not installed")
def test_git_pushes_and_clones_a_large_repository_through_the_pipe(
    site: Site, git_service: str, tmp_path: Path
) -> None:
    _, _, url = served(site, git_service)
    environment = clean_environment(
        GIT_CONFIG_GLOBAL="/dev/null", GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a",
        GIT_COMMITTER_EMAIL="a@b",
    )  # fmt: skip

    def git(*words: str | Path, within: Path) -> str:
        done = subprocess.run(
            [str(GIT), *words], cwd=within, env=environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    work = tmp_path / "work"
    work.mkdir()
    git("init", "-q", "-b", "main", within=work)
    (work / "large").write_bytes(os.urandom(SIZE))
    git("add", ".", within=work)
    git("commit", "-q", "-m", "Add a large file", within=work)
    git("push", "-q", f"{url}/big.git", "main", within=work)
    git("clone", "-q", "-b", "main", f"{url}/big.git", "again", within=tmp_path)
    assert (tmp_path / "again" / "large").read_bytes() == (work / "large").read_bytes()
    assert git("rev-parse", "HEAD", within=work) == git("rev-parse", "HEAD", within=tmp_path / "again")


def test_a_web_socket_works_between_processes_and_its_end_is_told_when_the_node_is_killed(site: Site) -> None:
    def echo(socket: ServerConnection) -> None:
        for message in socket:
            socket.send(message)

    with serve(echo, "127.0.0.1", 0) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            _, client, url = served(site, f"http://127.0.0.1:{service.socket.getsockname()[1]}")
            with connect(url.replace("http:", "ws:") + "/", proxy=None) as socket:
                for message in ("hello", b"\x00" * 1_000_000):
                    socket.send(message)
                    assert socket.recv(timeout=30) == message
                client.kill()
                socket.close_timeout = 30
                with pytest.raises(Exception, match="1014"):
                    socket.recv(timeout=30)
        finally:
            service.shutdown()
            thread.join()


@pytest.fixture
def https_service(site: Site) -> Iterator[str]:
    """Serve over HTTPS with a certificate of the site's CA, which is nobody else's; yield the address."""
    identity = site.authority.issue("service", "server", ["localhost"])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Seen", f"{self.path} {self.headers['Host']} {self.headers['X-Event-Caller']}")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate_path, identity.key_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        service.socket = context.wrap_socket(service.socket, server_side=True)
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield f"https://localhost:{service.server_port}"
        service.shutdown()
        thread.join()


def test_a_service_is_reached_over_https_by_a_node_that_trusts_its_ca(site: Site, https_service: str) -> None:
    port = free_port()
    server = site.server(port=port)
    site.client(port, RP_UPSTREAM=https_service, SSL_CERT_FILE=str(site.directory / "ca.crt.pem"))
    body = os.urandom(200_000)
    answer = curl(f"{server.web}/client/client/a?b", data=body)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["x-seen"] == f"/a?b {https_service.removeprefix('https://')} localhost"


def test_a_service_whose_certificate_the_node_does_not_trust_is_not_asked(site: Site, https_service: str) -> None:
    _, _, url = served(site, https_service)
    refused = curl(f"{url}/a", data=b"secret")
    assert refused.outcome == (502, 245, "no")
    assert "certificate verify failed" in refused.json["detail"]


def test_a_node_says_at_its_start_that_it_passes_requests_on_and_starts_before_its_service(site: Site) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    _, client, url = served(site, address)
    assert f"  handler   {address}\n  serves    every request, by passing it on" in client.output
    assert curl(f"{url}/").outcome == (502, 245, "no")


def test_a_class_and_a_service_at_once_are_refused_by_a_message_that_names_both(site: Site) -> None:
    process = site.run("restpipe", "client", "--handler", "mine.Handler", "--upstream", "http://127.0.0.1:9000")
    output = process.wait(2)
    assert "--upstream='http://127.0.0.1:9000'" in output
    assert "RP_EVENT_HANDLER_FQ_CLASS, which is mine.Handler" in output


def test_a_node_whose_application_is_slow_to_start_up_may_be_stopped_meanwhile(site: Site) -> None:
    (site.directory / "slow_app.py").write_text(SLOW_APP)
    node = site._client(free_port(), "client", {"RP_ASGI": "slow_app:app"})
    node.wait_for("starting up")
    assert "the application was cancelled" in node.end()


SLOW_APP = """
import asyncio

async def app(scope, receive, send):
    print("starting up", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("the application was cancelled", flush=True)
"""
