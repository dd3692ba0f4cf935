"""One request to an ASGI application: what the application receives, and how what it sends becomes the answer."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import h11

from restpipe.exceptions import BadRequestError, BadResultError, EventError
from restpipe.handlers.upstream_heads import response_head
from restpipe.pipe import Incoming
from restpipe_pb.v1.pipe_pb2 import Response

Message = MutableMapping[str, Any]

# Bytes of a request's body that the application is given at a time, where there are so many.
_ENOUGH = 64 * 1024
# Seconds that one who waits for `http.disconnect` has to end an answer before sending it raises.
_LISTENER_PATIENCE = 1.0


class AsgiExchange(ABC):
    """What is between a request on the pipe and the application, which runs in a task of its own.

    Args:
        incoming: the request.

    Attributes:
        answered: the answer is complete.
        left: nobody waits for the application any more: it answered, or the caller went away.
    """

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._parts: list[bytes] = []
        # That the application did something, that what it sent was taken, and that nobody waits for it any more.
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._leaving = asyncio.Event()
        self._ended = False
        self._error: EventError | None = None
        self.answered = False

    @property
    def left(self) -> bool:
        """Whether nobody waits for the application any more."""
        return self._leaving.is_set()

    @abstractmethod
    async def receive(self) -> Message:
        """Return what the application is told next."""

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Take what the application sends; wait while its caller does not take what was sent before.

        Raises:
            OSError: the caller went away.
            RuntimeError: the application may not send this, or not now.
        """

    @abstractmethod
    async def answer(self) -> None:
        """Answer the request by what the application sends, to the end of it.

        Raises:
            EventError: it sends no answer, or not all of it.
        """

    def end(self, error: EventError | None) -> None:
        """Note that the application has returned, or failed."""
        self._ended = True
        self._error = error
        self._something.set()

    def leave(self) -> None:
        """Let the application know that nobody waits for it any more."""
        self._leaving.set()
        self._room.set()
        self._incoming.body.fail(BadRequestError("the body was not read before the request was answered"))

    def _fault(self) -> EventError:
        """Return why there is no answer, or no more of it, once the application has ended."""
        return self._error or BadResultError("the application returned before it had answered")

    async def _hand_over(self, data: bytes) -> None:
        """Put bytes of the answer where the pipe takes them, and wait until it does."""
        self._parts.append(data)
        self._something.set()
        while self._parts and not self.left:
            self._room.clear()
            await self._room.wait()

    async def _taken(self) -> bytes:
        """Wait until the application did something, and return what it sent; b"" where it sent nothing."""
        if not self._ended:
            await self._something.wait()
            self._something.clear()
        parts, self._parts = self._parts, []
        self._room.set()
        return b"".join(parts)


class HttpExchange(AsgiExchange):
    """A request, and its answer."""

    def __init__(self, incoming: Incoming) -> None:
        super().__init__(incoming)
        self._body_was_read = False
        self._head: Response | None = None
        self._has_body = True
        self._sent = 0
        self._complete = False
        self._listened = False

    async def receive(self) -> Message:
        """Return the next piece of the body, and after all of it, once there is nobody to answer, that this is so."""
        body = self._incoming.body
        if not self._body_was_read and not self.left:
            try:
                piece = body.take_now() if body.complete else await body.read_some(_ENOUGH)
            except EventError:  # the caller broke off, and is gone
                self._body_was_read = True
                return {"type": "http.disconnect"}
            self._body_was_read = not piece or body.complete
            return {"type": "http.request", "body": piece, "more_body": not self._body_was_read}
        self._listened = not self.left
        await self._leaving.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take the head of the answer, or the next piece of its body."""
        kind = message["type"]
        if self.left and not self.answered:
            if self._listened:
                await asyncio.sleep(_LISTENER_PATIENCE)
            raise OSError("the caller went away")
        if kind == "http.response.start" and self._head is None:
            try:
                head = h11.Response(status_code=message["status"], headers=list(message.get("headers", ())))
            except h11.LocalProtocolError as error:
                raise RuntimeError(f"the head of the answer cannot be sent: {error}") from error
            self._head, self._has_body = response_head(head, self._incoming.request.verb)
            self._something.set()
        elif kind == "http.response.body" and self._head is not None and not self._complete:
            more = message.get("more_body", False)
            await self._take(self._head, bytes(message.get("body", b"")), more=more)
        else:
            raise RuntimeError(f"ASGI has no {kind!r} at this point of an answer")

    async def _take(self, head: Response, data: bytes, *, more: bool) -> None:
        self._complete = not more
        if not self._has_body:
            self._something.set()
            return
        self._sent += len(data)
        if head.HasField("body_length") and (
            self._sent > head.body_length or (self._complete and self._sent < head.body_length)
        ):
            self._complete = False
            raise RuntimeError(f"the body of the answer has not the {head.body_length} bytes of its Content-Length")
        if more:
            await self._hand_over(data)
        else:
            self._parts.append(data)
            self._something.set()

    async def answer(self) -> None:
        """Answer with what the application sends."""
        first = await self._taken()
        response = self._head
        if response is None or (self._ended and not self._complete):
            raise self._fault()
        if self._has_body:
            response.body = first
            response.more = not self._complete
        self._incoming.respond(response)
        if response.more:
            await self._incoming.send_body(self._pieces())
        self.answered = True

    async def _pieces(self) -> AsyncIterator[bytes]:
        while not self._complete or self._parts:
            piece = await self._taken()
            if piece:
                yield piece
            elif self._ended and not self._complete:
                raise self._fault()
