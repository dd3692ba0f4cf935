"""Peers that serve nothing, and that there may be thousands of, under any name: what pages ask of their pipes."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from restpipe.exceptions import NoHandlerError
from restpipe.pipe import Pipe
from restpipe.transport.carrier import Peer
from restpipe_pb.v1.pipe_pb2 import Event, Hello


class _Peer:
    available = True

    def __init__(self, name: str, hello: Hello, forwards: bool) -> None:
        self.peer = Peer(name, "192.0.2.1")
        self.ready: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self.ready.set_result(hello)
        self.forwards = forwards
        self.remembers = ""

    async def drain(self, _grace: float) -> None:
        """Be done at once."""

    async def call(self, *_: Any) -> Any:
        raise NoHandlerError("nothing is served")


def peer(name: str, events: Sequence[Event] = (), *, software: str = "fake/1", forwards: bool = False) -> Pipe:
    """Return the pipe to a peer of this name; within a running event loop."""
    return cast(Pipe, _Peer(name, Hello(software=software, manifest=events), forwards))
