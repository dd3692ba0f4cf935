"""Bodies of HTTP requests on their way to the pipe."""

from typing import Any

from restpipe.exceptions import BadRequestError
from restpipe.nodes.exchanges import RepeatableBody
from restpipe.web.callers import CallerGone, Receive

# Bytes of a body that are held, so that its request can be sent again.
HELD_BODY = 64 * 1024


class Upload(RepeatableBody):
    """A body that goes on as it arrives: an asynchronous iterable over its pieces, for one reader at a time.

    Nothing is asked of the caller before somebody reads. A new reader begins at the beginning, as long as the body is
    `repeatable`.

    Args:
        receive: of the ASGI request.

    Attributes:
        repeatable: what was read so far is held.
        complete: all of it has arrived.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._held: list[bytes] = []
        self._size = 0
        self._position = 0
        self.repeatable = True
        self.complete = False

    def __aiter__(self) -> "Upload":
        self._position = 0
        return self

    def arrives(self) -> bool:
        """Whether there is more of it to come."""
        return not self.complete

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            BadRequestError: the caller hung up before the end.
        """
        if self._position < len(self._held):
            self._position += 1
            return self._held[self._position - 1]
        piece = b""
        while not piece:
            if self.complete:
                raise StopAsyncIteration
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise BadRequestError("the caller hung up before the end of its body")
            piece = message.get("body", b"")
            self.complete = not message.get("more_body", False)
        self._hold(piece)
        return piece

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > HELD_BODY:
            self.repeatable = False
            self._held.clear()
            self._position = 0
        else:
            self._held.append(piece)
            self._position += 1


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
