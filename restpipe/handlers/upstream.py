"""An HTTP service as handler: every request is passed on to it, as it is."""

import asyncio
import base64
import contextlib
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import h11

from restpipe.config import UpstreamAddress
from restpipe.exceptions import EventError, ServiceUnansweredError
from restpipe.handlers.events import IDEMPOTENT
from restpipe.handlers.upstream_connections import HttpConnection, HttpConnections
from restpipe.handlers.upstream_heads import check_passed_on, request_head, response_head
from restpipe.pipe import Incoming
from restpipe.stats import Stats, Timing
from restpipe_pb.v1.pipe_pb2 import Event

log = logging.getLogger(__name__)

# RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Provisional answers before the answer.
_MOST_PROVISIONAL = 100
# Pieces of a body that are taken in a turn: a service may cut it as small as it likes.
_MOST_PIECES = 256


class Upstream:
    """Serves the requests of all pipes of a node by an HTTP service.

    Args:
        address: of the service.
        stats: counters.

    Attributes:
        forwards: true: peers are told that this node passes every request on.
        remembers: "": no answers are remembered, whatever the service does.
        manifest: empty: what the service serves is not known.
    """

    forwards = True
    remembers = ""

    def __init__(self, address: UpstreamAddress, stats: Stats) -> None:
        self.manifest: list[Event] = []
        self._address = address
        self._connections = HttpConnections(address)
        self._stats = stats

    async def serve(self, incoming: Incoming) -> None:
        """Answer a request with what the service answers.

        Raises:
            ServiceUnreachedError: there is no connection to the service: nothing was done.
            ServiceUnansweredError: the service did not answer, or not to its end.
            EventError: it failed otherwise, and that is the answer.
        """
        started = incoming.loop.time()
        request = incoming.request
        check_passed_on(request)
        head = request_head(request, incoming.peer, self._address)
        try:
            if request.protocol:
                await self._open_web_socket(incoming, head)
            elif not await self._by_kept(incoming, head):
                await self._by(await self._connections.open(), incoming, head)
        finally:
            self._stats.timing(Timing.HANDLE, incoming.loop.time() - started)

    def close(self) -> None:
        """Close connections that wait for a next request."""
        self._connections.close()

    async def _by_kept(self, incoming: Incoming, head: h11.Request) -> bool:
        """Pass a request on by a connection that was kept; return whether there was one that still served.

        The service may close it as the request leaves, and what became of that cannot be known: only a request that may
        be repeated, and can be, goes this way.
        """
        if incoming.request.verb not in IDEMPOTENT or incoming.request.more:
            return False
        while (connection := self._connections.take()) is not None:
            try:
                await self._by(connection, incoming, head)
            except ServiceUnansweredError:
                if connection.heard:
                    raise
            else:
                return True
        return False

    async def _by(self, connection: HttpConnection, incoming: Incoming, head: h11.Request) -> None:
        """Pass a request on by a connection, and its answer back."""
        upload = _upload(connection, incoming, head)
        try:
            if incoming.request.more:
                async with _meanwhile(upload):
                    await _answer(connection, incoming)
            else:
                await upload
                await _answer(connection, incoming)
        finally:
            self._connections.give_back(connection)

    async def _open_web_socket(self, incoming: Incoming, head: h11.Request) -> None:
        key = base64.b64encode(secrets.token_bytes(16))
        handshake = [
            (b"connection", b"Upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", key),
        ]
        head = h11.Request(method="GET", target=head.target, headers=[*head.headers, *handshake])
        connection = await self._connections.open()
        try:
            with contextlib.suppress(OSError):  # reading tells
                await connection.send(head, h11.EndOfMessage())
            answer = await _final(connection)
            if isinstance(answer, h11.Response):
                if answer.status_code < 300:  # which would tell the caller that it is open
                    raise ServiceUnansweredError(f"the service opened no web socket: it answered {answer.status_code}")
                await _relay(connection, incoming, answer)
                return
            expected = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
            if dict(answer.headers).get(b"sec-websocket-accept") != expected:
                raise ServiceUnansweredError("the service opened something that is no web socket")
            connection.switch()
            response, _ = response_head(answer, "connect")
            response.more = True
            incoming.respond(response)
            async with _meanwhile(_upload_raw(connection, incoming)):
                await incoming.send_body(connection.raw())
        finally:
            connection.close()


@contextlib.asynccontextmanager
async def _meanwhile(upload: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Send to the service for as long as the block lasts, which reads what comes of it."""
    task = asyncio.create_task(upload, name="upload to the service")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def _upload(connection: HttpConnection, incoming: Incoming, head: h11.Request) -> None:
    """Send a request. That it cannot be sent to its end is no failure: the service may have answered before."""
    request = incoming.request
    try:
        if not request.more:
            body = (h11.Data(data=request.body),) if request.body else ()
            await connection.send(head, *body, h11.EndOfMessage())
            return
        await connection.send(head)
        async for piece in incoming.body:
            await connection.send(h11.Data(data=piece))
        await connection.send(h11.EndOfMessage())
    except OSError as error:
        log.debug("the service does not take all of a request: %s", error)
    except (h11.LocalProtocolError, EventError) as error:
        log.debug("a request to the service broke: %s", error)
        connection.close()


async def _upload_raw(connection: HttpConnection, incoming: Incoming) -> None:
    with contextlib.suppress(OSError, EventError):
        async for piece in incoming.body:
            await connection.write(piece)


async def _final(connection: HttpConnection) -> h11.Response | h11.InformationalResponse:
    """Return the head of the answer: no provisional one, but 101, after which HTTP is over.

    Raises:
        ServiceUnansweredError: there is none.
    """
    for _ in range(_MOST_PROVISIONAL):
        event = await connection.next_event()
        if isinstance(event, h11.Response):
            return event
        if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            return event
    raise ServiceUnansweredError(f"the service gave {_MOST_PROVISIONAL} provisional answers, and no answer")


async def _answer(connection: HttpConnection, incoming: Incoming) -> None:
    answer = await _final(connection)
    if not isinstance(answer, h11.Response):
        raise ServiceUnansweredError("the service switched protocols unasked")
    await _relay(connection, incoming, answer)


async def _relay(connection: HttpConnection, incoming: Incoming, head: h11.Response) -> None:
    response, has_body = response_head(head, incoming.request.verb)
    body, complete = _arrived(connection)
    if not has_body:
        incoming.respond(response)
        return
    response.body = body
    response.more = not complete
    incoming.respond(response)
    if not complete:
        await incoming.send_body(_pieces(connection))


async def _pieces(connection: HttpConnection) -> AsyncIterator[bytes]:
    complete = False
    while not complete:
        piece, complete = _arrived(connection)
        if piece:
            yield piece
            await asyncio.sleep(0)
        elif not complete:
            await connection.more()


def _arrived(connection: HttpConnection) -> tuple[bytes, bool]:
    """Return what is there of a body, or much of it, and whether that is its end."""
    parts: list[bytes] = []
    while len(parts) < _MOST_PIECES and (event := connection.event_now()) is not None:
        if isinstance(event, h11.EndOfMessage):
            return b"".join(parts), True
        if isinstance(event, h11.Data):
            parts.append(event.data)
    return b"".join(parts), False
