"""uvicorn, as a part of the node's event loop."""

import asyncio
import contextlib
import errno
import logging
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import uvicorn

from restpipe.config import TcpBind, UnixBind, WebBind
from restpipe.exceptions import ConfigError
from restpipe.web.gateway import App
from restpipe.web.http import HttpProtocol, State
from restpipe.web.upgrades import WebSocketProtocol

log = logging.getLogger(__name__)

_BACKLOG = 2048
# Seconds between two looks at all connections.
SWEEP_INTERVAL = 1.0
# Seconds that clients have for a last request on a connection that they kept open, when the server stops.
LINGER = 0.5
# Seconds that web sockets have to be closed by whoever serves them, and what comes on idle connections to be a request.
FAREWELL = 1.0
_MOMENT = 0.02


class _Server(uvicorn.Server):
    """uvicorn without its hands on the signals: it would raise them again once it has stopped."""

    server_state: State

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = State()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebServer:
    """The web server of a node.

    Args:
        app: its application.
        bind: where it listens.
        socket_mode: permissions of a unix socket.
        grace: seconds that requests have to finish when it stops.
        head_timeout: seconds that the head of a request may take to arrive.
        idle_timeout: seconds that a connection may stay open without a request.
        max_message: bytes of a message that a web socket of a caller may bring.
    """

    def __init__(
        self,
        app: App,
        bind: WebBind,
        *,
        socket_mode: int,
        grace: float,
        head_timeout: float = 10.0,
        idle_timeout: float = 75.0,
        max_message: int = 16 * 1024 * 1024,
    ) -> None:
        self._head_timeout = head_timeout
        self._idle_timeout = idle_timeout
        self._bind = bind
        self._socket_mode = socket_mode
        self._socket: socket.socket | None = None
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", self._begin),
            ws=WebSocketProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws_max_size=max_message,
            timeout_graceful_shutdown=max(1, int(grace)),
        )
        self._config = config
        self._server = _Server(config)
        self._listens = False
        self._accepting: asyncio.Future[Any] | None = None
        self._serving: asyncio.Task[None] | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """Where it listens, as for curl: "http://127.0.0.1:8080", or "unix:/path"."""
        if self._socket is None or isinstance(self._bind, UnixBind):
            return str(self._bind)
        return f"http://{TcpBind(*self._socket.getsockname()[:2])}"

    async def start(self) -> None:
        """Listen, and serve.

        Raises:
            ConfigError: the address cannot be bound.
        """
        if self._bind.fd is not None:
            self._socket = socket.socket(fileno=self._bind.fd)
            self._socket.setblocking(False)
        elif isinstance(self._bind, UnixBind):
            self._socket = bind_unix(self._bind.path, self._socket_mode)
        else:
            self._socket = bind_tcp(self._bind)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="web server")
        self._listens = True
        self._sweep()

    async def leave(self) -> None:
        """Listen no more, and serve what was accepted.

        What waits to be accepted is taken first, for it would be reset; behind a socket that outlives this process it
        waits for the next one. Connections that clients kept open serve one more request, whose answer tells that it is
        the last; those that bring none are closed after half a second, so that hardly any closes in the face of a
        request. Returns when none is left without a request.
        """
        if self._serving is None or not self._listens:
            return
        self._listens = False
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(_MOMENT)
        await self._accept_last()
        await self._outlast_the_idle()

    async def _outlast_the_idle(self) -> None:
        """Wait for a last request of each connection, and close those that bring none."""
        await asyncio.sleep(0)  # uvloop tells of what it had accepted
        loop = asyncio.get_running_loop()
        ends = loop.time() + LINGER
        while idle := [each for each in self._http_connections() if each.idle]:
            now = loop.time()
            for connection in idle:
                # Who sends no request, but something for ever, is closed all the same.
                if now >= ends and (now >= ends + FAREWELL or not connection.has_unread):
                    connection.transport.close()
            await asyncio.sleep(_MOMENT)

    async def stop(self) -> None:
        """Accept nothing more, let requests finish for the grace period, and end."""
        if self._serving is None:
            return
        await self.leave()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        loop = asyncio.get_running_loop()
        ends = loop.time() + FAREWELL
        connections = self._server.server_state.connections
        while loop.time() < ends and len(self._http_connections()) < len(connections):  # noqa: ASYNC110
            await asyncio.sleep(_MOMENT)
        self._server.should_exit = True
        await asyncio.wait({self._serving})

    async def _accept_last(self) -> None:
        loop = asyncio.get_running_loop()
        self._server.server_state.leaving = True
        if self._socket is not None:
            # asyncio loses what it accepted and has not told of when its server is closed: it accepts no more from here
            # on, and tells of that. uvloop loses nothing.
            loop.remove_reader(self._socket)
        await asyncio.sleep(_MOMENT)
        if self._accepting is not None:
            await asyncio.wait({self._accepting})
        waiting = self._accept_all() if self._bind.fd is None else []
        for server in self._server.servers:
            server.close()
        if isinstance(self._bind, UnixBind) and self._bind.fd is None:
            self._bind.path.unlink(missing_ok=True)  # now, for the next node may listen there before this one ends
        for connection in self._http_connections():
            connection.leave()
        for each in waiting:
            await loop.connect_accepted_socket(self._make_protocol, each)

    def _begin(self, **given: Any) -> HttpProtocol:
        """Begin with a connection that the event loop accepted."""
        # uvloop accepts one in each round: where rounds are long, those behind it would wait for seconds.
        if self._listens and self._accepting is None:
            asyncio.get_running_loop().call_soon(self._accept_more)
        return HttpProtocol(**given)

    def _accept_more(self) -> None:
        if self._listens and self._accepting is None and (waiting := self._accept_all()):
            loop = asyncio.get_running_loop()
            self._accepting = asyncio.gather(
                *(loop.connect_accepted_socket(self._make_protocol, each) for each in waiting), return_exceptions=True
            )
            self._accepting.add_done_callback(self._accepted)

    def _accepted(self, _: object) -> None:
        self._accepting = None
        self._accept_more()

    def _accept_all(self) -> list[socket.socket]:
        accepted: list[socket.socket] = []
        if self._socket is not None:
            with contextlib.suppress(OSError):  # BlockingIOError: there are no more
                while True:
                    connection, _ = self._socket.accept()
                    connection.setblocking(False)
                    accepted.append(connection)
        return accepted

    def _make_protocol(self) -> HttpProtocol:
        return HttpProtocol(self._config, self._server.server_state, {})

    def _http_connections(self) -> list[HttpProtocol]:
        """Return the connections that are no web sockets."""
        return [each for each in self._server.server_state.connections if isinstance(each, HttpProtocol)]

    def _sweep(self) -> None:
        """Close connections whose clients take too long."""
        loop = asyncio.get_running_loop()
        for connection in self._http_connections():
            connection.expire(loop.time(), self._head_timeout, self._idle_timeout)
        self._sweep_timer = loop.call_later(SWEEP_INTERVAL, self._sweep)


def bind_tcp(bind: TcpBind) -> socket.socket:
    """Bind a TCP address.

    Raises:
        ConfigError: it cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {bind} for HTTP: {error.strerror or error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        cause = (
            "the port is taken by another process; end that, or set another"
            if error.errno == errno.EADDRINUSE
            else error.strerror
        )
        raise ConfigError(f"cannot listen on {bind} for HTTP: {cause}") from error
    bound.setblocking(False)
    return bound


def bind_unix(path: Path, mode: int) -> socket.socket:
    """Bind a unix socket, in place of one that a process which is gone left behind.

    Args:
        path: of the socket.
        mode: its permissions.

    Raises:
        ConfigError: it cannot be bound, or another process listens on it.
    """
    _remove_dead_socket(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(mode)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise ConfigError(f"cannot listen on unix:{path} for HTTP: {error.strerror}") from error
    bound.setblocking(False)
    return bound


def _remove_dead_socket(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return
    if not is_socket:
        raise ConfigError(f"cannot listen on unix:{path} for HTTP: there is a file of that name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose backlog is full is alive
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise ConfigError(f"cannot listen on unix:{path} for HTTP: {error.strerror}") from error
    raise ConfigError(f"cannot listen on unix:{path} for HTTP: another process listens there")
