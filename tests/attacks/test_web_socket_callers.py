"""Whoever asks a node's web server for a web socket, with raw sockets: a defined answer, and bounded memory."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from e2e_curl import curl
from e2e_processes import PATIENCE, Node, Site, site_with_handlers
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from restpipe.handlers.socket_messages import FRAME_COST, PIECE

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
MAX_MESSAGE = 100_000
# Web sockets that are open at once.
MOST = 20
TOKEN = "sesame"

HOST = b"Host: localhost"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = b"Sec-WebSocket-Version: 13"
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket")


def opening(path: str, *headers: bytes) -> bytes:
    return b"\r\n".join((f"GET {path} HTTP/1.1".encode(), *headers, b"", b""))


def asking(*headers: bytes, path: str = "/client/client/") -> bytes:
    return opening(path, HOST, *UPGRADE, KEY, VERSION, *headers)


class Caller:
    """One connection to a web server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    async def answer(self) -> tuple[int, bytes]:
        """Return status and head of the answer."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), head

    async def read(self) -> bytes:
        """Return what arrives next."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read(65536)

    async def message(self) -> bytes:
        """Return the next message, of 126 bytes or more, that the node sends in one frame."""
        async with asyncio.timeout(PATIENCE):
            first, length, size = struct.unpack("!BBH", await self._reader.readexactly(4))
            assert (first, length) == (0x82, 126)
            return await self._reader.readexactly(size)

    async def close_code(self) -> int | None:
        """Read to the end of the connection; return the code of the close frame, None where there was none."""
        async with asyncio.timeout(PATIENCE):
            received = b""
            with contextlib.suppress(ConnectionError):
                while piece := await self._reader.read(65536):
                    received += piece
        closing = received.rfind(b"\x88")
        return None if closing < 0 else int.from_bytes(received[closing + 2 : closing + 4])


class Nodes:
    """A server; a client with a web service behind it; and one that serves events, whose web server wants a token."""

    def __init__(self, server: Node, client: Node, events: Node) -> None:
        self.server, self.client, self.events = server, client, events

    @contextlib.asynccontextmanager
    async def caller(self, node: Node | None = None) -> AsyncIterator[Caller]:
        port = int((node or self.server).web.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Caller(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Caller]:
        async with self.caller() as caller:
            await caller.send(asking())
            assert (await caller.answer())[0] == 101
            yield caller

    def open_files(self) -> int:
        """Number of descriptors that both nodes have open."""
        return sum(len(list(Path(f"/proc/{node.pid}/fd").iterdir())) for node in (self.server, self.client))

    def memory(self) -> int:
        """Bytes of memory that both nodes have on the way of a message."""
        return self.server.memory + self.client.memory


async def echo(socket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            await socket.send([b"y"] * 3000 if message == "in pieces" else message)


def start(site: Site, port: int) -> Nodes:
    server = site.server(RP_WEB_HEAD_TIMEOUT_S="1", RP_MAX_BODY_BYTES=str(MAX_MESSAGE))
    events = site.client(server.pipe_port, name="events", RP_WEB_TOKEN=TOKEN)
    del site.settings["RP_EVENT_HANDLER_FQ_CLASS"]
    most = str(MAX_MESSAGE)
    client = site.client(
        server.pipe_port, RP_MAX_EXCHANGES=str(MOST), RP_UPSTREAM=f"http://127.0.0.1:{port}", RP_MAX_BODY_BYTES=most
    )
    return Nodes(server, client, events)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    async with serve(echo, "127.0.0.1", 0, max_size=None) as service:
        port = next(iter(service.sockets)).getsockname()[1]
        with site_with_handlers(tmp_path_factory.mktemp("web_sockets")) as site:
            yield await asyncio.to_thread(start, site, port)


REFUSED = {
    "an old version": (400, opening("/client/client/", HOST, *UPGRADE, KEY, b"Sec-WebSocket-Version: 8")),
    "no version": (400, opening("/client/client/", HOST, *UPGRADE, KEY)),
    "no key": (400, opening("/client/client/", HOST, *UPGRADE, VERSION)),
    "two keys": (400, asking(KEY)),
    "a key that is none": (400, opening("/client/client/", HOST, *UPGRADE, VERSION, b"Sec-WebSocket-Key: !")),
    "a key that is too long": (
        400,
        opening("/client/client/", HOST, *UPGRADE, VERSION, b"Sec-WebSocket-Key: " + b"QUFB" * 100),
    ),
    "a page, and no host": (
        400,
        opening("/client/client/", *UPGRADE, KEY, VERSION, b"Origin: http://localhost"),
    ),
    "two hosts": (400, asking(b"Host: evil.example")),
    "another host": (421, asking().replace(HOST, b"Host: evil.example")),
    "a page of another site": (403, asking(b"Origin: http://evil.example")),
    "a page of another port of this host": (403, asking(b"Origin: http://localhost:1")),
    "a page of nowhere": (403, asking(b"Origin: null")),
    "two pages": (400, asking(b"Origin: http://localhost", b"Origin: http://evil.example")),
    "what a browser calls cross-site": (403, asking(b"Sec-Fetch-Site: cross-site")),
    "events": (404, asking(path="/client/events/data")),
    "the node itself": (404, asking(path="/status")),
    "a body": (400, asking(b"Content-Length: 5") + b"hello"),
    "a body in chunks": (400, asking(b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "a header that is too long for web sockets": (400, asking(b"X: " + b"a" * 9_000)),
    "too many headers for web sockets": (400, asking(*[b"X: a"] * 200)),
    "a head that is too large": (431, asking(b"X: " + b"a" * 17_000)),
}


@pytest.mark.parametrize(("status", "request_"), REFUSED.values(), ids=list(REFUSED))
async def test_who_may_not_have_a_web_socket_gets_an_answer_of_http(nodes: Nodes, status: int, request_: bytes) -> None:
    async with nodes.caller() as caller:
        await caller.send(request_)
        got, head = await caller.answer()
    assert got == status, head
    assert b"\r\nx-event-return-code: 2" in head.lower()
    assert b"\r\ncontent-type: application/problem+json" in head.lower()
    assert b"access-control-" not in head.lower()
    assert b"sec-websocket-accept" not in head.lower()


async def test_without_the_token_there_is_no_web_socket(nodes: Nodes) -> None:
    bearer = f"Authorization: Bearer {TOKEN}".encode()
    for status, headers in ((401, ()), (401, (bearer + b"x",)), (404, (bearer,))):
        async with nodes.caller(nodes.events) as caller:
            await caller.send(asking(*headers, path="/server/data"))
            assert (await caller.answer())[0] == status


async def test_a_head_that_does_not_come_to_its_end_is_408(nodes: Nodes) -> None:
    async with nodes.caller() as caller:
        await caller.send(asking()[:-2])
        assert (await caller.answer())[0] == 408


def masked(first: int, payload: bytes, length: bytes | None = None) -> bytes:
    """Make a frame of a client, whose mask changes nothing."""
    size = length if length is not None else bytes([0x80 | len(payload)])
    return bytes([first]) + size + bytes(4) + payload


BROKEN = {
    "a frame without a mask": (b"\x81\x02hi", 1002),
    "a reserved bit": (masked(0xB1, b"hi"), 1002),
    "an opcode of nothing": (masked(0x83, b"hi"), 1002),
    "a ping in pieces": (masked(0x09, b"hi"), 1002),
    "a large ping": (masked(0x89, bytes(200), b"\xfe\x00\xc8"), 1002),
    "the middle of no message": (masked(0x80, b"hi"), 1002),
    "a message within another": (masked(0x01, b"a") + masked(0x81, b"b"), 1002),
    "a close with half a code": (masked(0x88, b"\x03"), 1002),
    "a close with a code of nobody": (masked(0x88, b"\x03\xed"), 1002),
    "text that is no UTF-8": (masked(0x81, b"\xff\xff"), 1007),
    "a frame that is larger than a message may be": (masked(0x82, b"", b"\xff" + (MAX_MESSAGE + 1).to_bytes(8)), 1009),
    "a frame larger than the world": (masked(0x82, b"", b"\xff\x7f" + b"\xff" * 7), 1009),
    "a length that is negative": (masked(0x82, b"", b"\xff\xff" + b"\xff" * 7), 1009),
    "compression that was not agreed": (masked(0xC1, b"hi"), 1002),
}


@pytest.mark.parametrize(("frames", "code"), BROKEN.values(), ids=list(BROKEN))
async def test_frames_that_are_none_close_the_web_socket_with_the_reason(
    nodes: Nodes, frames: bytes, code: int
) -> None:
    async with nodes.opened() as caller:
        await caller.send(frames)
        assert await caller.close_code() == code


async def test_a_message_that_never_ends_is_cut_at_the_limit_and_takes_no_memory(nodes: Nodes) -> None:
    before = nodes.memory()
    for size in (20, 10_000):
        async with nodes.opened() as caller:
            piece = masked(0x00, b"x" * size, None if size < 126 else b"\xfe" + size.to_bytes(2)) * (
                MAX_MESSAGE // size
            )
            with contextlib.suppress(ConnectionError):
                await caller.send(masked(0x01, b"x") + piece + piece)
            assert await caller.close_code() in (1009, None)  # None: what was sent beyond it reset the connection
    assert nodes.memory() - before < 32 * MIB


async def test_a_flood_of_pings_is_answered_no_faster_than_it_is_worth_and_others_are_served_meanwhile(
    nodes: Nodes,
) -> None:
    loop = asyncio.get_running_loop()
    pongs = 0
    async with nodes.opened() as caller:
        began = loop.time()

        async def pour() -> None:
            while True:
                await caller.send(masked(0x89, b"") * 1000)

        async def count() -> None:
            nonlocal pongs
            while True:
                pongs += len(await caller.read()) // 2

        flood = asyncio.gather(pour(), count())
        for _ in range(10):
            answer = await asyncio.to_thread(curl, f"{nodes.server.web}/client/events/sum//20/22")
            assert answer.json == {"sum": 42}
            assert not flood.done()
        flood.cancel()
        await asyncio.wait({flood})
        assert 0 < pongs <= (loop.time() - began) / FRAME_COST + PIECE


async def test_a_message_in_thousands_of_pieces_is_read_no_faster_than_it_is_worth_and_comes_whole(
    nodes: Nodes,
) -> None:
    loop = asyncio.get_running_loop()
    size = 3000
    async with nodes.opened() as caller:
        began = loop.time()
        await caller.send(masked(0x02, b"x") + masked(0x00, b"y") * (size - 2) + masked(0x80, b"z"))
        assert await caller.message() == b"x" + b"y" * (size - 2) + b"z"
        assert loop.time() - began >= 0.9 * size * FRAME_COST
        began = loop.time()
        await caller.send(masked(0x81, b"in pieces"))
        assert await caller.message() == b"y" * size
        assert loop.time() - began >= 0.9 * size * FRAME_COST


async def test_a_crowd_that_asks_for_web_sockets_is_refused_beyond_the_limit_and_leaves_nothing_behind(
    nodes: Nodes,
) -> None:
    before = nodes.open_files()
    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(nodes.caller()) for _ in range(450)]
        idle, unfinished, gone = callers[:150], callers[150:300], callers[300:]
        await asyncio.gather(
            *(caller.send(asking()) for caller in idle + gone), *(caller.send(asking()[:-2]) for caller in unfinished)
        )
        for caller in gone:
            caller.close()
        answers = await asyncio.gather(*(caller.answer() for caller in idle))
        statuses = [status for status, _ in answers]
        assert set(statuses) <= {101, 503}
        assert statuses.count(503) >= len(idle) - MOST
        assert {status for status, _ in await asyncio.gather(*(caller.answer() for caller in unfinished))} == {408}
    async with asyncio.timeout(PATIENCE):
        while nodes.open_files() > before + 10:  # what others keep open is theirs
            await asyncio.to_thread(curl, f"{nodes.server.web}/client/events/sum//20/22")
        while True:
            async with nodes.caller() as caller:
                await caller.send(asking())
                if (await caller.answer())[0] == 101:
                    break


async def test_nothing_of_all_that_was_a_fault_of_the_nodes(nodes: Nodes) -> None:
    for node in (nodes.server, nodes.client, nodes.events):
        assert "Traceback" not in node.output
        assert " ERROR " not in node.output
    answer = await asyncio.to_thread(curl, f"{nodes.server.web}/client/events/sum//20/22")
    assert answer.json == {"sum": 42}
