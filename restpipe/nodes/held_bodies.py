"""Bodies of which the beginning is held, so that a request whose pipe is lost can be sent again."""

from abc import abstractmethod

from restpipe.nodes.exchanges import RepeatableBody

# Bytes of a body that are held.
HELD_BODY = 64 * 1024


class HeldBody(RepeatableBody):
    """A body that goes on as it arrives: an asynchronous iterable over its pieces, for one reader at a time.

    Nothing is taken before somebody reads. A new reader begins at the beginning, as long as the body is `repeatable`.

    Attributes:
        repeatable: what was read so far is held.
        complete: all of it has arrived.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0
        self._position = 0
        self.repeatable = True
        self.complete = False

    def __aiter__(self) -> "HeldBody":
        self._position = 0
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece."""
        if self._position < len(self._held):
            self._position += 1
            return self._held[self._position - 1]
        piece = b""
        while not piece:
            if self.complete:
                raise StopAsyncIteration
            piece = await self._take()
        self._hold(piece)
        return piece

    @abstractmethod
    async def _take(self) -> bytes:
        """Return the next piece from where it comes, and note whether the body is `complete`."""

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > HELD_BODY:
            self.repeatable = False
            self._held.clear()
            self._position = 0
        else:
            self._held.append(piece)
            self._position += 1
