"""Connections in memory, and what can go wrong with them."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable

from restpipe.exceptions import ConnectError
from restpipe.transport.carrier import CarrierLostError, Peer
from restpipe.transport.memory import MemoryCarrier, memory_pair

# When a frame was sent, in the loop's time, before the frame itself.
_SENT = struct.Struct("d")


class Link:
    """The way between a client and its server."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._stalls = 0
        self._refusals = 0
        self._wires: set[Wire] = set()

    @property
    def delay(self) -> float:
        """Seconds that everything takes from one end to the other, what is on its way included."""
        return self._delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._delay = seconds
        self._changed()

    async def cut(self) -> None:
        """Break the connection, where there is one, and wait until both ends know. The client then dials again.

        What was on its way is lost. A call whose request had been sent fails, or is repeated, as it does with any pipe
        that is lost.
        """
        for wire in list(self._wires):
            await wire.cut()

    @contextlib.asynccontextmanager
    async def down(self) -> AsyncGenerator[None, None]:
        """Break the connection, and let there be no other until the end of the block."""
        self._refusals += 1
        try:
            await self.cut()
            yield
        finally:
            self._refusals -= 1

    @contextlib.asynccontextmanager
    async def stalled(self) -> AsyncGenerator[None, None]:
        """Let nothing arrive until the end of the block, as where a network drops every packet.

        Neither end knows, until it misses the heartbeats of the other. What was sent arrives afterwards, if the
        connection is still there.
        """
        self._stalls += 1
        try:
            yield
        finally:
            self._stalls -= 1
            self._changed()

    def connect(self, client: Peer, server: Peer, accept: "Callable[[LinkedCarrier], None]") -> "LinkedCarrier":
        """Make a connection; return the client's end of it, and give the other to `accept`.

        Raises:
            ConnectError: the link is down, or the client was not accepted.
        """
        if self._refusals:
            raise ConnectError("the link is down")
        wire = Wire(self)
        dialling, accepting = memory_pair(client, server)
        ends = LinkedCarrier(dialling, wire), LinkedCarrier(accepting, wire)
        accept(ends[1])
        wire.ends = ends
        self._wires.add(wire)
        return ends[0]

    def forget(self, wire: "Wire") -> None:
        """Forget a connection that has ended."""
        self._wires.discard(wire)

    def repair(self) -> None:
        """Let everything arrive at once, and as it should."""
        self._stalls = self._refusals = 0
        self.delay = 0.0

    @property
    def is_stalled(self) -> bool:
        """Whether nothing arrives at present."""
        return self._stalls > 0

    def _changed(self) -> None:
        for wire in self._wires:
            wire.changed()


class Wire:
    """One connection.

    Attributes:
        lost: it was cut.
        ends: its carriers.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.lost = False
        self.ends: tuple[LinkedCarrier, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._changed = self._loop.create_future()
        self._closed: set[LinkedCarrier] = set()
        self._both_closed = asyncio.Event()

    async def cut(self) -> None:
        """Lose what is on its way, and wait until both ends know."""
        self.lost = True
        self.changed()
        for end in self.ends:
            await end.break_off()
        await self._both_closed.wait()

    def changed(self) -> None:
        """Have those who wait look again."""
        waiting, self._changed = self._changed, self._loop.create_future()
        waiting.set_result(None)

    def closed(self, end: "LinkedCarrier") -> None:
        """Note that the node at an end has left it."""
        self._closed.add(end)
        if len(self._closed) == 2:
            self.link.forget(self)
            self._both_closed.set()

    async def passes(self, sent: float) -> bool:
        """Wait until what was sent at some time arrives; return whether it does."""
        while not self.lost:
            left = sent + self.link.delay - self._loop.time()
            if left <= 0 and not self.link.is_stalled:
                return True
            await asyncio.wait({self._changed}, timeout=None if self.link.is_stalled else left)
        return False


class LinkedCarrier:
    """One end of a connection."""

    def __init__(self, carrier: MemoryCarrier, wire: Wire) -> None:
        self.peer = carrier.peer
        self._carrier = carrier
        self._wire = wire
        self._loop = asyncio.get_running_loop()

    async def read(self) -> bytes | None:
        """Return the next frame once it is due, None once the connection ended."""
        data = await self._carrier.read()
        if data is None or not await self._wire.passes(_SENT.unpack_from(data)[0]):
            return None
        return data[_SENT.size :]

    async def write(self, frame: bytes) -> None:
        """Hand over a frame.

        Raises:
            CarrierLostError: the connection ended.
        """
        if self._wire.lost:
            raise CarrierLostError("the connection was cut")
        await self._carrier.write(_SENT.pack(self._loop.time()) + frame)

    async def close(self) -> None:
        """End both directions; what was written can still be read."""
        self._wire.closed(self)
        await self._carrier.close()

    async def break_off(self) -> None:
        """End both directions, though the node at this end has not left it."""
        await self._carrier.close()


Accept = Callable[[LinkedCarrier], Awaitable[None]]
