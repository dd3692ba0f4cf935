"""A TCP proxy that lets every byte arrive later, in order, both ways: a long path, for kernels without netem.

Args: the port to connect to, and the delay of each way in milliseconds. Prints the port it listens on.
"""

import asyncio
import sys
import time
from collections import deque
from typing import cast

import uvloop

# Bytes under way in one direction beyond which nothing more is read: the path's capacity, far above what one carries.
MOST_UNDER_WAY = 256 * 1024 * 1024


class Lane(asyncio.Protocol):
    """What one socket receives, for its partner to send a while later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = False
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self.partner: Lane | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._add(data)
        self._size += len(data)
        if self._size > MOST_UNDER_WAY and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._add(b"")
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        if self.partner is not None and self.partner._transport is not None:
            self._loop.call_later(self._delay, self.partner._transport.close)

    def pause_writing(self) -> None:
        if self.partner is not None:
            self.partner._blocked = True

    def resume_writing(self) -> None:
        if self.partner is not None:
            self.partner._blocked = False
            self.partner._deliver()

    def _add(self, data: bytes) -> None:
        # The loop's own clock stands still while it works off what is ready, and would let data arrive too early.
        self._under_way.append((time.monotonic() + self._delay, data))
        if self._timer is None and not self._blocked:
            self._timer = self._loop.call_later(self._delay, self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        partner = self.partner
        if partner is None or partner._transport is None:
            # The outgoing connection is still being made.
            self._timer = self._loop.call_later(0.001, self._deliver)
            return
        now = time.monotonic()
        while self._under_way and not self._blocked and not partner._transport.is_closing():
            due, data = self._under_way[0]
            if due > now:
                self._timer = self._loop.call_later(max(0.001, due - now), self._deliver)
                break
            self._under_way.popleft()
            self._size -= len(data)
            if data:
                partner._transport.write(data)
            elif partner._transport.can_write_eof():
                partner._transport.write_eof()
        if self._paused and self._size <= MOST_UNDER_WAY and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()


async def serve(port: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    joining: set[asyncio.Task[None]] = set()

    def accept() -> Lane:
        near = Lane(delay)
        task = loop.create_task(join(near))
        joining.add(task)
        task.add_done_callback(joining.discard)
        return near

    async def join(near: Lane) -> None:
        _, far = await loop.create_connection(lambda: Lane(delay), "127.0.0.1", port)
        near.partner, far.partner = far, near

    server = await loop.create_server(accept, "127.0.0.1", 0)
    print(f"delaying on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
