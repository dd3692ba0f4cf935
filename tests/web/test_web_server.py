"""The web server listens where it is told, and refuses what is no HTTP with a problem document."""

import asyncio
import contextlib
import gc
import json
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
import uvloop

from restpipe.config import TcpBind, UnixBind, WebBind
from restpipe.exceptions import ConfigError
from restpipe.web.callers import Receive
from restpipe.web.http import MAX_HEAD, MOST_WAITING, WHOLE_RESPONSE, App, HttpProtocol
from restpipe.web.requests import Scope
from restpipe.web.server import WebServer
from restpipe.web.sockets import Send

ANYWHERE = TcpBind("127.0.0.1", 0)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the raw path."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["raw_path"]})


@contextlib.asynccontextmanager
async def serving(bind: WebBind = ANYWHERE, *, mode: int = 0o660) -> AsyncIterator[WebServer]:
    server = WebServer(hello, bind, socket_mode=mode, grace=1)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def impatient(
    monkeypatch: pytest.MonkeyPatch, app: App = hello, *, head: float = 3600, idle: float = 3600
) -> AsyncIterator[WebServer]:
    """Serve, looking at the connections all the time."""
    monkeypatch.setattr("restpipe.web.server.SWEEP_INTERVAL", 0.01)
    server = WebServer(app, ANYWHERE, socket_mode=0, grace=1, head_timeout=head, idle_timeout=idle)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def over_unix(path: Path) -> str:
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
        return (await client.get("http://any/where")).text


def _each(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


async def raw(server: WebServer, *pieces: bytes) -> tuple[bytes, bytes]:
    """Send bytes; return the head and the body of all that comes back until the server closes."""
    host, port = server.address.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(10):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                for _ in range(5):  # the server, in this loop, reads what is there: the pieces arrive as such
                    await asyncio.sleep(0)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return head, body
    finally:
        writer.close()


async def test_port_0_is_any_free_port_which_the_address_names(leak_free: None) -> None:
    async with serving() as server, httpx.AsyncClient(base_url=server.address) as client:
        assert (await client.get("/a%2Fb//c")).text == "/a%2Fb//c"


async def test_an_ipv6_address_is_listened_on_and_named_in_brackets(leak_free: None) -> None:
    async with serving(TcpBind("::1", 0)) as server, httpx.AsyncClient(base_url=server.address) as client:
        assert server.address.startswith("http://[::1]:")
        assert (await client.get("/here")).text == "/here"


async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = TcpBind("127.0.0.1", other.getsockname()[1])
        with pytest.raises(ConfigError, match=rf"cannot listen on {bind} for HTTP: the port is taken by another"):
            await WebServer(hello, bind, socket_mode=0o660, grace=1).start()


@pytest.mark.parametrize("host", [b"[::1]:8080", b"[::1]", b"localhost:8080", b"127.0.0.1"])
async def test_the_host_of_a_target_in_absolute_form_is_the_one_that_it_names(leak_free: None, host: bytes) -> None:
    async def tell_host(scope: Scope, receive: Receive, send: Send) -> None:
        told = [value for name, value in scope["headers"] if name == b"host"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b", ".join(told)})

    server = WebServer(tell_host, ANYWHERE, socket_mode=0, grace=1)
    await server.start()
    try:
        request = b"GET http://%b/x HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n" % host
        _, body = await raw(server, request)
    finally:
        await server.stop()
    assert body == b"%x\r\n%b\r\n0\r\n\r\n" % (len(host), host)


async def test_a_host_that_is_not_this_machines_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0 for HTTP: Cannot assign"):
        await WebServer(hello, TcpBind("192.0.2.1", 0), socket_mode=0o660, grace=1).start()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_a_unix_socket_has_its_mode_and_is_gone_after_the_stop(
    tmp_path: Path, mode: int, leak_free: None
) -> None:
    path = tmp_path / "web.sock"
    async with serving(UnixBind(path), mode=mode) as server:
        assert server.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert await over_unix(path) == "/where"
    assert not path.exists()


async def test_a_unix_socket_that_a_dead_process_left_is_replaced(tmp_path: Path, leak_free: None) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    async with serving(UnixBind(path)):
        assert await over_unix(path) == "/where"


async def test_a_unix_socket_where_somebody_listens_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    async with serving(UnixBind(path)):
        with pytest.raises(ConfigError, match="another process listens there"):
            await WebServer(hello, UnixBind(path), socket_mode=0o660, grace=1).start()
        assert await over_unix(path) == "/where"


async def test_a_listener_that_is_too_busy_to_accept_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with contextlib.ExitStack() as sockets:
        busy = sockets.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                caller = sockets.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(path))
        with pytest.raises(ConfigError, match="another process listens there"):
            await WebServer(hello, UnixBind(path), socket_mode=0o660, grace=1).start()
    assert path.exists()


async def test_a_socket_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(ConfigError, match=f"cannot listen on unix:{path}"):
            await WebServer(hello, UnixBind(path), socket_mode=0o660, grace=1).start()
    assert path.is_socket()


async def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="there is a file of that name"):
        await WebServer(hello, UnixBind(path), socket_mode=0o660, grace=1).start()
    assert path.read_text() == "precious"


async def test_a_unix_socket_in_a_directory_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "no" / "web.sock"
    with pytest.raises(ConfigError, match=f"cannot listen on unix:{path} for HTTP: No such file"):
        await WebServer(hello, UnixBind(path), socket_mode=0o660, grace=1).start()


async def test_stopping_at_once_after_the_start_frees_the_port(leak_free: None) -> None:
    server = WebServer(hello, ANYWHERE, socket_mode=0o660, grace=1)
    await server.start()
    port = int(server.address.rpartition(":")[2])
    await server.stop()
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_stopping_what_was_not_started_does_nothing(leak_free: None) -> None:
    await WebServer(hello, ANYWHERE, socket_mode=0o660, grace=1).stop()


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\n12345",
        b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    ],
)
async def test_a_head_that_is_no_http_is_400_as_a_problem_document(request_: bytes) -> None:
    async with serving() as server:
        head, body = await raw(server, request_)
    status, *headers = head.lower().split(b"\r\n")
    assert status == b"http/1.1 400 bad request"
    assert {b"content-type: application/problem+json", b"x-event-return-code: 252", b"connection: close"} <= {*headers}
    problem = json.loads(body)
    assert problem["executed"] == "no"
    assert problem["exception"]["class"] == "BadRequestError"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n",
        b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (MAX_HEAD // 5) + b"\r\n",
    ],
    ids=["value", "target", "many"],
)
@pytest.mark.parametrize("cut", [None, 3000, -3], ids=["whole", "in two", "in two at its end"])
async def test_a_head_that_is_too_large_is_431_however_it_arrives(head: bytes, cut: int | None) -> None:
    async with serving() as server:
        pieces = [head] if cut is None else [head[:cut], head[cut:]]
        answer, body = await raw(server, *pieces)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"x-event-return-code: 249" in answer
    assert str(MAX_HEAD) in json.loads(body)["detail"]


async def test_a_head_that_never_ends_is_431_before_it_ends() -> None:
    async with serving() as server:
        answer, _ = await raw(server, b"GET / HTTP/1.1\r\n", *[b"X: " + b"y" * 1000 + b"\r\n"] * (MAX_HEAD // 1000 + 1))
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_what_comes_behind_a_body_adds_nothing_to_the_head() -> None:
    async def names(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        body = b" ".join(name for name, _ in scope["headers"])
        await send({"type": WHOLE_RESPONSE, "status": 200, "headers": [], "body": body})

    server = WebServer(names, ANYWHERE, socket_mode=0, grace=1)
    await server.start()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    trailers = b"Authorization: Bearer x\r\n" * 10_000
    _, body = await raw(server, head, b"1\r\na\r\n0\r\n", *_each(trailers, 50_000), b"\r\n")
    await server.stop()
    assert body == b"host transfer-encoding connection"


async def test_bodies_and_requests_before_it_do_not_count_for_a_head() -> None:
    body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * MAX_HEAD) + bytes(2 * MAX_HEAD)
    last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with serving() as server:
        answer, rest = await raw(server, body[:10], body[10:] + body + last[:10], last[10:])
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert rest.count(b"HTTP/1.1 200 OK") == 2
    assert rest.endswith(b"/last\r\n0\r\n\r\n")


async def test_a_head_of_just_less_than_the_limit_is_served_however_it_arrives() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + b"x" * (MAX_HEAD - 100) + b"\r\n\r\n"
    async with serving() as server:
        for pieces in ([head], [head[:-1], head[-1:]], [head[:8000], head[8000:]], [head[:9], *_each(head[9:], 1000)]):
            assert (await raw(server, *pieces))[0].startswith(b"HTTP/1.1 200 ")


async def test_the_heads_of_one_connection_do_not_add_up() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (MAX_HEAD // 2) + b"\r\n\r\n"
    last = head.replace(b"Host: a", b"Host: a\r\nConnection: close")
    async with serving() as server:
        answer, rest = await raw(
            server, *[piece for each in (head, head, last) for piece in (each[:9], each[9:-1], each[-1:])]
        )
    assert (answer + rest).count(b"HTTP/1.1 200 OK") == 3


class Held:
    """An application that answers "held" once it is told to, after what it was told to begin with."""

    def __init__(self, begin: bytes | None = None) -> None:
        self._begin = begin
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["raw_path"] != b"/held":
            await hello(scope, receive, send)
            return
        start: dict[str, object] = {"type": "http.response.start", "status": 200}
        length = len(self._begin or b"") + len(b"held")
        if self._begin is not None:
            await send({**start, "headers": [(b"content-length", b"%d" % length)]})
            await send({"type": "http.response.body", "body": self._begin, "more_body": True})
        self.begun.set()
        listening = asyncio.create_task(self._listen(receive))
        await asyncio.wait({listening, asyncio.create_task(self.go.wait())}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._begin is None:
            await send({**start, "headers": [(b"content-length", b"%d" % length)]})
        await send({"type": "http.response.body", "body": b"held"})

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


@contextlib.asynccontextmanager
async def held_back(app: Held, first: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a request, and return once it is being served."""
    server = WebServer(app, ANYWHERE, socket_mode=0, grace=1)
    await server.start()
    try:
        host, port = server.address.removeprefix("http://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.timeout(10):
                writer.write(first)
                await app.begun.wait()
                yield reader, writer
        finally:
            writer.close()
    finally:
        await server.stop()


HELD = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("begin", [None, b"a part, and "], ids=["before its answer", "in the midst of its answer"])
@pytest.mark.parametrize(
    ("behind", "refusal"),
    [
        (b"\x00 is no HTTP\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n", b"HTTP/1.1 431 "),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno size", b"HTTP/1.1 400 "),
    ],
    ids=["no HTTP", "too large", "a broken body"],
)
async def test_what_cannot_be_read_behind_a_request_is_refused_after_that_was_answered(
    begin: bytes | None, behind: bytes, refusal: bytes
) -> None:
    app = Held(begin)
    async with held_back(app, HELD) as (reader, writer):
        for piece in (behind, b"and more"):
            writer.write(piece)
            for _ in range(5):  # as in `raw`
                await asyncio.sleep(0)
        app.go.set()
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    answer = (begin or b"") + b"held"
    assert rest.startswith(answer + refusal)
    assert rest.count(b"HTTP/1.1 ") == 1
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["executed"] == "no"


CHUNKED = b"POST /held HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"


async def test_of_a_request_whose_body_breaks_before_its_answer_the_outcome_is_unknown() -> None:
    app = Held()
    async with held_back(app, CHUNKED) as (reader, writer):
        writer.write(b"no size")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        await app.left.wait()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["executed"] == "unknown"


async def test_an_answer_whose_request_s_body_breaks_is_cut_and_nothing_is_written_into_it() -> None:
    app = Held(b"a part, and ")
    async with held_back(app, CHUNKED) as (reader, writer):
        writer.write(b"no size")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        await app.left.wait()
    assert b"content-length: 16" in head
    assert body == b"a part, and "


async def hang_up_before_two_answers() -> None:
    app = Held()
    async with held_back(app, HELD) as (_, writer):
        writer.write(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(5):  # as in `raw`
            await asyncio.sleep(0)
        writer.close()
        await app.left.wait()


async def test_a_caller_that_hangs_up_is_missed_by_the_request_at_hand_whatever_waits_behind_it() -> None:
    await hang_up_before_two_answers()


async def test_a_web_socket_behind_a_request_that_waits_for_its_answer_is_not_opened() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    app = Held()
    async with held_back(app, HELD) as (reader, writer):
        writer.write(upgrade + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        for _ in range(5):  # as in `raw`
            await asyncio.sleep(0)
        app.go.set()
        assert (await reader.readuntil(b"held")).startswith(b"HTTP/1.1 200 ")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")


async def test_what_no_web_socket_begins_with_is_served_as_if_it_asked_for_none() -> None:
    upgrade = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    async with serving() as server:
        head, _ = await raw(server, upgrade + b"Sec-WebSocket-Version: 13\r\nContent-Length: 1\r\n\r\nx")
    assert head.startswith(b"HTTP/1.1 200 ")


class Bodies:
    """Answers with the body, and notes the method of each request."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.methods.append(scope["method"])
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<%b>" % body})


FOR_HTTP_2 = b" / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("requests", "bodies"),
    [
        ([b"POST", FOR_HTTP_2, b"Content-Length: 5\r\n\r\nthree", LAST], [b"<three>", b"<>"]),
        (
            [b"POST", FOR_HTTP_2, b"Transfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n", LAST],
            [b"<three>", b"<>"],
        ),
        ([b"PUT", FOR_HTTP_2, b"Content-Length: %d\r\n\r\n" % len(LAST), LAST, LAST], [b"<%b>" % LAST, b"<>"]),
        ([b"GET", FOR_HTTP_2, b"\r\n", b"GET", FOR_HTTP_2, b"\r\n", LAST], [b"<>", b"<>", b"<>"]),
        (
            [b"GET", FOR_HTTP_2, b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x" * MAX_HEAD, b"\r\n\r\n"],
            [b"<>", b" 431 "],
        ),
        ([b"GET http:///x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", LAST], [b'"status": 400']),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_a_request_that_asks_for_http_2_is_served_with_its_body_and_so_are_those_behind_it(
    requests: list[bytes], bodies: list[bytes], together: bool
) -> None:
    app = Bodies()
    server = WebServer(app, ANYWHERE, socket_mode=0, grace=1)
    await server.start()
    try:
        answers = b"".join(await raw(server, *([b"".join(requests)] if together else requests)))
    finally:
        await server.stop()
    assert answers.count(b"HTTP/1.1 ") == len(bodies)
    ends = [answers.index(body) for body in bodies[:1]]
    for body in bodies[1:]:
        ends.append(answers.index(body, ends[-1] + 1))
    assert len(app.methods) == sum(body.startswith(b"<") for body in bodies)


async def test_a_head_that_does_not_come_to_its_end_is_answered_408(monkeypatch: pytest.MonkeyPatch) -> None:
    async with impatient(monkeypatch, head=0.05) as server:
        head, body = await raw(server, b"GET /slow HTTP/1.1\r\nHost: ", b"a")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head
    assert json.loads(body)["detail"] == "the head of the request was not complete within 0.05 s"


async def test_a_connection_that_asks_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with impatient(monkeypatch, idle=0.05) as server:
        assert await raw(server) == (b"", b"")


async def test_a_connection_is_kept_between_requests_and_closed_when_no_more_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with impatient(monkeypatch, idle=0.05) as server:
        head, body = await raw(server, 2 * b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body.count(b"HTTP/1.1 200 ") == 1


async def test_a_caller_that_waits_for_its_answer_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        looked_at.clear()
        await looked_at.wait()
        await hello(scope, receive, send)

    expire = HttpProtocol.expire

    def expire_and_tell(self: HttpProtocol, now: float, head_timeout: float, idle_timeout: float) -> None:
        expire(self, now + 3600, head_timeout, idle_timeout)
        looked_at.set()

    async with impatient(monkeypatch, slow, head=60, idle=60) as server:
        monkeypatch.setattr(HttpProtocol, "expire", expire_and_tell)
        head, body = await raw(server, b"GET /one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"/one" in body


async def test_a_head_that_comes_slowly_has_the_time_of_a_head_and_not_that_of_silence() -> None:
    async with serving() as server:
        host, port = server.address.removeprefix("http://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(10):
            writer.write(b"GET /slow HTTP/1.1\r\n")
            while not any(connection._in_head for connection in server._http_connections()):  # noqa: ASYNC110
                await asyncio.sleep(0)
            (connection,) = server._http_connections()
            connection.expire(asyncio.get_running_loop().time() + 60, head_timeout=120, idle_timeout=5)
            writer.write(b"Host: a\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_of_many_requests_that_come_at_once_on_a_connection_and_of_those_behind_them_all_are_answered() -> None:
    request = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    crowd = b"".join(request % number for number in range(3 * MOST_WAITING))
    async with serving() as server:
        head, rest = await raw(server, crowd, b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (head + rest).count(b"HTTP/1.1 200 OK") == 3 * MOST_WAITING + 1
    assert b"/last" in rest


async def test_a_caller_that_waited_once_to_be_asked_for_its_body_need_not_be_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await hello(scope, receive, send)

    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n%b\r\nx"
    async with impatient(monkeypatch, read) as server:
        head, rest = await raw(server, request % b"Expect: 100-continue\r\n", request % b"Connection: close\r\n")
    answers = head + rest
    assert (answers.count(b"HTTP/1.1 100 "), answers.count(b"HTTP/1.1 200 ")) == (1, 2)


@contextlib.contextmanager
def no_connection_left() -> Iterator[None]:
    """See that none waits for the garbage collector at the end."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, HttpProtocol)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left


async def test_a_connection_that_is_over_is_not_left_to_the_garbage_collector() -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n"
    with no_connection_left():
        async with serving() as server:
            head, _ = await raw(server, request % b"", request % b"Connection: close\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")


async def test_the_connection_of_a_caller_that_hangs_up_is_not_left_to_the_garbage_collector() -> None:
    with no_connection_left():
        await hang_up_before_two_answers()


async def test_an_answer_that_is_whole_leaves_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
        assert WHOLE_RESPONSE in scope["extensions"]
        await send({"type": WHOLE_RESPONSE, "status": 201, "headers": headers, "body": b"whole"})

    written: list[bytes] = []
    made = HttpProtocol.connection_made

    def recording(self: HttpProtocol, transport: asyncio.Transport) -> None:
        made(self, transport)

        def write(data: bytes) -> None:
            written.append(data)
            transport.write(data)

        self.transport = Mock(wraps=transport, write=write)

    monkeypatch.setattr(HttpProtocol, "connection_made", recording)
    async with impatient(monkeypatch, whole) as server:
        head, body = await raw(server, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.1 201 Created"
    assert body == b"whole"
    assert written == [head + b"\r\n\r\n" + body]


async def test_while_answers_are_left_unread_none_is_made_to_the_requests_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size, requests, made = 1024 * 1024, 40, 0

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal made
        made += 1
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": WHOLE_RESPONSE, "status": 200, "headers": headers, "body": bytes(size)})

    async with impatient(monkeypatch, large) as server, asyncio.timeout(30):
        host, port = server.address.removeprefix("http://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * requests)
        while not any(connection.flow.write_paused for connection in server._http_connections()):  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(10 * requests):  # more than enough to make all of them
            await asyncio.sleep(0)
        assert made < requests / 2  # the kernel takes a few
        for _ in range(requests):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(size)
        assert made == requests
        writer.close()


async def test_an_answer_that_breaks_is_cut_and_the_connection_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise RuntimeError("broken")

    server = WebServer(breaks, ANYWHERE, socket_mode=0, grace=1)
    await server.start()
    try:
        _, body = await raw(server, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    finally:
        await server.stop()
    assert body == b"4\r\nsome\r\n"
    assert "GET '/x' failed" in caplog.text


@pytest.mark.parametrize("whole", [False, True])
async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    over = asyncio.Event()
    lost = HttpProtocol.connection_lost

    def connection_lost(self: HttpProtocol, error: Exception | None) -> None:
        lost(self, error)
        over.set()

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(64 * 1024 * 1024)
        if whole:
            headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not over.is_set():
                await send({"type": "http.response.body", "body": body[:65536], "more_body": True})

    monkeypatch.setattr(HttpProtocol, "connection_lost", connection_lost)
    async with impatient(monkeypatch, large, idle=0.05) as server:
        host, port = server.address.removeprefix("http://").rsplit(":", 1)
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(10):
                await over.wait()


async def test_a_bug_before_the_answer_is_a_problem_document() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("broken")

    server = WebServer(breaks, ANYWHERE, socket_mode=0, grace=1)
    await server.start()
    try:
        head, body = await raw(server, b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    finally:
        await server.stop()
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"x-event-return-code: 250" in head
    assert json.loads(body)["detail"] == "RuntimeError: broken"


def test_connections_that_wait_together_are_accepted_together() -> None:
    async def accept(most: int) -> None:
        async with serving() as server, asyncio.timeout(10):
            accepted = server._server.server_state.connections
            while not server._server.started:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0)
            with contextlib.ExitStack() as stack:
                port = int(server.address.rpartition(":")[2])
                for _ in range(most):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                for _ in range(most // 2):  # rounds of the event loop, each of which is long where a node is busy
                    await asyncio.sleep(0)
                assert len(accepted) == most

    uvloop.run(accept(100))


async def test_who_is_refused_and_asks_again_at_once_is_read_later_each_time_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"0")]
        refused = scope["path"] == "/full"
        await send({"type": WHOLE_RESPONSE, "status": 200, "headers": headers, "body": b"", "refused": refused})

    loop = asyncio.get_running_loop()
    async with impatient(monkeypatch, full) as server, httpx.AsyncClient(base_url=server.address) as hasty:
        for _ in range(2):
            began = loop.time()
            for _ in range(4):
                await hasty.get("/full")
            assert loop.time() - began >= 0.07 * 0.9
            await hasty.get("/room")
            (connection,) = server._http_connections()
            assert connection._pause == 0.01
