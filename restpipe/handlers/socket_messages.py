"""Messages of a web socket, from the frames of RFC 6455 that the pipe carries."""

from collections.abc import Iterator
from typing import Any

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol

# Bytes that are read at once: what bounds the time that hundreds of small frames take, in which nobody else has a turn.
PIECE = 1024
# Seconds to read no further after a frame that brings hardly anything, about ten times what it takes; bytes of which a
# fragment brings something; and seconds of it that are not worth a timer.
FRAME_COST = 0.0001
_FRAGMENT = 512
TOLERATED = 0.001


def cost_of(frame: Frame) -> float:
    """Return the seconds to rest for a frame: of a ping or a pong, and of a fragment that is too small to be of use."""
    if frame.opcode in (Opcode.PING, Opcode.PONG):
        return FRAME_COST
    return 0.0 if frame.fin or len(frame.data) >= _FRAGMENT else FRAME_COST


def pieces(data: bytes) -> Iterator[memoryview]:
    """Cut what arrived into what is read at once."""
    view = memoryview(data)
    for start in range(0, len(view), PIECE):
        yield view[start : start + PIECE]


class Messages:
    """Puts frames together.

    Args:
        frames: of the web socket.

    Attributes:
        owed: seconds to rest for the frames that came; whoever does so sets it back.
    """

    def __init__(self, frames: Protocol) -> None:
        self.owed = 0.0
        self._frames = frames
        # What came of the message at hand, and what it is.
        self._data = bytearray()
        self._kind = Opcode.BINARY

    def receive(self, data: bytes | memoryview) -> Iterator[dict[str, Any]]:
        """Take a piece, and yield the messages that are complete with it: "text" or "bytes", as ASGI has it."""
        self._frames.receive_data(data)  # type: ignore[arg-type]  # it takes whatever a bytearray takes
        for frame in self._frames.events_received():
            if not isinstance(frame, Frame):
                continue
            self.owed += cost_of(frame)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                if frame.opcode is not Opcode.CONT:
                    self._kind = frame.opcode
                self._data += frame.data
                if frame.fin:
                    yield from self._message()

    def _message(self) -> Iterator[dict[str, Any]]:
        data = bytes(self._data)
        self._data.clear()
        if self._kind is Opcode.BINARY:
            yield {"bytes": data}
            return
        try:
            yield {"text": data.decode()}
        except UnicodeDecodeError:
            self._frames.fail(CloseCode.INVALID_DATA, "text that is no UTF-8")
