"""Two carriers joined in memory, for tests of everything above."""

import asyncio
from collections import deque

from restpipe.transport.carrier import CarrierLostError, Peer

# Frames that wait unread before a write waits, like the buffers of a connection.
DEPTH = 4


class MemoryCarrier:
    """One end of a pair made by `memory_pair`."""

    def __init__(self, peer: Peer, incoming: "_Lane", outgoing: "_Lane") -> None:
        self.peer = peer
        self._incoming = incoming
        self._outgoing = outgoing

    async def read(self) -> bytes | None:
        """Return the next frame, None once either end was closed and all was read."""
        return await self._incoming.take()

    async def write(self, frame: bytes) -> None:
        """Hand over a frame.

        Raises:
            CarrierLostError: either end was closed.
        """
        await self._outgoing.put(frame)

    async def close(self) -> None:
        """End both directions; what was written can still be read."""
        await self._incoming.close()
        await self._outgoing.close()


def memory_pair(dialling: Peer, accepting: Peer) -> tuple[MemoryCarrier, MemoryCarrier]:
    """Return the carriers of the dialling and of the accepting node; each is told who the other is."""
    there, back = _Lane(), _Lane()
    return MemoryCarrier(accepting, back, there), MemoryCarrier(dialling, there, back)


class _Lane:
    """Frames in one direction."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._closed = False
        self._changed = asyncio.Condition()

    async def put(self, frame: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._frames) < DEPTH)
            if self._closed:
                raise CarrierLostError("the other end was closed")
            self._frames.append(frame)
            self._changed.notify_all()

    async def take(self) -> bytes | None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or bool(self._frames))
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    async def close(self) -> None:
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
