"""Web sockets of uvicorn: every caller is answered, and what is wrong with it is no fault of the node."""

from http import HTTPStatus

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode
from websockets.http11 import Request

from restpipe.exceptions import BadRequestError
from restpipe.web.problems import last_answer


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A connection from the head on that asks for a web socket."""

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent; answer what cannot be read as a request, for which uvicorn would wait on."""
        super().data_received(data)
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
