"""An ASGI application behind a node is called as by a web server, and its callers get what it sends, as it comes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from live_nodes import PATIENCE, client_settings, connected, running_server, web_of
from services import EXAMPLES, Tunnel
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol, State

from restpipe.exceptions import ConfigError
from restpipe.handlers import asgi, asgi_exchange, asgi_lifespan
from restpipe.handlers.socket_messages import FRAME_COST
from restpipe.nodes.client import ClientNode
from restpipe.pipe import Answer
from restpipe_pb.v1.pipe_pb2 import Request as PipeRequest

pytestmark = pytest.mark.usefixtures("leak_free")

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
MIB = 1 << 20
# Bytes that no window can hold.
ENOUGH = 64 * MIB


@contextlib.asynccontextmanager
async def serving(identity_files: Path, app: Any, **options: Any) -> AsyncIterator[Tunnel]:
    """Run a server node, and a client node "alpha" whose handler is an application, and join them."""
    async with running_server(identity_files, **options) as server, web_of(server) as http:
        settings = client_settings(identity_files, server.port, event_handler=EXAMPLES, **options)
        client = ClientNode(settings, application=app)
        try:
            await client.start()
            await connected(server, client)
            yield Tunnel(http, server, client)
        finally:
            await client.stop(PATIENCE)


class Plain:
    """An application without a lifespan, that does for each request what it is told."""

    def __init__(self, serve: Callable[[Any, Receive, Send], Awaitable[None]]) -> None:
        self.scopes: list[Any] = []
        self._serve = serve

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.scopes.append(scope)
        await self._serve(scope, receive, send)


async def answers(send: Send, *pieces: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1] if pieces else b""})


async def says_ok(scope: Any, receive: Receive, send: Send) -> None:
    await answers(send, b"ok", headers=[(b"Content-Type", b"text/plain"), (b"X-Event-Return-Code", b"7")])


async def test_an_application_is_told_all_of_a_request(identity_files: Path) -> None:
    app = Plain(says_ok)
    async with serving(identity_files, app) as tunnel:
        answer = await tunnel.ask("PROPFIND", "/a%2Fb/%E2%82%AC?x=%zz&y", headers={"X-Mine": "1", "Host": "localhost"})
    assert (answer.text, answer.headers["x-event-return-code"]) == ("ok", "7")
    (scope,) = app.scopes
    assert {name: scope[name] for name in ("type", "method", "scheme", "http_version", "server")} == {
        "type": "http", "method": "PROPFIND", "scheme": "http", "http_version": "1.1", "server": None,
    }  # fmt: skip
    assert (scope["root_path"], scope["path"]) == ("/client/alpha", "/client/alpha/a/b/€")
    assert (scope["raw_path"], scope["query_string"]) == (b"/client/alpha/a%2Fb/%E2%82%AC", b"x=%zz&y")
    headers = dict(scope["headers"])
    assert (headers[b"x-mine"], headers[b"host"], headers[b"x-event-caller"]) == (b"1", b"localhost", b"127.0.0.1")
    assert headers[b"forwarded"].count(b"for=") == 2
    assert (scope["restpipe"].caller, scope["restpipe"].remaining > 0) == ("127.0.0.1", True)


@pytest.mark.parametrize(
    ("told", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 127.0.0.1", "203.0.113.9"),
        ("127.0.0.1", "192.0.2.1"),
        ("", "192.0.2.1"),
    ],
)
def test_nobody_elsewhere_is_taken_for_this_machine(told: str, client: str) -> None:
    assert (asgi._client(told) or "192.0.2.1") == client


async def test_https_before_the_node_is_told_as_the_scheme(identity_files: Path) -> None:
    app = Plain(says_ok)
    async with serving(identity_files, app) as tunnel:
        await tunnel.ask("GET", "/", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"})
    assert (app.scopes[0]["scheme"], app.scopes[0]["client"]) == ("https", ("203.0.113.9", 0))


@pytest.mark.parametrize("size", [0, 5, 3 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_arrives_whole_and_its_end_is_told(identity_files: Path, size: int, *, chunked: bool) -> None:
    async def measures(scope: Any, receive: Receive, send: Send) -> None:
        total, more = 0, True
        while more:
            message = await receive()
            total += len(message["body"])
            more = message["more_body"]
        headers = dict(scope["headers"])
        told = [headers.get(name, b"").decode() for name in (b"content-length", b"transfer-encoding")]
        await answers(send, json.dumps([total, *told]).encode())

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(size)

    async with serving(identity_files, Plain(measures)) as tunnel:
        answer = await tunnel.ask("POST", "/", content=pieces() if chunked else bytes(size))
    assert answer.json() == [size, *(["", "chunked"] if chunked else [str(size), ""])]


@pytest.mark.parametrize("pieces", [(b"",), (b"x",), (b"", b"a", b"b"), (bytes(MIB), bytes(MIB), b"")])
async def test_an_answer_arrives_whole(identity_files: Path, pieces: tuple[bytes, ...]) -> None:
    async def sends(scope: Any, receive: Receive, send: Send) -> None:
        await answers(send, *pieces, status=203, headers=[(b"x-two", b"1"), (b"x-two", b"2"), (b"date", b"never")])

    async with serving(identity_files, Plain(sends)) as tunnel:
        answer = await tunnel.ask("GET")
    assert (answer.status_code, answer.content) == (203, b"".join(pieces))
    assert (answer.headers.get_list("x-two"), answer.headers.get("date") == "never") == (["1", "2"], False)


@pytest.mark.parametrize("pieces", [(b"fi", b"ve!"), (b"five!",), ()])
@pytest.mark.parametrize(("verb", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_that_has_no_body_gets_none(
    identity_files: Path, verb: str, status: int, pieces: tuple[bytes, ...]
) -> None:
    async def sends(scope: Any, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"5")] if verb == "HEAD" else []
        await answers(send, *pieces, status=status, headers=headers)

    async with serving(identity_files, Plain(sends)) as tunnel:
        answer = await tunnel.ask(verb)
    assert (answer.status_code, answer.content) == (status, b"")
    assert verb != "HEAD" or answer.headers["content-length"] == "5"


async def test_the_head_and_each_piece_leave_as_they_are_sent(identity_files: Path) -> None:
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def tells(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(2):
            await send({"type": "http.response.body", "body": await told.get(), "more_body": True})
        await send({"type": "http.response.body"})

    async with (
        serving(identity_files, Plain(tells)) as tunnel,
        asyncio.timeout(PATIENCE),
        tunnel.http.stream("GET", "/client/alpha/") as answer,
    ):
        assert answer.headers["x-accel-buffering"] == "no"
        pieces = answer.aiter_bytes()
        for piece in (b"one", b"two"):
            told.put_nowait(piece)
            assert await anext(pieces) == piece


async def test_a_slow_caller_stops_the_application_and_nobody_else(identity_files: Path) -> None:
    sent = 0
    gone = asyncio.Event()

    async def sends(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal sent
        if scope["path"].endswith("/small"):
            await answers(send, b"small")
            return
        await send({"type": "http.response.start", "status": 200})
        try:
            for _ in range(ENOUGH // 65536):
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
                sent += 65536
        except OSError:
            gone.set()
            raise

    async with serving(identity_files, Plain(sends)) as tunnel, asyncio.timeout(PATIENCE):
        async with tunnel.http.stream("GET", "/client/alpha/"):
            before = -1
            while not sent or before != sent:  # it has come to rest between two others' requests
                before = sent
                for _ in range(20):
                    assert (await tunnel.ask("GET", "/small")).text == "small"
            assert 0 < sent < ENOUGH
        await gone.wait()


async def test_an_application_that_reads_slowly_stops_its_caller(identity_files: Path) -> None:
    wanted, over = asyncio.Event(), asyncio.Event()
    given = 0

    async def reads(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await answers(send, b"small")
            return
        await wanted.wait()
        while (await receive())["more_body"]:
            pass
        await answers(send, b"read")

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(ENOUGH // 65536):
            given += 65536
            yield bytes(65536)
        over.set()

    async with serving(identity_files, Plain(reads)) as tunnel, asyncio.timeout(3 * PATIENCE):
        upload = asyncio.create_task(tunnel.ask("POST", "/", content=pieces()))
        before = -1
        while not given or before != given:
            before = given
            for _ in range(20):
                await tunnel.ask("GET")
        assert not over.is_set()
        wanted.set()
        assert (await upload).text == "read"


async def test_an_application_learns_that_its_caller_went_away(identity_files: Path) -> None:
    arrived, told = asyncio.Event(), asyncio.Event()
    messages = []

    async def waits(scope: Any, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        arrived.set()
        messages.append(await receive())
        with pytest.raises(OSError, match="went away"):
            await answers(send, b"late")
        told.set()

    async with serving(identity_files, Plain(waits)) as tunnel, asyncio.timeout(PATIENCE):
        asking = asyncio.create_task(tunnel.ask("GET"))
        await arrived.wait()
        asking.cancel()
        await told.wait()
    assert messages == [{"type": "http.disconnect"}]


async def test_one_that_does_not_mind_is_cancelled(identity_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "LEAVE_PATIENCE", 0.01)
    arrived, cancelled = asyncio.Event(), asyncio.Event()

    async def waits(scope: Any, receive: Receive, send: Send) -> None:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(identity_files, Plain(waits)) as tunnel, asyncio.timeout(PATIENCE):
        answer = await tunnel.ask("GET", headers={"X-Event-Timeout": "0.1"})
        assert (answer.status_code, arrived.is_set()) == (504, True)
        await cancelled.wait()


async def test_a_body_that_breaks_off_is_told_as_its_caller_gone(identity_files: Path) -> None:
    arrived, told = asyncio.Event(), asyncio.Event()

    async def reads(scope: Any, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            assert message["more_body"]
            arrived.set()
        told.set()

    async with serving(identity_files, Plain(reads)) as tunnel, asyncio.timeout(PATIENCE):
        _, writer = await asyncio.open_connection("127.0.0.1", tunnel.port)
        writer.write(b"POST /client/alpha/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\nabc")
        await arrived.wait()
        writer.close()
        await told.wait()


async def test_one_that_reads_on_after_its_answer_is_told_that_nobody_sends_any_more(identity_files: Path) -> None:
    over = asyncio.Event()

    async def refuses_and_reads_on(scope: Any, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"beginning"
        reading = asyncio.ensure_future(receive())
        await asyncio.sleep(0)  # it waits for the next piece by now
        await answers(send, b"too much", status=413)
        assert await reading == {"type": "http.disconnect"}
        over.set()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"beginning"
        await over.wait()

    async with serving(identity_files, Plain(refuses_and_reads_on)) as tunnel, asyncio.timeout(PATIENCE):
        pipe = await tunnel.server.pipe_to("alpha", PATIENCE)
        answer = await pipe.call(PipeRequest(verb="post", target="/", timeout_ms=10_000), pieces())
        assert (answer.response.status, await answer.body.read(MIB)) == (413, b"too much")
        await over.wait()


async def test_only_those_whom_the_node_allows_reach_the_application(identity_files: Path) -> None:
    app = Plain(says_ok)
    async with serving(identity_files, app, allow="somebody") as tunnel:
        answer = await tunnel.ask("GET")
    assert (answer.status_code, answer.headers["x-event-return-code"]) == (403, "253")
    assert not app.scopes


async def raises(scope: Any, receive: Receive, send: Send) -> None:
    raise SystemExit("enough")


async def begins_and_raises(scope: Any, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    raise LookupError("too early")


async def returns(scope: Any, receive: Receive, send: Send) -> None:
    return


async def sends_nonsense(scope: Any, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body"})


async def sends_bad_headers(scope: Any, receive: Receive, send: Send) -> None:
    await answers(send, headers=[(b"x-a", b"1\r\nx-b: 2")])


async def sends_too_much(scope: Any, receive: Receive, send: Send) -> None:
    await answers(send, b"six!!!", headers=[(b"content-length", b"5")])


@pytest.mark.parametrize(
    ("serve", "name", "detail"),
    [
        (raises, "SystemExit", "enough"),
        (begins_and_raises, "LookupError", "too early"),
        (returns, "BadResultError", "before it had answered"),
        (sends_nonsense, "RuntimeError", "'http.response.body' at this point"),
        (sends_bad_headers, "RuntimeError", "the head of the answer cannot be sent"),
        (sends_too_much, "RuntimeError", "not the 5 bytes"),
    ],
)
async def test_what_goes_wrong_before_the_answer_is_a_problem_document(
    identity_files: Path, serve: Any, name: str, detail: str
) -> None:
    async with serving(identity_files, Plain(serve)) as tunnel:
        answer = await tunnel.ask("GET")
        problem = answer.json()
    assert (answer.status_code, answer.headers["x-event-return-code"], problem["executed"]) == (500, "251", "yes")
    assert problem["exception"]["class"] == name
    assert detail in problem["detail"]


async def test_an_answer_that_breaks_off_has_no_clean_end(identity_files: Path) -> None:
    async def breaks(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise LookupError

    async with serving(identity_files, Plain(breaks)) as tunnel:
        with pytest.raises(httpx.RemoteProtocolError):
            await tunnel.ask("GET")


def fastapi_app(seen: dict[str, Any]) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        seen["began"] = True
        yield {"shelf": ["tea"]}
        seen["ended"] = True

    app = FastAPI(lifespan=lifespan)

    @app.get("/items/{number}")
    async def item(number: int, request: Request) -> dict[str, Any]:
        called = await request.scope["restpipe"].call("get", "caller")
        return {
            "item": request.state.shelf[number],
            "url": str(request.url_for("item", number=1)),
            "by": request.scope["restpipe"].caller,
            "calls_back": called.data,
        }

    @app.post("/later")
    async def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(seen["task"])
        return "soon"

    @app.get("/ticks")
    async def ticks() -> StreamingResponse:
        async def forever() -> AsyncIterator[str]:
            try:
                yield "data: tick\n\n"
                await asyncio.Event().wait()
            finally:
                seen["closed"].set()

        return StreamingResponse(forever(), media_type="text/event-stream")

    return app


async def test_a_fastapi_application_is_reached_by_its_own_routes_and_finds_its_docs(identity_files: Path) -> None:
    seen: dict[str, Any] = {"closed": asyncio.Event()}
    async with serving(identity_files, fastapi_app(seen)) as tunnel, asyncio.timeout(PATIENCE):
        item = (await tunnel.ask("GET", "/items/0")).json()
        assert (item["item"], item["by"]) == ("tea", "127.0.0.1")
        assert item["url"] == f"{tunnel.http.base_url}/client/alpha/items/1"
        assert item["calls_back"]["caller"] == "alpha"
        assert (await tunnel.ask("GET", "/items/tea")).status_code == 422
        assert '"/client/alpha/openapi.json"' in (await tunnel.ask("GET", "/docs")).text.replace("'", '"')
        assert (await tunnel.ask("GET", "/openapi.json")).json()["servers"] == [{"url": "/client/alpha"}]
        async with tunnel.http.stream("GET", "/client/alpha/ticks") as answer:
            assert (await anext(answer.aiter_bytes())).startswith(b"data: tick")
        await seen["closed"].wait()
        assert "ended" not in seen
    assert (seen["began"], seen["ended"]) == (True, True)


async def test_one_that_sends_on_and_on_ends_by_its_own_listening(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing else ends it within the time of this test.
    monkeypatch.setattr(asgi, "LEAVE_PATIENCE", 10 * PATIENCE)
    monkeypatch.setattr(asgi_exchange, "_LISTENER_PATIENCE", 10 * PATIENCE)
    ended: list[Any] = []
    over = asyncio.Event()

    async def on_and_on() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65536)

    async def sends(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await StreamingResponse(on_and_on())(scope, receive, send)
        except BaseException as error:
            ended.append(error)
            raise
        finally:
            over.set()

    async with serving(identity_files, Plain(sends)) as tunnel, asyncio.timeout(PATIENCE):
        async with tunnel.http.stream("GET", "/client/alpha/") as answer:
            await anext(answer.aiter_bytes())
        await over.wait()
    assert ended == []


async def test_what_is_done_in_the_background_is_waited_for_at_the_end(identity_files: Path) -> None:
    go = asyncio.Event()
    done: list[str] = []

    async def task() -> None:
        await go.wait()
        done.append("done")

    async with serving(identity_files, fastapi_app({"task": task})) as tunnel, asyncio.timeout(PATIENCE):
        assert (await tunnel.ask("POST", "/later")).json() == "soon"
        assert not done
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert done == ["done"]


async def test_an_application_that_does_not_start_up_keeps_the_node_from_starting(identity_files: Path) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield {"a database": None}["no database"]

    with pytest.raises(ConfigError, match="did not start up: KeyError: 'no database'"):
        async with serving(identity_files, FastAPI(lifespan=lifespan)):
            raise AssertionError("it started")


async def test_an_application_that_takes_too_long_to_start_up_or_to_shut_down_is_given_up(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[str] = []

    async def never(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await receive()
            if begins:
                await send({"type": "lifespan.startup.complete"})
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(scope["type"])
            raise

    monkeypatch.setattr(asgi_lifespan, "STARTUP_TIMEOUT", 0.01)
    begins = False
    with pytest.raises(ConfigError, match=r"it took more than 0\.01 s"):
        async with serving(identity_files, never):
            raise AssertionError("it started")
    monkeypatch.setattr(asgi_lifespan, "STARTUP_TIMEOUT", PATIENCE)
    monkeypatch.setattr(asgi_lifespan, "SHUTDOWN_TIMEOUT", 0.05)
    begins = True
    async with serving(identity_files, never):
        pass
    assert cancelled == ["lifespan", "lifespan"]


def sockets(seen: dict[str, Any]) -> FastAPI:
    app = FastAPI()

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        seen["scope"] = socket.scope
        await socket.accept(subprotocol="two" if "two" in socket.scope["subprotocols"] else None)
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    seen["closed"] = message["code"], message["reason"]
                    seen["event"].set()
                    return
                if message.get("text") is not None:
                    await socket.send_text(message["text"])
                else:
                    await socket.send_bytes(message["bytes"])
        finally:
            seen["event"].set()

    @app.websocket("/bye")
    async def bye(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(4001, "enough")

    @app.websocket("/returns")
    async def returns(socket: WebSocket) -> None:
        await socket.accept()

    @app.websocket("/raises")
    async def raises(socket: WebSocket) -> None:
        await socket.accept()
        raise LookupError

    @app.websocket("/no")
    async def no(socket: WebSocket) -> None:
        await socket.close()

    return app


def to(tunnel: Tunnel, path: str) -> str:
    return f"ws://127.0.0.1:{tunnel.port}/client/alpha{path}"


async def test_web_sockets_carry_messages_both_ways_until_the_caller_closes(identity_files: Path) -> None:
    seen: dict[str, Any] = {"event": asyncio.Event()}
    async with serving(identity_files, sockets(seen)) as tunnel, asyncio.timeout(PATIENCE):
        async with connect(to(tunnel, "/echo?a=1"), subprotocols=["one", "two"], proxy=None) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "two"
            for message in ("hello", b"\x00" * MIB, "", "€"):
                await socket.send(message)
                assert await socket.recv() == message
            await (await socket.ping())
            await socket.close(4000, "my reason")
        await seen["event"].wait()
    scope = seen["scope"]
    assert (scope["scheme"], scope["path"], scope["query_string"]) == ("ws", "/client/alpha/echo", b"a=1")
    assert seen["closed"] == (4000, "my reason")


@pytest.mark.parametrize(
    ("path", "code", "reason"), [("/bye", 4001, "enough"), ("/returns", 1000, ""), ("/raises", 1011, "")]
)
async def test_the_end_of_a_web_socket_is_told_as_the_application_means_it(
    identity_files: Path, path: str, code: int, reason: str
) -> None:
    async with (
        serving(identity_files, sockets({})) as tunnel,
        asyncio.timeout(PATIENCE),
        connect(to(tunnel, path), proxy=None) as socket,
    ):
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert (socket.close_code, socket.close_reason) == (code, reason)


@pytest.mark.parametrize("path", ["/no", "/nowhere"])
async def test_a_web_socket_that_the_application_refuses_is_answered_by_http(identity_files: Path, path: str) -> None:
    async with serving(identity_files, sockets({})) as tunnel, asyncio.timeout(PATIENCE):
        with pytest.raises(InvalidStatus) as caught:
            await connect(to(tunnel, path), proxy=None)
    assert caught.value.response.status_code == 403


async def test_a_refusal_has_the_status_and_the_body_that_the_application_gives_it(identity_files: Path) -> None:
    async def refuses(scope: Any, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"tea")]})
        await send({"type": "websocket.http.response.body", "body": b"I am ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"a teapot"})

    async with serving(identity_files, Plain(refuses)) as tunnel, asyncio.timeout(PATIENCE):
        with pytest.raises(InvalidStatus) as caught:
            await connect(to(tunnel, "/"), proxy=None)
    response = caught.value.response
    assert (response.status_code, response.headers["x-why"], response.body) == (418, "tea", b"I am a teapot")


async def test_a_web_socket_whose_caller_vanishes_is_told_as_broken(identity_files: Path) -> None:
    seen: dict[str, Any] = {"event": asyncio.Event()}
    async with (
        serving(identity_files, sockets(seen)) as tunnel,
        asyncio.timeout(PATIENCE),
        connect(to(tunnel, "/echo"), proxy=None) as socket,
    ):
        await socket.send("x")
        await socket.recv()
        socket.transport.abort()
        await seen["event"].wait()
    assert seen["closed"][0] in (1001, 1006)


async def test_one_that_listens_while_it_closes_its_web_socket_is_told_that_it_is_closed(identity_files: Path) -> None:
    told: list[Any] = []
    over = asyncio.Event()

    async def listens_and_closes(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        listening = asyncio.ensure_future(receive())
        await asyncio.sleep(0)  # it waits for a message by now
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        told.append(await listening)
        over.set()

    async def silent() -> AsyncIterator[bytes]:
        await over.wait()
        yield b""

    async with serving(identity_files, Plain(listens_and_closes)) as tunnel, asyncio.timeout(PATIENCE):
        answer = await asked_by_a_peer(tunnel, silent())
        await answer.body.read(MIB)
        await over.wait()
    assert told == [{"type": "websocket.disconnect", "code": 4001, "reason": "enough"}]


async def asked_by_a_peer(tunnel: Tunnel, frames: AsyncIterator[bytes]) -> Answer:
    """Open a web socket as a peer may that sends frames of its own making."""
    pipe = await tunnel.server.pipe_to("alpha", PATIENCE)
    request = PipeRequest(verb="connect", protocol="websocket", target="/echo", timeout_ms=10_000)
    return await pipe.call(request, frames)


async def test_a_peer_that_pings_and_closes_a_web_socket_itself_is_answered(identity_files: Path) -> None:
    frames = Protocol(CLIENT, state=State.OPEN)
    ponged = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        frames.send_ping(b"there?")
        yield b"".join(frames.data_to_send())
        await ponged.wait()
        frames.send_close(4000, "bye")
        yield b"".join(frames.data_to_send())
        await asyncio.Event().wait()

    seen: dict[str, Any] = {"event": asyncio.Event()}
    async with serving(identity_files, sockets(seen)) as tunnel, asyncio.timeout(PATIENCE):
        answer = await asked_by_a_peer(tunnel, upload())
        got: list[tuple[Opcode, bytes]] = []
        async for data in answer.body:
            frames.receive_data(data)
            got += [(frame.opcode, bytes(frame.data)) for frame in frames.events_received() if isinstance(frame, Frame)]
            ponged.set()
        await seen["event"].wait()
    assert [opcode for opcode, _ in got] == [Opcode.PONG, Opcode.CLOSE]
    assert got[0][1] == b"there?"
    assert seen["closed"] == (4000, "bye")


async def test_a_peer_that_sends_a_message_in_thousands_of_pieces_is_read_no_faster_than_it_is_worth(
    identity_files: Path,
) -> None:
    loop = asyncio.get_running_loop()
    size = 7000
    frames = Protocol(CLIENT, state=State.OPEN)

    async def upload() -> AsyncIterator[bytes]:
        frames.send_binary(b"x", fin=False)
        for _ in range(size - 2):
            frames.send_continuation(b"y", fin=False)
        frames.send_continuation(b"z", fin=True)
        yield b"".join(frames.data_to_send())
        await asyncio.Event().wait()

    seen: dict[str, Any] = {"event": asyncio.Event()}
    async with serving(identity_files, sockets(seen)) as tunnel, asyncio.timeout(PATIENCE):
        began = loop.time()
        answer = await asked_by_a_peer(tunnel, upload())
        got: list[bytes] = []
        while not got:
            frames.receive_data(await anext(answer.body))
            got += [bytes(frame.data) for frame in frames.events_received() if isinstance(frame, Frame)]
        assert got == [b"x" + b"y" * (size - 2) + b"z"]
        assert loop.time() - began >= 0.9 * size * FRAME_COST
        answer.close()


@pytest.mark.parametrize("serve", [returns, raises])
async def test_a_web_socket_that_gets_no_answer_gets_a_problem_document(identity_files: Path, serve: Any) -> None:
    async with serving(identity_files, Plain(serve)) as tunnel, asyncio.timeout(PATIENCE):
        with pytest.raises(InvalidStatus) as caught:
            await connect(to(tunnel, "/"), proxy=None)
    assert caught.value.response.status_code == 500
