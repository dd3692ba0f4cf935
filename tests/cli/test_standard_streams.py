"""Where a standard stream is closed, a command does and says what it would do and say otherwise."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from restpipe.identity import Authority

PATIENCE = 30.0
CLOSED = ["<&-", ">&-", "2>&-"]


def start(closed: str, *words: str, **settings: str) -> subprocess.Popen[bytes]:
    line = f'exec "$@" {closed}'
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "restpipe", *words]
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize(("status", "outcome"), [(b"200 OK", 0), (b"404 Not Found", 5)])
def test_a_call_ends_with_the_code_that_its_answer_means(closed: str, status: bytes, outcome: int) -> None:
    answer = b"HTTP/1.1 %b\r\nX-Event-Return-Code: 0\r\nContent-Length: 2\r\n\r\n[]" % status
    with socket.create_server(("127.0.0.1", 0)) as node:

        def serve() -> None:
            connection, _ = node.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        url = f"http://127.0.0.1:{node.getsockname()[1]}"
        with start(closed, "call", "--node", url, "server", "time") as call:
            output, _ = call.communicate(timeout=PATIENCE)
    assert (call.returncode, output) == (outcome, b"" if closed == ">&-" else b"[]")


def test_a_closed_standard_input_is_no_empty_body() -> None:
    with start("<&-", "call", "--node", "http://127.0.0.1:1", "server", "POST", "order", "-d", "@-") as call:
        _, errors = call.communicate(timeout=PATIENCE)
    assert (call.returncode, errors) == (2, b"restpipe call: cannot read -: Bad file descriptor\n")


@pytest.mark.parametrize("words", [["--version"], ["status", "--help"], ["ca", "show"]])
def test_output_that_finds_no_room_is_told_in_a_line(words: list[str], tmp_path: Path) -> None:
    Authority.create(tmp_path)
    options = ["--dir", str(tmp_path)] if words[0] == "ca" else []
    with start(">/dev/full", *words, *options) as command:
        _, errors = command.communicate(timeout=PATIENCE)
    assert (command.returncode, errors) == (1, b"restpipe: cannot write: No space left on device\n")


@pytest.mark.parametrize("closed", CLOSED)
def test_a_node_runs_and_ends_in_good_order(closed: str, identity_files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        settings = {
            "RP_CLIENT_CERT_PATH": str(identity_files),
            "RP_CLIENT_KEY_FILENAME": "alpha.key.pem",
            "RP_CLIENT_CRT_FILENAME": "alpha.crt.pem",
            "RP_STATSD_HOST": "",
            "RP_CLIENT_TARGET_HOSTNAME": "127.0.0.1",
            "RP_CLIENT_TARGET_PORT": str(server.getsockname()[1]),
            "RP_CLIENT_WEB_BIND": "",
        }
        with start(closed, "client", **settings) as node:
            try:
                server.accept()[0].close()  # it dials
                node.send_signal(signal.SIGTERM)
                node.communicate(timeout=PATIENCE)
            finally:
                node.kill()
    assert node.returncode == 0
