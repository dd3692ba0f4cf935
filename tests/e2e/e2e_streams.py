"""Event handlers that read and send long bodies. They are copied to where a node is started."""

import asyncio
import hashlib
import random
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

from restpipe import EventContext, Reply, ServerEventHandler

PIECE = 64 * 1024


def tell(text: str) -> None:
    """Write a line to the node's output, where tests wait for it."""
    print(f"{text}\n", end="", flush=True)  # in one write: those of two threads never share a line


def pieces_of_noise(pieces: int) -> Iterator[bytes]:
    """Yield bytes, of which no two pieces are alike."""
    noise = random.Random(pieces).randbytes(PIECE)
    for i in range(pieces):
        yield i.to_bytes(8, "big") + noise[8:]


class Streams(ServerEventHandler):
    """Serves on either node, and tells of what the tests wait for."""

    def __init__(self) -> None:
        self._gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._thread_gates: dict[str, threading.Event] = defaultdict(threading.Event)

    async def post_gate(self, ctx: EventContext, post_data: object, gate: str) -> None:
        """Let those go on that wait at a gate."""
        self._gates[gate].set()
        self._thread_gates[gate].set()

    async def get_neighbour(self, ctx: EventContext, post_data: object) -> str:
        return "unaffected"

    async def post_whole(self, ctx: EventContext, post_data: tuple[str, Any]) -> int:
        return len(post_data[1])

    # Requests

    async def post_digest(self, ctx: EventContext, body: AsyncIterator[bytes]) -> Any:
        digest, size = hashlib.sha256(), 0
        async for piece in body:
            digest.update(piece)
            size += len(piece)
        return [digest.hexdigest(), size, ctx.content_length, ctx.content_type]

    def post_digest_sync(self, ctx: EventContext, body: BinaryIO) -> Any:
        digest, size = hashlib.sha256(), 0
        while piece := body.read(100_000):
            digest.update(piece)
            size += len(piece)
        return [digest.hexdigest(), size, ctx.content_length, ctx.content_type]

    async def post_slow(self, ctx: EventContext, body: AsyncIterator[bytes], gate: str) -> Any:
        digest = hashlib.sha256(await anext(aiter(body)))
        await self._wait(gate)
        async for piece in body:
            digest.update(piece)
        return digest.hexdigest()

    async def post_unread(self, ctx: EventContext, body: AsyncIterator[bytes], gate: str) -> None:
        await self._wait(gate)

    async def _wait(self, gate: str) -> None:
        tell("the slow one has begun")
        try:
            await self._gates[gate].wait()
        except asyncio.CancelledError:
            tell(f"the slow one at {gate} is cancelled")
            raise

    def post_slow_sync(self, ctx: EventContext, body: BinaryIO, gate: str) -> Any:
        digest = hashlib.sha256(body.read(1))
        tell("the slow one has begun")
        self._thread_gates[gate].wait()
        while piece := body.read(100_000):
            digest.update(piece)
        return digest.hexdigest()

    async def post_lines(self, ctx: EventContext, body: AsyncIterator[bytes]) -> None:
        try:
            async for piece in body:
                tell(f"piece {piece!r}")
        except BaseException as error:
            tell(f"broken by {type(error).__name__}")
            raise
        tell("a clean end")

    def post_lines_sync(self, ctx: EventContext, body: BinaryIO) -> None:
        try:
            for line in body:
                tell(f"piece {line!r}")
        except BaseException as error:
            tell(f"broken by {type(error).__name__}")
            raise
        tell("a clean end")

    async def post_first(self, ctx: EventContext, body: AsyncIterator[bytes]) -> bytes:
        """Answer before the body has ended."""
        return (await anext(aiter(body)))[:5]

    # Answers

    async def get_noise(self, ctx: EventContext, post_data: object, pieces: int) -> AsyncIterator[bytes]:
        for piece in pieces_of_noise(pieces):
            yield piece

    def get_noise_sync(self, ctx: EventContext, post_data: object, pieces: int) -> Iterator[bytes]:
        yield from pieces_of_noise(pieces)

    async def get_events(self, ctx: EventContext, post_data: object, gate: str) -> Reply:
        return Reply(self._three(f"data: {gate} {{}}\n\n", gate), mime_type="text/event-stream")

    async def get_lines(self, ctx: EventContext, post_data: object, gate: str) -> Reply:
        return Reply(self._three('{{"line": "{}"}}\n', gate), mime_type="application/x-ndjson")

    async def _three(self, line: str, gate: str) -> AsyncIterator[str]:
        yield line.format("first")
        await self._gates[gate].wait()
        yield line.format("second")
        await self._gates[f"{gate} again"].wait()
        yield line.format("last")

    async def get_broken(self, ctx: EventContext, post_data: object, gate: str) -> AsyncIterator[str]:
        yield "the beginning\n"
        await self._gates[gate].wait()
        raise RuntimeError("and no end")

    async def get_endless(self, ctx: EventContext, post_data: object) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(PIECE)
        finally:
            tell("the generator is closed")

    def get_endless_sync(self, ctx: EventContext, post_data: object) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(PIECE)
        finally:
            tell("the generator is closed")

    # Both

    async def post_mirror(self, ctx: EventContext, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in body:
            yield piece

    def post_mirror_sync(self, ctx: EventContext, body: BinaryIO) -> Iterator[bytes]:
        yield from body
