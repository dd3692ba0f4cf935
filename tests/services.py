"""HTTP services that a test scripts, byte by byte, and a node that passes requests on to them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_nodes import PATIENCE, connected, running_client, running_server, web_of

from restpipe.config import UpstreamAddress
from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode

EXAMPLES = "restpipe.handlers.examples.ClientExamples"


@dataclass
class Received:
    """The head of a request as it arrived."""

    line: str
    headers: list[tuple[str, str]]

    def __getitem__(self, name: str) -> str:
        """Return a header that is there once."""
        (value,) = [value for known, value in self.headers if known == name]
        return value

    def __contains__(self, name: str) -> bool:
        return any(known == name for known, _ in self.headers)


class Connection:
    """One connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> Received:
        async with asyncio.timeout(PATIENCE):
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = raw.removesuffix("\r\n\r\n").split("\r\n")
        return Received(line, [(name, value) for name, _, value in (each.partition(": ") for each in lines)])

    async def body(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)

    async def chunks(self) -> bytes:
        """Read a chunked body to its end."""
        body = b""
        async with asyncio.timeout(PATIENCE):
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        return body

    async def rest(self) -> bytes:
        """Read until the other side closes."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def send(self, *lines: str | bytes, body: bytes = b"") -> None:
        """Send a head and what there is of a body."""
        head = b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines)
        self.writer.write(head + b"\r\n" + body)
        await self.writer.drain()

    async def more(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class Service:
    """What listens, and how often it was connected to."""

    address: UpstreamAddress
    connections: int = 0
    failures: list[BaseException] = field(default_factory=list)


@contextlib.asynccontextmanager
async def service(script: Script, *, socket: Path | None = None, path: str = "") -> AsyncIterator[Service]:
    """Listen, and run the script for each connection; what it raises is raised at the end."""
    made = Service(UpstreamAddress("http", "127.0.0.1", 0))
    running: set[asyncio.Task[Any]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("no task")
        running.add(task)
        try:
            await script(Connection(reader, writer))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised at the end
            if not isinstance(error, asyncio.CancelledError):
                made.failures.append(error)
        finally:
            running.discard(task)
            writer.close()

    if socket is not None:
        server = await asyncio.start_unix_server(connect, str(socket))
        made.address = UpstreamAddress("http", "localhost", 80, path, socket)
    else:
        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        made.address = UpstreamAddress("http", "127.0.0.1", server.sockets[0].getsockname()[1], path)
    try:
        yield made
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        if running:
            await asyncio.wait(running)
    if made.failures:
        raise made.failures[0]


def tasks_left_by(monkeypatch: pytest.MonkeyPatch, kind: type[Any], method: str, of: str) -> asyncio.Future[list[str]]:
    """Return a future of the tasks, of those whose name says `of`, that are there once a coroutine method is over."""
    left: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    run = getattr(kind, method)

    async def run_and_look(*args: Any) -> None:
        await run(*args)
        left.set_result([name for task in asyncio.all_tasks() if of in (name := task.get_name())])

    monkeypatch.setattr(kind, method, run_and_look)
    return left


@dataclass
class Tunnel:
    """A server node, and a client node "alpha" that passes requests on to a service.

    Attributes:
        http: calls the web server of the server node.
    """

    http: httpx.AsyncClient
    server: ServerNode
    client: ClientNode

    @property
    def port(self) -> int:
        port = self.http.base_url.port
        if port is None:
            raise AssertionError("no port")
        return port

    async def ask(self, verb: str, target: str = "/", **options: Any) -> httpx.Response:
        return await self.http.request(verb, f"/client/alpha{target}", **options)


@contextlib.asynccontextmanager
async def tunnel_to(identity_files: Path, address: UpstreamAddress, **options: Any) -> AsyncIterator[Tunnel]:
    """Run both nodes, and join them."""
    async with (
        running_server(identity_files, **options) as server,
        running_client(identity_files, server.port, upstream=address, event_handler=EXAMPLES, **options) as client,
        web_of(server) as http,
    ):
        await connected(server, client)
        yield Tunnel(http, server, client)
