"""Carriers to test with: in memory, and gRPC over mutual TLS on the loopback interface."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from restpipe.identity import Identity
from restpipe.protocol.limits import Limits
from restpipe.transport.carrier import Carrier, Peer
from restpipe.transport.grpc_client import dial
from restpipe.transport.grpc_server import Accept, GrpcServerCarrier, PipeListener
from restpipe.transport.memory import memory_pair

CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True)
class Identities:
    """A server's and a client's identity, from one CA."""

    server: Identity
    client: Identity


@dataclass(frozen=True)
class End:
    """One end of a pair of carriers, and how its owner ends it."""

    carrier: Carrier
    close: Callable[[], Awaitable[None]]


@asynccontextmanager
async def listening(identity: Identity, accept: Accept, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Run a listener; the name is bound to its port."""
    listener = PipeListener(identity, Limits(), accept)
    port = await listener.start(host, 0)
    try:
        yield port
    finally:
        await listener.stop(0)


@asynccontextmanager
async def memory_ends(client: str = "client-1") -> AsyncIterator[tuple[End, End]]:
    """Join a dialling and an accepting end in memory."""
    dialling, accepting = memory_pair(Peer(client, "127.0.0.1"), Peer("server-1", "127.0.0.1"))
    yield End(dialling, dialling.close), End(accepting, accepting.close)
    await dialling.close()


@asynccontextmanager
async def grpc_ends(identities: Identities) -> AsyncIterator[tuple[End, End]]:
    """Join a dialling and an accepting end by gRPC."""
    accepted: asyncio.Future[GrpcServerCarrier] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def accept(carrier: GrpcServerCarrier) -> None:
        await carrier.write(b"first")
        accepted.set_result(carrier)
        await over.wait()

    async with listening(identities.server, accept) as port:
        client = await dial("127.0.0.1", port, identities.client, Limits(), CONNECT_TIMEOUT)
        assert await client.read() == b"first"
        server = await accepted

        async def close_server() -> None:
            await server.close()
            over.set()  # the call ends when its handler returns

        yield End(client, client.close), End(server, close_server)
        over.set()
        closing = asyncio.ensure_future(client.close())
        while await client.read() is not None:
            pass
        await closing


def connections(port: int) -> list[str]:
    """Return the connections to a TCP port of this machine that have an end which was not closed."""
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
    established, close_wait = "01", "08"
    return [
        " ".join(row[1:4])
        for row in rows
        if row[3] in {established, close_wait} and f":{port:04X}" in {row[1][-5:], row[2][-5:]}
    ]
