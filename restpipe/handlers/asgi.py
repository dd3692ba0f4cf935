"""An ASGI application as handler: every request is passed on to it, as it is, without a connection in between."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

import h11

from restpipe.config import UpstreamAddress
from restpipe.handlers.asgi_exchange import AsgiExchange, HttpExchange
from restpipe.handlers.asgi_lifespan import Lifespan
from restpipe.handlers.asgi_sockets import SocketExchange
from restpipe.handlers.context import EventContext
from restpipe.handlers.problems import handler_error
from restpipe.handlers.upstream_heads import check_passed_on, request_head
from restpipe.pipe import Incoming
from restpipe.stats import Stats, Timing
from restpipe_pb.v1.pipe_pb2 import Event

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# Seconds that the application has to notice that its caller went away, before it is cancelled.
LEAVE_PATIENCE = 5.0
# Of an application there is no address: its callers' `Host` stays as it is.
_ADDRESS = UpstreamAddress("http", "localhost", 80)
_LOOPBACK = ("127.", "::1")
_SPEC = {"version": "3.0", "spec_version": "2.3"}


class AsgiService:
    """Serves the requests of all pipes of a node by an ASGI application.

    Args:
        app: the application.
        name: of it, for messages.
        max_body: bytes of a message of a web socket; bytes that `ctx.call` takes of an answer.
        send_tracebacks: whether callers see the traceback of an application that raised.
        stats: counters.

    Attributes:
        forwards: true: peers are told that this node passes every request on.
        remembers: "": no answers are remembered, whatever the application does.
        manifest: empty: what the application serves is not known.
    """

    forwards = True
    remembers = ""

    def __init__(self, app: AsgiApp, name: str, *, max_body: int, send_tracebacks: bool, stats: Stats) -> None:
        self.manifest: list[Event] = []
        self._app = app
        self._max_body = max_body
        self._send_tracebacks = send_tracebacks
        self._stats = stats
        self._lifespan = Lifespan(app, name)
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Let the application start up.

        Raises:
            ConfigError: it failed to.
        """
        await self._lifespan.start()

    async def stop(self, grace: float) -> None:
        """Let what the application still does, be it in the background, finish, and let it shut down."""
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=LEAVE_PATIENCE)
        await self._lifespan.stop()

    def close(self) -> None:
        """Do nothing: `stop` waits."""

    async def serve(self, incoming: Incoming) -> None:
        """Answer a request with what the application answers.

        Raises:
            HandlerError: it raised before it answered.
            EventError: it failed otherwise, and that is the answer.
        """
        loop = incoming.loop
        started = loop.time()
        request = incoming.request
        check_passed_on(request)
        head = request_head(request, incoming.peer, _ADDRESS)
        scope = self._scope(incoming, head)
        exchange: AsgiExchange = (
            SocketExchange(incoming, self._max_body) if request.protocol else HttpExchange(incoming)
        )
        task = loop.create_task(self._run(scope, exchange), name=f"{scope['type']} {scope['path']}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await exchange.answer()
        finally:
            exchange.leave()
            if not exchange.answered and not task.done():
                timer = loop.call_later(LEAVE_PATIENCE, task.cancel)
                task.add_done_callback(lambda _: timer.cancel())
            self._stats.timing(Timing.HANDLE, loop.time() - started)

    async def _run(self, scope: Message, exchange: AsgiExchange) -> None:
        """Run the application for a request. It may go on once it answered."""
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as error:  # whatever it raises, SystemExit included, is an answer
            if exchange.answered or not exchange.left:
                log.exception("%s %s failed", scope["type"], ascii(scope["path"]))
            exchange.end(handler_error(error, send_traceback=self._send_tracebacks))
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            exchange.end(None)

    def _scope(self, incoming: Incoming, head: h11.Request) -> Message:
        headers = list(head.headers)
        told = {name: value.decode("latin-1") for name, value in headers if name.startswith(b"x-forwarded-")}
        target, _, query = head.target.partition(b"?")
        path = unquote(target.decode("ascii"))
        # The path includes what it is below, as ASGI has it, and `root_path` says what that is.
        root = told.get(b"x-forwarded-prefix", "").rstrip("/")
        secure = told.get(b"x-forwarded-proto") == "https"
        scope: Message = {
            "type": incoming.request.protocol or "http",
            "asgi": _SPEC,
            "http_version": "1.1",
            "scheme": "https" if secure else "http",
            "path": unquote(root) + path,
            "raw_path": quote(root, safe="/%").encode() + target,
            "root_path": unquote(root),
            "query_string": query,
            "headers": headers,
            "client": (_client(told.get(b"x-forwarded-for", "")) or incoming.peer.address or "unknown", 0),
            "server": None,
            "state": self._lifespan.state.copy(),
            "extensions": {},
            "restpipe": EventContext(incoming, incoming.loop, self._max_body),
        }
        if incoming.request.protocol:
            protocols = [value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"]
            scope["subprotocols"] = [each.strip() for value in protocols for each in value.split(",")]
            scope["scheme"] = "wss" if secure else "ws"
            scope["extensions"] = {"websocket.http.response": {}}
        else:
            scope["method"] = head.method.decode("ascii")
        return scope


def _client(chain: str) -> str:
    """Return the address of who asked: the last that is no machine's address to itself. Nobody else is "localhost"."""
    for address in reversed(chain.split(",")):
        if address.strip() and not address.strip().startswith(_LOOPBACK):
            return address.strip()
    return ""
