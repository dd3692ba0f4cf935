"""The client node: dials the server, for ever."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from restpipe.config import ClientSettings
from restpipe.exceptions import ConnectError, PeerAbsentError
from restpipe.handlers.connection_events import ClientConnectionStateEvents
from restpipe.nodes.node import Node
from restpipe.pipe import Pipe, PipeEnd
from restpipe.stats import Count, Timing
from restpipe.transport.grpc_client import dial
from restpipe_pb.v1.pipe_pb2 import Goaway

log = logging.getLogger(__name__)


class ClientNode(Node):
    """A client node.

    Args:
        settings: of this node.

    Raises:
        IdentityError: its key or certificates cannot be used.
        ConfigError: a class that the settings name cannot be used.
    """

    settings: ClientSettings

    def __init__(self, settings: ClientSettings) -> None:
        super().__init__(settings)
        self._events: Any = (
            self._make("connection_events") if settings.connection_events else ClientConnectionStateEvents()
        )
        self._pipe: Pipe | None = None
        # The next pipe; None once there will be none.
        self._connected: asyncio.Future[Pipe | None] = self._loop.create_future()
        self._runs: dict[asyncio.Task[PipeEnd], Pipe] = {}
        self._supervisor: asyncio.Task[None] | None = None
        self._failed_attempts = 0
        self._last_disconnected: datetime | None = None
        self._last_cause = ""

    @property
    def pipes(self) -> tuple[Pipe, ...]:
        """The live pipe, and those that finish what they have in flight."""
        return tuple(self._runs.values())

    async def pipe_to_server(self, wait: float) -> Pipe:
        """Return the pipe to the server.

        Args:
            wait: seconds to wait where it is not connected.

        Raises:
            PeerAbsentError: the server was not reached in time, or the node is stopping.
        """
        pipe = self._pipe
        if pipe is not None and pipe.available:
            return pipe
        deadline = self._loop.time() + wait
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    pipe = await asyncio.shield(self._connected)
            except TimeoutError:
                cause = f": {self._last_cause}" if self._last_cause else ""
                raise PeerAbsentError(f"no pipe to the server within {wait:g} s{cause}") from None
            if pipe is None:
                raise PeerAbsentError("no pipe to the server: this node is stopping")
            if pipe.available:
                return pipe

    async def start(self) -> None:
        """Begin to dial."""
        await super().start()
        self._supervisor = self._loop.create_task(self._stay_connected(), name="reconnect")

    async def stop(self, grace: float) -> None:
        """Let what is in flight finish for at most `grace` seconds, and end the pipe."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        self._pipe = None
        if not self._connected.done():
            self._connected.set_result(None)
        await asyncio.gather(*(pipe.drain(grace) for pipe in self.pipes))
        if self._runs:
            await asyncio.wait(self._runs)
        await super().stop(grace)

    async def _stay_connected(self) -> None:
        """Dial, wait until the pipe ends or the server leaves, and dial again."""
        while True:
            pipe = await self._connect()
            await asyncio.shield(pipe.departing)
            self._pipe = None
            self._last_disconnected = datetime.now(UTC)
            self.stats.count(Count.BROKEN)
            end = pipe.ended.result() if pipe.ended.done() else None
            log.warning("disconnected from the server: %s", end.message if end else pipe.departing.result())
            if end is not None and end.reason in (Goaway.TAKEOVER, Goaway.PROTOCOL_ERROR):
                # Dialling at once would take the name back, or break again, for ever.
                await asyncio.sleep(self.settings.reconnect_max_s)

    async def _connect(self) -> Pipe:
        """Dial until there is a pipe; return it once the server's Hello is here."""
        self._failed_attempts = 0
        settings = self.settings
        # Whatever fails, a full disk or a bug, the next attempt may not: nobody else would dial.
        attempts = AsyncRetrying(
            wait=wait_random_exponential(multiplier=settings.reconnect_min_s, max=settings.reconnect_max_s),
            before_sleep=self._note_failure,
        )
        pipe: Pipe = await attempts(self._attempt)
        log.info("connected to the server at %s", settings.target_address)
        self._last_cause = ""
        self._pipe = pipe
        connected, self._connected = self._connected, self._loop.create_future()
        connected.set_result(pipe)
        self.stats.count(Count.CONNECTED)
        self._tell("connect_success")
        return pipe

    async def _attempt(self) -> Pipe:
        settings = self.settings
        self.stats.count(Count.CONNECT_NEW)
        started = self._loop.time()
        try:
            carrier = await dial(
                settings.target_hostname, settings.target_port, self.identity, self.limits, settings.connect_timeout_s
            )
            pipe = self.make_pipe(carrier, dials=True)
            run = self._loop.create_task(pipe.run(), name="pipe to the server")
            self._runs[run] = pipe
            run.add_done_callback(self._runs.pop)
            try:
                async with asyncio.timeout(settings.connect_timeout_s):
                    await pipe.wait_ready()
            except TimeoutError:
                pipe.close(Goaway.HEARTBEAT, "no hello")
                raise ConnectError(
                    f"{settings.target_address}: no hello within {settings.connect_timeout_s:g} s"
                ) from None
            return pipe
        finally:
            self.stats.timing(Timing.CONNECT_ATTEMPT, self._loop.time() - started)

    def _note_failure(self, state: RetryCallState) -> None:
        """Tell of a failed attempt, and log it where the cause is news."""
        error = state.outcome.exception() if state.outcome is not None else None
        expected = isinstance(error, ConnectError)
        cause = str(error) if expected else repr(error)
        log.log(
            logging.DEBUG if cause == self._last_cause else logging.WARNING,
            "cannot connect to the server: %s (attempt %d, trying on)", cause, state.attempt_number,
            exc_info=None if expected else error,
        )  # fmt: skip
        self._last_cause = cause
        self._tell("connect_fail")
        self._failed_attempts = state.attempt_number

    def _tell(self, event: str) -> None:
        """Tell of success or failure, under the event's first name or, in a class of the user's own, its other one."""
        for name in (event, event.replace("connect_", "connection_")):
            hook = getattr(self._events, name, None)
            if hook is not None:
                self.notifier.notify(hook, self._failed_attempts, self._last_disconnected)
                return
