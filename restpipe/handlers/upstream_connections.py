"""Connections to the HTTP service behind a node: HTTP/1.1, both directions at once."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from typing import cast

import h11

from restpipe.config import UpstreamAddress
from restpipe.exceptions import ServiceUnansweredError, ServiceUnreachedError

# Seconds that connecting may take.
CONNECT_TIMEOUT = 5.0
# Seconds that a connection is kept for the next request: less than any usual service keeps it.
KEEP_SECONDS = 2.0
# Connections that are kept at most. Those in use are as many as exchanges.
MOST_KEPT = 64
# Bytes of the head of an answer.
MAX_HEAD = 64 * 1024
# Bytes that may wait to be read before the service has to pause.
HIGH_WATER = 256 * 1024

_Event = h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage


class HttpConnection(asyncio.Protocol):
    """One connection.

    It is written and read by two tasks at once: a service may answer before it has the whole request.

    Attributes:
        heard: something arrived since the request at hand began.
    """

    def __init__(self, keeper: "HttpConnections") -> None:
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        # Once the web socket is open: what arrived and was not read, in place of h11's own buffer.
        self._raw: bytearray | None = None
        self._unread = 0
        self._ended = False
        self._lost: str | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._transport: asyncio.Transport
        self.heard = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, without deriving from it

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._keeper.forget(self):
            self.close()  # nothing was asked: it would be taken for the answer to the next request
            return
        self.heard = True
        if self._raw is None:
            self._http.receive_data(data)
        else:
            self._raw += data
        self._unread += len(data)
        if self._unread > HIGH_WATER:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Note that nothing more will arrive; the connection closes."""
        self._ended = True
        if self._raw is None:
            self._http.receive_data(b"")
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self._keeper.forget(self)
        self._lost = f"{error or 'the connection was closed'}"
        self._may_write.set()
        self._wake()

    def pause_writing(self) -> None:
        """Let the writer wait."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Let the writer go on."""
        self._may_write.set()

    # Writing

    async def send(self, *events: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        """Send parts of a request.

        Raises:
            OSError: the connection was lost.
            h11.LocalProtocolError: it is no HTTP.
        """
        await self.write(b"".join([self._http.send(event) or b"" for event in events]))

    async def write(self, data: bytes) -> None:
        """Write bytes, and wait until the service takes more.

        Raises:
            OSError: the connection was lost.
        """
        if self._lost is not None or self._transport.is_closing():
            raise ConnectionResetError(self._lost)
        self._transport.write(data)
        if not self._may_write.is_set():
            await self._may_write.wait()

    # Reading

    async def next_event(self) -> _Event:
        """Return the next part of the answer.

        Raises:
            ServiceUnansweredError: the connection broke, or what arrived is no HTTP.
        """
        while (event := self.event_now()) is None:
            await self.more()
        return event

    def event_now(self) -> _Event | None:
        """Return the next part of the answer; None where it has not arrived.

        Raises:
            ServiceUnansweredError: what arrived is no HTTP, or ends too early.
        """
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            if not self.heard:
                raise ServiceUnansweredError("the service closed the connection without an answer") from error
            raise ServiceUnansweredError(f"the service's answer is no whole HTTP message: {error}") from error
        if event is h11.NEED_DATA:
            self._has_room()
            return None
        if not isinstance(event, _Event):
            raise ServiceUnansweredError("the service closed the connection without an answer")
        return event

    def switch(self) -> None:
        """Leave HTTP, after 101: what follows is read by `raw`."""
        rest, _ = self._http.trailing_data
        self._raw = bytearray(rest)

    async def raw(self) -> AsyncIterator[bytes]:
        """Yield what arrives after `switch`, to the end.

        Raises:
            ServiceUnansweredError: the connection broke.
        """
        while True:
            if self._raw:
                data = bytes(self._raw)
                self._raw.clear()
                self._has_room()
                yield data
            elif self._ended:
                return
            else:
                await self.more()

    async def more(self) -> None:
        """Wait until more arrives than was there; what was has to be taken first.

        Raises:
            ServiceUnansweredError: the connection broke.
        """
        if self._lost is not None:
            raise ServiceUnansweredError(f"the connection to the service broke: {self._lost}")
        self._arrived = self._loop.create_future()
        await self._arrived

    def _has_room(self) -> None:
        if self._unread > HIGH_WATER:
            self._transport.resume_reading()
        self._unread = 0

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # Keeping

    def renew(self) -> bool:
        """Be ready for the next request; return whether that can be."""
        if self._lost is not None or self._ended or self._transport.is_closing():
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        self.heard = False
        self._has_room()
        return True

    def close(self) -> None:
        """Close, at once also where the service does not take what was written."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()


class HttpConnections:
    """The connections to a service: opened as needed, kept for a moment.

    Args:
        address: of the service.
    """

    def __init__(self, address: UpstreamAddress) -> None:
        self._address = address
        self._tls = ssl.create_default_context() if address.scheme == "https" else None
        self._kept: dict[HttpConnection, asyncio.TimerHandle] = {}

    async def open(self) -> HttpConnection:
        """Return a new connection.

        Raises:
            ServiceUnreachedError: nothing listens there, or not with a certificate that this machine trusts.
        """
        loop = asyncio.get_running_loop()
        address = self._address

        def make() -> HttpConnection:
            return HttpConnection(self)

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if address.socket is not None:
                    _, connection = await loop.create_unix_connection(make, str(address.socket))
                else:
                    _, connection = await loop.create_connection(make, address.host, address.port, ssl=self._tls)
        except TimeoutError:
            raise ServiceUnreachedError(f"no connection to {address} within {CONNECT_TIMEOUT:g} s") from None
        except ssl.SSLError as error:  # an OSError whose number is OpenSSL's
            raise ServiceUnreachedError(f"cannot connect to {address}: {error}") from error
        except OSError as error:
            cause = os.strerror(error.errno) if error.errno and error.errno > 0 else error
            raise ServiceUnreachedError(f"cannot connect to {address}: {cause}") from error
        return connection

    def take(self) -> HttpConnection | None:
        """Return a connection that was kept; None where there is none.

        The service may close it at this very moment: only what can be sent again is sent on it.
        """
        if not self._kept:
            return None
        connection, timer = self._kept.popitem()
        timer.cancel()
        return connection

    def give_back(self, connection: HttpConnection) -> None:
        """Keep a connection whose exchange is complete, and close any other."""
        if len(self._kept) < MOST_KEPT and connection.renew():
            loop = asyncio.get_running_loop()
            self._kept[connection] = loop.call_later(KEEP_SECONDS, connection.close)
        else:
            connection.close()

    def forget(self, connection: HttpConnection) -> bool:
        """Keep a connection no longer; return whether it was kept."""
        timer = self._kept.pop(connection, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def close(self) -> None:
        """Close what is kept."""
        while (connection := self.take()) is not None:
            connection.close()
