"""Bodies that a handler produces piece by piece."""

import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from restpipe.exceptions import BadResultError
from restpipe.handlers import payload
from restpipe.handlers.threads import HandlerThreads

log = logging.getLogger(__name__)

_END = object()


def is_stream(data: Any) -> bool:
    """Whether data is sent piece by piece."""
    return hasattr(data, "__anext__") or hasattr(data, "__next__")


async def pieces_of(
    data: "AsyncIterator[Any] | Iterator[Any]", threads: HandlerThreads, by: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield what a generator yields, as bytes, and close it at the end; one that is not asynchronous runs in threads.

    Args:
        data: the generator, or any iterator.
        threads: as above.
        by: name of the peer that asks for it, "" for this node.

    Raises:
        BadResultError: it yields what is neither bytes nor str.
        BaseException: what it raises.
    """
    if isinstance(data, AsyncIterator):
        try:
            async for piece in data:
                yield _encode_piece(piece)
        finally:
            if isinstance(data, AsyncGenerator):
                await data.aclose()
    else:
        steps = _Steps(data)
        try:
            while (piece := await threads.run(steps.take, by=by)) is not _END:
                yield _encode_piece(piece)
        finally:
            threads.submit(steps.close)


class _Steps:
    """Steps of an iterator, taken in threads one after the other and in one context, as if in one call."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._context = contextvars.copy_context()
        self._running = threading.Lock()
        self._abandoned = False

    def take(self) -> Any:
        """Return the next piece, or `_END`."""
        try:
            with self._running:
                return self._context.run(next, self._iterator, _END)
        finally:
            if self._abandoned:
                self.close()

    def close(self) -> None:
        """Close a generator or a file; while a step is under way, have the thread that takes it do so afterwards."""
        self._abandoned = True
        if not self._running.acquire(blocking=False):
            return
        try:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                self._context.run(close)
        except BaseException:
            log.exception("%r raised when it was closed", self._iterator)
        finally:
            self._running.release()


def _encode_piece(piece: Any) -> bytes:
    if isinstance(piece, str):
        return payload.encode_text(piece)
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    raise BadResultError(f"a generator yields bytes or str, not {type(piece).__name__}")
