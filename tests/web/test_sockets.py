"""A web socket of the service behind a node is one for its callers: messages, subprotocols and closing, both ways."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from live_nodes import PATIENCE, connected, running_client, running_server, web_of
from services import Connection, Tunnel, service, tasks_left_by, tunnel_to
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from restpipe.config import UpstreamAddress
from restpipe.web import sockets
from restpipe.web.sockets import WebSocket
from restpipe_pb.v1.pipe_pb2 import Goaway

MAX_MESSAGE = 100_000

Script = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def through(
    identity_files: Path, script: Script, settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Tunnel]:
    """Run a service with web sockets, and a tunnel to it."""
    async with serve(script, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        address = UpstreamAddress("http", "127.0.0.1", port)
        async with tunnel_to(identity_files, address, max_body_bytes=MAX_MESSAGE, **settings or {}) as tunnel:
            yield tunnel


@contextlib.asynccontextmanager
async def opened(tunnel: Tunnel, target: str = "/", **options: Any) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{tunnel.port}/client/alpha{target}"
    async with asyncio.timeout(PATIENCE), connect(url, proxy=None, **options) as socket:
        yield socket


async def refused(tunnel: Tunnel, target: str = "/", **options: Any) -> Any:
    """Return the answer that refuses a web socket."""
    with pytest.raises(InvalidStatus) as caught:
        async with opened(tunnel, target, **options):
            pass
    return caught.value.response


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def closed(socket: ClientConnection | ServerConnection) -> tuple[int | None, str | None]:
    """Wait until the other side closes; return how."""
    async with asyncio.timeout(PATIENCE):
        await socket.wait_closed()
    return socket.close_code, socket.close_reason


@pytest.mark.parametrize("message", ["", "grüße", "x" * 70_000, b"", b"\x00\xff", bytes(MAX_MESSAGE)])
async def test_messages_pass_both_ways_whole_and_of_their_kind(identity_files: Path, message: str | bytes) -> None:
    async with through(identity_files, echo) as tunnel, opened(tunnel) as socket:
        for _ in range(3):
            await socket.send(message)
            assert await socket.recv() == message


async def test_web_sockets_that_are_open_or_were_take_no_places_of_requests_that_wait(identity_files: Path) -> None:
    async with through(identity_files, echo, {"web_max_requests": 2}) as tunnel:  # one for the only peer
        async with opened(tunnel), opened(tunnel):
            pass
        async with opened(tunnel) as socket:
            await socket.send("room")
            assert await socket.recv() == "room"


async def test_messages_keep_their_order(identity_files: Path) -> None:
    async with through(identity_files, echo) as tunnel, opened(tunnel) as socket:
        for number in range(500):
            await socket.send(str(number))
        assert [await socket.recv() for _ in range(500)] == [str(number) for number in range(500)]


async def test_a_message_in_fragments_is_one_message(identity_files: Path) -> None:
    async def fragments(socket: ServerConnection) -> None:
        await socket.send(["a", "b", "", "c"])
        await socket.send([b"1", b"2"])
        await socket.wait_closed()

    async with through(identity_files, fragments) as tunnel, opened(tunnel) as socket:
        assert [await socket.recv(), await socket.recv()] == ["abc", b"12"]


async def test_the_service_sees_the_target_the_headers_and_who_asks(identity_files: Path) -> None:
    seen: list[Request] = []

    async def note(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request)

    async with through(identity_files, note) as tunnel:
        headers = {"Cookie": "a=1", "Origin": f"http://127.0.0.1:{tunnel.port}"}
        async with opened(tunnel, "/a%2Fb//c?d=%zz", additional_headers=headers) as socket:
            await closed(socket)
    (request,) = seen
    assert request.path == "/a%2Fb//c?d=%zz"
    assert (request.headers["Cookie"], request.headers["Origin"]) == ("a=1", headers["Origin"])
    assert request.headers["Host"] == request.headers["X-Forwarded-Host"] == f"127.0.0.1:{tunnel.port}"
    assert request.headers["X-Forwarded-Proto"] == "http"
    assert "Sec-WebSocket-Extensions" not in request.headers


async def test_a_subprotocol_is_agreed_on_between_the_caller_and_the_service(identity_files: Path) -> None:
    offered = [Subprotocol("one"), Subprotocol("two")]
    async with (
        through(identity_files, echo, subprotocols=[Subprotocol("two")]) as tunnel,
        opened(tunnel, subprotocols=offered) as socket,
    ):
        assert socket.subprotocol == "two"


async def test_headers_of_the_accepting_answer_arrive(identity_files: Path) -> None:
    def with_cookies(_socket: ServerConnection, _request: Request, response: Response) -> None:
        response.headers["Set-Cookie"] = "a=1"
        response.headers["Set-Cookie"] = "b=2"

    async with through(identity_files, echo, process_response=with_cookies) as tunnel, opened(tunnel) as socket:
        assert socket.response is not None
        assert socket.response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "grüße"), (4999, "x" * 123)])
async def test_the_service_closes_with_its_code_and_reason(identity_files: Path, code: int, reason: str) -> None:
    how: asyncio.Future[tuple[int | None, str | None]] = asyncio.get_running_loop().create_future()

    async def close(socket: ServerConnection) -> None:
        await socket.close(code, reason)
        how.set_result((socket.close_code, socket.close_reason))

    async with through(identity_files, close) as tunnel, opened(tunnel) as socket:
        assert await closed(socket) == (code, reason)
        assert await how == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "grüße"), (4999, "x" * 123)])
async def test_the_caller_closes_with_its_code_and_reason(identity_files: Path, code: int, reason: str) -> None:
    how: asyncio.Future[tuple[int | None, str | None]] = asyncio.get_running_loop().create_future()

    async def wait(socket: ServerConnection) -> None:
        how.set_result(await closed(socket))

    async with through(identity_files, wait) as tunnel:
        async with opened(tunnel) as socket:
            await socket.close(code, reason)
        async with asyncio.timeout(PATIENCE):
            assert await how == (code, reason)


async def test_a_caller_that_leaves_before_its_web_socket_is_open_takes_its_request_from_the_service(
    identity_files: Path,
) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def think(connection: Connection) -> None:
        await connection.head()
        asked.set()
        await connection.rest()
        left.set()

    async with service(think) as made, tunnel_to(identity_files, made.address) as tunnel:
        opening = asyncio.create_task(refused(tunnel))
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
            opening.cancel()
            await left.wait()


async def test_a_service_that_does_not_answer_the_close_is_left_once_its_time_is_over(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.05)
    left = asyncio.Event()

    async def deaf(connection: Connection) -> None:
        head = await connection.head()
        accept = f"Sec-WebSocket-Accept: {accept_key(head['sec-websocket-key'])}"
        await connection.send("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", accept)
        await connection.rest()
        left.set()

    async with service(deaf) as made, tunnel_to(identity_files, made.address) as tunnel:
        async with opened(tunnel) as socket:
            await socket.close()
        async with asyncio.timeout(PATIENCE):
            await left.wait()


async def test_once_a_web_socket_is_over_nobody_listens_to_its_caller_any_more(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tasks_left_by(monkeypatch, WebSocket, "relay", of="of a caller")

    async def end(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with through(identity_files, end) as tunnel, opened(tunnel), asyncio.timeout(PATIENCE):
        assert await left == []


async def test_to_the_service_a_caller_that_vanishes_goes_away(identity_files: Path) -> None:
    how: asyncio.Future[tuple[int | None, str | None]] = asyncio.get_running_loop().create_future()

    async def wait(socket: ServerConnection) -> None:
        how.set_result(await closed(socket))

    async with through(identity_files, wait) as tunnel, opened(tunnel) as socket:
        socket.transport.abort()
        async with asyncio.timeout(PATIENCE):
            assert await how == (1001, "")


async def test_a_service_that_talks_and_does_not_listen_is_left_too_once_its_caller_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.05)

    async def say() -> dict[str, str]:
        return {"type": "websocket.receive", "text": "what nobody takes"}

    async def vanish(_: object) -> None:
        raise OSError

    async def talk() -> AsyncIterator[bytes]:
        yield b"\x81\x01x"
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE):
        await WebSocket(say, vanish, MAX_MESSAGE).relay(Mock(body=talk()))


async def test_to_the_caller_a_service_that_vanishes_is_a_bad_gateway(identity_files: Path) -> None:
    async def vanish(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with through(identity_files, vanish) as tunnel, opened(tunnel) as socket:
        code, reason = await closed(socket)
    assert code == 1014
    assert reason


async def test_to_the_caller_a_pipe_that_is_lost_is_a_bad_gateway(identity_files: Path) -> None:
    gone = asyncio.Event()

    async def wait(socket: ServerConnection) -> None:
        await closed(socket)
        gone.set()

    async with through(identity_files, wait) as tunnel, opened(tunnel) as socket:
        (await tunnel.client.pipe_to_server(0)).close(Goaway.PROTOCOL_ERROR, "the test says so")
        code, reason = await closed(socket)
        assert (code, reason) == (1014, reason)
        assert "the test says so" in str(reason)
        await gone.wait()


@pytest.mark.parametrize("stops", ["server", "client"])
async def test_to_both_sides_a_node_that_stops_is_going_away_and_does_not_wait_for_them(
    identity_files: Path, stops: str
) -> None:
    how: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def wait(socket: ServerConnection) -> None:
        how.set_result((await closed(socket))[0])

    async with through(identity_files, wait) as tunnel, opened(tunnel) as socket:
        async with asyncio.timeout(PATIENCE):
            await getattr(tunnel, stops).stop(10 * PATIENCE)
            assert await closed(socket) == (1001, "the node is stopping")
            assert await how == 1001


@pytest.mark.parametrize("kind", [str, bytes])
async def test_a_message_of_the_caller_over_the_limit_closes_both_sides(identity_files: Path, kind: type) -> None:
    how: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def wait(socket: ServerConnection) -> None:
        how.set_result((await closed(socket))[0])

    async with through(identity_files, wait) as tunnel, opened(tunnel) as socket:
        await socket.send("x" * (MAX_MESSAGE + 1) if kind is str else bytes(MAX_MESSAGE + 1))
        assert (await closed(socket))[0] == 1009
        assert await how == 1009


async def test_a_message_of_the_service_over_the_limit_closes_both_sides(identity_files: Path) -> None:
    how: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def flood(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.send([b"x" * (MAX_MESSAGE // 2)] * 3)
        how.set_result((await closed(socket))[0])

    async with through(identity_files, flood, max_size=None) as tunnel, opened(tunnel) as socket:
        assert (await closed(socket))[0] == 1009
        assert await how == 1009


async def test_a_service_that_refuses_is_heard_by_the_caller(identity_files: Path) -> None:
    def refuse(_socket: ServerConnection, _request: Request) -> Response:
        return Response(403, "Forbidden", Headers({"X-Why": "because", "Content-Type": "text/x-no"}), b"no!")

    async with through(identity_files, echo, process_request=refuse) as tunnel:
        answer = await refused(tunnel)
    assert (answer.status_code, answer.body) == (403, b"no!")
    assert (answer.headers["X-Why"], answer.headers["Content-Type"]) == ("because", "text/x-no")


async def test_a_service_without_web_sockets_answers_by_http(identity_files: Path) -> None:
    async def page(connection: Connection) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 200 OK", "Content-Length: 4", body=b"page")

    async with service(page) as made, tunnel_to(identity_files, made.address) as tunnel:
        answer = await refused(tunnel)
    assert (answer.status_code, answer.headers["X-Event-Return-Code"]) == (502, "246")


async def test_a_refusal_that_is_larger_than_a_message_is_502_and_names_the_request(identity_files: Path) -> None:
    async def page(connection: Connection) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 403 No", "Content-Length: 100001", body=bytes(100_001))

    async with service(page) as made, tunnel_to(identity_files, made.address, max_body_bytes=100_000) as tunnel:
        answer = await refused(tunnel)
    assert (answer.status_code, answer.headers["X-Event-Return-Code"]) == (502, "246")
    assert json.loads(answer.body)["instance"].startswith("urn:restpipe:request:")


async def test_a_service_that_opens_something_else_is_not_believed(identity_files: Path) -> None:
    async def other(connection: Connection) -> None:
        await connection.head()
        await connection.send(
            "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: x"
        )
        await connection.rest()

    async with service(other) as made, tunnel_to(identity_files, made.address) as tunnel:
        assert (await refused(tunnel)).status_code == 502


async def test_a_service_that_is_not_there_refuses_by_502(identity_files: Path) -> None:
    async with tunnel_to(identity_files, UpstreamAddress("http", "127.0.0.1", 1)) as tunnel:
        answer = await refused(tunnel)
    assert (answer.status_code, answer.headers["X-Event-Return-Code"]) == (502, "245")


async def test_a_peer_that_serves_events_has_no_web_sockets(identity_files: Path) -> None:
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port) as client,
        web_of(server) as http,
    ):
        await connected(server, client)
        answer = await refused(Tunnel(http, server, client), "/value")
    assert (answer.status_code, answer.headers["X-Event-Return-Code"]) == (404, "255")
    assert b"no web sockets" in answer.body


async def test_a_page_of_another_site_opens_no_web_socket(identity_files: Path) -> None:
    async with through(identity_files, echo) as tunnel:
        answer = await refused(tunnel, additional_headers={"Origin": "http://elsewhere.example"})
    assert answer.status_code == 403


async def test_pings_are_answered_by_the_node_on_either_side(identity_files: Path) -> None:
    async def ping(socket: ServerConnection) -> None:
        async with asyncio.timeout(PATIENCE):
            await (await socket.ping())
        await socket.send("answered")
        await closed(socket)

    async with through(identity_files, ping) as tunnel, opened(tunnel) as socket:
        await (await socket.ping())
        assert await socket.recv() == "answered"


async def test_a_web_socket_outlives_the_time_of_a_request(identity_files: Path) -> None:
    async def late(connection: Connection) -> None:
        await connection.head()
        await connection.rest()

    async with (
        through(identity_files, echo) as tunnel,
        opened(tunnel, additional_headers={"X-Event-Timeout": "0.2"}) as quiet,
        service(late) as made,
        tunnel_to(identity_files, made.address) as other,
    ):
        # Another request, begun later with as much time, runs out of it.
        for _ in range(2):
            assert (await other.ask("POST", headers={"X-Event-Timeout": "0.2"})).status_code == 504
        await quiet.send("still here")
        assert await quiet.recv() == "still here"


async def test_a_caller_that_does_not_read_stops_its_service_and_no_other_socket(identity_files: Path) -> None:
    sent = 0
    blocked = asyncio.Event()

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        if socket.request is not None and socket.request.path == "/echo":
            await echo(socket)
            return
        with contextlib.suppress(ConnectionClosed):
            while not blocked.is_set():
                try:
                    async with asyncio.timeout(0.5):
                        await socket.send(bytes(50_000))
                    sent += 50_000
                except TimeoutError:
                    blocked.set()

    async with (
        through(identity_files, flood) as tunnel,
        opened(tunnel, max_queue=1, close_timeout=0.1, compression=None),
    ):
        async with asyncio.timeout(PATIENCE):
            await blocked.wait()
        assert sent < 64 * 1024 * 1024
        async with opened(tunnel, "/echo") as other:
            await other.send("x")
            assert await other.recv() == "x"


async def test_a_service_that_does_not_read_stops_its_caller_and_no_other_socket(identity_files: Path) -> None:
    enough = 64 * 1024 * 1024
    given = taken = 0
    wanted = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        nonlocal taken
        if socket.request is not None and socket.request.path == "/echo":
            await echo(socket)
            return
        await wanted.wait()
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                taken += len(message)

    async def pour(socket: ClientConnection) -> None:
        nonlocal given
        while given < enough:
            await socket.send(bytes(50_000))
            given += 50_000

    async with (
        through(identity_files, deaf, max_queue=1) as tunnel,
        opened(tunnel, close_timeout=0.1, compression=None) as socket,
        opened(tunnel, "/echo") as other,
    ):
        pouring = asyncio.create_task(pour(socket))
        before = -1
        while not given or before != given:  # it has come to rest while another one is served
            before = given
            for _ in range(20):
                await other.send("x")
                assert await other.recv() == "x"
        assert given < enough
        wanted.set()
        while taken < before:
            await other.send("x")
            assert await other.recv() == "x"
        pouring.cancel()
        await asyncio.wait({pouring})
