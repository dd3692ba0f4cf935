"""`restpipe demo`: what it prints works when it is pasted, and nothing of it stays."""

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from e2e_processes import Process, children_of, clean_environment, exists, free_port


class Demo:
    """`restpipe demo`, with a directory for temporary files of its own."""

    def __init__(self, directory: Path, *ports: int) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        pipe, server, client = ports or (free_port(), free_port(), free_port())
        where = f"--port {pipe} --server-web 127.0.0.1:{server} --client-web 127.0.0.1:{client}".split()
        self.process = Process(
            "restpipe",
            "demo",
            *where,
            directory=directory,
            environment=clean_environment(TMPDIR=str(self.temporary)),
        )

    def left(self) -> list[Path]:
        return list(self.temporary.iterdir())


@contextmanager
def running(demo: Demo) -> Iterator[list[int]]:
    """Wait for what it prints; yield the processes of its nodes."""
    try:
        demo.process.wait_for("Ctrl-C stops everything")
        nodes = children_of(demo.process.pid)
        assert len(nodes) == 2
        yield nodes
    finally:
        if demo.process.running:
            demo.process.end()


def test_the_lines_that_it_prints_work_when_they_are_pasted(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    with running(demo):
        lines = re.findall(r"^  (curl .+)$", demo.process.output, re.MULTILINE)
        answers = [
            subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True).stdout for line in lines
        ]
        pages = re.findall(r"http://\S+/docs", demo.process.output.partition("The same in a browser")[2])
        for page in pages[:2]:
            subprocess.run(["curl", "-sSf", "-o", "/dev/null", page], check=True)
    assert len(lines) == 4
    assert len(pages) >= 2
    assert re.fullmatch(r'\{"time_from_server": \d+\.\d+\}', answers[0])
    assert re.fullmatch(r'\{"time_from_client": \d+\.\d+\}', answers[1])
    assert answers[2:] == ['{"result_from_server": "hello world"}', '{"result_from_client": "hello world"}']


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_and_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    demo = Demo(tmp_path)
    with running(demo) as nodes:
        assert demo.left()
        assert demo.process.end(number).count("INFO    stopped") == 2
    assert not any(exists(node) for node in nodes)
    assert demo.left() == []


def test_a_signal_before_it_is_ready_ends_everything_too(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    demo.process.wait_for("server node 'server'")
    nodes = children_of(demo.process.pid)
    demo.process.end()
    assert not any(exists(node) for node in nodes)
    assert demo.left() == []


class AnswersAnything(BaseHTTPRequestHandler):
    """Stands where another demo does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("which", "cause"),
    [
        (0, "cannot listen on 127.0.0.1:{port} for pipes: the port is taken by another process"),
        (1, "cannot listen on 127.0.0.1:{port} for HTTP: the port is taken by another process"),
        (2, "cannot listen on 127.0.0.1:{port} for HTTP: the port is taken by another process"),
    ],
    ids=["pipe", "server's web", "client's web"],
)
def test_a_port_that_is_taken_is_named_in_a_line_and_nothing_is_left(tmp_path: Path, which: int, cause: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), AnswersAnything) as taken:
        threading.Thread(target=taken.serve_forever, daemon=True).start()
        port = taken.server_port
        ports = [free_port(), free_port(), free_port()]
        ports[which] = port
        demo = Demo(tmp_path, *ports)
        output = demo.process.wait(code=1)
        taken.shutdown()
    assert "Paste these" not in output
    assert output.count(cause.format(port=port)) == 1
    assert demo.left() == []
