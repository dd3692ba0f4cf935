"""A body as it arrives."""

import asyncio
from collections import deque
from collections.abc import Callable

from restpipe.exceptions import BodyTooLargeError, EventError


class Body:
    """An asynchronous iterator over the pieces of a body, for one reader.

    Taking a piece grants the sender credit for as many bytes: a reader that pauses stops its sender, and nothing else.

    Args:
        first: the bytes that came with the head.
        more: whether pieces follow.
        consumed: called with the number of bytes that were taken; None where nobody needs to know, for nothing follows.

    Attributes:
        length: bytes of the whole body, None where the sender did not tell.
        ask: called once somebody waits for the body; None where its sender sends unasked.
    """

    __slots__ = ("_consumed", "_error", "_first", "_more", "_pieces", "_waiter", "ask", "length")

    def __init__(self, first: bytes, *, more: bool, length: int | None, consumed: Callable[[int], None] | None) -> None:
        self._first = first
        # Made for the first piece that follows: most bodies are one piece.
        self._pieces: deque[bytes] | None = None
        self._more = more
        self._consumed = consumed
        self._error: EventError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.ask: Callable[[], None] | None = None
        self.length = length if more else len(first)

    @property
    def complete(self) -> bool:
        """Whether everything has arrived."""
        return not self._more

    def feed(self, data: bytes, *, more: bool) -> None:
        """Add what arrived."""
        if data:
            if self._pieces is None:
                self._pieces = deque()
            self._pieces.append(data)
        self._more = more
        self._wake()

    def fail(self, error: EventError) -> None:
        """Let the reader see `error` after what has arrived; without effect on a complete body."""
        if self._more and self._error is None:
            self._error = error
            self._wake()

    def take_now(self) -> bytes:
        """Return the whole of a complete body at once."""
        first, self._first = self._first, b""
        pieces, self._pieces = self._pieces, None
        return b"".join((first, *pieces)) if pieces else first

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            EventError: the body broke.
        """
        if self._first:
            piece, self._first = self._first, b""
            if self._consumed is not None:
                self._consumed(len(piece))
            return piece
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if not self._more:
                raise StopAsyncIteration
            if self.ask is not None:
                ask, self.ask = self.ask, None
                ask()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = self._pieces.popleft()
        if self._consumed is not None:
            self._consumed(len(piece))
        return piece

    async def read_some(self, enough: int) -> bytes:
        """Return what has arrived, up to the piece that makes it `enough` bytes; where nothing has, wait for a piece.

        Returns:
            b"" at the end.

        Raises:
            EventError: the body broke.
        """
        taken = [await anext(self, b"")]
        size = len(taken[0])
        while self._pieces and size < enough:
            taken.append(await anext(self))
            size += len(taken[-1])
        return b"".join(taken)

    async def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            BodyTooLargeError: it has more than `limit` bytes; where its length is known, before it is read.
            EventError: the body broke.
        """
        if self.length is not None and self.length > limit:
            raise BodyTooLargeError(_too_large(self.length, limit))
        if not self._more:
            data = self.take_now()
            if len(data) > limit:
                raise BodyTooLargeError(_too_large(None, limit))
            return data
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                raise BodyTooLargeError(_too_large(None, limit))
            pieces.append(piece)
        return b"".join(pieces)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _too_large(length: int | None, limit: int) -> str:
    size = f"{length} bytes, more" if length is not None else "more bytes"
    return f"the body has {size} than the {limit} that are held whole (RP_MAX_BODY_BYTES); streams have no limit"
