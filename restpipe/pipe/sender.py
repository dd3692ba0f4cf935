"""What leaves: the one task that writes, and the bodies that wait for it."""

import asyncio
import logging
from collections.abc import AsyncIterable, Callable

from restpipe.protocol.connection import Connection
from restpipe.protocol.describe import describe_frame
from restpipe.transport.carrier import Carrier

log = logging.getLogger(__name__)


class Sender:
    """Writes the frames of a connection: all that became ready while a write was under way leaves with the next.

    Args:
        core: the connection.
        carrier: what takes the frames.
        over: asked whenever there is nothing to write, whether there never will be.
    """

    def __init__(self, core: Connection, carrier: Carrier, over: Callable[[], bool]) -> None:
        self._core = core
        self._carrier = carrier
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._idle: asyncio.Future[None] | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._bodies_ended = False

    async def run(self) -> None:
        """Write until it is over.

        Raises:
            CarrierLostError: the carrier ended.
        """
        carrier, core = self._carrier, self._core
        trace = log.isEnabledFor(logging.DEBUG)
        while True:
            frame = core.next_frame()
            for exchange_id in core.take_wanting():
                self.release(exchange_id)
            if frame is not None:
                if trace:
                    log.debug("%s < %s", carrier.peer.name, describe_frame(frame))
                await carrier.write(frame)
            elif self._over():
                return
            else:
                self._idle = self._loop.create_future()
                await self._idle

    def wake(self) -> None:
        """Have what became ready written."""
        idle = self._idle
        if idle is not None:
            self._idle = None
            if not idle.done():  # it is cancelled where the whole loop is shut down
                idle.set_result(None)

    async def send_body(
        self, exchange_id: int, pieces: AsyncIterable[bytes], progress: Callable[[], None] | None = None
    ) -> None:
        """Send a body to its end, or until nobody wants it any more.

        Args:
            exchange_id: whose head announced it.
            pieces: any sizes.
            progress: called whenever a piece has left.
        """
        core = self._core
        if core.awaits_credit(exchange_id):
            await self._released(exchange_id)
            if self._bodies_ended:
                return
        async for piece in pieces:
            if self._bodies_ended or not core.is_open(exchange_id):
                return
            core.send_body(exchange_id, piece, more=True)
            self.wake()
            if not core.wants_more(exchange_id):
                await self._released(exchange_id)
            if progress is not None:
                progress()
        core.send_body(exchange_id, b"", more=False)
        self.wake()

    async def _released(self, exchange_id: int) -> None:
        waiter = self._waiting[exchange_id] = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiting.pop(exchange_id, None)

    def release(self, exchange_id: int) -> None:
        """Let a body go on of which enough has left, or nothing ever will."""
        waiter = self._waiting.pop(exchange_id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def end_bodies(self) -> None:
        """Send no more of any body: the pipe has ended. What was queued before may still leave."""
        self._bodies_ended = True
        for exchange_id in list(self._waiting):
            self.release(exchange_id)
