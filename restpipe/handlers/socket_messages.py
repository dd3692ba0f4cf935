"""Messages of a web socket, from the frames of RFC 6455 that the pipe carries."""

from collections.abc import Iterator
from typing import Any

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol


class Messages:
    """Puts frames together.

    Args:
        frames: of the web socket.
    """

    def __init__(self, frames: Protocol) -> None:
        self._frames = frames
        # The pieces of the message at hand, and what they are.
        self._parts: list[bytes] = []
        self._kind = Opcode.BINARY

    def receive(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Take bytes, and yield the messages that are complete with them: "text" or "bytes", as ASGI has it."""
        self._frames.receive_data(data)
        for frame in self._frames.events_received():
            if isinstance(frame, Frame) and frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                if frame.opcode is not Opcode.CONT:
                    self._kind = frame.opcode
                self._parts.append(bytes(frame.data))
                if frame.fin:
                    yield from self._message()

    def _message(self) -> Iterator[dict[str, Any]]:
        data = b"".join(self._parts)
        self._parts.clear()
        if self._kind is Opcode.BINARY:
            yield {"bytes": data}
            return
        try:
            yield {"text": data.decode()}
        except UnicodeDecodeError:
            self._frames.fail(CloseCode.INVALID_DATA, "text that is no UTF-8")
