"""Serving: from a request on the pipe to the handler's method and back."""

import asyncio
import contextlib
import inspect
import logging
import re
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from functools import partial
from typing import Any

from restpipe.exceptions import BadResultError, HandlerError
from restpipe.handlers import payload
from restpipe.handlers.base import Reply
from restpipe.handlers.context import EventContext
from restpipe.handlers.events import EventTable, HandlerEvent
from restpipe.handlers.threads import HandlerThreads
from restpipe.pipe import Incoming
from restpipe.stats import Stats, Timing
from restpipe_pb.v1.pipe_pb2 import Header, Response

log = logging.getLogger(__name__)

_END = object()
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Latin-1 without control characters, tab excepted.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-event-return-code",
    }
)


class Dispatcher:
    """Serves the requests of all pipes of a node by one event handler.

    Args:
        handler: the user's.
        threads: for methods that are not asynchronous.
        max_body: bytes of a body that a method is given whole.
        send_tracebacks: whether callers see the traceback of a handler that raised.
        stats: counters.

    Raises:
        ConfigError: a method of the handler cannot serve events.
    """

    def __init__(
        self, handler: object, *, threads: HandlerThreads, max_body: int, send_tracebacks: bool, stats: Stats
    ) -> None:
        self.events = EventTable(handler)
        self._threads = threads
        self._max_body = max_body
        self._send_tracebacks = send_tracebacks
        self._stats = stats

    async def serve(self, incoming: Incoming) -> None:
        """Answer a request.

        Raises:
            EventError: it failed, and that is the answer.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        request = incoming.request
        event = self.events.find(request.verb, request.noun)
        self._stats.count(event.count)
        arguments, named = event.arguments.bind(request.arguments, request.query)
        body = await incoming.body.read(self._max_body)
        post_data = event.arguments.body(request.content_type, body)
        ctx = EventContext(incoming, loop, self._max_body)
        try:
            with self._handler_errors(event, incoming):
                result = await self._call(event, partial(event.method, ctx, post_data, *arguments, **named))
            reply = as_reply(result)
            if payload.is_stream(reply.data):
                await self._stream(event, incoming, reply)
            else:
                respond_whole(incoming, reply)
        finally:
            took = loop.time() - started
            self._stats.timing(Timing.HANDLE, took)
            self._stats.timing(event.timing, took)

    async def _call(self, event: HandlerEvent, call: "partial[Any]") -> Any:
        if event.is_async or event.streams:
            result = call()
        else:
            result = await self._threads.run(call)
        return await result if inspect.isawaitable(result) else result

    async def _stream(self, event: HandlerEvent, incoming: Incoming, reply: Reply) -> None:
        """Send a body as it is produced. The answer begins with its first piece, so that a fault before it is told."""
        async with contextlib.aclosing(self._pieces(reply.data)) as pieces:
            with self._handler_errors(event, incoming):
                first = await anext(pieces, None)
            response = make_response(reply, reply.mime_type or payload.BINARY)
            if incoming.request.verb == "head" or first is None:
                incoming.respond(response)
                return
            response.body = first
            response.more = True
            incoming.respond(response)
            with self._handler_errors(event, incoming):
                await incoming.send_body(pieces)

    async def _pieces(self, data: "AsyncIterator[Any] | Iterator[Any]") -> AsyncGenerator[bytes, None]:
        """Iterate over what a generator yields, in a thread where it is not asynchronous, and close it at the end."""
        try:
            if isinstance(data, AsyncIterator):
                async for piece in data:
                    yield payload.encode_piece(piece)
            else:
                while (piece := await self._threads.run(partial(next, data, _END))) is not _END:
                    yield payload.encode_piece(piece)
        finally:
            if isinstance(data, AsyncGenerator):
                await data.aclose()
            elif isinstance(data, Generator):
                await self._threads.run(data.close)

    @contextlib.contextmanager
    def _handler_errors(self, event: HandlerEvent, incoming: Incoming) -> Iterator[None]:
        """Turn whatever the handler raises, SystemExit included, into the answer that says so."""
        try:
            yield
        except BadResultError:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and incoming.abandoned:
                raise
            name = event.method.__qualname__
            log.exception("%s raised, called by %s", name, incoming.peer.name)
            raise HandlerError(
                str(error),
                exception_class=type(error).__name__,
                traceback="".join(traceback.format_exception(error)) if self._send_tracebacks else "",
            ) from error


def as_reply(result: Any) -> Reply:
    """Tell the three forms of a result apart: a `Reply`, `(mime_type, return_code, data)`, data."""
    if isinstance(result, Reply):
        return result
    if isinstance(result, tuple) and len(result) == 3:
        mime_type, code, data = result
        if isinstance(mime_type, str) and isinstance(code, int) and not isinstance(code, bool):
            return Reply(data, mime_type or None, code)
    return Reply(result)


def respond_whole(incoming: Incoming, reply: Reply) -> None:
    """Answer with data that is there.

    Raises:
        BadResultError: it cannot be encoded.
    """
    content_type, body = payload.encode(reply.data, reply.mime_type)
    response = make_response(reply, content_type)
    if incoming.request.verb == "head":
        response.body_length = len(body)
    else:
        response.body = body
    incoming.respond(response)


def make_response(reply: Reply, content_type: str) -> Response:
    """Return the head of an answer.

    Raises:
        BadResultError: its status, its code or a header is not one.
    """
    if not isinstance(reply.status, int) or not 200 <= reply.status <= 599:
        raise BadResultError(f"status {reply.status!r} is not one of 200 to 599")
    for name, value in reply.headers.items():
        check_header(name, value)
    try:
        return Response(
            status=reply.status,
            return_code=reply.code,
            content_type=content_type,
            headers=[Header(name=name.lower(), value=value) for name, value in reply.headers.items()],
        )
    except (TypeError, ValueError) as error:
        raise BadResultError(f"the result cannot be sent: {error}") from error


def check_header(name: str, value: str) -> None:
    """Refuse what would break the answer apart, or belongs to the connection (RFC 9110 sections 5.1, 5.5 and 7.6.1).

    Raises:
        BadResultError: the header cannot be sent.
    """
    if not isinstance(name, str) or not _TOKEN.fullmatch(name) or name.lower() in _RESERVED:
        raise BadResultError(f"{name!r} is not a header that a handler may set")
    if not isinstance(value, str) or not _FIELD_VALUE.fullmatch(value):
        raise BadResultError(f"the value of header {name!r} has characters that a header cannot carry")
