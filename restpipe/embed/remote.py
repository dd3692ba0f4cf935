"""The other side of a pipe, as a program calls it."""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from restpipe.exceptions import BadAnswerError, BadBodyError, BodyTooLargeError, EventError
from restpipe.handlers import payload
from restpipe.handlers.calls import Outgoing
from restpipe.handlers.context import Result, read_result
from restpipe.handlers.file_answers import PIECE, is_file, status_of_regular
from restpipe.handlers.streams import is_stream, pieces_of
from restpipe.handlers.threads import HandlerThreads
from restpipe.nodes.exchanges import Patience, PipeTo
from restpipe.nodes.node import Node
from restpipe.pipe import Answer


class Stream:
    """An answer whose body is read as it arrives: an asynchronous iterator over its pieces, as bytes.

    What is not read stops the handler that produces it, and nothing else.

    Attributes:
        mime_type: its Content-Type, parameters included, "" for none.
        length: bytes of the whole body; None where the handler does not know.
        return_code: the handler's own result code; 0 is success.
        status: HTTP status.
        headers: further headers, names in lower case.
    """

    def __init__(self, answer: Answer, max_body: int) -> None:
        response = answer.response
        self.mime_type = response.content_type
        self.length = answer.body.length
        self.return_code = response.return_code
        self.status = response.status
        self.headers: Mapping[str, str] = {header.name: header.value for header in response.headers}
        self.body = answer.body
        self._max_body = max_body

    def __aiter__(self) -> "AsyncIterator[bytes]":
        return self.body

    async def read(self) -> bytes:
        """Return the rest of the body.

        Raises:
            BadAnswerError: it has more bytes than `RP_MAX_BODY_BYTES`.
            EventError: it broke.
        """
        try:
            return await self.body.read(self._max_body)
        except BodyTooLargeError as error:
            raise BadAnswerError(f"the answer cannot be used: {error}") from error


class Remote:
    """A node at the other end of a pipe, whether or not it is connected.

    Args:
        name: a client's name or address; "server".
        running: returns the node of this side, and the way from it to the other one.
        to: the client that the server is to pass calls on to; "" where the way leads to the node itself.
    """

    def __init__(self, name: str, running: "Callable[[], tuple[Node, PipeTo]]", to: str = "") -> None:
        self.name = name
        self._running = running
        self._to = to

    async def wait_connected(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - it is told in the error
        """Wait until it is connected; from one client to another, until the server is.

        Args:
            timeout: seconds; by default `RP_CONNECTION_WAIT_TIMEOUT_S`.

        Raises:
            NotSentError: it did not connect in time; no client has this name; or several have this address.
        """
        node, pipe_to = self._running()
        await pipe_to(node.settings.connection_wait_timeout_s if timeout is None else timeout)

    async def call(
        self,
        verb: str,
        noun: str,
        *arguments: object,
        data: Any = None,
        mime_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels with the request
        wait: float | None = None,
        **query: object,
    ) -> Result:
        """Have an event executed, and return what its handler returned.

        A request that was not sent when its pipe was lost is sent by the next; so is one that was, where its verb is
        GET, HEAD, PUT or DELETE and its handler does not object, or where it has an Idempotency-Key; and its body is
        no stream.

        Args:
            verb: such as "get".
            noun: such as "time/utc".
            arguments: positional ones, sent as text: what is not text, as a result's JSON has it.
            data: the body, encoded as a handler's result is. An iterator over bytes, asynchronous or not, a
                `pathlib.Path`, and a file that is open in binary mode are sent piece by piece, as the handler takes
                them.
            mime_type: its MIME type; JSON by default, or application/octet-stream for bytes.
            headers: further headers.
            timeout: seconds for all of it, anew with each piece of a streamed body; by default `RP_REQUEST_TIMEOUT_S`.
            wait: seconds of them to wait for a peer that is not connected; by default `RP_CONNECTION_WAIT_TIMEOUT_S`.
            query: keyword arguments, sent likewise; those that are None are not.

        Raises:
            EventError: it did not succeed. The class says how, and `executed` whether its handler ran.
            OSError: a file that is the body cannot be read.
            EOFError: it became shorter while it was sent.

        Cancelling cancels the handler.
        """
        node, _ = self._running()
        options = _Options(data, mime_type, headers, timeout, wait)
        async with self._answer(verb, noun, arguments, query, options) as answer:
            return await read_result(answer, node.settings.max_body_bytes)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        verb: str,
        noun: str,
        *arguments: object,
        data: Any = None,
        mime_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels with the request
        wait: float | None = None,
        **query: object,
    ) -> AsyncGenerator[Stream, None]:
        """Have an event executed, and read the answer's body as it arrives, within an `async with`.

        Leaving the block before the end of the body cancels the handler. The arguments, and what is raised, are those
        of `call`. A body that is sent may go on while the answer is read.
        """
        node, _ = self._running()
        options = _Options(data, mime_type, headers, timeout, wait)
        async with self._answer(verb, noun, arguments, query, options) as answer:
            yield Stream(answer, node.settings.max_body_bytes)

    @contextlib.asynccontextmanager
    async def _answer(
        self, verb: str, noun: str, arguments: tuple[object, ...], query: Mapping[str, object], options: "_Options"
    ) -> AsyncGenerator[Answer, None]:
        node, pipe_to = self._running()
        settings, data = node.settings, options.data
        patience = Patience(
            settings.request_timeout_s if options.timeout is None else options.timeout,
            settings.connection_wait_timeout_s if options.wait is None else options.wait,
        )
        there = patience.connection if self._to else 0.0
        make = partial(Outgoing, verb, noun, arguments, query, options.headers, to=self._to, wait=there)
        have_answered = node.exchange
        async with contextlib.AsyncExitStack() as stack:
            if not (is_file(data) or is_stream(data) or hasattr(data, "__aiter__")):
                outgoing = make(*payload.encode(data, options.mime_type))
                answer, _ = await have_answered(pipe_to, outgoing.request_to, None, patience)
                stack.callback(answer.close)
                yield answer
                return
            length, pieces = await _opened(data, node.threads, stack)
            outgoing = make(options.mime_type or payload.BINARY, b"", length)
            try:
                answer, _ = await have_answered(pipe_to, outgoing.request_to, pieces, patience)
                stack.callback(answer.close)
                yield answer
            except EventError:
                if pieces.error is not None:
                    raise pieces.error from None
                raise


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of a call, as `Remote.call` has them."""

    data: Any
    mime_type: str | None
    headers: Mapping[str, str] | None
    timeout: float | None
    wait: float | None


class _Pieces:
    """A body on its way out, which is closed once the step that is under way is over.

    Attributes:
        error: what the program's own iterator or file raised.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self._step = asyncio.Lock()
        self.error: Exception | None = None

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> bytes:
        async with self._step:
            try:
                return await anext(self._pieces)
            except StopAsyncIteration:
                raise
            except Exception as error:
                self.error = error
                raise BadBodyError(f"the body of the request broke: {error!r}") from error

    async def aclose(self) -> None:
        async with self._step:
            await self._pieces.aclose()


async def _opened(data: Any, threads: HandlerThreads, stack: contextlib.AsyncExitStack) -> tuple[int | None, _Pieces]:
    """Return the length of a body, None where it is not known, and its pieces, which the stack closes."""
    length: int | None = None
    if isinstance(data, Path):
        data = stack.enter_context(await threads.run(partial(data.open, "rb", buffering=0)))
    if is_file(data):
        length = _length_of(data)
        data = _read(data, length)
    elif hasattr(data, "__aiter__"):
        data = aiter(data)
    pieces = _Pieces(pieces_of(data, threads))
    stack.push_async_callback(pieces.aclose)
    return length, pieces


def _read(file: Any, length: int | None) -> Iterator[bytes]:
    """Yield a file, no more of it than was told: it may grow meanwhile, as a log does.

    Raises:
        EOFError: it has become shorter: what was sent must not pass for all of it.
    """
    read = getattr(file, "read1", file.read)
    left = math.inf if length is None else length
    while left and (piece := read(int(min(PIECE, left)))):
        left -= len(piece)
        yield piece
    if length is not None and left:
        raise EOFError(f"the file has become shorter: {left} bytes are missing")


def _length_of(file: Any) -> int | None:
    """Return how many bytes follow in a regular file; None of anything else."""
    status = status_of_regular(file)
    return None if status is None else max(0, status.st_size - file.tell())
