"""Bodies of HTTP requests on their way to the pipe."""

import asyncio
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from restpipe.exceptions import BadRequestError
from restpipe.nodes.held_bodies import HeldBody
from restpipe.web.callers import WATCH_INTERVAL, CallerGone, Receive, Unasked

# Bytes that are read ahead of a body nobody takes, to come to where its caller hung up: a TCP connection hides its end
# behind all that was sent before. Beyond them the deadline has to do. And those of all bodies together.
AHEAD = 8 * 1024 * 1024
ALL_AHEAD = 64 * 1024 * 1024


class Room:
    """What all uploads of a node may read ahead.

    Attributes:
        left: bytes.
    """

    def __init__(self, left: int = ALL_AHEAD) -> None:
        self.left = left


class Upload(HeldBody):
    """A body that goes on as it arrives. `watch` tells of a caller that hangs up while nobody reads.

    Args:
        receive: of the ASGI request.
        room: for what is read ahead.
        unasked: the caller, where it waits to be asked for the body.

    Attributes:
        awaited: a reader waits for the caller to go on.
    """

    def __init__(self, receive: Receive, room: Room, unasked: Unasked | None = None) -> None:
        super().__init__()
        self._receive = receive
        self._room = room
        self._unasked = unasked
        self._ahead: deque[bytes] = deque()
        self._ahead_size = 0
        self._asking = asyncio.Lock()
        self._reads = 0
        self._arrived = False
        self._gone = False
        self.awaited = False

    async def watch(self) -> MutableMapping[str, Any]:
        """Do what `receive` does for who waits for the caller to hang up, and leave the body to its readers."""
        while not self._gone:
            if self._arrived:
                return await self._receive()
            reads = self._reads
            await asyncio.sleep(WATCH_INTERVAL)
            if self._unasked is not None and not self._unasked.body:
                self._gone = self._unasked.disconnected
            elif self._reads == reads and not self.awaited:
                while self._ahead_size < AHEAD and self._room.left > 0 and not self._gone and not self._arrived:
                    await self._ask()
        return {"type": "http.disconnect"}

    def close(self) -> None:
        """Give back the room of what was read ahead and is not wanted any more."""
        while self._ahead:
            self._drop()

    async def _take(self) -> bytes:
        """Return the next piece.

        Raises:
            BadRequestError: the caller hung up before the end.
        """
        self._unasked = None
        self._reads += 1
        self.awaited = True
        try:
            while not self._ahead:
                if self._arrived:
                    self.complete = True
                    return b""
                if self._gone:
                    raise BadRequestError("the caller hung up before the end of its body")
                await self._ask()
        finally:
            self.awaited = False
        piece = self._drop()
        self.complete = self._arrived and not self._ahead
        return piece

    async def _ask(self) -> None:
        """Have more arrive, unless somebody else has just done so."""
        async with self._asking:
            if self._arrived or self._gone or (self.awaited and self._ahead):
                return
            message = await self._receive()
            self._gone = message["type"] == "http.disconnect"
            if self._gone:
                return
            self._arrived = not message.get("more_body", False)
            piece = message.get("body", b"")
            if piece:
                self._ahead.append(piece)
                self._ahead_size += len(piece)
                self._room.left -= len(piece)

    def _drop(self) -> bytes:
        piece = self._ahead.popleft()
        self._ahead_size -= len(piece)
        self._room.left += len(piece)
        return piece


async def read_whole(receive: Receive) -> bytes:
    """Read a body that is known to be small.

    Raises:
        CallerGone: the caller hung up before its end.
    """
    parts: list[bytes] = []
    message: Any = {"more_body": True}
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        parts.append(message.get("body", b""))
    return parts[0] if len(parts) == 1 else b"".join(parts)
