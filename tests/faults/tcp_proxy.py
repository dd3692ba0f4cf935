"""A TCP proxy that does to connections what bad networks do: it delays, throttles, holds, and cuts."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

# Bytes that it takes at once: the less, the more evenly it throttles.
PIECE = 16 * 1024


class Proxy:
    """Passes connections on. All methods but `start` and `stop` may be called from any thread.

    Args:
        target: port that it connects to; may be changed, for connections to come.

    Attributes:
        port: that it listens on, once started.
        delay: seconds by which each piece of data is late.
        rate: bytes a second of each connection and direction; None for no limit.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        self.rate: float | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._joins: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Reset everything, and listen no more."""
        self._server.close()
        self._flows.set()
        self._reset()
        for task in list(self._joins):
            task.cancel()
        if self._joins:
            await asyncio.wait(self._joins)

    def reset(self) -> None:
        """Reset every connection, on both sides."""
        self._loop.call_soon_threadsafe(self._reset)

    def hold(self) -> None:
        """Let nothing pass, while connections stay open and new ones are accepted: to either side the other is mute."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def release(self) -> None:
        """Let pass what was held, and all that follows."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def _reset(self) -> None:
        for writer in list(self._writers):
            _abort(writer)

    async def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("no task")
        self._joins.add(task)
        self._writers.add(near)
        far: asyncio.StreamWriter | None = None
        # What becomes of a connection is its ends' affair. Cancelled, at the end, it ends like any other: asyncio would
        # log that a callback was cancelled.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
                self._writers.add(far)
                await asyncio.gather(self._pass_on(near_reader, far), self._pass_on(far_reader, near))
            except OSError:
                _abort(near)
                raise
            finally:
                for writer in (near, far):
                    if writer is not None:
                        self._writers.discard(writer)
                        writer.close()
                self._joins.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(PIECE):
            pause = self.delay + (len(data) / self.rate if self.rate else 0)
            if pause:
                await asyncio.sleep(pause)
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        await self._flows.wait()
        writer.write_eof()


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def proxy_to(target: int) -> Iterator[Proxy]:
    """Run a proxy in a thread of its own, for those who have no event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = Proxy(target)
    try:
        asyncio.run_coroutine_threadsafe(proxy.start(), loop).result()
        try:
            yield proxy
        finally:
            asyncio.run_coroutine_threadsafe(proxy.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
