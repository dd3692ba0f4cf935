"""Messages of a web socket, from the frames of RFC 6455 that the pipe carries."""

from collections.abc import Iterator
from typing import Any

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol

# Bytes of small frames that are read at once: what bounds the time that hundreds of them take, in which nobody else has
# a turn. The last one may be of any size: a large one costs little more.
PIECE = 1024
# Seconds to read no further after a frame that brings hardly anything, about ten times what it takes; bytes of which a
# fragment brings something; and seconds of it that are not worth a timer.
FRAME_COST = 0.0001
_FRAGMENT = 512
TOLERATED = 0.001
# Bytes of a frame's head, as far as they say how long it is; and of the length, where that has more than seven bits.
_MIN_HEAD, _MAX_HEAD = 2, 10
_EXTENDED = {126: 2, 127: 8}


def cost_of(frame: Frame) -> float:
    """Return the seconds to rest for a frame: of a ping or a pong, and of a fragment that is too small to be of use."""
    if frame.opcode in (Opcode.PING, Opcode.PONG):
        return FRAME_COST
    return 0.0 if frame.fin or len(frame.data) >= _FRAGMENT else FRAME_COST


class Cuts:
    """Cuts the frames that arrive into pieces to be read at once."""

    def __init__(self) -> None:
        # Bytes to come of the frame at hand; or what came of its head, if that is not all of it.
        self._left = 0
        self._head = b""

    def next(self, arrived: memoryview) -> memoryview:
        """Return the first piece of what arrived, and take it for read."""
        end = self._left
        while end < min(len(arrived), PIECE):
            head = self._head + arrived[end : end + _MAX_HEAD]
            size = _frame_size(head)
            if size is None:
                self._left, self._head = 0, head
                return arrived
            end += size - len(self._head)
            self._head = b""
        self._left = max(0, end - len(arrived))
        return arrived[:end]

    def all(self, data: bytes) -> Iterator[memoryview]:
        """Yield all pieces."""
        arrived = memoryview(data)
        while arrived:
            piece = self.next(arrived)
            yield piece
            arrived = arrived[len(piece) :]


def _frame_size(head: bytes) -> int | None:
    """Return the bytes of a frame that begins so (RFC 6455 section 5.2), None where that is too little to tell."""
    if len(head) < _MIN_HEAD:
        return None
    masked, length = head[1] & 0x80, head[1] & 0x7F
    extended = _EXTENDED.get(length, 0)
    if len(head) < _MIN_HEAD + extended:
        return None
    if extended:
        length = int.from_bytes(head[_MIN_HEAD : _MIN_HEAD + extended])
    return _MIN_HEAD + extended + (4 if masked else 0) + length


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
