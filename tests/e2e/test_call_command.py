"""`restpipe call`: any event from a terminal or a script, by real processes."""

import hashlib
import json
import os
import pty
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_processes import PATIENCE, SCRIPTS, Node, Site, clean_environment, free_port, site_with_handlers

MIB = 1024 * 1024
HANDLERS = """
import hashlib
from collections.abc import AsyncIterator
from e2e_handlers import Handler, tell
from restpipe import Reply

class Called(Handler):
    async def post_digest(self, ctx, body: AsyncIterator[bytes]):
        digest, size = hashlib.sha256(), 0
        async for piece in body:
            digest.update(piece)
            size += len(piece)
        return {"sha256": digest.hexdigest(), "size": size, "type": ctx.content_type, "told": ctx.content_length}

    async def post_mirror(self, ctx, body: AsyncIterator[bytes]):
        yield b""
        async for piece in body:
            yield piece

    def get_zeros(self, ctx, post_data, mib: int):
        return (bytes(1024 * 1024) for _ in range(mib))

    async def get_header(self, ctx, post_data):
        return ctx.headers.get("x-mine", "")

    async def get_gone(self, ctx, post_data):
        return Reply("it is gone", status=410)

    async def get_raw(self, ctx, post_data, *arguments):
        return list(arguments)
"""


class Terminal:
    """Where `restpipe call` is typed.

    Args:
        site: its directory, and the settings there.
        settings: in its environment.
    """

    def __init__(self, site: Site, server: Node, client: Node, **settings: str) -> None:
        self.directory = site.directory
        self.environment = clean_environment(
            RP_SERVER_WEB_BIND=server.web.removeprefix("http://"),
            RP_CLIENT_WEB_BIND=client.web.removeprefix("http://"),
            **settings,
        )

    def start(
        self, *words: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        command = [str(SCRIPTS / "restpipe"), "call", *words]
        return subprocess.Popen(
            command, cwd=self.directory, env=self.environment, stdin=stdin, stdout=stdout, stderr=stderr
        )

    def call(self, *words: str, data: bytes | None = None) -> tuple[int, bytes, str]:
        """Return exit code, standard output and standard error."""
        with self.start(*words, stdin=subprocess.DEVNULL if data is None else subprocess.PIPE) as process:
            output, errors = process.communicate(data, PATIENCE)
        assert b"Traceback" not in errors
        return process.returncode, output, errors.decode()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Node, Node]]:
    with site_with_handlers(tmp_path_factory.mktemp("site"), RP_EVENT_HANDLER_FQ_CLASS="called.Called") as site:
        (site.directory / "called.py").write_text(HANDLERS)
        server, client = site.pair(RP_CONNECTION_WAIT_TIMEOUT_S="0.2")
        server.may_raise = True  # handlers do
        yield site, server, client


@pytest.fixture(scope="module")
def terminal(nodes: tuple[Site, Node, Node]) -> Terminal:
    return Terminal(*nodes)


def test_either_way_by_one_word_or_several_with_arguments_that_stay_as_typed(terminal: Terminal) -> None:
    assert terminal.call("server/data") == (0, b'{"data": [1, 2]}', "")
    assert terminal.call("client/client", "GET", "data") == (0, b'{"data": [1, 2]}', "")
    assert terminal.call("/client/", "client", "/data") == (0, b'{"data": [1, 2]}', "")
    _, output, _ = terminal.call("server", "raw//a%2Fb/../c d/süß/#1/")
    assert json.loads(output) == ["a/b", "..", "c d", "süß", "#1", ""]
    assert terminal.call("server", "sum?x=1&y=2") == (0, b'{"sum": 3}', "")


def test_bytes_are_written_as_they_are_to_standard_output_and_to_a_file(terminal: Terminal) -> None:
    assert terminal.call("server", "bytes") == (0, bytes(range(256)), "")
    assert terminal.call("server", "bytes", "-o", "copy") == (0, b"", "")
    assert (terminal.directory / "copy").read_bytes() == bytes(range(256))


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [('{"a": 1}', "application/json"), ("plain", "text/plain; charset=utf-8"), ("", "text/plain; charset=utf-8")],
)
def test_data_is_json_where_it_can_be_read_as_such_and_text_otherwise(
    terminal: Terminal, data: str, mime_type: str
) -> None:
    told = json.loads(terminal.call("server", "digest", "-d", data)[1])
    assert (told["type"], told["size"], told["told"]) == (mime_type, len(data), len(data))


def test_a_file_is_sent_with_its_length_and_type_and_standard_input_as_it_comes(terminal: Terminal) -> None:
    content = os.urandom(3 * MIB)
    (terminal.directory / "picture.png").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    told = json.loads(terminal.call("client/client", "digest", "-d", "@picture.png")[1])
    assert told == {"sha256": digest, "size": 3 * MIB, "type": "image/png", "told": 3 * MIB}
    told = json.loads(terminal.call("client/client", "digest", "-d", "@-", "-H", "content-type: x/y", data=content)[1])
    assert told == {"sha256": digest, "size": 3 * MIB, "type": "x/y", "told": None}


def test_an_answer_that_begins_before_the_body_ends_is_read_meanwhile(terminal: Terminal) -> None:
    content = os.urandom(24 * MIB)  # more than any window and any socket holds
    code, output, errors = terminal.call("server", "mirror", "-d", "@-", data=content)
    assert (code, errors) == (0, "")
    assert output == content


def test_memory_does_not_grow_with_a_body(terminal: Terminal) -> None:
    def peak(mib: int) -> int:
        measured = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        line = ["python", "-c", measured, "restpipe", "call", "server", f"zeros//{mib}"]
        done = subprocess.run(line, env=terminal.environment, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert peak(200) < peak(1) + 20 * 1024


def test_headers_are_sent_and_a_wrong_one_is_refused_here(terminal: Terminal) -> None:
    assert terminal.call("server", "header", "-H", "X-Mine: it is") == (0, b'"it is"', "")
    code, _, errors = terminal.call("server", "header", "-H", "X-Mine")
    assert (code, errors) == (2, "restpipe call: -H 'X-Mine' should be 'Name: value'\n")
    assert terminal.call("server", "header", "-H", "X-Mine: a\r\nX-Other: b")[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["server/boom"], 1, "500 The event handler raised ValueError: it went boom, süß"),
        (["server/nowhere"], 5, "404 No such event: the event handler has no method 'get_nowhere'"),
        (["server/sum//x"], 5, "400 Arguments do not fit: "),
        (["client/nobody.invalid/time"], 5, "404 No such client: "),
        (["server/wait//never", "--timeout", "0.2"], 4, "504 Deadline passed: "),
        (["server", "GET", "POST", "time"], 2, "GET and POST are two methods"),
        (["elsewhere/time"], 2, "--node has to name the node"),
        (["server/digest", "-d", "@missing"], 2, "cannot read missing: No such file"),
        (["server/data", "-o", "no/such/place"], 2, "cannot write no/such/place"),
        (["server/data", "--node", "ftp://x"], 2, "should be http://HOST:PORT or unix:/PATH"),
        (["server", "raw//\udcff"], 5, "400 Malformed request: '%FF' is not percent-encoded UTF-8"),
        (["server/data", "--timeout", "inf"], 5, "400 Malformed request: X-Event-Timeout: "),
    ],
)  # fmt: skip
def test_a_failure_is_one_line_and_an_exit_code_that_says_which(
    terminal: Terminal, words: list[str], code: int, line: str
) -> None:
    ended, output, errors = terminal.call(*words)
    assert (ended, output) == (code, b"")
    assert line in errors
    assert errors.count("\n") == 1


def test_what_is_nested_beyond_measure_is_sent_and_any_timeout_is_asked_for(terminal: Terminal) -> None:
    told = json.loads(terminal.call("server", "digest", "-d", "[" * 100_000, "--timeout", "1e300")[1])
    assert (told["type"], told["size"]) == ("text/plain; charset=utf-8", 100_000)


def test_what_the_handler_answers_is_written_whatever_it_is(terminal: Terminal) -> None:
    code, output, errors = terminal.call("server", "triple")
    assert (code, output.decode()) == (1, "seven, süß")
    assert errors == "restpipe call: 200 OK, return code 7\n"
    code, output, errors = terminal.call("server", "gone")
    assert (code, output) == (5, b'"it is gone"')


def test_what_was_never_sent_says_that_it_can_be_repeated(terminal: Terminal, nodes: tuple[Site, Node, Node]) -> None:
    code, _, errors = terminal.call("server", "data", "--node", f"http://127.0.0.1:{free_port()}")
    assert code == 3
    assert "Connection refused; is it running? (it was never sent, and can safely be repeated)" in errors
    site, _, _ = nodes
    lonely = site.client(free_port(), name="lonely", connected=False, RP_CONNECTION_WAIT_TIMEOUT_S="0")
    code, _, errors = terminal.call("server", "data", "--node", lonely.web)
    assert code == 3
    assert "503 Peer not connected" in errors
    lonely.end()


def test_a_node_that_goes_away_before_it_answers_leaves_the_outcome_unknown(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with terminal.start("server", "data", "--node", url) as process:
            connection, _ = listening.accept()
            connection.recv(10)
            connection.close()
            _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4
    assert b"it may have been executed" in errors


def test_an_answer_that_breaks_off_is_told_and_what_came_of_it_is_there(terminal: Terminal) -> None:
    with terminal.start("server", "broken/lines//here") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        assert terminal.call("server", "POST", "gate//here")[0] == 0
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 6
    assert b"the answer broke off" in errors


def test_an_answer_shorter_than_it_said_is_not_taken_for_whole(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with terminal.start("server", "data", "--node", url) as process:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.")
            output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (6, b"ten bytes.")
    assert b"the answer broke off" in errors


def test_ctrl_c_cancels_the_handler(terminal: Terminal, nodes: tuple[Site, Node, Node]) -> None:
    server = nodes[1]
    begun, cancelled = (server.output.count(f"get_wait {what}") for what in ("begins", "is cancelled"))
    with terminal.start("server", "wait//never") as process:
        server.wait_for("get_wait begins", times=begun + 1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (130, b"", b"")
    server.wait_for("get_wait is cancelled", times=cancelled + 1)


def test_a_reader_that_leaves_ends_it_quietly(terminal: Terminal) -> None:
    with terminal.start("server", "zeros//100") as process:
        assert process.stdout is not None
        assert process.stdout.read(10) == bytes(10)
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (141, b"")


def test_the_token_is_sent_and_a_unix_socket_is_found_by_the_nodes_variable(tmp_path: Path) -> None:
    with site_with_handlers(tmp_path) as site:
        bind, token = f"unix:{tmp_path}/web.sock", "s3cret"
        server = site.server(RP_SERVER_WEB_BIND=bind, RP_WEB_TOKEN=token)
        site.client(server.pipe_port)
        environment = clean_environment(RP_SERVER_WEB_BIND=bind)
        line = [str(SCRIPTS / "restpipe"), "call", "client/client/data"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 5
        assert "401 Token required" in done.stderr
        assert "set RP_WEB_TOKEN" in done.stderr
        environment |= {"RP_WEB_TOKEN": token}
        assert subprocess.run(line, env=environment, capture_output=True, check=False).stdout == b'{"data": [1, 2]}'
        named = [*line, "--node", bind]
        assert subprocess.run(named, env=environment, capture_output=True, check=False).stdout == b'{"data": [1, 2]}'


def on_a_terminal(terminal: Terminal, *words: str, stdout: bool) -> bytes:
    """Return what is shown on a terminal that is standard error, and standard output too where that is asked for."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(ours, 4096):
                shown.append(piece)
        except OSError:  # nobody has the other end any more
            pass

    with terminal.start(*words, stdout=theirs if stdout else subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        reading = threading.Thread(target=read)
        reading.start()
        assert process.wait(PATIENCE) == 0
        reading.join()
    os.close(ours)
    return b"".join(shown)


def test_json_is_laid_out_on_a_terminal_alone(terminal: Terminal) -> None:
    assert b'"data"' in on_a_terminal(terminal, "server", "data", stdout=True)
    assert b"\n  " in on_a_terminal(terminal, "server", "data", stdout=True)


def test_progress_is_shown_where_standard_error_is_a_terminal_and_the_output_is_not(terminal: Terminal) -> None:
    assert b"received" in on_a_terminal(terminal, "server", "zeros//8", stdout=False)
    assert b"received" in on_a_terminal(terminal, "server", "zeros//8", "-o", "zeros", stdout=True)
    assert on_a_terminal(terminal, "server", "data", stdout=False) == b""
    assert b"received" not in on_a_terminal(terminal, "server", "zeros//2", stdout=True)


def test_help_teaches_the_exit_codes(terminal: Terminal) -> None:
    code, output, _ = terminal.call("--help")
    assert code == 0
    for word in (b"restpipe call client/fileserver time", b"3: never sent", b"130: interrupted"):
        assert word in output
