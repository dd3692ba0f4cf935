"""An HTTP service behind a node gets what was asked and its callers get what it answers, byte by byte, as it comes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from live_nodes import PATIENCE
from services import Connection, Received, Service, Tunnel, service, tasks_left_by, tunnel_to

from restpipe.config import UpstreamAddress
from restpipe.handlers.upstream import Upstream
from restpipe.protocol.limits import INLINE_BYTES

# Bytes that no window, and no buffer of the system, can hold.
ENOUGH = 64 * 1024 * 1024
OK = ("HTTP/1.1 200 OK", "Content-Length: 2")


@contextlib.asynccontextmanager
async def through(
    identity_files: Path, script: Callable[[Connection], Awaitable[None]], *, path: str = "", unix: Path | None = None
) -> AsyncIterator[tuple[Tunnel, Service]]:
    async with service(script, path=path, socket=unix) as made, tunnel_to(identity_files, made.address) as tunnel:
        yield tunnel, made


class Notes:
    """Answers every request with "ok", and notes their heads."""

    def __init__(self, *lines: str | bytes, body: bytes = b"ok") -> None:
        self.heads: list[Received] = []
        self.bodies: list[bytes] = []
        self._lines = lines or OK
        self._body = body

    async def __call__(self, connection: Connection) -> None:
        while not connection.reader.at_eof():
            try:
                head = await connection.head()
            except asyncio.IncompleteReadError:
                return
            self.heads.append(head)
            if "transfer-encoding" in head:
                self.bodies.append(await connection.chunks())
            elif "content-length" in head:
                self.bodies.append(await connection.body(int(head["content-length"])))
            await connection.send(*self._lines, body=self._body)


@pytest.mark.parametrize("target", ["/", "/a%2Fb//c/./d/", "//x", "/a?b=%zz&b=&&c d".replace(" ", "+"), "/%E2%82%AC?"])
async def test_the_target_arrives_as_it_was_written(identity_files: Path, target: str) -> None:
    notes = Notes()
    async with through(identity_files, notes) as (tunnel, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.port)
        writer.write(f"GET /client/alpha{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert notes.heads[0].line == f"GET {target.removesuffix('?')} HTTP/1.1"


@pytest.mark.parametrize("verb", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "REPORT", "PURGE"])
async def test_every_method_arrives(identity_files: Path, verb: str) -> None:
    notes = Notes()
    async with through(identity_files, notes) as (tunnel, _):
        assert (await tunnel.ask(verb)).content == b"ok"
    assert notes.heads[0].line == f"{verb} / HTTP/1.1"


@pytest.mark.parametrize(("path", "location"), [("alpha", "./alpha/"), ("%61lpha?a=b&c", "./%61lpha/?a=b&c")])
async def test_a_path_that_lacks_the_slash_after_the_client_s_name_leads_to_the_one_that_has_it(
    identity_files: Path, path: str, location: str
) -> None:
    notes = Notes()
    async with through(identity_files, notes) as (tunnel, _):
        answer = await tunnel.http.post(f"/client/{path}")
        assert (answer.status_code, answer.headers["location"]) == (308, location)
        assert answer.json()["executed"] == "no"
        assert notes.heads == []
        followed = await tunnel.http.post(f"/client/{path}", content=b"x", follow_redirects=True)
        assert followed.content == b"ok"
    assert notes.heads[0].line == f"POST /{path.partition('?')[1]}{path.partition('?')[2]} HTTP/1.1"


async def test_a_service_behind_the_path_of_another_is_asked_below_its_path(identity_files: Path) -> None:
    notes = Notes()
    async with through(identity_files, notes, path="/app") as (tunnel, _):
        await tunnel.ask("GET", "/x?y")
        up = await tunnel.http.get(
            httpx.URL(f"{tunnel.http.base_url}/client/alpha/", raw_path=b"/client/alpha/%2e%2e/z")
        )
        assert (up.status_code, up.headers["x-event-return-code"]) == (400, "252")
    assert [head.line for head in notes.heads] == ["GET /app/x?y HTTP/1.1"]


async def test_a_service_on_a_unix_socket_is_asked_as_any_other(identity_files: Path, tmp_path: Path) -> None:
    async with through(identity_files, Notes(), unix=tmp_path / "app.sock") as (tunnel, _):
        assert (await tunnel.ask("GET")).content == b"ok"


async def test_headers_arrive_with_those_of_a_proxy_and_without_those_of_the_connection(identity_files: Path) -> None:
    notes = Notes()
    sent = [
        ("Cookie", "a=1"), ("Cookie", "b=2"), ("X-Own", "caf\xe9"), ("Connection", "X-Hop"), ("X-Hop", "1"),
        ("Expect", "100-continue"), ("X-Event-Caller", "mallory"), ("Prefer", "wait=5"),
    ]  # fmt: skip
    async with through(identity_files, notes) as (tunnel, _):
        headers = [(name.encode(), value.encode("latin-1")) for name, value in sent]
        await tunnel.ask("POST", content=b"body", headers=headers)
    (head,) = notes.heads
    host = f"127.0.0.1:{tunnel.port}"
    assert [value for name, value in head.headers if name == "cookie"] == ["a=1", "b=2"]
    assert (head["x-own"], head["x-event-caller"], head["prefer"]) == ("caf\xe9", "127.0.0.1", "wait=5")
    assert not {"x-hop", "expect", "transfer-encoding"} & {name for name, _ in head.headers}
    assert (head["host"], head["content-length"]) == (host, "4")
    assert head["x-forwarded-for"] == "127.0.0.1, 127.0.0.1"
    assert head["forwarded"] == f'for=127.0.0.1;host="{host}";proto=http, for=127.0.0.1'
    assert (head["x-forwarded-host"], head["x-forwarded-proto"]) == (host, "http")
    assert head["x-forwarded-prefix"] == "/client/alpha"


async def test_headers_come_back_with_their_repeats_and_without_those_of_the_connection(identity_files: Path) -> None:
    notes = Notes(
        "HTTP/1.1 299 Fine", "Set-Cookie: a=1", "Set-Cookie: b=2", b"X-Name: \xe2\x82\xac\x80", "Location: /there",
        "Content-Encoding: gzip", "Content-Type: text/x-own; charset=latin-1", "Connection: keep-alive, X-Hop",
        "X-Hop: 1", "Keep-Alive: timeout=5", "Date: Sun, 06 Nov 1994 08:49:37 GMT", "Content-Length: 5",
        "X-Event-Attempts: 9", body=b"\x1f\x8b\x00\xff!",
    )  # fmt: skip
    async with through(identity_files, notes) as (tunnel, _), tunnel.http.stream("GET", "/client/alpha/") as answer:
        raw = [(name.lower(), value) for name, value in answer.headers.raw]
        assert b"".join([piece async for piece in answer.aiter_raw()]) == b"\x1f\x8b\x00\xff!"
    assert answer.status_code == 299
    assert [value for name, value in raw if name == b"set-cookie"] == [b"a=1", b"b=2"]
    assert (b"x-name", b"\xe2\x82\xac\x80") in raw
    assert (answer.headers["location"], answer.headers["content-encoding"]) == ("/there", "gzip")
    assert (answer.headers["content-type"], answer.headers["content-length"]) == ("text/x-own; charset=latin-1", "5")
    assert not {"x-hop", "keep-alive", "connection", "x-event-attempts"} & set(answer.headers)
    assert len([name for name, _ in raw if name == b"date"]) == 1
    assert answer.headers["x-event-return-code"] == "0"


async def test_no_redirect_is_followed_and_no_cookie_kept(identity_files: Path) -> None:
    notes = Notes("HTTP/1.1 302 Found", "Location: /elsewhere", "Set-Cookie: a=1", "Content-Length: 0", body=b"")
    async with through(identity_files, notes) as (tunnel, _):
        answers = [await tunnel.http.get("/client/alpha/", headers={"Cookie": ""}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [302, 302]
    assert [head.line for head in notes.heads] == ["GET / HTTP/1.1"] * 2
    assert [head["cookie"] for head in notes.heads] == ["", ""]


@pytest.mark.parametrize(
    ("status", "verb", "lines", "length"),
    [
        ("200", "HEAD", ("Content-Length: 123456",), "123456"),
        ("200", "HEAD", ("Transfer-Encoding: chunked",), None),
        ("204", "GET", (), None),
        ("204", "GET", ("Content-Length: 0",), None),
        ("304", "GET", ("ETag: x", "Content-Length: 99"), None),
        ("205", "POST", ("Content-Length: 0",), "0"),
    ],
)
async def test_answers_without_a_body_have_none_and_the_connection_goes_on(
    identity_files: Path, status: str, verb: str, lines: tuple[str, ...], length: str | None
) -> None:
    notes = Notes(f"HTTP/1.1 {status} X", *lines, body=b"")
    async with through(identity_files, notes) as (tunnel, made):
        for _ in range(2):
            answer = await tunnel.ask(verb)
            assert (answer.status_code, answer.content) == (int(status), b"")
            assert answer.headers.get("content-length") == length
    assert made.connections == (2 if verb == "POST" else 1)


async def test_requests_without_a_body_get_none(identity_files: Path) -> None:
    notes = Notes()
    async with through(identity_files, notes) as (tunnel, _):
        await tunnel.ask("GET")
        await tunnel.ask("POST")
    assert "content-length" not in notes.heads[0]
    assert notes.heads[1]["content-length"] == "0"


async def test_the_return_code_of_a_service_that_is_a_node_is_passed_on(identity_files: Path) -> None:
    async with through(identity_files, Notes(*OK, "X-Event-Return-Code: 251")) as (tunnel, _):
        assert (await tunnel.ask("GET")).headers.get_list("x-event-return-code") == ["251"]


@pytest.mark.parametrize("known", [True, False])
async def test_a_large_body_goes_up_and_comes_down_whole(identity_files: Path, known: bool) -> None:
    body = bytes(range(256)) * 4 * 1024 * 3

    async def echo(connection: Connection) -> None:
        head = await connection.head()
        if known:
            assert head["content-length"] == str(len(body))
            await connection.send("HTTP/1.1 200 OK", f"Content-Length: {len(body)}")
            for _ in range(len(body) // 4096):
                await connection.more(await connection.body(4096))
        else:
            assert head["transfer-encoding"] == "chunked"
            data = await connection.chunks()
            await connection.send("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
            await connection.more(connection.chunk(data) + b"0\r\n\r\n")

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    async with through(identity_files, echo) as (tunnel, _):
        answer = await tunnel.ask("PUT", content=body if known else pieces())
        assert answer.content == body
        assert answer.headers.get("content-length") == (str(len(body)) if known else None)


async def test_events_are_seen_as_they_are_produced(identity_files: Path) -> None:
    seen = asyncio.Event()

    async def events(connection: Connection) -> None:
        await connection.head()
        await connection.send(
            "HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked",
            body=connection.chunk(b"data: 1\n\n"),
        )  # fmt: skip
        await seen.wait()
        await connection.more(connection.chunk(b"data: 2\n\n") + b"0\r\n\r\n")

    async with through(identity_files, events) as (tunnel, _), tunnel.http.stream("GET", "/client/alpha/") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        seen.set()
        assert await anext(pieces) == b"data: 2\n\n"


async def test_an_answer_before_the_end_of_the_request_is_the_answer(identity_files: Path) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 413 Too Large", "Content-Length: 3", "Connection: close", body=b"too")
        await connection.rest()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(64 * 1024)

    async with through(identity_files, refuse) as (tunnel, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.port)
        writer.write(b"PUT /client/alpha/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n")
        writer.write(bytes(100_000))
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
            assert await reader.readexactly(3) == b"too"
        writer.close()


async def test_once_a_request_is_served_nothing_of_it_is_still_on_its_way(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tasks_left_by(monkeypatch, Upstream, "serve", of="service")

    async def refuse(connection: Connection) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 413 Too Large", "Content-Length: 3", "Connection: close", body=b"too")
        await connection.rest()

    async with through(identity_files, refuse) as (tunnel, _):
        _, writer = await asyncio.open_connection("127.0.0.1", tunnel.port)
        writer.write(b"PUT /client/alpha/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nbegun")
        async with asyncio.timeout(PATIENCE):
            assert await left == []
        writer.close()


async def test_a_caller_that_leaves_takes_its_request_from_the_service(identity_files: Path) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def wait(connection: Connection) -> None:
        await connection.head()
        begun.set()
        await connection.rest()
        gone.set()

    async with through(identity_files, wait) as (tunnel, _):
        asking = asyncio.create_task(tunnel.ask("GET"))
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            asking.cancel()
            await gone.wait()


async def test_a_slow_reader_stops_its_service_and_nothing_else(identity_files: Path) -> None:
    sent = 0
    blocked = asyncio.Event()

    async def flood(connection: Connection) -> None:
        nonlocal sent
        head = await connection.head()
        if head.line.startswith("GET /small"):
            await connection.send(*OK, body=b"ok")
            return
        await connection.send("HTTP/1.1 200 OK", "Content-Length: 1000000000")
        with contextlib.suppress(TimeoutError):
            while sent < ENOUGH:
                connection.writer.write(bytes(256 * 1024))
                sent += 256 * 1024
                async with asyncio.timeout(0.5):
                    await connection.writer.drain()
        blocked.set()
        await connection.rest()

    async with through(identity_files, flood) as (tunnel, _), tunnel.http.stream("GET", "/client/alpha/"):
        async with asyncio.timeout(60):
            await blocked.wait()
        assert sent < ENOUGH
        assert (await tunnel.ask("GET", "/small")).content == b"ok"


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
async def test_a_service_that_dies_within_its_answer_is_seen_to(identity_files: Path, framing: str) -> None:
    async def die(connection: Connection) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 200 OK", framing, body=b"3\r\nabc\r\n" if "chunked" in framing else b"abc")

    async with through(identity_files, die) as (tunnel, _):
        with pytest.raises(httpx.RemoteProtocolError):
            await tunnel.ask("GET")


def free_address() -> UpstreamAddress:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return UpstreamAddress("http", "127.0.0.1", probe.getsockname()[1])


@pytest.mark.parametrize("verb", ["GET", "POST"])
async def test_a_service_that_is_not_there_was_sent_nothing(identity_files: Path, verb: str) -> None:
    async with tunnel_to(identity_files, free_address()) as tunnel:
        answer = await tunnel.ask(verb)
    assert (answer.status_code, answer.headers["x-event-return-code"]) == (502, "245")
    assert (answer.json()["executed"], answer.json()["retryable"]) == ("no", True)
    assert "refused" in answer.json()["detail"]


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 999 No\r\n\r\n"])
async def test_of_a_service_that_does_not_answer_nothing_is_known(identity_files: Path, said: bytes) -> None:
    async def hang_up(connection: Connection) -> None:
        await connection.head()
        await connection.more(said)

    async with through(identity_files, hang_up) as (tunnel, made):
        answer = await tunnel.ask("POST", content=b"x")
    assert (answer.status_code, answer.headers["x-event-return-code"]) == (502, "246")
    assert answer.json()["executed"] == "unknown"
    assert made.connections == 1


async def test_a_service_that_takes_too_long_is_cut_off(identity_files: Path) -> None:
    gone = asyncio.Event()

    async def wait(connection: Connection) -> None:
        await connection.head()
        await connection.rest()
        gone.set()

    async with through(identity_files, wait) as (tunnel, _):
        answer = await tunnel.ask("GET", headers={"X-Event-Timeout": "0.2"})
        assert (answer.status_code, answer.headers["x-event-return-code"]) == (504, "247")
        async with asyncio.timeout(PATIENCE):
            await gone.wait()


async def test_connections_are_kept_for_what_can_be_repeated_and_only_for_that(identity_files: Path) -> None:
    notes = Notes()
    async with through(identity_files, notes) as (tunnel, made):
        for verb in ("GET", "PUT", "DELETE", "GET"):
            await tunnel.ask(verb, content=b"x")
        assert made.connections == 1
        await tunnel.ask("POST")
        assert made.connections == 2


async def test_a_connection_that_paused_before_the_end_of_an_answer_reads_the_next_one(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restpipe.handlers.upstream_connections.HIGH_WATER", 1)
    async with through(identity_files, Notes()) as (tunnel, made):
        for _ in range(2):
            assert (await tunnel.ask("GET", headers={"X-Event-Timeout": "5"})).content == b"ok"
        assert made.connections == 1


async def test_a_kept_connection_that_dies_under_a_request_is_replaced_unseen(identity_files: Path) -> None:
    lines: list[str] = []

    async def once(connection: Connection) -> None:
        """Answer the first request of each connection, and hang up on the second."""
        lines.append((await connection.head()).line)
        await connection.send(*OK, body=b"ok")
        with contextlib.suppress(asyncio.IncompleteReadError):
            lines.append((await connection.head()).line)

    async with through(identity_files, once) as (tunnel, made):
        await tunnel.ask("GET", "/1")
        answer = await tunnel.ask("PUT", "/2")
        assert answer.content == b"ok"
        assert made.connections == 2
        assert lines == ["GET /1 HTTP/1.1", "PUT /2 HTTP/1.1", "PUT /2 HTTP/1.1"]


async def test_what_a_service_says_unasked_is_no_answer_to_the_next_request(identity_files: Path) -> None:
    answered, said = asyncio.Event(), asyncio.Event()

    async def chatter(connection: Connection) -> None:
        head = await connection.head()
        await connection.send(*OK, body=b"ok" if head.line.startswith("GET /1") else b"2!")
        if head.line.startswith("GET /1"):
            await answered.wait()
            await connection.send("HTTP/1.1 408 Request Timeout", "Content-Length: 0")
            said.set()
        await connection.rest()

    async with through(identity_files, chatter) as (tunnel, _):
        assert (await tunnel.ask("GET", "/1")).content == b"ok"
        answered.set()
        async with asyncio.timeout(PATIENCE):
            await said.wait()
        assert (await tunnel.ask("GET", "/2")).content == b"2!"


async def test_provisional_answers_are_none(identity_files: Path) -> None:
    notes = Notes("HTTP/1.1 103 Early Hints", "Link: </x>", "", *OK)
    async with through(identity_files, notes) as (tunnel, _):
        assert (await tunnel.ask("GET")).content == b"ok"


async def test_trace_is_not_passed_on(identity_files: Path) -> None:
    async with through(identity_files, Notes()) as (tunnel, made):
        assert (await tunnel.ask("TRACE")).status_code == 405
    assert made.connections == 0


async def test_a_handler_reaches_the_service_of_its_peer_too(identity_files: Path) -> None:
    notes = Notes("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Length: 8", body=b'{"a": 1}')
    async with through(identity_files, notes) as (tunnel, _):
        pipe = await tunnel.server.pipe_to("alpha", PATIENCE)
        result = await tunnel.server.context_of(pipe).call("post", "/api/x y/", "a/b", data={"n": 1}, q="1 2")
    assert result.data == {"a": 1}
    assert notes.heads[0].line == "POST /api/x%20y/a%2Fb?q=1+2 HTTP/1.1"
    assert notes.bodies == [b'{"n": 1}']


async def test_what_is_longer_than_fits_a_message_comes_back_whole(identity_files: Path) -> None:
    body = bytes(3 * INLINE_BYTES)
    async with through(identity_files, Notes("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", body=body)) as (
        tunnel,
        _,
    ):
        answer = await tunnel.ask("GET")
    assert (answer.content, answer.headers["content-length"]) == (body, str(len(body)))


async def test_what_nodes_say_of_a_caller_cannot_be_said_by_the_caller_in_other_letters(identity_files: Path) -> None:
    notes = Notes()
    lies = {"X_Event_Caller": "boss", "X_Forwarded_For": "1.1.1.1", "Content_Length": "7", "Proxy": "http://evil"}
    async with through(identity_files, notes) as (tunnel, _):
        await tunnel.ask("GET", headers=lies | {"x_mine": "kept"})
    (head,) = notes.heads
    names = [name for name, _ in head.headers]
    assert not {name.lower() for name in lies} & set(names)
    assert (head["x-event-caller"], head["x_mine"]) == ("127.0.0.1", "kept")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_length_that_no_number_holds_is_no_answer(identity_files: Path, method: str) -> None:
    notes = Notes("HTTP/1.1 200 OK", "Content-Length: 99999999999999999999", body=b"")
    async with through(identity_files, notes) as (tunnel, _):
        response = await tunnel.ask(method)
    assert (response.status_code, response.headers["x-event-return-code"]) == (502, "246")


async def test_a_service_that_gives_provisional_answers_without_end_gives_none(identity_files: Path) -> None:
    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.more(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
        await connection.rest()

    async with through(identity_files, script) as (tunnel, _):
        response = await tunnel.ask("GET")
    assert response.status_code == 502
    assert "provisional" in response.json()["detail"]


async def test_a_body_in_the_smallest_chunks_arrives_whole(identity_files: Path) -> None:
    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(
            "HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n"
        )
        await connection.rest()

    async with through(identity_files, script) as (tunnel, _):
        assert (await tunnel.ask("GET")).content == b"a" * 20_000
