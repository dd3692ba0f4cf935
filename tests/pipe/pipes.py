"""Pipes to test with: two that are joined, and one whose peer is the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from carriers import End, memory_ends

from restpipe.pipe import Answer, Incoming, Pipe, PipeEnd, Serve, Turns
from restpipe.protocol.limits import REVISION, Limits
from restpipe.stats import NullStats
from restpipe.transport.carrier import Carrier
from restpipe_pb.v1.pipe_pb2 import Envelope, Frame, Goaway, Hello, Request, Response

# Longer than anything that is to happen takes, in seconds.
PATIENCE = 10.0
# Longer than that: what a test waits for must not happen because a clock ran out.
TIMEOUT = 60.0


def request(body: bytes = b"", *, timeout: float = TIMEOUT, noun: str = "it") -> Request:
    return Request(verb="post", noun=noun, body=body, timeout_ms=int(timeout * 1000))


async def echo(incoming: Incoming) -> None:
    """Answer with the request's body."""
    incoming.respond(Response(status=200, body=await incoming.body.read(2**30)))


async def whole(answer: Answer) -> bytes:
    return await answer.body.read(2**30)


async def stream(size: int, piece: int = 50_000) -> AsyncIterator[bytes]:
    """Yield `size` bytes that tell where they are."""
    for start in range(0, size, piece):
        yield numbered(start, min(piece, size - start))


def numbered(start: int, size: int) -> bytes:
    """Return bytes of a sequence that repeats after 251."""
    cycle = bytes(range(251))
    return (cycle * (size // 251 + 2))[start % 251 :][:size]


async def until(holds: Callable[[], bool]) -> None:
    """Let the others run until something holds that nobody announces."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0)


def make_pipe(
    carrier: Carrier, *, dials: bool, serve: Serve = echo, limits: Limits | None = None, turns: Turns | None = None
) -> Pipe:
    return Pipe(
        carrier, dials=dials, limits=limits or Limits(), hello=Hello(), serve=serve, stats=NullStats(), turns=turns
    )


def nothing_is_kept(pipe: Pipe) -> None:
    """Check that a pipe that ended refers to no call, and has no timer."""
    assert pipe._exchanges.calls == {}
    assert pipe._sender._waiting == {}
    assert pipe._tick_timer.cancelled()
    assert pipe._exchanges.clocks._timer is None


@dataclass(frozen=True)
class Joined:
    """Two pipes that are joined, and the tasks that run them."""

    dialling: Pipe
    accepting: Pipe
    dialling_run: "asyncio.Task[PipeEnd]"
    accepting_run: "asyncio.Task[PipeEnd]"

    async def ends(self) -> tuple[PipeEnd, PipeEnd]:
        """Wait until both have ended; return why."""
        return await self.dialling_run, await self.accepting_run


@asynccontextmanager
async def joined(
    serve: Serve = echo,
    *,
    serve_back: Serve = echo,
    limits: Limits | None = None,
    ends: AbstractAsyncContextManager[tuple[End, End]] | None = None,
) -> AsyncIterator[Joined]:
    """Join two pipes; `serve` is the accepting one's."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE), ends or memory_ends() as (near, far):
        dialling = make_pipe(near.carrier, dials=True, serve=serve_back, limits=limits)
        accepting = make_pipe(far.carrier, dials=False, serve=serve, limits=limits)

        async def run(pipe: Pipe, end: End) -> PipeEnd:
            try:
                return await pipe.run()
            finally:
                await end.close()

        both = Joined(dialling, accepting, loop.create_task(run(dialling, near)), loop.create_task(run(accepting, far)))
        await asyncio.gather(dialling.wait_ready(), accepting.wait_ready())
        yield both
        dialling.close(Goaway.TAKEOVER, "the test is over")
        await asyncio.wait({both.dialling_run, both.accepting_run})
        nothing_is_kept(dialling)
        nothing_is_kept(accepting)


class Wire:
    """The peer of a pipe, played by the test, envelope by envelope."""

    def __init__(self, pipe: Pipe, run: "asyncio.Task[PipeEnd]", carrier: Carrier) -> None:
        self.pipe = pipe
        self.run = run
        self.carrier = carrier
        self._arrived: list[Envelope] = []

    async def send(self, *envelopes: Envelope) -> None:
        """Send envelopes in one frame."""
        await self.carrier.write(Frame(envelopes=envelopes).SerializeToString())

    async def next(self) -> Envelope | None:
        """Wait for the next envelope; None where the pipe is over."""
        while not self._arrived:
            frame = await self.carrier.read()
            if frame is None:
                return None
            self._arrived += Frame.FromString(frame).envelopes
        return self._arrived.pop(0)

    async def until(self, kind: str) -> Any:
        """Wait for an envelope of a kind; return what it carries."""
        while (envelope := await self.next()) is not None:
            if envelope.WhichOneof("kind") == kind:
                return getattr(envelope, kind)
        raise AssertionError(f"the pipe ended without any {kind}")

    async def rest(self) -> list[Envelope]:
        """Wait for the end; return what came before it."""
        envelopes = []
        while (envelope := await self.next()) is not None:
            envelopes.append(envelope)
        return envelopes


@asynccontextmanager
async def wired(
    serve: Serve = echo,
    *,
    dials: bool = False,
    limits: Limits | None = None,
    hello: Hello | None = None,
    turns: Turns | None = None,
    client: str = "client-1",
) -> AsyncIterator[Wire]:
    """Run a pipe whose peer is the test; by default the test dials."""
    async with asyncio.timeout(PATIENCE), memory_ends(client) as (dialling, accepting):
        near, far = (dialling, accepting) if dials else (accepting, dialling)
        pipe = make_pipe(near.carrier, dials=dials, serve=serve, limits=limits, turns=turns)
        run = asyncio.ensure_future(pipe.run())
        wire = Wire(pipe, run, far.carrier)
        await wire.send(Envelope(hello=hello or greeting()))
        await wire.until("hello")
        await pipe.wait_ready()
        yield wire
        await far.close()
        await asyncio.wait({run})
        nothing_is_kept(pipe)


def greeting(*, initial_window: int = 65536, max_exchanges: int = 4096) -> Hello:
    return Hello(
        revision=REVISION,
        software="test/1",
        initial_window=initial_window,
        max_exchanges=max_exchanges,
        max_frame_bytes=1024 * 1024,
    )
