"""A web server that stops loses no request that reached it: what waits is accepted, what is open may ask once more."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from restpipe.config import TcpBind, UnixBind
from restpipe.web.callers import Receive
from restpipe.web.http import HttpProtocol
from restpipe.web.requests import Scope
from restpipe.web.server import WebServer
from restpipe.web.sockets import Send

PATIENCE = 10.0
REQUEST = b"GET /it HTTP/1.1\r\nHost: localhost\r\n\r\n"


class App:
    """Answers once it may."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        await self.release.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture
async def server(app: App, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WebServer]:
    monkeypatch.setattr("restpipe.web.server.LINGER", 2 * PATIENCE)
    server = WebServer(app, TcpBind("127.0.0.1", 0), socket_mode=0, grace=PATIENCE)
    await server.start()
    yield server
    app.release.set()
    monkeypatch.setattr("restpipe.web.server.LINGER", 0.0)
    await server.stop()


def address(server: WebServer) -> tuple[str, int]:
    host, port = server.address.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


@contextlib.asynccontextmanager
async def connection(server: WebServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address(server))
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer
    finally:
        writer.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(REQUEST)
    return await answer(reader)


async def answer(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\nok")).decode()


async def test_what_waits_to_be_accepted_is_served_and_nobody_comes_after_it(server: WebServer) -> None:
    async with connection(server) as kept:
        await ask(*kept)  # it listens
        where = address(server)
        waiting = [socket.create_connection(where) for _ in range(20)]
        for each in waiting:
            each.sendall(REQUEST)
        # The event loop has seen nothing of them.
        leaving = asyncio.create_task(server.leave())
        for each in waiting:
            reader, writer = await asyncio.open_connection(sock=each)
            async with asyncio.timeout(PATIENCE):
                assert "connection: close" in await answer(reader)
                assert await reader.read() == b""
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where)
        await ask(*kept)
        await leaving


async def test_a_connection_that_was_kept_serves_one_more_request_and_says_that_it_is_the_last(
    server: WebServer,
) -> None:
    async with connection(server) as (reader, writer):
        assert "connection: close" not in await ask(reader, writer)
        leaving = asyncio.create_task(server.leave())
        await asyncio.sleep(0.1)
        assert not leaving.done()
        assert "connection: close" in await ask(reader, writer)
        assert await reader.read() == b""
        await leaving


async def test_a_connection_that_asks_nothing_is_closed_after_a_while(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restpipe.web.server.LINGER", 0.05)
    async with connection(server) as (reader, writer):
        await ask(reader, writer)
        await server.leave()
        assert await reader.read() == b""


async def test_a_request_under_way_is_answered_and_does_not_keep_the_others_waiting(
    app: App, server: WebServer
) -> None:
    app.release.clear()
    async with connection(server) as (reader, writer):
        writer.write(REQUEST)
        await app.entered.wait()
        await server.leave()
        stopping = asyncio.create_task(server.stop())
        app.release.set()
        assert "connection: close" in await answer(reader)
        await stopping


async def test_the_place_of_a_unix_socket_is_free_once_nobody_listens_there(app: App, tmp_path: Path) -> None:
    app.release.clear()
    first, second = (WebServer(app, UnixBind(tmp_path / "web"), socket_mode=0o600, grace=PATIENCE) for _ in range(2))
    await first.start()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "web")
    writer.write(REQUEST)
    await app.entered.wait()
    await first.leave()
    await second.start()
    app.release.set()
    assert "200" in await answer(reader)
    await first.stop()
    again, writing = await asyncio.open_unix_connection(tmp_path / "web")
    assert "200" in await ask(again, writing)
    writer.close()
    writing.close()
    await second.stop()


@pytest.mark.parametrize("steps", range(5))
async def test_a_connection_of_which_the_event_loop_has_not_told_yet_is_served_and_told_the_same(
    server: WebServer, steps: int
) -> None:
    async with connection(server) as kept:
        await ask(*kept)  # it listens
        late = socket.create_connection(address(server))
        for _ in range(steps):  # from waiting to be accepted to being one of the server's connections
            await asyncio.sleep(0)
        leaving = asyncio.create_task(server.leave())
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection(sock=late)
        assert "connection: close" in await ask(reader, writer)
        writer.close()
        await ask(*kept)
        await leaving


async def test_no_connection_is_closed_in_the_face_of_a_request_that_has_just_arrived(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connection(server) as (reader, writer):
        await ask(reader, writer)
        late = [REQUEST]

        def idle(self: HttpProtocol) -> bool:
            was = bool(is_idle(self))
            if was and late:
                writer.write(late.pop())
            return was

        is_idle = vars(HttpProtocol)["idle"].fget
        monkeypatch.setattr(HttpProtocol, "idle", property(idle))
        monkeypatch.setattr("restpipe.web.server.LINGER", 0.0)
        leaving = asyncio.create_task(server.leave())
        assert "connection: close" in await answer(reader)
        await leaving


async def test_a_socket_that_was_passed_stays_and_who_waits_there_waits_for_the_next_server(
    app: App, tmp_path: Path
) -> None:
    path = tmp_path / "web"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        first, second = (
            WebServer(app, UnixBind(path, os.dup(listener.fileno())), socket_mode=0, grace=PATIENCE) for _ in range(2)
        )
        await first.start()
        kept, asking = await asyncio.open_unix_connection(path)
        await ask(kept, asking)
        leaving = asyncio.create_task(first.leave())
        waiting, writing = await asyncio.open_unix_connection(path)
        writing.write(REQUEST)
        assert "connection: close" in await ask(kept, asking)
        await leaving
        await first.stop()
        assert path.is_socket()
        await second.start()
        assert "connection: close" not in await answer(waiting)
        await second.stop()
        asking.close()
        writing.close()
