"""Bodies of requests that a method reads as they arrive, however long they are."""

import asyncio
import inspect
import io
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import IO, Any, BinaryIO

from restpipe.exceptions import ConfigError
from restpipe.handlers.threads import run_in_loop
from restpipe.pipe import Body

# Bytes that a thread takes from the event loop at a time, where there are so many.
_ENOUGH = 256 * 1024
_BUFFER = 64 * 1024

_ASYNCHRONOUS = (AsyncIterator, AsyncIterable)
# What `io.BufferedReader` is.
_FILES = (BinaryIO, IO, io.BufferedReader, io.BufferedIOBase, io.IOBase)
_OTHER_FILES = (typing.TextIO, io.TextIOBase, io.TextIOWrapper, io.RawIOBase, io.BytesIO)

OpenBody = Callable[[Body, asyncio.AbstractEventLoop], Any]


def opener_of(method: Callable[..., Any], name: str, annotation: Any) -> OpenBody | None:
    """Return what opens the body as the stream that a method's annotation asks for; None where it asks for none.

    Args:
        method: that takes the body.
        name: of the parameter.
        annotation: of the parameter.

    Raises:
        ConfigError: the method cannot read such a stream. The message names what it can.
    """
    kind = typing.get_origin(annotation) or annotation
    if kind in _ASYNCHRONOUS:
        if not _is_asynchronous(method):
            raise ConfigError(
                f"{method.__qualname__} cannot read an asynchronous stream: "
                f"make it `async def`, or annotate {name!r} with BinaryIO"
            )
    elif kind in _FILES:
        if _is_asynchronous(method):
            raise ConfigError(
                f"{method.__qualname__} would block the event loop when it reads a file: "
                f"make it a plain `def`, or annotate {name!r} with AsyncIterator[bytes]"
            )
    elif kind not in _OTHER_FILES:
        return None
    if kind in _OTHER_FILES or typing.get_args(annotation) not in ((), (bytes,)):
        raise ConfigError(
            f"{method.__qualname__}: a body is read as AsyncIterator[bytes] or as BinaryIO, not as {annotation!r}"
        )
    return _as_it_is if kind in _ASYNCHRONOUS else open_body


def open_body(body: Body, loop: asyncio.AbstractEventLoop) -> io.BufferedReader:
    """Open a body as a file for threads. Closing it, or not reading it to its end, harms nothing."""
    return io.BufferedReader(_ReadInThread(body, loop), _BUFFER)


def _as_it_is(body: Body, _loop: asyncio.AbstractEventLoop) -> Body:
    return body


class _ReadInThread(io.RawIOBase):
    """A body that threads read, one at a time, while it arrives in the event loop."""

    def __init__(self, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        self._loop = loop
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes, and return how many there were; 0 at the end of the body.

        Raises:
            EventError: the body broke.
            RuntimeError: it is called in the event loop, which would wait for itself.
        """
        if not self._rest:
            data = run_in_loop(lambda: self._body.read_some(_ENOUGH), self._loop, "take AsyncIterator[bytes]")
            self._rest = memoryview(data)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _is_asynchronous(method: Callable[..., Any]) -> bool:
    """Whether a method's own code runs in the event loop; a decorator may hide that it does."""
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (method, inspect.unwrap(method))
    )
