"""The server node: accepts pipes, and finds the one to a client."""

import asyncio
import logging
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

from restpipe.config import ServerSettings
from restpipe.exceptions import ConnectError, PeerRefusedError
from restpipe.handlers.asgi import AsgiApp
from restpipe.handlers.connection_events import ServerConnectionStateEvents
from restpipe.handlers.context import PeerContext
from restpipe.identity import News
from restpipe.identity.names import NamePatterns, RelayRules
from restpipe.nodes.node import RETIREMENT, Node
from restpipe.nodes.registry import Registry
from restpipe.nodes.relay import Relay
from restpipe.nodes.resolver import CachedResolver
from restpipe.pipe import Incoming, Pipe, PipeEnd, Serve
from restpipe.transport.carrier import Carrier, Listener
from restpipe.transport.grpc_server import NOT_ALLOWED, PipeListener
from restpipe_pb.v1.pipe_pb2 import Goaway

log = logging.getLogger(__name__)

# Seconds between two `idle` events while nothing is connected.
IDLE_INTERVAL = 60.0
# Seconds that connections have to close once their pipes have ended.
CLOSE_PATIENCE = 1.0


class ServerNode(Node):
    """A server node.

    Args:
        settings: of this node.
        handler: the event handler, in place of one of the class that the settings name.
        application: the ASGI application that serves, in place of what the settings name.
        idle_interval: seconds between two `idle` events.

    Raises:
        IdentityError: its key or certificates cannot be used.
        ConfigError: a class that the settings name cannot be used.

    Attributes:
        port: TCP port that it listens on, once started.
        registry: the clients that are connected.
        relay: passes requests of clients on to other clients.
    """

    settings: ServerSettings

    def __init__(
        self,
        settings: ServerSettings,
        handler: object | None = None,
        application: AsgiApp | None = None,
        *,
        idle_interval: float = IDLE_INTERVAL,
    ) -> None:
        super().__init__(settings, handler, application)
        self.port = settings.bind_port
        self._resolver = CachedResolver(self._make("client_hostname_resolver"), self.threads)
        self.registry = Registry(self._resolver, grace=settings.connection_wait_timeout_s)
        self.relay = Relay(
            self.registry,
            RelayRules(settings.relay),
            exchange=self.exchange,
            most_keys=settings.idempotency_keys,
        )
        self.relays = self.relay.name
        self._events: Any = (
            self._make("connection_events") if settings.connection_events else ServerConnectionStateEvents()
        )
        self._listener = self._make_listener()
        self._listener.fault_of = self._watch.fault_of
        self._name_clients()
        # Pipes that were succeeded by others, and finish what they have in flight.
        self._retired: set[Pipe] = set()
        self._started = False
        self._idle_interval = idle_interval
        self._idle_since = datetime.now(UTC)
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def pipes(self) -> tuple[Pipe, ...]:
        """The live pipes, one for each client, and those that were succeeded and finish what they have in flight."""
        return (*self.registry, *self._retired)

    @property
    def fault(self) -> PeerRefusedError | None:
        """That the node does not listen yet, or is stopping; None where it serves."""
        if self.registry.closed:
            return PeerRefusedError("this node is stopping")
        return None if self._started else PeerRefusedError("this node does not listen yet")

    @property
    def serving(self) -> Serve:
        """What answers the requests of a pipe: the node's handler, or the client that they are for."""
        own, relay = self._own_serving, self.relay.serve

        def serve(incoming: Incoming) -> Awaitable[None]:
            return relay(incoming) if incoming.request.to else own(incoming)

        return serve

    async def pipe_to(self, target: str, wait: float) -> Pipe:
        """Return the pipe to a client; see `Registry.pipe_to`."""
        return await self.registry.pipe_to(target, wait)

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be bound, or the ASGI application did not start up.
        """
        await self.start_service()
        self.port = await self._listener.start(self.settings.bind_interface, self.settings.bind_port)
        await super().start()
        self._started = True
        self._begin_idling()

    async def stop(self, grace: float) -> None:
        """Let what is in flight finish for at most `grace` seconds, and end all pipes."""
        self.registry.close()
        await self._listener.drain()
        # A client that is told to leave dials again at once, and would take over from its own pipe, here.
        await asyncio.gather(self._listener.stop(grace + CLOSE_PATIENCE), *(pipe.drain(grace) for pipe in self.pipes))
        self._stop_idling()
        await super().stop(grace)
        await self._resolver.close()  # nobody asks any more

    def _make_listener(self) -> Listener:
        """Make what accepts connections."""
        return PipeListener(self.identity, self.limits, self._accept)

    async def _accept(self, carrier: Carrier) -> None:
        """Run the pipe of a new connection until it ends."""
        pipe = self.make_pipe(carrier, dials=False)
        run = self._loop.create_task(pipe.run(), name=f"pipe {pipe.peer.name}")
        try:
            await self._serve(pipe)
        finally:
            if not pipe.ended.done():  # gRPC cancels the call of a client that is gone
                run.cancel()
            await asyncio.wait({run})

    async def _serve(self, pipe: Pipe) -> None:
        peer = pipe.peer
        try:
            async with asyncio.timeout(self.settings.heartbeat_timeout_s):
                hello = await pipe.wait_ready()
        except TimeoutError:
            pipe.close(Goaway.HEARTBEAT, "no hello")
            log.warning("client %s (%s) did not say hello", peer.name, peer.address)
            return
        except ConnectError as error:
            log.warning("client %s (%s) did not complete its connection: %s", peer.name, peer.address, error)
            return
        if self.registry.closed:
            pipe.close(Goaway.SHUTDOWN, "the node is shutting down")
            return
        fault = self._watch.fault_of(peer)
        if fault is not None:  # since it was let in
            pipe.close(Goaway.CERTIFICATE, fault)
            return
        if not self._listener.allowed.include(peer.name):  # likewise
            pipe.close(Goaway.FORBIDDEN, NOT_ALLOWED.format(peer.name))
            return
        replaced = self.registry.add(pipe)
        if replaced is not None and hello.succeeds:
            self._retire(replaced)
        elif replaced is not None:
            log.warning(
                "client %s connected again from %s and takes over from its connection from %s; "
                "if that was not lost, two nodes have one identity",
                peer.name, peer.address, replaced.peer.address,
            )  # fmt: skip
            replaced.close(Goaway.TAKEOVER, f"{peer.name} connected again, from {peer.address}")
        log.info("client %s connected from %s (%s)", peer.name, peer.address, hello.software)
        self._stop_idling()
        self._tell("connection_added", peer.address, len(self.registry))
        context = self.context_of(pipe)
        self._hook("start_hook", context)
        # Not here, after the end: a client that is gone may end the call, and this coroutine, before the pipe.
        pipe.ended.add_done_callback(lambda ended: self._forget(pipe, ended.result(), context))
        await asyncio.shield(pipe.ended)

    def _retire(self, pipe: Pipe) -> None:
        """Leave a pipe to its client, which opened another and ends this one when nothing is in flight on it."""
        self._retired.add(pipe)
        timer = self._loop.call_later(
            RETIREMENT + self.settings.drain_timeout_s, pipe.close, Goaway.TAKEOVER, f"{pipe.peer.name} connected again"
        )

        def ended(_: object) -> None:
            timer.cancel()
            self._retired.discard(pipe)

        pipe.ended.add_done_callback(ended)

    def _identity_changed(self, _news: News) -> None:
        self._listener.replace(self.identity)

    def _settings_changed(self) -> None:
        super()._settings_changed()
        self.relay.rules = RelayRules(self.settings.relay)
        allowed = self._name_clients()
        self.relay.enforce()
        for pipe in self.pipes:
            if not allowed.include(pipe.peer.name):
                log.warning("ended the pipe to %s (%s): it is not allowed any more", pipe.peer.name, pipe.peer.address)
                pipe.close(Goaway.FORBIDDEN, NOT_ALLOWED.format(pipe.peer.name))

    def _name_clients(self) -> NamePatterns:
        """Expect the clients that the settings name, and let in those that they allow; return the latter."""
        self._listener.allowed = allowed = NamePatterns(self.settings.allowed_clients)
        self.registry.expected = frozenset(filter(allowed.include, allowed.names | self.relay.rules.names))
        return allowed

    def _forget(self, pipe: Pipe, end: PipeEnd, context: PeerContext) -> None:
        peer = pipe.peer
        self.registry.remove(pipe)
        log.info("client %s disconnected: %s", peer.name, end.message)
        self._tell("connection_removed", peer.address, len(self.registry))
        self._hook("stop_hook", context)
        if not len(self.registry):
            self._begin_idling()

    def _tell(self, event: str, *arguments: object) -> None:
        hook = getattr(self._events, event, None)
        if hook is not None:
            self.notifier.notify(hook, *arguments)

    def _hook(self, name: str, *arguments: object) -> None:
        hook = getattr(self.handler, name, None)
        if hook is not None:
            self.notifier.notify(hook, *arguments)

    def _begin_idling(self) -> None:
        self._stop_idling()
        self._idle_since = datetime.now(UTC)
        self._idle_timer = self._loop.call_later(self._idle_interval, self._idle)

    def _stop_idling(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _idle(self) -> None:
        duration = (datetime.now(UTC) - self._idle_since).total_seconds()
        self._tell("idle", self._idle_since, duration)
        self._idle_timer = self._loop.call_later(self._idle_interval, self._idle)
