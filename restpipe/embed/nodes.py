"""Nodes that live in a program's own event loop."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from restpipe.config import ClientSettings, ServerSettings, load_settings
from restpipe.embed.mounting import MountedApp
from restpipe.embed.remote import Remote, Stream
from restpipe.exceptions import ConfigError
from restpipe.handlers.asgi import AsgiApp
from restpipe.handlers.base import EventHandler
from restpipe.handlers.context import Result
from restpipe.nodes.client import ClientNode as RunningClient
from restpipe.nodes.exchanges import PipeTo
from restpipe.nodes.server import ServerNode as RunningServer
from restpipe.web.app import make_app
from restpipe.web.server import WebServer
from restpipe.web.serving import stop_serving, web_server_of
from restpipe_pb.v1.pipe_pb2 import Goaway

Settings = TypeVar("Settings", ServerSettings, ClientSettings)
Running = TypeVar("Running", RunningServer, RunningClient)
# What is for a process of its own: a program logs as it likes, and has a web server only where it asks for one.
_QUIET: Mapping[str, object] = {"debug": False, "web_bind": None}


class _Embedded(ABC, Generic[Settings, Running]):
    """What both nodes have in common."""

    _settings_class: type[Settings]

    def __init__(self, *, handler: object | None = None, asgi: AsgiApp | str = "", **settings: object) -> None:
        path = asgi if isinstance(asgi, str) else ""
        given = {**_QUIET, **settings, **({"asgi": path} if path else {})}
        self._load: Callable[[], Settings] = partial(load_settings, self._settings_class, given)
        self.settings: Settings = self._load()
        self._application = None if isinstance(asgi, str) else asgi
        # The examples are for trying things out.
        self._handler: object | None = EventHandler() if "event_handler" not in self.settings.model_fields_set else None
        if handler is not None:
            self._handler = handler() if isinstance(handler, type) else handler
        self._check_that_one_serves(handler)
        self._node: Running | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = contextlib.AsyncExitStack()
        self.app = MountedApp()

    def _check_that_one_serves(self, handler: object | None) -> None:
        """Raise `ConfigError` where something serves beside what is given as an object."""
        objects = {"handler": handler, "asgi": self._application}
        fields = ("upstream", "asgi", *(("event_handler", "files") if self._application else ()))
        names = [name for name, given in objects.items() if given is not None]
        for field in fields:
            value = getattr(self.settings, field)
            if value and value != self._settings_class.model_fields[field].default:
                names.append(self.settings.variable(field))
        if len(names) > 1 and any(given is not None for given in objects.values()):
            raise ConfigError(f"{' and '.join(names)}: one of them serves")

    @abstractmethod
    def _make(self) -> Running:
        """Make the node that runs."""

    @property
    def name(self) -> str:
        """The name of this node, from its certificate.

        Raises:
            RuntimeError: it is not running.
        """
        return self._running().identity.name

    async def start(self) -> None:
        """Begin to listen, or to dial: what entering `async with` does.

        Raises:
            IdentityError: its key or its certificates cannot be used.
            ConfigError: an address cannot be bound, or a class that the settings name cannot be used.
            RuntimeError: it is running already.
        """
        if self._node is not None:
            raise RuntimeError("this node is running already")
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            self._node = node = self._make()
            stack.callback(self._forget)
            web = web_server_of(node)
            stack.push_async_callback(_stop, node, web, self.settings.drain_timeout_s)
            if web is not None:
                await web.start()
            await node.start()
            self.app.app = make_app(node, mounted=True)
            self._closing = stack.pop_all()

    async def stop(self) -> None:
        """Let what is in flight finish for at most `RP_DRAIN_TIMEOUT_S`, and end all pipes: leaving `async with`.

        Cancelling ends what is in flight at once; the node stops nevertheless.
        """
        closing, self._closing = self._closing, contextlib.AsyncExitStack()
        await closing.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncGenerator[None, None]:
        """Run the node as long as an application: `FastAPI(lifespan=node.lifespan)`."""
        async with self:
            yield

    def reload(self) -> None:
        """Look for new certificates and a new revocation list now, and not only at the next interval.

        The user config module is read anew, too, and what it says of who may do what is used from now on.
        """
        self._running().reload(self._load)

    def _running(self) -> Running:
        if self._node is None:
            raise RuntimeError("this node is not running: use it within `async with`, or between start() and stop()")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this node runs in another event loop")
        return self._node

    def _forget(self) -> None:
        self._node = None
        self.app.app = None


class ServerNode(_Embedded[ServerSettings, RunningServer]):
    """A server node within a program: clients connect to it as long as it runs.

        async with restpipe.ServerNode(handler=Handler()) as node:
            result = await node.client("box").call("get", "time")

    It runs from `__aenter__` to `__aexit__`, in the event loop that these are called in, and may run again afterwards.
    It handles no signals, configures no logging, and has no web server of its own unless `web_bind` says so.

    Args:
        handler: the event handler, or its class; by default that which the settings name, or none at all.
        asgi: an ASGI application that serves in place of a handler, or where it is, as in "package.module:app".
        settings: by keyword, named as in `restpipe.config.ServerSettings`; variables and the user config module have
            the rest.

    Raises:
        ConfigError: settings are wrong. The message has a line for each.

    Attributes:
        settings: all of them.
        app: the REST surface of this node, to be mounted in an ASGI application. That one says who may come in.
    """

    _settings_class = ServerSettings

    def _make(self) -> RunningServer:
        return RunningServer(self.settings, self._handler, self._application)

    @property
    def port(self) -> int:
        """The TCP port that clients connect to.

        Raises:
            RuntimeError: it is not running.
        """
        return self._running().port

    @property
    def clients(self) -> tuple[str, ...]:
        """The names of the clients that are connected.

        Raises:
            RuntimeError: it is not running.
        """
        return tuple(pipe.peer.name for pipe in self._running().registry if pipe.available)

    def client(self, name: str) -> Remote:
        """Return a client, connected or not, to be called.

        Args:
            name: from its certificate; or an IP address, or a host name that resolves to one, that it alone has.
        """

        def running() -> tuple[RunningServer, PipeTo]:
            node = self._running()
            return node, lambda wait: node.pipe_to(name, wait)

        return Remote(name, running)


class ClientNode(_Embedded[ClientSettings, RunningClient]):
    """A client node within a program: it stays connected to its server as long as it runs.

        async with restpipe.ClientNode(target_hostname="pipe.example.org", handler=Handler()) as node:
            result = await node.call("get", "time")

    It runs from `__aenter__` to `__aexit__`, in the event loop that these are called in, and may run again afterwards.
    Entering does not wait for the server; `call` and `stream` do. It handles no signals, configures no logging, and has
    no web server of its own unless `web_bind` says so.

    Args:
        handler: the event handler, or its class; by default that which the settings name, or none at all.
        asgi: an ASGI application that serves in place of a handler, or where it is, as in "package.module:app".
        settings: by keyword, named as in `restpipe.config.ClientSettings`; variables and the user config module have
            the rest.

    Raises:
        ConfigError: settings are wrong. The message has a line for each.

    Attributes:
        settings: all of them.
        app: the REST surface of this node, to be mounted in an ASGI application. That one says who may come in.
        server: the server, connected or not, to be called; so do `call`, `stream` and `wait_connected`.
    """

    _settings_class = ClientSettings

    def __init__(self, *, handler: object | None = None, asgi: AsgiApp | str = "", **settings: object) -> None:
        super().__init__(handler=handler, asgi=asgi, **settings)
        self.server = Remote("server", self._way)
        self.call = self.server.call
        self.stream = self.server.stream
        self.wait_connected = self.server.wait_connected

    def _make(self) -> RunningClient:
        return RunningClient(self.settings, self._handler, self._application)

    def client(self, name: str) -> Remote:
        """Return another client of the server, to be called through that, where its `RP_RELAY` permits it.

        Args:
            name: from its certificate; or what else the server knows it by.
        """
        return Remote(name, self._way, to=name)

    def _way(self) -> tuple[RunningClient, PipeTo]:
        node = self._running()
        return node, node.pipe_to_server

    @property
    def connected(self) -> bool:
        """Whether it has a pipe to its server now.

        Raises:
            RuntimeError: it is not running.
        """
        return self._running().fault is None


async def _stop(node: RunningServer | RunningClient, web: WebServer | None, grace: float) -> None:
    """Stop a node and its web server. To be cancelled takes away the grace: half a stop would leave the pipes alive."""
    stopping = asyncio.ensure_future(stop_serving(node, web, grace))
    try:
        await asyncio.shield(stopping)
    except asyncio.CancelledError:
        for pipe in node.pipes:
            pipe.close(Goaway.SHUTDOWN, "the node is shutting down")
        await asyncio.wait({stopping})
        raise


__all__ = ["ClientNode", "Remote", "Result", "ServerNode", "Stream"]
