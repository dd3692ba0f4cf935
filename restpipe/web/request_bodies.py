"""Bodies of HTTP requests on their way to the pipe."""

from typing import Any

from restpipe.exceptions import BadRequestError
from restpipe.nodes.held_bodies import HELD_BODY, HeldBody
from restpipe.web.callers import CallerGone, Receive


class Upload(HeldBody):
    """A body that goes on as it arrives.

    Args:
        receive: of the ASGI request.
    """

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive = receive

    def arrives(self) -> bool:
        """Whether there is more of it to come."""
        return not self.complete

    async def _take(self) -> bytes:
        """Return the next piece.

        Raises:
            BadRequestError: the caller hung up before the end.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise BadRequestError("the caller hung up before the end of its body")
        self.complete = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


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


__all__ = ["HELD_BODY", "Upload", "read_whole"]
