"""Web sockets: messages here, the frames of RFC 6455 on the pipe."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from websockets.exceptions import InvalidState
from websockets.frames import CloseCode
from websockets.protocol import CLIENT, Protocol, State

from restpipe.exceptions import EventError
from restpipe.handlers.socket_messages import TOLERATED, Cuts, Messages
from restpipe.pipe import Answer
from restpipe.web.callers import Receive
from restpipe_pb.v1.pipe_pb2 import Response

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Seconds that the service has to end the web socket once it, or the caller, began to close it.
CLOSE_TIMEOUT = 10.0
# Bytes of a reason, which travels in a control frame with its code (RFC 6455 section 5.5).
_MAX_REASON = 123


class WebSocket:
    """One web socket of a caller: the server of it here, on the pipe its client.

    Pings are answered at both ends, on each connection by itself.

    Args:
        receive: of the ASGI connection.
        send: likewise.
        max_message: bytes of a message of the service.
    """

    def __init__(self, receive: Receive, send: Send, max_message: int) -> None:
        self._receive = receive
        self._send = send
        self._frames = Protocol(CLIENT, state=State.OPEN, max_size=max_message)
        self._messages = Messages(self._frames)
        self._cuts = Cuts()
        self._leaving = asyncio.Event()
        self._left = asyncio.Event()
        self._caller_left = False
        self._closing: asyncio.Timeout | None = None

    async def upload(self) -> AsyncIterator[bytes]:
        """Yield the frames for the service; the body of the request."""
        while True:
            await self._leaving.wait()
            self._leaving.clear()
            for data in self._frames.data_to_send():
                if not data:
                    return
                yield data
            self._left.set()

    async def accept(self, response: Response, headers: list[tuple[bytes, bytes]]) -> None:
        """Tell the caller that the web socket is open."""
        subprotocol = next((h.value for h in response.headers if h.name == "sec-websocket-protocol"), None)
        own = [(name, value) for name, value in headers if not name.startswith(b"sec-websocket-")]
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": own})

    async def relay(self, answer: Answer) -> None:
        """Pass messages on, both ways, until one side closes, and close the other."""
        caller = asyncio.create_task(self._from_caller(), name="web socket of a caller")
        try:
            code, reason = await self._from_service(answer)
        finally:
            caller.cancel()
            await asyncio.wait({caller})
        if not self._caller_left:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def leave(self) -> None:
        """Close, both ways: the pipe takes no new exchanges, and this one would not end by itself."""
        if self._frames.state is State.OPEN:
            self._frames.send_close(CloseCode.GOING_AWAY, "the node is stopping")
            self._begin_closing()

    async def _from_caller(self) -> None:
        while (message := await self._receive())["type"] == "websocket.receive":
            text = message.get("text")
            try:
                if text is not None:
                    self._frames.send_text(text.encode())
                else:
                    self._frames.send_binary(message["bytes"])
            except InvalidState:  # the service is closing
                continue
            # No more is taken from the caller until the service took this.
            self._left.clear()
            self._leaving.set()
            await self._left.wait()
        self._caller_left = True
        if self._frames.state is State.OPEN:
            code = message["code"]
            if "reason" not in message:
                self._frames.send_close(CloseCode.GOING_AWAY)  # without a close frame
            elif code == CloseCode.NO_STATUS_RCVD:
                self._frames.send_close()
            else:
                self._frames.send_close(code, message["reason"] or "")
        self._begin_closing()

    async def _from_service(self, answer: Answer) -> tuple[int, str]:
        """Pass on what comes of the service; return the code and the reason to close with."""
        try:
            async with asyncio.timeout(None) as self._closing:
                async for data in answer.body:
                    for piece in self._cuts.all(data):
                        await self._take_piece(piece)
        except TimeoutError:
            pass
        except EventError as error:
            return _close_of(self._frames) or (CloseCode.BAD_GATEWAY, _shortened(str(error)))
        return _close_of(self._frames) or (CloseCode.BAD_GATEWAY, "the service ended the web socket without closing it")

    async def _take_piece(self, piece: memoryview) -> None:
        messages = self._messages
        for message in messages.receive(piece):
            await self._take(message)
        self._leaving.set()
        if self._frames.close_expected():
            self._begin_closing()
        if messages.owed > TOLERATED:
            rest, messages.owed = messages.owed, 0.0
            await asyncio.sleep(rest)

    async def _take(self, message: dict[str, Any]) -> None:
        if self._caller_left:
            return
        try:
            await self._send({"type": "websocket.send", **message})
        except OSError:  # the caller is gone; `_from_caller` learns it once the service took what was said before
            self._caller_left = True
            self._begin_closing()

    def _begin_closing(self) -> None:
        self._leaving.set()
        if self._closing is not None and self._closing.when() is None and not self._closing.expired():
            self._closing.reschedule(asyncio.get_running_loop().time() + CLOSE_TIMEOUT)


def _close_of(frames: Protocol) -> tuple[int, str] | None:
    """Return the code and the reason that the service, or this side for what the service sent, closed with."""
    close = frames.close_rcvd or frames.close_sent
    if close is None:
        return None
    if close.code == CloseCode.NO_STATUS_RCVD:
        return CloseCode.NORMAL_CLOSURE, ""
    return close.code, close.reason


def _shortened(reason: str) -> str:
    return reason.encode()[:_MAX_REASON].decode(errors="ignore")
