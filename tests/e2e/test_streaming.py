"""Bodies of any length flow both ways as they are made, through real processes; nobody holds them, no end is hidden."""

import hashlib
import itertools
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e_curl import PATIENCE, Curl, curl
from e2e_processes import UNSOUND, Node, Process, Site, clean_environment, free_port
from e2e_streams import PIECE, pieces_of_noise
from readme_settings import README

MIB = 1024 * 1024
# 200 MiB.
PIECES = 3200
# Bytes by which a node's memory may grow while a long body passes: windows, buffers, the allocator's leftovers.
ROOM = 48 * MIB
# Seconds, less than any deadline of a request: what should come within one, on a machine that is busy.
SOON = 10.0
NAMES = (f"name{i}" for i in itertools.count())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("streams")
    shutil.copy(Path(__file__).with_name("e2e_streams.py"), directory)
    with Site(directory, RP_EVENT_HANDLER_FQ_CLASS="e2e_streams.Streams", RP_SEND_TRACEBACKS="0") as site:
        yield site


@pytest.fixture(scope="module")
def nodes(site: Site) -> tuple[Node, Node]:
    server, client = site.pair()
    server.wait_for("client client connected")
    server.may_raise = client.may_raise = True
    return server, client


class Way:
    """One direction: the node that is asked over HTTP, and the one that serves."""

    def __init__(self, asked: Node, serving: Node, prefix: str) -> None:
        self.asked = asked
        self.serving = serving
        self.prefix = prefix
        self.base = f"{asked.web}{prefix}"

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.asked.web.removeprefix("http://").split(":")
        return host, int(port)

    def wait_for_next(self, pattern: str, before: str) -> re.Match[str]:
        """Wait until the serving node has written what matches, after what it had written before."""
        return self.serving.wait_for(pattern, times=len(re.findall(pattern, before, re.MULTILINE)) + 1)


@pytest.fixture(params=["to server", "to client"])
def way(request: pytest.FixtureRequest, nodes: tuple[Node, Node]) -> Way:
    server, client = nodes
    if request.param == "to server":
        return Way(client, server, "/server")
    return Way(server, client, "/client/client")


def digest_of(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("noise") / "noise"
    with file.open("wb") as out:
        out.writelines(pieces_of_noise(PIECES))
    yield file
    file.unlink()


@contextmanager
def bounded_memory(*nodes: Node) -> Iterator[None]:
    """Fail where the memory of a node was ever much larger than at the beginning."""
    for node in nodes:
        Path(f"/proc/{node.pid}/clear_refs").write_text("5")  # VmHWM starts again at what there is now
    before = [memory_of(node, "VmRSS") for node in nodes]
    yield
    grown = [memory_of(node, "VmHWM") - size for node, size in zip(nodes, before, strict=True)]
    assert max(grown) < ROOM


def memory_of(node: Node, what: str) -> int:
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{node.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


# Long bodies


@pytest.mark.parametrize("noun", ["digest", "digest/sync"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_long_request_arrives_byte_by_byte_and_is_held_nowhere(
    way: Way, noise: Path, noun: str, *, chunked: bool
) -> None:
    headers = ["-H", "Content-Type: x/y; z=1", *(["-H", "Transfer-Encoding: chunked"] if chunked else [])]
    with bounded_memory(way.asked, way.serving):
        answer = curl(f"{way.base}/{noun}", "-X", "POST", "-T", str(noise), *headers)
    size = PIECES * PIECE
    assert answer.json == [digest_of(pieces_of_noise(PIECES)), size, None if chunked else size, "x/y; z=1"]


@pytest.mark.parametrize("noun", ["noise", "noise/sync"])
def test_a_long_answer_arrives_byte_by_byte_and_is_held_nowhere(way: Way, noun: str) -> None:
    with bounded_memory(way.asked, way.serving):
        answer = curl(f"{way.base}/{noun}//{PIECES}")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert digest_of([answer.body]) == digest_of(pieces_of_noise(PIECES))


def test_a_long_body_that_is_sent_back_while_it_arrives_is_held_nowhere(way: Way, noise: Path) -> None:
    with bounded_memory(way.asked, way.serving):
        answer = curl(f"{way.base}/mirror", "-X", "POST", "-T", str(noise))
    assert digest_of([answer.body]) == digest_of(pieces_of_noise(PIECES))


def test_a_slow_reader_slows_its_handler_and_nobody_holds_what_it_does_not_read(way: Way) -> None:
    with bounded_memory(way.asked, way.serving), socket.create_connection(way.address) as reader:
        reader.settimeout(PATIENCE)
        reader.sendall(f"GET {way.prefix}/noise//{PIECES} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        head = reader.recv(100)
        for _ in range(50):
            assert curl(f"{way.base}/neighbour").json == "unaffected"
        received = len(head)
        while data := reader.recv(MIB):
            received += len(data)
    assert received > PIECES * PIECE


@pytest.mark.parametrize("noun", ["slow", "slow/sync"])
def test_a_slow_handler_slows_its_caller_and_nobody_holds_what_it_does_not_read(
    way: Way, noise: Path, noun: str, tmp_path: Path
) -> None:
    gate = next(NAMES)
    before = way.serving.output
    with bounded_memory(way.asked, way.serving):
        uploading = Process(
            "curl", "-sS", "-X", "POST", "-T", noise, f"{way.base}/{noun}//{gate}",
            directory=tmp_path, environment=clean_environment(),
        )  # fmt: skip
        way.wait_for_next("the slow one has begun", before)
        for _ in range(50):
            assert curl(f"{way.base}/neighbour").json == "unaffected"
        curl(f"{way.base}/gate//{gate}", "-X", "POST")
        assert uploading.wait() == f'"{digest_of(pieces_of_noise(PIECES))}"'


# As they are made


@contextmanager
def through_nginx(way: Way, directory: Path, configuration: str) -> Iterator[str]:
    """Run nginx in front of the node that is asked; yield the base of URLs."""
    port = free_port()
    sites = configuration.replace("127.0.0.1:80;", f"127.0.0.1:{port};").replace(
        "unix:/run/restpipe-client/web.sock", "{}:{}".format(*way.address)
    )
    paths = "".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = directory / "nginx.conf"
    file.write_text(f"daemon off; pid {directory}/pid; events {{}} http {{ access_log off; {paths} {sites} }}")
    nginx = Process(
        "nginx", "-p", directory, "-c", file, "-e", "stderr", directory=directory, environment=clean_environment()
    )
    try:
        subprocess.run(
            ["curl", "-s", "--retry-connrefused", "--retry", "50", "--retry-delay", "0", "--retry-max-time", "20",
             "-o", "/dev/null", f"http://127.0.0.1:{port}/"],
            check=True, timeout=PATIENCE,
        )  # fmt: skip
        yield f"http://localhost:{port}{way.prefix}"
        nginx.end()
    finally:
        if nginx.running:
            nginx.kill()


def documented() -> str:
    """Return what the README tells to configure."""
    (found,) = re.findall(r"^```nginx\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(found).replace("rpclient.local", "localhost")


USUAL = """
server { listen 127.0.0.1:80; location / {
    proxy_pass http://unix:/run/restpipe-client/web.sock; proxy_set_header Host $http_host;
} }
"""


@pytest.fixture(params=["directly", "through nginx as documented", "through nginx as usual"])
def base(request: pytest.FixtureRequest, way: Way, tmp_path: Path) -> Iterator[str]:
    if request.param == "directly":
        yield way.base
        return
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with through_nginx(way, tmp_path, documented() if "documented" in request.param else USUAL) as base:
        yield base


# nginx holds requests back unless it is told not to.
UNBUFFERED = pytest.mark.parametrize("base", ["directly", "through nginx as documented"], indirect=True)


@pytest.mark.parametrize(
    ("noun", "mime_type", "piece"),
    [
        ("events", "text/event-stream", "data: GATE {}\n\n"),
        ("lines", "application/x-ndjson", '{{"line": "{}"}}\n'),
    ],
)
def test_each_of_an_answers_pieces_arrives_before_the_next_is_made(
    way: Way, base: str, noun: str, mime_type: str, piece: str
) -> None:
    gate = next(NAMES)
    first, second, last = (piece.replace("GATE", gate).format(n).encode() for n in ("first", "second", "last"))
    with Curl(f"{base}/{noun}//{gate}") as reading:
        assert f"content-type: {mime_type}\r\n" in reading.read_until(b"\r\n\r\n").decode().lower()
        assert reading.read_until(first) == first
        curl(f"{way.base}/gate//{gate}", "-X", "POST")
        assert reading.read_until(second) == second
        curl(f"{way.base}/gate//{gate}%20again", "-X", "POST")
        assert reading.read_until(last) == last


@UNBUFFERED
@pytest.mark.parametrize("noun", ["lines", "lines/sync"])
def test_each_of_a_requests_pieces_arrives_before_the_next_is_made(way: Way, base: str, noun: str) -> None:
    with Curl(f"{base}/{noun}", uploads=True) as sending:
        for _ in range(3):
            line = next(NAMES)
            sending.write(f"{line}\n".encode())
            way.serving.wait_for(rf"piece b'{line}\\n'")
        before = way.serving.output
        assert sending.answer().status == 200
        way.wait_for_next("a clean end", before)


@pytest.mark.parametrize("noun", ["mirror", "mirror/sync"])
def test_a_handler_answers_each_piece_before_the_next_is_made(way: Way, noun: str) -> None:
    with Curl(f"{way.base}/{noun}", uploads=True) as talking:
        talking.write(b"the first\n")
        talking.read_until(b"\r\n\r\nthe first\n")
        for line in (b"the second\n", b"the third\n"):
            talking.write(line)
            assert talking.read_until(b"\n") == line


def test_an_answer_without_a_length_asks_proxies_not_to_hold_it_back(way: Way) -> None:
    gate = next(NAMES)
    with Curl(f"{way.base}/events//{gate}") as reading:
        assert b"\r\nx-accel-buffering: no\r\n" in reading.read_until(b"\r\n\r\n")
    assert "x-accel-buffering" not in curl(f"{way.base}/neighbour").headers


# Ends that are none


@pytest.mark.parametrize("noun", ["endless", "endless/sync"])
def test_a_reader_that_is_killed_closes_the_generator(way: Way, noun: str) -> None:
    before = way.serving.output
    with Curl(f"{way.base}/{noun}") as reading:
        reading.read_until(bytes(10))
    way.wait_for_next("the generator is closed", before)


@pytest.mark.parametrize(("noun", "error"), [("lines", "CancelledError"), ("lines/sync", "PipeLostError")])
@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", "Content-Length: 1000000"])
def test_a_caller_that_goes_away_is_an_error_and_no_end(way: Way, noun: str, error: str, length: str) -> None:
    before = way.serving.output
    line = next(NAMES)
    with socket.create_connection(way.address) as caller:
        size = f"{len(line) + 1:x}\r\n" if "chunked" in length else ""
        caller.sendall(f"POST {way.prefix}/{noun} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
        caller.sendall(f"{size}{line}\n\r\n".encode())
        way.serving.wait_for(rf"piece b'{line}\\n")
    way.wait_for_next(f"broken by {error}", before)
    assert way.serving.output.count("a clean end") == before.count("a clean end")


@pytest.mark.parametrize(("noun", "error"), [("lines", "CancelledError"), ("lines/sync", "PipeLostError")])
def test_a_curl_that_is_killed_is_an_error_and_no_end(way: Way, noun: str, error: str) -> None:
    before = way.serving.output
    line = next(NAMES)
    with Curl(f"{way.base}/{noun}", uploads=True) as sending:
        sending.write(f"{line}\n".encode())
        way.serving.wait_for(rf"piece b'{line}\\n'")
    way.wait_for_next(f"broken by {error}", before)
    assert way.serving.output.count("a clean end") == before.count("a clean end")


@pytest.mark.parametrize(
    ("noun", "size", "options"),
    [
        ("slow", 4 * MIB, ()),
        ("unread", 4 * MIB, ("-H", "Expect:")),
        ("unread", 4 * MIB, ("-H", "Expect: 100-continue", "--expect100-timeout", "0.1")),
        ("unread", 0, ("-H", "Expect: 100-continue", "--expect100-timeout", "60")),
    ],
)
def test_a_curl_that_is_killed_while_nobody_takes_its_body_cancels_the_handler(
    way: Way, noun: str, size: int, options: tuple[str, ...]
) -> None:
    before, gate = way.serving.output, next(NAMES)
    with Curl(f"{way.base}/{noun}//{gate}", "-H", "X-Event-Timeout: 600", *options, uploads=True) as sending:
        sending.write(bytes(size))
        way.wait_for_next("the slow one has begun", before)
    way.serving.wait_for(f"^the slow one at {gate} is cancelled", within=SOON)


@pytest.mark.parametrize(
    ("noun", "outcome"), [("digest", (408, 249, "unknown")), ("slow//shut", (504, 247, "unknown"))]
)
def test_a_body_that_stands_still_is_408_where_its_caller_does_not_go_on_and_504_where_its_handler_does_not(
    way: Way, noun: str, outcome: tuple[int, int, str]
) -> None:
    with socket.create_connection(way.address) as caller:
        caller.settimeout(PATIENCE)
        request = f"POST {way.prefix}/{noun} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {8 * MIB}\r\n"
        caller.sendall(f"{request}X-Event-Timeout: 1\r\n\r\n".encode() + bytes(4 * MIB))
        answer = read_answer(caller)
    head, _, body = answer.partition(b"\r\n\r\n")
    document = json.loads(body)
    code = re.search(rb"x-event-return-code: (\d+)", head)
    assert code is not None
    assert (document["status"], int(code[1]), document["executed"]) == outcome
    assert document["instance"].startswith("urn:restpipe:request:")


def read_answer(caller: socket.socket) -> bytes:
    """Read an answer whose connection stays open."""
    answer = b""
    while not answer.endswith(b"}"):
        piece = caller.recv(MIB)
        assert piece, answer
        answer += piece
    return answer


def test_an_answer_that_breaks_is_cut_so_that_its_reader_sees_it(way: Way, base: str) -> None:
    gate = next(NAMES)
    with Curl(f"{base}/broken//{gate}") as reading:
        reading.read_until(b"the beginning\n")
        curl(f"{way.base}/gate//{gate}", "-X", "POST")
        assert reading.failure() == 18  # CURLE_PARTIAL_FILE


def test_a_handler_may_answer_before_the_body_has_ended_and_the_connection_lives_on(way: Way) -> None:
    with socket.create_connection(way.address) as caller:
        caller.settimeout(PATIENCE)
        head = f"POST {way.prefix}/first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        caller.sendall(head.encode() + b"begin")
        answers = caller.makefile("rb")
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
        while answers.readline() != b"\r\n":
            pass
        assert answers.read(5) == b"begin"
        caller.sendall(bytes(1_000_000 - 5))
        caller.sendall(f"GET {way.prefix}/neighbour HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
        assert answers.read().endswith(b'"unaffected"')


def test_the_nodes_are_sound_and_have_still_their_first_pipe(nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        assert "disconnected" not in node.output
        assert set(re.findall(UNSOUND, node.output)) <= {"Traceback"}
        assert node.output.count("Traceback") == node.output.count("Streams.get_broken failed")


# What is refused, and what is empty


def test_a_body_over_the_limit_of_what_is_held_whole_is_refused_unread(way: Way, noise: Path) -> None:
    for options in ((), ("-H", "Expect: 100-continue"), ("-H", "Transfer-Encoding: chunked")):
        answer = curl(f"{way.base}/whole", "-X", "POST", "-T", str(noise), *options)
        assert answer.outcome == (413, 249, "no")


def expecting(url: str, file: Path, *options: str) -> list[str]:
    """Send a file once it is asked for; return the status of the answer and the number of bytes that were sent."""
    process = Process(
        "curl", "-sS", "-X", "POST", "-T", file, "-H", "Expect: 100-continue", "--expect100-timeout", str(PATIENCE),
        "-o", "/dev/null", "-w", "%{http_code} %{size_upload}", *options, url,
        directory=file.parent, environment=clean_environment(),
    )  # fmt: skip
    return process.wait().split()


@pytest.mark.parametrize("options", [(), ("-H", "Transfer-Encoding: chunked")])
def test_who_expects_to_be_asked_for_the_body_is_asked(way: Way, options: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(bytes(2 * MIB))
    status, sent = expecting(f"{way.base}/whole", file, *options)
    assert status == "200"
    assert int(sent) >= 2 * MIB


@pytest.mark.parametrize("noun", ["digest", "digest/sync"])
@pytest.mark.parametrize("options", [(), ("-H", "Transfer-Encoding: chunked")])
def test_an_empty_body_is_a_stream_at_its_end(way: Way, noun: str, options: tuple[str, ...], tmp_path: Path) -> None:
    empty = Path("/dev/null") if options else tmp_path / "empty"  # of a device curl knows no size
    empty.touch()
    answer = curl(f"{way.base}/{noun}", "-X", "POST", "-T", str(empty), *options)
    assert answer.json == [digest_of([]), 0, None if options else 0, ""]


@pytest.mark.parametrize("options", [(), ("-H", "Transfer-Encoding: chunked")])
def test_the_body_of_a_caller_that_asks_for_http_2_is_not_lost(way: Way, options: tuple[str, ...]) -> None:
    """`Upgrade: h2c` comes with it, as from Java's HTTP client, too, unless it is told otherwise."""
    body = bytes(MIB)
    answer = curl(f"{way.base}/digest", "--http2", *options, data=body)
    assert answer.json[:2] == [digest_of([body]), MIB]


def test_head_of_a_stream_has_no_body_and_ends(way: Way) -> None:
    answer = curl(f"{way.base}/noise//100", "--head")
    assert (answer.status, answer.body) == (200, b"")
    assert curl(f"{way.base}/noise//0").body == b""


@pytest.mark.parametrize(("path", "status"), [("/nowhere", "404"), ("/whole", "413"), ("/digest//1", "400")])
def test_who_expects_to_be_asked_for_the_body_is_refused_without_it(
    way: Way, path: str, status: str, noise: Path
) -> None:
    assert expecting(f"{way.base}{path}", noise) == [status, "0"]
