"""uvicorn, as a part of the node's event loop."""

import asyncio
import contextlib
import errno
import logging
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from restpipe.config import TcpBind, UnixBind, WebBind
from restpipe.exceptions import ConfigError
from restpipe.web.gateway import App
from restpipe.web.http import HttpProtocol

log = logging.getLogger(__name__)

_BACKLOG = 2048
# Seconds between two looks at all connections.
SWEEP_INTERVAL = 1.0


class _Server(uvicorn.Server):
    """uvicorn without its hands on the signals: it would raise them again once it has stopped."""

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
        max_message: bytes of a message that a web socket of a caller may bring.
        idle_timeout: seconds that a connection may stay open without a request.
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
            http=HttpProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws_max_size=max_message,
            timeout_graceful_shutdown=max(1, int(grace)),
        )
        self._server = _Server(config)
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
        if isinstance(self._bind, UnixBind):
            self._socket = bind_unix(self._bind.path, self._socket_mode)
        else:
            self._socket = bind_tcp(self._bind)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="web server")
        self._sweep()

    async def stop(self) -> None:
        """Accept nothing more, let requests finish for the grace period, and end."""
        if self._serving is None:
            return
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._server.should_exit = True
        await asyncio.wait({self._serving})
        if isinstance(self._bind, UnixBind):
            self._bind.path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Close connections whose clients take too long."""
        loop = asyncio.get_running_loop()
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, HttpProtocol):
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
        cause = "the port is taken by another process" if error.errno == errno.EADDRINUSE else error.strerror
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
