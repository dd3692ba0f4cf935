"""The health check of the image, as the engine runs it."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


def _run(port: int, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-I", str(HEALTHCHECK), str(port)]
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
