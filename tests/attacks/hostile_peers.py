"""Peers that have a certificate and no manners: gRPC without RestPipe, so that they can send any bytes at all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envelopes import Message, envelope, opened

from restpipe_pb.v1.pipe_pb2 import Frame, Goaway, Hello, Request, Response

CONNECT = "/restpipe.v1.Pipe/Connect"
# Seconds for what takes a moment; reached only where a test fails.
PATIENCE = 30.0


def frame(*envelopes: tuple[int, Message]) -> bytes:
    """Encode a frame."""
    return Frame(envelopes=[envelope(*each) for each in envelopes]).SerializeToString()


def hello(**changed: Any) -> Hello:
    """Make a Hello that every node accepts, but for what is changed."""
    fields: dict[str, Any] = {
        "revision": 1,
        "software": "hostile/1",
        "initial_window": 65536,
        "max_exchanges": 100,
        "max_frame_bytes": 262144,
    }
    return Hello(**fields | changed)


class HostilePeer:
    """One call of `Pipe.Connect`.

    Args:
        call: of gRPC: a client's, or the context of one that a server answers.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._unread: list[tuple[int, Message]] = []

    async def send(self, *envelopes: tuple[int, Message]) -> None:
        """Send envelopes, in one frame."""
        await self.send_raw(frame(*envelopes))

    async def send_raw(self, data: bytes) -> None:
        """Send what may be no frame."""
        async with asyncio.timeout(PATIENCE):
            await self._call.write(data)

    async def receive(self) -> tuple[int, Message] | None:
        """Return the next envelope; None where the node ended the call, or the connection."""
        while not self._unread:
            async with asyncio.timeout(PATIENCE):
                try:
                    data = await self._call.read()
                except (grpc.aio.AioRpcError, grpc.aio.BaseError):
                    return None
                except asyncio.CancelledError:  # how a server's call is told that the client cancelled it
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    return None
            if data is grpc.aio.EOF:
                return None
            self._unread += map(opened, Frame.FromString(data).envelopes)
        return self._unread.pop(0)

    async def wait_for(self, kind: type[Any], exchange_id: int | None = None) -> Any:
        """Return the next message of a kind, and drop what comes before it."""
        while (received := await self.receive()) is not None:
            if isinstance(received[1], kind) and exchange_id in (None, received[0]):
                return received[1]
        raise AssertionError(f"the call ended before any {kind.__name__}")

    async def greet(self, **changed: Any) -> Hello:
        """Exchange Hellos; return the node's."""
        await self.send((0, hello(**changed)))
        greeting = await self.wait_for(Hello)
        assert isinstance(greeting, Hello)
        return greeting

    async def ask(self, exchange_id: int, noun: str, verb: str = "get", **fields: Any) -> Response:
        """Make a request, and return what is answered."""
        await self.send((exchange_id, Request(verb=verb, noun=noun, timeout_ms=60_000, **fields)))
        response = await self.wait_for(Response, exchange_id)
        assert isinstance(response, Response)
        return response

    async def end(self) -> Goaway | None:
        """Wait for the end of the call; return the node's goodbye."""
        goodbye = None
        while (received := await self.receive()) is not None:
            if isinstance(received[1], Goaway):
                goodbye = received[1]
        return goodbye

    async def goodbye(self) -> str:
        """Wait for the end of the call; return why the node ended it, which must be that the protocol was broken."""
        goodbye = await self.end()
        assert goodbye is not None
        assert goodbye.reason == Goaway.PROTOCOL_ERROR
        return goodbye.message


@contextlib.asynccontextmanager
async def channel(directory: Path, name: str, port: int) -> AsyncIterator[grpc.aio.Channel]:
    """Connect to a node's port as any gRPC program would, with the identity of this name."""
    key, certificate, ca = (
        (directory / file).read_bytes() for file in (f"{name}.key.pem", f"{name}.crt.pem", "ca.crt.pem")
    )
    options: Sequence[tuple[str, int]] = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    )
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options=options) as made:
        yield made


@contextlib.asynccontextmanager
async def hostile_peer(directory: Path, name: str, port: int) -> AsyncIterator[HostilePeer]:
    """Connect as the client of this name."""
    async with channel(directory, name, port) as made:
        call: Any = made.stream_stream(CONNECT)()
        try:
            yield HostilePeer(call)
        finally:
            call.cancel()


class HostileServer:
    """A server that a client node dials, and that is no node.

    Args:
        directory: of its identity, which is named `server`.
    """

    def __init__(self, directory: Path) -> None:
        self.port = 0
        self._directory = directory
        self._callers: asyncio.Queue[tuple[Any, asyncio.Event]] = asyncio.Queue()
        self._server: Any = grpc.aio.server(
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )

    async def __aenter__(self) -> "HostileServer":
        key, certificate, ca = (
            (self._directory / file).read_bytes() for file in ("server.key.pem", "server.crt.pem", "ca.crt.pem")
        )
        service, _, method = CONNECT.strip("/").partition("/")
        handler: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def _connect(self, _requests: object, context: Any) -> None:
        over = asyncio.Event()
        self._callers.put_nowait((context, over))
        await over.wait()

    @contextlib.asynccontextmanager
    async def met(self) -> AsyncIterator[HostilePeer]:
        """Wait until a client dials; the call ends with the block."""
        async with asyncio.timeout(PATIENCE):
            context, over = await self._callers.get()
        try:
            yield HostilePeer(context)
        finally:
            over.set()
