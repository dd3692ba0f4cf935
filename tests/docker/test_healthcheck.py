"""The health check of the image, as the engine runs it."""

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

HEALTHCHECK = Path(__file__).parents[2] / "docker" / "healthcheck.py"


class _Node(BaseHTTPRequestHandler):
    """Answers where it is asked whether it is ready."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"the answer")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Node) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _run(place: object, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-I", str(HEALTHCHECK), str(place)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def test_a_node_that_is_ready_is_healthy(port: int) -> None:
    assert _run(port) == (0, "200 the answer\n")


def test_a_proxy_in_the_environment_is_not_asked(port: int) -> None:
    assert _run(port, http_proxy="http://127.0.0.1:1")[0] == 0


def test_a_node_that_is_not_ready_is_unhealthy_and_is_told(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Node, "status", 503)
    assert _run(port) == (1, "503 the answer\n")


def test_a_node_that_does_not_listen_is_unhealthy() -> None:
    assert _run(1) == (1, "")


class _AtSocket(socketserver.ThreadingUnixStreamServer):
    """A web server at a unix socket."""

    def get_request(self) -> tuple[Any, Any]:
        return super().get_request()[0], ("", 0)


def test_a_node_at_a_unix_socket_is_asked_there(tmp_path: Path) -> None:
    place = tmp_path / "web.sock"
    assert _run(place) == (1, "")
    with _AtSocket(str(place), _Node) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert _run(place) == (0, "200 the answer\n")
        finally:
            server.shutdown()
            thread.join()
