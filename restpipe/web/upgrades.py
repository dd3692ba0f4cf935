"""Web sockets of uvicorn: every caller is answered, and what is wrong with it is no fault of the node."""

from asyncio import BaseTransport
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from restpipe.exceptions import BadRequestError
from restpipe.handlers.socket_messages import TOLERATED, Cuts, cost_of
from restpipe.web.problems import last_answer


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A connection from the head on that asks for a web socket.

    uvicorn reads all frames of what arrived at once, and keeps each fragment by itself. Here a message, or many frames
    for little, give others a turn.
    """

    frames: list[Any]
    # What arrived and was not read yet, and why nothing more is to arrive: it costs a rest, or the application has
    # messages to take.
    _unread = memoryview(b"")
    _resting = False
    _held = False
    _owed = 0.0

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin."""
        self._cuts = Cuts()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent."""
        self._unread = memoryview(bytes(self._unread) + data if self._unread else data)
        self._go_on()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._held = True
            self._go_on()
        return message

    def _go_on(self) -> None:
        """Read on, until that makes a message or costs a rest."""
        while self._unread and not (self.read_paused or self._resting or self.transport.is_closing()):
            # The head comes whole, by itself.
            piece = self._cuts.next(self._unread) if self.handshake_initiated else self._unread
            self._unread = self._unread[len(piece) :]
            self._take(piece)
            if self._owed > TOLERATED:
                self.loop.call_later(self._owed, self._rested)
                self._owed = 0.0
                self._resting = True
        if self.read_paused or self.transport.is_closing():
            return
        if self._resting:
            self._held = True
            self.transport.pause_reading()
        elif self._held:
            self._held = False
            self.transport.resume_reading()

    def _rested(self) -> None:
        self._resting = False
        self._go_on()

    def handle_events(self) -> None:
        """Note what the frames cost that were read."""
        self._owed += sum(cost_of(event) for event in self.conn.events if isinstance(event, Frame))
        super().handle_events()

    def handle_cont(self, event: Frame) -> None:
        """Put a fragment to those before it."""
        (data,) = self.frames
        if not isinstance(data, bytearray):
            data = bytearray(data)
            self.frames = [data]
        data += event.data
        if event.fin:
            self.send_receive_event_to_app()

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message, or what opens, refuses or closes the web socket.

        uvicorn would log each refusal as a fault of the application.
        """
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True

    def _take(self, piece: bytes | memoryview) -> None:
        """Take what the caller sent; answer what cannot be read as a request, for which uvicorn would wait on."""
        super().data_received(piece)  # type: ignore[arg-type]  # it takes whatever a bytearray takes
        if not self.handshake_initiated and self.conn.handshake_exc is not None and not self.transport.is_closing():
            self._refuse(self.conn.handshake_exc.__cause__ or self.conn.handshake_exc)

    def handle_connect(self, event: Request) -> None:
        """Begin with a handshake; what is none is refused as every other request."""
        if self.conn.accept(event).status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
            return
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        self._refuse(self.conn.handshake_exc)

    def _refuse(self, cause: BaseException | None) -> None:
        self.transport.write(last_answer(BadRequestError(f"the request cannot open a web socket: {cause}")))
        self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Hand over a message; uvicorn would log text that is none with a traceback."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(CloseCode.INVALID_DATA)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()
