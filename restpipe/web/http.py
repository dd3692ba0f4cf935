"""HTTP/1.1 of uvicorn: its refusals become problem documents, and the heads of requests get a bound."""

import sys

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from restpipe.exceptions import BadRequestError, EventError, HeadersTooLargeError
from restpipe.web.problems import problem

# Bytes of a request's head: target and headers.
MAX_HEAD = 16 * 1024


class HttpProtocol(HttpToolsProtocol):
    """One connection of an HTTP client."""

    _in_head = False
    # The head began with an earlier piece than the one at hand.
    _split = False
    # Bytes of the piece at hand, and of those between it and the one in which the head began.
    _piece = 0
    _between = 0

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        self._piece = len(data)
        self._split = self._in_head
        super().data_received(data)
        if self._split and self._in_head:
            self._between += len(data)
            if self._between > MAX_HEAD and not self.transport.is_closing():
                self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._in_head = True
        self._split = False
        self._between = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to serve a request whose head is here."""
        self._in_head = False
        if self._split or self._piece > MAX_HEAD:
            size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
            if size > MAX_HEAD:
                raise _head_too_large()  # which makes the parser refuse the request
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not take."""
        # The parser's complaint is being handled; where it has a context, that is what was raised above.
        complaint = sys.exception()
        cause = complaint.__context__ if complaint is not None else None
        self._refuse(cause if isinstance(cause, EventError) else BadRequestError(msg))

    def _refuse(self, error: EventError) -> None:
        status, headers, body = problem(error)
        lines = [name + b": " + value + b"\r\n" for name, value in [*headers, (b"connection", b"close")]]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()


def _head_too_large() -> HeadersTooLargeError:
    return HeadersTooLargeError(f"the head of the request has more than the {MAX_HEAD} bytes that are accepted")
