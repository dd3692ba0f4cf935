"""Pipes over carriers in memory, which a test can lose."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from restpipe.handlers.dispatch import Dispatcher
from restpipe.handlers.threads import HandlerThreads
from restpipe.pipe import Incoming, Pipe, Serve
from restpipe.protocol.limits import Limits
from restpipe.stats import NullStats
from restpipe.transport.carrier import Peer
from restpipe.transport.memory import MemoryCarrier, memory_pair
from restpipe_pb.v1.pipe_pb2 import Event, Goaway, Hello

PATIENCE = 10.0


@dataclass
class Joint:
    """Two pipes that are joined.

    Attributes:
        calling: the side of the node under test, which accepted the connection.
        serving: the side of its peer, which dialled.
    """

    calling: Pipe
    serving: Pipe
    carriers: tuple[MemoryCarrier, MemoryCarrier]
    runs: list["asyncio.Task[object]"] = field(default_factory=list)

    async def lose(self) -> None:
        """Break the connection, and wait until both sides know."""
        for carrier in self.carriers:
            await carrier.close()
        await asyncio.wait({self.calling.ended, self.serving.ended})


class Pipes:
    """Makes pipes to peers that serve a handler, and ends them."""

    def __init__(self) -> None:
        self._joints: list[Joint] = []
        self._threads = HandlerThreads(2)

    async def join(
        self,
        handler: object,
        name: str = "alpha",
        address: str = "192.0.2.1",
        *,
        manifest: Iterable[Event] | None = None,
        limits: Limits | None = None,
        serve: Serve | None = None,
        remembers: str = "",
    ) -> Joint:
        """Join this node to a new peer."""
        dispatcher = Dispatcher(
            handler, threads=self._threads, max_body=1 << 20, send_tracebacks=True, stats=NullStats()
        )
        peers = memory_pair(Peer(name, address), Peer("server", "192.0.2.254"))
        serving = Pipe(
            peers[0],
            dials=True,
            limits=limits or Limits(),
            hello=Hello(manifest=dispatcher.events.manifest if manifest is None else manifest, remembers=remembers),
            serve=serve or dispatcher.serve,
            stats=NullStats(),
        )
        calling = Pipe(peers[1], dials=False, limits=Limits(), hello=Hello(), serve=_serve_nothing, stats=NullStats())
        joint = Joint(calling, serving, peers)
        joint.runs = [asyncio.create_task(calling.run()), asyncio.create_task(serving.run())]
        self._joints.append(joint)
        await asyncio.gather(calling.wait_ready(), serving.wait_ready())
        return joint

    async def end(self) -> None:
        """End all pipes."""
        for joint in self._joints:
            for pipe in (joint.calling, joint.serving):
                pipe.close(Goaway.SHUTDOWN, "the test is over")
            await asyncio.wait(joint.runs)


async def _serve_nothing(incoming: Incoming) -> None:
    raise AssertionError(f"{incoming.request.verb} {incoming.request.noun} was not expected")


@contextlib.asynccontextmanager
async def memory_pipes() -> AsyncIterator[Pipes]:
    """End all pipes at the end of the context."""
    pipes = Pipes()
    try:
        yield pipes
    finally:
        await pipes.end()
