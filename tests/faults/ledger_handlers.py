"""Event handlers that write down what they execute. They are copied to where a node is started."""

import asyncio
import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bodies import PIECE, Sum, pieces_of

from restpipe import EventContext, Reply, ServerEventHandler, at_most_once

PostData = tuple[str, Any]


class Handler(ServerEventHandler):
    """Serves on either node: appends the nonce of each event to the ledger, and only then answers with it.

    LEDGER_FILE names the ledger, LEDGER_NODE the node. Beside it lies a file of what was had of streamed bodies: a line
    for each piece, and one with size and checksum for each end.
    """

    def __init__(self) -> None:
        self._node = os.environ["LEDGER_NODE"]
        path = Path(os.environ["LEDGER_FILE"])
        self._ledger, self._bodies = (
            os.open(each, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for each in (path, path.with_suffix(".bodies"))
        )
        self._gates: dict[str, asyncio.Event] = {}

    def _note(self, nonce: str, post_data: PostData) -> dict[str, Any]:
        os.write(self._ledger, f"{nonce} {self._node} {os.getpid()}\n".encode())
        return {"nonce": nonce, "node": self._node, "size": len(post_data[1])}

    async def _slowly(self, nonce: str, post_data: PostData, seconds: float) -> dict[str, Any]:
        noted = self._note(nonce, post_data)
        await asyncio.sleep(seconds)
        return noted

    # What the traffic asks for

    async def get_note(self, ctx: EventContext, post_data: PostData, nonce: str, seconds: float = 0) -> Any:
        return await self._slowly(nonce, post_data, seconds)

    async def post_note(self, ctx: EventContext, post_data: PostData, nonce: str, seconds: float = 0) -> Any:
        return await self._slowly(nonce, post_data, seconds)

    def get_note_sync(self, ctx: EventContext, post_data: PostData, nonce: str, seconds: float = 0) -> Any:
        noted = self._note(nonce, post_data)
        time.sleep(seconds)
        return noted

    @at_most_once
    async def get_once(self, ctx: EventContext, post_data: PostData, nonce: str, seconds: float = 0) -> Any:
        return await self._slowly(nonce, post_data, seconds)

    # Streamed bodies

    async def post_bytes(self, ctx: EventContext, body: AsyncIterator[bytes], nonce: str) -> Any:
        taken = self._begin(nonce)
        async for piece in body:
            self._take(nonce, taken, piece)
        return self._end(nonce, taken)

    def post_bytes_sync(self, ctx: EventContext, body: BinaryIO, nonce: str) -> Any:
        taken = self._begin(nonce)
        while piece := body.read(PIECE):
            self._take(nonce, taken, piece)
        return self._end(nonce, taken)

    async def get_bytes(self, ctx: EventContext, post_data: PostData, nonce: str, size: int, seconds: float) -> Any:
        async def made() -> AsyncIterator[bytes]:
            for piece in pieces_of(nonce, size):
                yield piece
                await asyncio.sleep(seconds * len(piece) / size)

        return Reply(made(), "application/octet-stream", headers=self._names(nonce))

    def get_bytes_sync(self, ctx: EventContext, post_data: PostData, nonce: str, size: int, seconds: float) -> Any:
        def made() -> Iterator[bytes]:
            for piece in pieces_of(nonce, size):
                yield piece
                time.sleep(seconds * len(piece) / size)

        return Reply(made(), "application/octet-stream", headers=self._names(nonce))

    def _begin(self, nonce: str) -> Sum:
        self._note(nonce, ("", b""))
        return Sum()

    def _take(self, nonce: str, taken: Sum, piece: bytes) -> None:
        taken.add(piece)
        os.write(self._bodies, f"{nonce} {time.monotonic()}\n".encode())

    def _end(self, nonce: str, taken: Sum) -> dict[str, Any]:
        os.write(self._bodies, f"{nonce} {time.monotonic()} {taken.size} {taken.text}\n".encode())
        return {"nonce": nonce, "node": self._node, "size": taken.size, "sum": taken.text}

    def _names(self, nonce: str) -> dict[str, str]:
        self._note(nonce, ("", b""))
        return {"X-Ledger-Nonce": nonce, "X-Ledger-Node": self._node}

    # Gates, at which a test holds events

    def _gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())

    async def get_held(self, ctx: EventContext, post_data: PostData, nonce: str, gate: str) -> Any:
        noted = self._note(nonce, post_data)
        print(f"held {nonce}\n", end="", flush=True)
        await self._gate(gate).wait()
        return noted

    async def post_held(self, ctx: EventContext, post_data: PostData, nonce: str, gate: str) -> Any:
        return await self.get_held(ctx, post_data, nonce, gate)

    async def post_gate(self, ctx: EventContext, post_data: PostData, gate: str) -> None:
        self._gate(gate).set()

    # Handlers at fault

    def get_blocked(self, ctx: EventContext, post_data: PostData) -> None:
        """Never return, in a thread, where no cancellation reaches it."""
        print("blocked\n", end="", flush=True)
        threading.Event().wait()

    async def get_raise(self, ctx: EventContext, post_data: PostData, name: str) -> Any:
        return misbehave(name)

    def get_raise_sync(self, ctx: EventContext, post_data: PostData, name: str) -> Any:
        return misbehave(name)

    async def get_switch_interval(self, ctx: EventContext, post_data: PostData) -> float:
        return sys.getswitchinterval()

    # What the census counts

    async def get_tasks(self, ctx: EventContext, post_data: PostData) -> int:
        return len(asyncio.all_tasks())

    async def get_collected(self, ctx: EventContext, post_data: PostData) -> int:
        """Give back what nobody uses: garbage that waits for its collector, and what the allocator keeps for later."""
        found = gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
            trim(0)
        return found


def misbehave(name: str) -> Any:
    """Raise what has this name, or return what cannot be sent."""
    match name:
        case "RecursionError":
            return misbehave(name)
        case "CancelledError":
            raise asyncio.CancelledError("by the handler itself")
        case "unencodable":
            return {"a": object()}
        case "circular":
            circle: list[Any] = []
            circle.append(circle)
            return circle
        case "surrogate":
            return "text/plain", 0, "\ud800"
        case "header":
            return Reply(None, headers={"X-Split": "a\r\nSet-Cookie: b"})
        case "file":
            return Path("/nowhere/at/all")
    raise vars(__import__("builtins"))[name]("raised by the handler")
