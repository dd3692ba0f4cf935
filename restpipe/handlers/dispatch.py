"""Serving: from a request on the pipe to the handler's method and back."""

import asyncio
import contextlib
import inspect
import logging
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from secrets import token_hex
from typing import Any

from restpipe.exceptions import BadRequestError, BadResultError, ThreadsBusyError
from restpipe.handlers import payload
from restpipe.handlers.answers import AnswerMemory
from restpipe.handlers.base import Reply
from restpipe.handlers.context import EventContext
from restpipe.handlers.events import EventTable, HandlerEvent
from restpipe.handlers.file_answers import FileAnswer, is_file
from restpipe.handlers.once import Once
from restpipe.handlers.problems import handler_error
from restpipe.handlers.streams import is_stream, pieces_of
from restpipe.handlers.threads import HandlerThreads
from restpipe.identity.names import NamePatterns
from restpipe.pipe import Incoming
from restpipe.stats import Stats, Timing
from restpipe_pb.v1.pipe_pb2 import Event, Header, Response

log = logging.getLogger(__name__)

# Statuses whose answers have no body (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5).
_BODILESS = frozenset({204, 205, 304})
# What most handlers return: neither a stream nor a file, and told at once.
_WHOLE = frozenset({dict, list, str, bytes, int, float, bool, type(None)})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 section 5.5: octets beyond ASCII may be any.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
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
        "x-event-attempts",
        "x-event-return-code",
    }
)


class Dispatcher:
    """Serves the requests of all pipes of a node by its event handlers.

    Args:
        handlers: the user's, and what is served beside it.
        threads: for methods that are not asynchronous.
        max_body: bytes of a body that a method is given whole.
        send_tracebacks: whether callers see the traceback of a handler that raised.
        stats: counters.
        memory: of the answers to requests with an Idempotency-Key.

    Raises:
        ConfigError: a method of a handler cannot serve events, or two handlers serve the same noun.

    Attributes:
        forwards: false: peers are told which events this node serves.
        remembers: name of the memory.
    """

    forwards = False

    def __init__(
        self,
        *handlers: object,
        threads: HandlerThreads,
        max_body: int,
        send_tracebacks: bool,
        stats: Stats,
        memory: AnswerMemory | None = None,
    ) -> None:
        self.events = EventTable(*handlers)
        self._threads = threads
        self._max_body = max_body
        self._send_tracebacks = send_tracebacks
        self._stats = stats
        self._once = Once(memory or AnswerMemory(), max_body)
        self.remembers = token_hex(8)

    @property
    def manifest(self) -> list[Event]:
        """The events, described for the peer."""
        return self.events.manifest

    def restrict(self, names: NamePatterns | None) -> None:
        """Let only these call what the handlers have no rule for; None: everyone may."""
        self.events.restrict(names)

    def find(self, incoming: Incoming) -> HandlerEvent:
        """Return the event that a request is for.

        Raises:
            ForbiddenError: it is not for its caller.
            EventError: nothing serves it.
        """
        event = self.events.find(incoming.request.verb, incoming.request.noun)
        if event.allow is not None and not event.allow.include(incoming.peer.name):
            raise event.refuse(incoming.peer.name)
        return event

    def close(self) -> None:
        """Cancel what is executed without its caller. What a handler holds is its own."""
        self._once.close()

    async def serve(self, incoming: Incoming) -> None:
        """Answer a request.

        Raises:
            EventError: it failed, and that is the answer.
        """
        loop = incoming.loop
        started = loop.time()
        request = incoming.request
        event = self.find(incoming)
        if request.idempotency_key and self._once.concerns(incoming):
            await self._once.serve(incoming, self.serve, streams=event.arguments.open_body is not None)
            return
        arguments, named = event.arguments.bind(request.arguments, request.query)
        open_body = event.arguments.open_body
        if open_body is None:
            post_data = event.arguments.body(request.content_type, await incoming.body.read(self._max_body))
        else:
            post_data = open_body(incoming.body, loop)
        ctx = EventContext(incoming, loop, self._max_body)
        self._stats.count(event.count)
        try:
            call = partial(event.method, ctx, post_data, *arguments, **named)
            result = call() if event.in_loop else await self._threads.run(call, incoming.remaining, incoming.peer.name)
            reply = as_reply(await result if inspect.isawaitable(result) else result)
            if type(reply.data) in _WHOLE:
                respond_whole(incoming, reply)
            else:
                await self._respond(incoming, reply, ctx)
        except BaseException as error:
            # Whatever else the handler raises, SystemExit included, is an answer.
            if isinstance(error, asyncio.CancelledError) and incoming.abandoned:
                raise
            if isinstance(error, ThreadsBusyError) and not event.in_loop:
                raise  # it was not called; one that is asynchronous was, and a step of its generator has no thread
            log.exception("%s failed, called by %s", event.method.__qualname__, incoming.peer.name, extra=ctx.log.extra)
            if isinstance(error, BadResultError):
                raise
            raise handler_error(error, send_traceback=self._send_tracebacks) from error
        finally:
            if open_body is not None:
                incoming.body.fail(BadRequestError("the body was not read before the event was answered"))
            took = loop.time() - started
            self._stats.timing(Timing.HANDLE, took)
            self._stats.timing(event.timing, took)

    async def _respond(self, incoming: Incoming, reply: Reply, ctx: EventContext) -> None:
        if is_file(reply.data):
            await self._stream(incoming, reply, FileAnswer(reply, ctx.verb, ctx.headers, ctx.request_id))
        elif is_stream(reply.data):
            await self._stream(incoming, reply, reply.data)
        else:
            respond_whole(incoming, reply)

    async def _stream(
        self, incoming: Incoming, reply: Reply, source: "AsyncIterator[Any] | Iterator[Any] | FileAnswer"
    ) -> None:
        """Send a body as it is produced. The answer begins with its first piece, so that a fault before it is told."""
        async with contextlib.aclosing(pieces_of(source, self._threads, incoming.peer.name)) as pieces:
            first = await anext(pieces, None)
            length = None
            if isinstance(source, FileAnswer):
                reply, length = source.reply, source.length
            bodiless = reply.status in _BODILESS
            response = make_response(reply, "" if bodiless else reply.mime_type or payload.BINARY)
            if length is not None and not bodiless:
                response.body_length = length
            if incoming.request.verb == "head" or first is None:
                incoming.respond(response)
                return
            _check_may_have_body(reply)
            response.body = first
            response.more = length is None or len(first) < length
            incoming.respond(response)
            if response.more:
                await incoming.send_body(pieces)


def as_reply(result: Any) -> Reply:
    """Tell the three forms of a result apart: a `Reply`, `(mime_type, return_code, data)`, data."""
    if isinstance(result, Reply):
        return result
    if isinstance(result, tuple) and len(result) == 3:
        mime_type, code, data = result
        if isinstance(mime_type, str) and isinstance(code, int) and not isinstance(code, bool):
            nothing = not mime_type and data == ""  # as `post_data` has it
            return Reply(None if nothing else data, mime_type or None, code)
    return Reply(result)


def respond_whole(incoming: Incoming, reply: Reply) -> None:
    """Answer with data that is there.

    Raises:
        BadResultError: it cannot be encoded.
    """
    content_type, body = payload.encode(reply.data, reply.mime_type)
    response = make_response(reply, content_type)
    if incoming.request.verb == "head":
        if reply.data is not None:  # of a HEAD method that returns None it is not known
            response.body_length = len(body)
    elif body:
        _check_may_have_body(reply)
        response.body = body
    incoming.respond(response)


def make_response(reply: Reply, content_type: str) -> Response:
    """Return the head of an answer.

    Raises:
        BadResultError: its status, its code, its type or a header is not one.
    """
    if not isinstance(reply.status, int) or not 200 <= reply.status <= 599:
        raise BadResultError(f"status {reply.status!r} is not one of 200 to 599")
    if reply.mime_type and not _FIELD_VALUE.fullmatch(content_type):
        raise BadResultError("the MIME type has characters that a header cannot carry")
    for name, value in reply.headers.items():
        check_header(name, value)
    # Attribute by attribute: the constructor of a message takes three times as long.
    response = Response()
    try:
        response.status = reply.status
        response.return_code = reply.code
        response.content_type = content_type
        if reply.headers:
            response.headers.extend(Header(name=name.lower(), value=value) for name, value in reply.headers.items())
    except (TypeError, ValueError) as error:
        raise BadResultError(f"the result cannot be sent: {error}") from error
    return response


def check_header(name: str, value: str) -> None:
    """Refuse what would break the answer apart, or belongs to the connection (RFC 9110 sections 5.1, 5.5 and 7.6.1).

    Raises:
        BadResultError: the header cannot be sent.
    """
    if not isinstance(name, str) or not _TOKEN.fullmatch(name) or name.lower() in _RESERVED:
        raise BadResultError(f"{name!r} is not a header that a handler may set")
    if not isinstance(value, str) or not _FIELD_VALUE.fullmatch(value):
        raise BadResultError(f"the value of header {name!r} has characters that a header cannot carry")


def _check_may_have_body(reply: Reply) -> None:
    if reply.status in _BODILESS:
        raise BadResultError(f"an answer of status {reply.status} has no body")
