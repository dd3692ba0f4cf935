"""One web socket to an ASGI application: messages for the application, the frames of RFC 6455 on the pipe."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import h11
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode
from websockets.protocol import SERVER, Protocol, State

from restpipe.exceptions import EventError
from restpipe.handlers.asgi_exchange import AsgiExchange
from restpipe.handlers.socket_messages import TOLERATED, Cuts, Messages
from restpipe.handlers.upstream_heads import response_head
from restpipe.pipe import Incoming
from restpipe_pb.v1.pipe_pb2 import Response

Message = MutableMapping[str, Any]


class SocketExchange(AsgiExchange):
    """A web socket.

    Args:
        incoming: the request for it.
        max_message: bytes of a message of the caller.
    """

    def __init__(self, incoming: Incoming, max_message: int) -> None:
        super().__init__(incoming)
        self._frames = Protocol(SERVER, state=State.OPEN, max_size=max_message)
        self._messages = Messages(self._frames)
        self._cuts = Cuts()
        self._pieces_unread: Iterator[memoryview] = iter(())
        self._arrived: deque[dict[str, Any]] = deque()
        self._connecting = True
        # What opens the web socket, or refuses it; the parts of a refusal's body are those of the answer.
        self._head: Response | None = None
        self._open = False
        self._closed = False

    async def receive(self) -> Message:
        """Return that the caller wants to connect, then its messages, and at last that it is gone."""
        if self._connecting:
            self._connecting = False
            return {"type": "websocket.connect"}
        while not self._arrived and not self.left and not self._closed:
            piece = next(self._pieces_unread, None)
            if piece is None:
                try:
                    data = await self._incoming.body.read_some(1)
                except EventError:
                    break
                if not data:
                    break
                self._pieces_unread = self._cuts.all(data)
                continue
            self._arrived.extend(self._messages.receive(piece))
            await self._flush()
            self._closed = self._frames.state is not State.OPEN
            if self._messages.owed > TOLERATED:
                rest, self._messages.owed = self._messages.owed, 0.0
                await asyncio.sleep(rest)
        if self._arrived:
            return {"type": "websocket.receive", **self._arrived.popleft()}
        close = self._frames.close_rcvd or self._frames.close_sent
        code = CloseCode.ABNORMAL_CLOSURE if close is None else close.code
        return {"type": "websocket.disconnect", "code": code, "reason": "" if close is None else close.reason}

    async def send(self, message: Message) -> None:
        """Take the acceptance or the refusal of the web socket, a message, or the end."""
        if self.left:
            raise OSError("the caller went away")
        match message["type"]:
            case "websocket.accept" if self._head is None:
                self._accept(message)
            case "websocket.send" if self._open and not self._closed:
                await self._send(message)
            case "websocket.close" if self._open:
                self._frames_close(message.get("code", CloseCode.NORMAL_CLOSURE), message.get("reason") or "")
                await self._flush()
            case "websocket.close" if self._head is None:
                self._refuse(403, ())
                self._complete()
            case "websocket.http.response.start" if self._head is None:
                self._refuse(message["status"], message.get("headers", ()))
            case "websocket.http.response.body" if self._head is not None and not self._open and not self._closed:
                self._parts.append(bytes(message.get("body", b"")))
                if not message.get("more_body", False):
                    self._complete()
            case kind if self._closed:
                raise OSError(f"there is no {kind} once the web socket is closed")
            case kind:
                raise RuntimeError(f"ASGI has no {kind!r} at this point of a web socket")

    def _accept(self, message: Message) -> None:
        headers = list(message.get("headers", ()))
        subprotocol = message.get("subprotocol")
        if subprotocol is not None:
            headers.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        try:
            head = h11.InformationalResponse(status_code=101, headers=headers)
        except h11.LocalProtocolError as error:
            raise RuntimeError(f"the web socket cannot be accepted so: {error}") from error
        self._head, _ = response_head(head, "connect")
        self._open = True
        self._something.set()

    def _refuse(self, status: int, headers: Any) -> None:
        try:
            head = h11.Response(status_code=max(status, 300), headers=list(headers))
        except h11.LocalProtocolError as error:
            raise RuntimeError(f"the web socket cannot be refused so: {error}") from error
        self._head, _ = response_head(head, "get")

    def _complete(self) -> None:
        self._closed = True
        self._something.set()

    async def _send(self, message: Message) -> None:
        try:
            if message.get("bytes") is not None:
                self._frames.send_binary(bytes(message["bytes"]))
            else:
                self._frames.send_text(message["text"].encode())
        except InvalidState as error:
            raise OSError("the web socket is closing") from error
        await self._flush()

    def _frames_close(self, code: int, reason: str) -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_close(code, reason)
        self._closed = True

    async def _flush(self) -> None:
        data = b"".join(self._frames.data_to_send())
        if data:
            await self._hand_over(data)
        self._something.set()

    async def answer(self) -> None:
        """Answer with what the application sends, until either side closes."""
        while self._head is None or not (self._open or self._closed):
            if self._ended:
                raise self._fault()
            await self._something.wait()
            self._something.clear()
        if self._open:
            self._head.more = True
        else:
            self._head.body = b"".join(self._parts)
        self._incoming.respond(self._head)
        if self._open:
            await self._incoming.send_body(self._pieces())
        self.answered = True

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            over = self._closed
            if self._ended and not over:
                code = CloseCode.INTERNAL_ERROR if self._error is not None else CloseCode.NORMAL_CLOSURE
                self._frames_close(code, "")
                self._parts.extend(self._frames.data_to_send())
                over = True
            if over or self._parts:
                parts, self._parts = self._parts, []
                self._room.set()
                data = b"".join(parts)
                if data:
                    yield data
            if over and not self._parts:
                return
            if not self._parts:
                await self._something.wait()
                self._something.clear()
