"""HTTP/1.1 of uvicorn, made for many small requests: fewer writes, fewer timers.

Its refusals become problem documents, heads get a bound, and waiting for a client an end.
"""

import asyncio
import logging
import math
import select
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from restpipe.exceptions import BadRequestError, EventError, HeadersTooLargeError, HeadTooSlowError, InternalError
from restpipe.web.problems import last_answer, problem

log = logging.getLogger(__name__)

App = Callable[..., Awaitable[None]]

# Bytes of a request's head: target and headers.
MAX_HEAD = 16 * 1024
# An ASGI message of our own, offered in the scope's extensions: status, headers and all of the body. It leaves in one
# write, where the two messages of ASGI take two: each costs as much as the rest of a small answer.
WHOLE_RESPONSE = "restpipe.response.whole"
_EXTENSIONS: dict[str, Any] = {WHOLE_RESPONSE: {}}
# Another extension of our own, where a caller waits to be asked for its body: a `restpipe.web.callers.Unasked`.
UNASKED = "restpipe.request.unasked"
# Requests that may wait for their turn on a connection before no more of it is read, nor its end seen.
MOST_WAITING = 16
# Seconds for which a connection is left unread whose request was refused for want of room: twice as long after each
# refusal that follows, up to what `Retry-After` asks for. Who asks again and again, at once, would get all of the node.
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0


class _Dropped(list[tuple[bytes, bytes]]):
    """Takes trailers, and keeps none: the head was checked and sent on without them, and they have no end."""

    def append(self, _trailer: tuple[bytes, bytes]) -> None:
        """Do nothing."""


_DROPPED = _Dropped()


class State(ServerState):
    """What the connections of a web server share.

    Attributes:
        leaving: the next request of each is its last.
    """

    leaving = False


class Arrival:
    """An `asyncio.Event` for one waiter: that something arrived on a connection."""

    __slots__ = ("_loop", "_set", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Let the waiter go on."""
        self._set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Have the next `wait` wait."""
        self._set = False

    async def wait(self) -> None:
        """Wait until it is set."""
        while not self._set:
            self._waiter = self._loop.create_future()
            await self._waiter


class Cycle(RequestResponseCycle):
    """One request and its response.

    Attributes:
        refused: for want of room, as the response's message says in a member of that name.
    """

    refused = False

    async def run_asgi(self, app: App) -> None:
        """Have the request answered; an answer that does not come to its end is cut, so that the client sees it."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:
            log.exception("%s %s failed", self.scope["method"], ascii(self.scope["path"]))
            if not self.response_started:
                status, headers, body = problem(InternalError(f"{type(error).__name__}: {error}"))
                body = b"" if self.scope["method"] == "HEAD" else body
                await self.send({"type": WHOLE_RESPONSE, "status": status, "headers": headers, "body": body})
        finally:
            if not self.response_complete and not self.disconnected:
                self.transport.close()

    async def send(self, message: MutableMapping[str, Any]) -> None:  # type: ignore[override]
        """Send the response, or the next part of it."""
        if self.waiting_for_100_continue:
            # It was not asked for the body, and need not send it: what it sends next may be anything.
            self.keep_alive = False
        if message["type"] != WHOLE_RESPONSE:
            await super().send(message)  # type: ignore[arg-type]
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        content = [STATUS_LINE[message["status"]]]
        for name, value in self.default_headers:
            content += (name, b": ", value, b"\r\n")
        for name, value in message["headers"]:
            content += (name, b": ", value, b"\r\n")
        content.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        content.append(message["body"])
        self.transport.write(b"".join(content))
        self.response_started = self.response_complete = True
        self.refused = message.get("refused", False)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class HttpProtocol(HttpToolsProtocol):
    """One connection of an HTTP client.

    uvicorn sets a timer for each response. Here the web server looks at all connections now and then, with `expire`.
    """

    server_state: State
    # The request that is served. `cycle` is the one that came last, and may have to wait for its turn.
    _served: RequestResponseCycle | None = None
    # Why what came behind those requests cannot be read: told in its turn.
    _refusal: EventError | None = None
    _in_head = False
    _in_body = False
    # The head began with an earlier piece than the one at hand.
    _split = False
    # Bytes of the piece at hand, and of those between it and the one in which the head began.
    _piece = 0
    _between = 0
    _task: asyncio.Task[None]
    # Bytes of an answer that the client leaves unread, and since when they are as many.
    _unread = 0
    _unread_since = 0.0
    # Since when we wait for the client, in the loop's time; infinity while it waits for us.
    _since = math.inf
    # Seconds to leave the connection unread after the next refusal for want of room.
    _pause = _FIRST_PAUSE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with a connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let whoever answers know that nobody reads it, requests that wait behind it or not."""
        if self._served is not None:
            _leave_unanswered(self._served)
        super().connection_lost(exc)
        # They refer back to it: together they would await the garbage collector.
        self.cycle = self._served = None  # type: ignore[assignment]
        self.pipeline.clear()

    @property
    def idle(self) -> bool:
        """Whether the connection is open, and nothing of a request is here."""
        return not self._in_head and self._since < math.inf and not self.transport.is_closing()

    @property
    def has_unread(self) -> bool:
        """Whether the client has sent something that the event loop has not seen yet, or its end."""
        arrived = select.poll()
        arrived.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(arrived.poll(0))

    def leave(self) -> None:
        """Serve the request at hand and, as the server does that leaves, close."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def expire(self, now: float, head_timeout: float, idle_timeout: float) -> None:
        """Close a connection whose client takes too long.

        Args:
            now: the loop's time.
            head_timeout: seconds from the first byte of a request to the end of its head.
            idle_timeout: seconds before the first byte of a request, or without taking any of an answer.
        """
        waited = now - self._since
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._unread_since = unread, now
        if unread:
            if now - self._unread_since > idle_timeout:
                self.transport.abort()
        elif self.transport.is_closing():
            return
        elif self._in_head and waited > head_timeout:
            self._refuse(HeadTooSlowError(f"the head of the request was not complete within {head_timeout:g} s"))
        elif not self._in_head and waited > idle_timeout:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._refusal is not None:
            return
        self._piece = len(data)
        self._split = self._in_head
        rest: bytes | memoryview = data
        while True:
            try:
                super().data_received(rest)  # type: ignore[arg-type]  # the parser takes any buffer
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
            head = self._head_without_upgrade()
            # The one before expects nothing more where the request was to be the last on its connection.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            super().data_received(head)
            if self._refusal is not None or self.transport.is_closing():
                return
        if self._split and self._in_head:
            self._between += len(data)
            if self._between > MAX_HEAD and not self.transport.is_closing():
                self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._in_head = True
        self._split = False
        self._between = 0
        self._since = self.loop.time()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Begin to serve a request whose head is here."""
        self._in_head = False
        self._since = math.inf
        parser = self.parser
        if self._split or self._piece > MAX_HEAD:
            size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
            if size > MAX_HEAD:
                raise _head_too_large()  # which makes the parser refuse the request
        upgrades = parser.should_upgrade() and parser.get_method() != b"CONNECT"
        if upgrades and not self._should_upgrade():
            return  # and be taken again
        self._set_scope()
        if upgrades:
            return
        self.headers = _DROPPED  # what follows are trailers (RFC 9110 section 6.5.1)
        earlier = self.cycle
        self.cycle = cycle = Cycle(
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            Arrival(self.loop),  # type: ignore[arg-type]
            self.expect_100_continue,
            self.scope["http_version"] != "1.0" and parser.should_keep_alive() and not self.server_state.leaving,
            self.on_response_complete,
        )
        self._in_body = True
        if self.expect_100_continue:
            extensions: dict[str, Any] = {**_EXTENSIONS, UNASKED: cycle}
            self.scope["extensions"] = extensions
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.pipeline.appendleft((cycle, self.app))
            if len(self.pipeline) >= MOST_WAITING:
                self.flow.pause_reading()

    def _set_scope(self) -> None:
        """Put what the head asks for into the words of ASGI."""
        url, parser = self.url, self.parser
        if url.startswith(b"/"):
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path, parsed.query or b""
            if parsed.host:
                host = b"[%b]" % parsed.host if b":" in parsed.host else parsed.host
                self._name_host(host if parsed.port is None else b"%b:%d" % (host, parsed.port))
        path = raw_path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": parser.get_http_version(),
            "server": self.server,
            "client": self.client,
            "scheme": "http",
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": {},
            "extensions": _EXTENSIONS,
        }

    def _name_host(self, host: bytes) -> None:
        """Have a target in absolute form say the host, whatever `Host` says (RFC 9112 section 3.2.2)."""
        said = [number for number, (name, _) in enumerate(self.headers) if name == b"host"]
        if not said:
            self.headers.append((b"host", host))
        elif len(said) == 1:
            self.headers[said[0]] = (b"host", host)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if self._in_body:
            self._in_body = False
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Tell `data_received` of an upgrade that nothing comes of; the parser says so of CONNECT, too."""
        if self.parser.get_method() != b"CONNECT":
            raise  # what uvicorn handles as it calls this

    def _head_without_upgrade(self) -> bytes:
        """Return the head of a request as if it asked for no upgrade, to be taken before what follows it.

        For the parser, one that asks has no body, and what follows is of another protocol. But many clients ask for
        HTTP/2 with their first request, whatever it is, and it is up to the server (RFC 9110 section 7.8).
        """
        lines = [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        start = self.parser.get_method(), self.url, self.parser.get_http_version().encode()
        return b"%b %b HTTP/%b\r\n%b\r\n" % (*start, b"".join(lines))

    def _should_upgrade(self) -> bool:
        # Behind a request that is not answered yet, it would be the answer to that: it is served as if it asked for no
        # upgrade (RFC 9110 section 7.8). So is what no handshake begins with (RFC 6455 section 4.1).
        first = self.cycle is None or self.cycle.response_complete
        return first and self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: App) -> None:
        self._served = cycle
        # Nothing but the connection keeps it: the server waits for connections, and asyncio is spared a callback.
        self._task = self.loop.create_task(cycle.run_asgi(app))

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if isinstance(self.cycle, Cycle) and self.cycle.refused:
            self.flow.pause_reading()
            self.loop.call_later(self._pause, self._resume)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            self._pause = _FIRST_PAUSE
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._tell(self._refusal)
        elif not self._in_head:
            self._since = self.loop.time()

    def _resume(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not take."""
        # The parser's complaint is being handled; where it has a context, that is what was raised above.
        complaint = sys.exception()
        cause = complaint.__context__ if complaint is not None else None
        self._refuse(cause if isinstance(cause, EventError) else BadRequestError(msg))

    def _refuse(self, error: EventError) -> None:
        """Answer what cannot be read, in its turn, and close; nothing of it gets into the answer to another request."""
        under_way = self.cycle is not None and not self.cycle.response_complete
        if self._in_body and self.pipeline:
            self.pipeline.popleft()  # this one's turn has not come
            self._refusal = error
        elif self._in_body:
            _leave_unanswered(self.cycle)
            if self.cycle.response_started:
                self.transport.close()
            else:
                error.executed = "unknown"  # what came of the body before may have been passed on
                self._tell(error)
        elif under_way:
            self._refusal = error
        else:
            self._tell(error)

    def _tell(self, error: EventError) -> None:
        self.transport.write(last_answer(error))
        self.transport.close()


def _leave_unanswered(cycle: RequestResponseCycle) -> None:
    if not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()


def _head_too_large() -> HeadersTooLargeError:
    return HeadersTooLargeError(f"the head of the request has more than the {MAX_HEAD} bytes that are accepted")
