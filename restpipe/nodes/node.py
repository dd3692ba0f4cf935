"""What server and client nodes have in common."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from types import CodeType
from typing import Any

from restpipe.config import NodeSettings, import_application, make_object, reread
from restpipe.exceptions import ConfigError, EventError, ForbiddenError, PipeLostError
from restpipe.handlers.answers import AnswerMemory
from restpipe.handlers.asgi import AsgiApp, AsgiService
from restpipe.handlers.connection_events import Notifier
from restpipe.handlers.context import PeerContext
from restpipe.handlers.dispatch import Dispatcher
from restpipe.handlers.files import WritableFileServer
from restpipe.handlers.threads import HandlerThreads
from restpipe.handlers.upstream import Upstream
from restpipe.identity import Custody, Identity, IdentityPaths, News
from restpipe.identity.names import NamePatterns
from restpipe.nodes.exchanges import Exchange
from restpipe.nodes.handlers import event_handlers
from restpipe.nodes.metering import Meter
from restpipe.nodes.tracing import tracing
from restpipe.nodes.watch import Watch
from restpipe.pipe import Incoming, Pipe, Serve, Turns
from restpipe.protocol.limits import Limits
from restpipe.stats import stats_to
from restpipe.transport.carrier import Carrier
from restpipe.version import __version__
from restpipe_pb.v1.pipe_pb2 import Hello

log = logging.getLogger(__name__)

# Seconds that hooks which are due when a node stops have to finish.
HOOK_PATIENCE = 1.0

# Seconds for which a pipe that another one succeeded is left as it is, until the peer uses the other one, too.
RETIREMENT = 2.0


class Node(ABC):
    """A node: an identity, an event handler, pipes.

    Made and used within a running event loop.

    Args:
        settings: of this node.
        handler: the event handler, in place of one of the class that the settings name.
        application: the ASGI application that serves, in place of what the settings name.

    Raises:
        IdentityError: its key or certificates cannot be used.
        ConfigError: a class that the settings name cannot be used.

    Attributes:
        settings: as given.
        custody: of its key, its certificates and its CRL.
        limits: of its pipes.
        stats: where its figures go.
        threads: for what blocks.
        handler: the event handler; None where an HTTP service or an ASGI application serves.
        service: serves the peers' requests.
        meter: counts what it does.
        notifier: calls the hooks of its operator.
        started: when it was started.
        tracing: makes spans; None where the program does not want them.
        exchange: has a request answered by a peer.
        relays: name of what this node remembers of the requests that it passes on, "" where it passes none on.
        knows_callers: this node knows who is the caller of a request that is passed on to it.
    """

    relays = ""
    knows_callers = False

    def __init__(
        self, settings: NodeSettings, handler: object | None = None, application: AsgiApp | None = None
    ) -> None:
        self.settings = settings
        self.custody = self._take_custody()
        self.limits = Limits(
            max_exchanges=settings.max_exchanges,
            heartbeat_interval=settings.heartbeat_interval_s,
            heartbeat_timeout=settings.heartbeat_timeout_s,
        )
        self.stats = stats_to(settings.statsd_host, settings.statsd_port)
        self.threads = HandlerThreads(settings.handler_threads, settings.handler_wait_s)
        self.handler: Any = None
        self._handlers: tuple[Any, ...] = ()
        self.service = self._make_service(handler, application)
        self._turns = Turns()
        self._allow: NamePatterns | None = None
        self._restrict(settings.allow)
        nouns = frozenset(event.noun for event in self.service.manifest)
        self.meter = Meter(nouns, durations=settings.metrics)
        self.started = datetime.now(UTC)
        self.tracing = tracing()
        calling = self.meter.exchange
        self.exchange: Exchange = calling if self.tracing is None else self.tracing.exchanging(calling)
        self.notifier = Notifier(self.threads)
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(
            self.custody, settings.identity_interval_s, self.stats, lambda: self.pipes, self._identity_changed
        )
        self._notifying: asyncio.Task[None] | None = None

    @property
    def methods(self) -> Mapping[CodeType, str]:
        """The names of the methods that serve events, by their code; none where something else serves."""
        return self.service.events.methods if isinstance(self.service, Dispatcher) else {}

    @property
    def identity(self) -> Identity:
        """Key, certificate and CA certificate; others once their files were replaced."""
        return self.custody.identity

    @property
    @abstractmethod
    def pipes(self) -> tuple[Pipe, ...]:
        """The live pipes, those that only finish what they have in flight included."""

    @property
    @abstractmethod
    def fault(self) -> EventError | None:
        """What keeps the node from being of use to its callers now; None where nothing does."""

    async def start_service(self) -> None:
        """Let an ASGI application start up, before there is anybody to serve.

        Raises:
            ConfigError: it failed to.
        """
        if isinstance(self.service, AsgiService):
            await self.service.start()

    @abstractmethod
    async def start(self) -> None:
        """Begin to listen, or to dial."""
        self.started = datetime.now(UTC)
        self.stats.start()
        self.meter.start()
        for handler in self._handlers:
            if isinstance(handler, WritableFileServer):
                handler.tidy()
        self._notifying = self._loop.create_task(self.notifier.run(), name="hooks")
        self._watch.start()

    @abstractmethod
    async def stop(self, grace: float) -> None:
        """Let what is in flight finish for at most `grace` seconds, and end all pipes."""
        await self._watch.stop()
        self.meter.stop()
        self.service.close()
        if isinstance(self.service, AsgiService):
            await self.service.stop(grace)
        await self.notifier.settle(HOOK_PATIENCE)
        if self._notifying is not None:
            self._notifying.cancel()
            await asyncio.wait({self._notifying})
        self.threads.close()
        await self.stats.stop()

    def reload(self, load: Callable[[], NodeSettings] | None = None) -> None:
        """Look for a new identity and a new revocation list now, and not only at the next interval.

        Args:
            load: loads the settings anew, of which a running node takes who may do what; None: they stay.
        """
        self._watch.look_now()
        if load is None:
            return
        try:
            found = reread(self.settings, load)
        except ConfigError as error:
            for line in str(error).splitlines():
                log.log(logging.ERROR, "%s (what was set before stays in use)", line)
            return
        for phrase in found.taken:
            log.info("took a new setting: %s", phrase)
        if found.pending:
            log.warning("not taken before this node is started anew: %s", ", ".join(found.pending))
        if not (found.taken or found.pending):
            log.info("read the settings anew: they are as before")
        self.settings = found.settings
        self._settings_changed()

    def _settings_changed(self) -> None:
        """Use what was taken of new settings, and cut what is under way and not permitted any longer."""
        self._restrict(self.settings.allow)
        for pipe in self.pipes:
            for incoming in pipe.served:
                try:
                    if not incoming.request.to:  # else it is for another node, to which it is passed on
                        self._permit(incoming)
                except ForbiddenError as error:
                    incoming.cut(PipeLostError(f"{error} any longer"))

    def _restrict(self, patterns: tuple[str, ...]) -> None:
        names = None if "*" in patterns else NamePatterns(patterns)
        if isinstance(self.service, Dispatcher):
            self.service.restrict(names)
        else:
            self._allow = names

    def _permit(self, incoming: Incoming) -> None:
        """Find out whether a request that is for this node may be served.

        Raises:
            ForbiddenError: it may not.
        """
        if isinstance(self.service, Dispatcher):
            self.service.find(incoming)
        elif self._allow is not None and not self._allow.include(incoming.peer.name):
            raise ForbiddenError(f"what this node serves is not for {incoming.peer.name!r}")

    def _serve_permitted(self, incoming: Incoming) -> Awaitable[None]:
        self._permit(incoming)
        return self.service.serve(incoming)

    @property
    def _own_serving(self) -> Serve:
        """What answers requests that are for this node."""
        return self.service.serve if isinstance(self.service, Dispatcher) else self._serve_permitted

    @abstractmethod
    def _identity_changed(self, news: News) -> None:
        """Use what was taken from the files."""

    @property
    @abstractmethod
    def serving(self) -> Serve:
        """What answers the requests of a pipe."""

    def make_pipe(self, carrier: Carrier, *, dials: bool, succeeds: bool = False) -> Pipe:
        """Return a pipe over a carrier, to be run."""
        carrier, serve, traffic = self.meter.metered(carrier, self.serving)
        if self.tracing is not None:
            serve = self.tracing.serving(serve)
        hello = Hello(
            software=f"restpipe/{__version__}",
            manifest=self.service.manifest,
            forwards=self.service.forwards,
            remembers=self.service.remembers,
            succeeds=succeeds,
            relays=self.relays,
            knows_callers=self.knows_callers,
        )
        pipe = Pipe(
            carrier, dials=dials, limits=self.limits, hello=hello, serve=serve, stats=self.stats, turns=self._turns
        )
        self.meter.follow(pipe, traffic)
        return pipe

    def context_of(self, pipe: Pipe) -> PeerContext:
        """Return what a hook is told of the peer."""
        settings = self.settings
        return PeerContext(pipe, self._loop, settings.request_timeout_s, settings.max_body_bytes)

    def _make_service(self, handler: object | None, application: AsgiApp | None) -> Dispatcher | Upstream | AsgiService:
        """Make what serves the peers' requests: an application, an HTTP service, or event handlers."""
        settings = self.settings
        if settings.asgi and application is None:
            application = import_application(settings.asgi, settings.variable("asgi"))
        if application is not None:
            return AsgiService(
                application,
                settings.asgi or "the ASGI application",
                max_body=settings.max_body_bytes,
                send_tracebacks=settings.send_tracebacks,
                stats=self.stats,
            )
        if settings.upstream is not None:
            return Upstream(settings.upstream, self.stats)
        self._handlers = event_handlers(settings, handler)
        self.handler = self._handlers[0]
        return Dispatcher(
            *self._handlers,
            threads=self.threads,
            max_body=settings.max_body_bytes,
            send_tracebacks=settings.send_tracebacks,
            stats=self.stats,
            memory=AnswerMemory(
                max_keys=settings.idempotency_keys,
                max_bytes=settings.idempotency_bytes,
                lifetime=settings.idempotency_lifetime_s,
            ),
        )

    def _take_custody(self) -> Custody:
        """Read the identity of this node, and watch over it."""
        settings = self.settings
        paths = IdentityPaths(settings.key_path, settings.crt_path, settings.ca_crt_path)
        return Custody(paths, settings.crl_path, settings.node)

    def _make(self, field: str) -> Any:
        """Make an object of the class that a setting names."""
        return make_object(getattr(self.settings, field), self.settings.variable(field))
