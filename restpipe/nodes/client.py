"""The client node: dials the server, for ever."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, wait_random

from restpipe.config import ClientSettings
from restpipe.exceptions import ConnectError, PeerAbsentError
from restpipe.handlers.asgi import AsgiApp
from restpipe.handlers.connection_events import ClientConnectionStateEvents
from restpipe.identity import News
from restpipe.nodes.node import RETIREMENT, Node
from restpipe.nodes.relay import take_caller
from restpipe.nodes.watch import UNTRUSTED
from restpipe.pipe import Incoming, Pipe, PipeEnd, Serve
from restpipe.stats import Count, Timing
from restpipe.transport.carrier import Carrier
from restpipe.transport.grpc_client import dial
from restpipe.transport.handshake import shown_certificate
from restpipe_pb.v1.pipe_pb2 import Goaway

log = logging.getLogger(__name__)

# Why pipes end that would end again.
_LASTING = (Goaway.PROTOCOL_ERROR, Goaway.CERTIFICATE, Goaway.FORBIDDEN)
# Doublings after which every back-off has reached its end.
_MOST_DOUBLINGS = 30
# Seconds that this node leaves its name to another live node that took it: at first, doubled each time, and at most.
TAKEOVER_BACKOFF = 5.0
MOST_TAKEOVER_BACKOFF = 60.0
# Seconds for which a pipe has to live until that is forgotten.
TAKEOVER_MEMORY = 300.0
# Seconds that a pipe has to live, or it is followed by a pause, which is as long at most: a server that greets and
# leaves, again and again, would keep this node and itself busy with handshakes.
SHORT_LIFE = 0.5
# Seconds before its end from which on the server's certificate is watched, at most; and between two looks at the clock.
LOOK_INTERVAL = 3600.0


def back_off(least: float, most: float, state: RetryCallState) -> float:
    """Return the seconds to wait after a failed attempt: exponential, with full jitter.

    An attempt that failed only after a while counts as the many for which there was time. Otherwise those whom a server
    could not serve at once, for they were too many, would all be back at once.

    Args:
        least: seconds that the first wait may take.
        most: seconds that any wait may take.
        state: the attempts so far.
    """
    doubled = least * 2 ** min(state.attempt_number - 1, _MOST_DOUBLINGS)
    return wait_random(0, min(most, max(doubled, state.seconds_since_start or 0)))(state)


class ClientNode(Node):
    """A client node.

    Args:
        settings: of this node.
        handler: the event handler, in place of one of the class that the settings name.
        application: the ASGI application that serves, in place of what the settings name.

    Raises:
        IdentityError: its key or certificates cannot be used.
        ConfigError: a class that the settings name cannot be used.
    """

    settings: ClientSettings
    knows_callers = True

    def __init__(
        self, settings: ClientSettings, handler: object | None = None, application: AsgiApp | None = None
    ) -> None:
        super().__init__(settings, handler, application)
        self._events: Any = (
            self._make("connection_events") if settings.connection_events else ClientConnectionStateEvents()
        )
        self._pipe: Pipe | None = None
        # The next pipe; None once there will be none.
        self._connected: asyncio.Future[Pipe | None] = self._loop.create_future()
        self._runs: dict[asyncio.Task[PipeEnd], Pipe] = {}
        # The server's certificate, as it was shown last, and the CAs by which that was verified.
        self._shown = (b"", b"")
        self._outdated = asyncio.Event()
        # Seconds before the end of the server's certificate. Each client has its own: they would all come at once.
        self._look_from = random.uniform(LOOK_INTERVAL / 10, LOOK_INTERVAL)  # noqa: S311
        self._retiring: set[asyncio.Task[None]] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._failed_attempts = 0
        self._last_disconnected: datetime | None = None
        self._last_cause = ""
        # Times in a row that another node took this node's name.
        self._taken_over = 0
        # Pipes in a row that did not live for long.
        self._short_lives = 0

    @property
    def pipes(self) -> tuple[Pipe, ...]:
        """The live pipe, and those that finish what they have in flight."""
        return tuple(self._runs.values())

    @property
    def fault(self) -> PeerAbsentError | None:
        """That there is no pipe to the server; None where there is."""
        if self._pipe is not None and self._pipe.available:
            return None
        return PeerAbsentError("this node is not connected to the server")

    @property
    def last_failure(self) -> str:
        """Why there is no pipe: why the server ended it, or the last attempt failed; "" where neither did."""
        return self._last_cause

    @property
    def serving(self) -> Serve:
        """What answers the requests of a pipe, those included that the server passes on for other clients."""
        own = self._own_serving

        def serve(incoming: Incoming) -> Awaitable[None]:
            if incoming.request.HasField("caller"):
                take_caller(incoming)
            return own(incoming)

        return serve

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
        """Begin to dial.

        Raises:
            ConfigError: the ASGI application did not start up.
        """
        await self.start_service()
        await super().start()
        self._supervisor = self._loop.create_task(self._stay_connected(), name="reconnect")

    async def stop(self, grace: float) -> None:
        """Let what is in flight finish for at most `grace` seconds, and end the pipe."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        for task in self._retiring:  # each pipe of theirs is drained with the others
            task.cancel()
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
            connected_at = self._loop.time()
            while (successor := await self._successor(pipe)) is not None:
                self._retire(pipe)
                pipe = successor
            self._pipe = None
            self._last_disconnected = datetime.now(UTC)
            self.stats.count(Count.BROKEN)
            end = pipe.ended.result() if pipe.ended.done() else None
            log.warning("disconnected from the server: %s", end.message if end else pipe.departing.result())
            lived = self._loop.time() - connected_at
            self._short_lives = self._short_lives + 1 if lived < SHORT_LIFE else 0
            if lived > TAKEOVER_MEMORY:
                self._taken_over = 0
            if end is not None and end.reason == Goaway.TAKEOVER and end.by_peer:
                await self._leave_the_name(end.message)
            elif end is not None and end.reason in _LASTING:
                # Dialling at once would break again, for ever. Who asks meanwhile is told why.
                self._last_cause = end.message
                await asyncio.sleep(self.settings.reconnect_max_s)
            elif self._short_lives:
                await asyncio.sleep(self._pause(broken=end is not None and end.lost))

    def _pause(self, *, broken: bool) -> float:
        """Return the seconds to leave a server alone that took this node in, and whose pipe ended at once.

        Where the server let it go, they are ever more. Where the connection broke, it may carry something each time: a
        network that breaks all connections five times a second has half of that time left for work.
        """
        least, most = self.settings.reconnect_min_s, self.settings.reconnect_max_s
        if broken:
            return random.uniform(0, min(least, SHORT_LIFE))  # noqa: S311
        pause = min(least * 2 ** min(self._short_lives - 1, _MOST_DOUBLINGS), most, SHORT_LIFE)
        return random.uniform(pause / 2, pause)  # noqa: S311

    async def _leave_the_name(self, message: str) -> None:
        """Let another node with this node's identity be for a while: two that dial at once would serve nobody."""
        wait = min(TAKEOVER_BACKOFF * 2**self._taken_over, MOST_TAKEOVER_BACKOFF)
        self._taken_over += 1
        self._last_cause = f"another node has the identity of this one: {message}"
        log.error(
            "two live nodes have the identity %r, this one and another: %s. Give each its own, or end one of them; "
            "this one connects again in %g s",
            self.identity.name, message, wait,
        )  # fmt: skip
        await asyncio.sleep(wait)

    async def _connect(self) -> Pipe:
        """Dial until there is a pipe; return it once the server's Hello is here."""
        self._failed_attempts = 0
        pipe = await self._dial_until_connected(self._note_failure)
        log.info("connected to the server at %s", self.settings.target_address)
        self._use(pipe)
        self.stats.count(Count.CONNECTED)
        self._tell("connect_success")
        return pipe

    async def _successor(self, pipe: Pipe) -> Pipe | None:
        """Wait until the pipe should have a successor, and return it, used already; None once the pipe is lost."""
        departing: asyncio.Future[Any] = pipe.departing
        outdated = self._loop.create_task(self._outdated.wait())
        tasks: list[asyncio.Task[Any]] = [outdated]
        try:
            while not outdated.done():
                wait = self._until_next_look(pipe)
                await asyncio.wait({departing, outdated}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                if departing.done():
                    return None
                if not outdated.done() and await self._server_shows_another_certificate(pipe):
                    break
            note = partial(self._note_no_successor, pipe)
            dialling = self._loop.create_task(self._dial_until_connected(note, succeeds=True))
            tasks.append(dialling)
            await asyncio.wait({departing, dialling}, return_when=asyncio.FIRST_COMPLETED)
            if not dialling.done():
                return None
            successor = dialling.result()
            log.info("connected to the server anew, with the certificates as they are now")
            self._use(successor)
            return successor
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _until_next_look(self, pipe: Pipe) -> float:
        """Return after how many seconds to look whether the server has a new certificate, which it does not tell."""
        if pipe.peer.not_after is None:
            return LOOK_INTERVAL
        left = (pipe.peer.not_after - datetime.now(UTC)).total_seconds()
        if left > self._look_from:
            return min(left - self._look_from, LOOK_INTERVAL)
        return max(self.settings.identity_interval_s, left / 10)

    async def _server_shows_another_certificate(self, pipe: Pipe) -> bool:
        """Look whether the server, whose certificate expires soon, has another one by now."""
        peer, settings = pipe.peer, self.settings
        if peer.not_after is None or (peer.not_after - datetime.now(UTC)).total_seconds() > self._look_from:
            return False
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                shown = await shown_certificate(settings.target_hostname, settings.target_port, self.identity)
        except OSError:  # so is TimeoutError; the pipe is there, and no new one can be
            return False
        return shown != peer.certificate

    def _retire(self, pipe: Pipe) -> None:
        """Let a pipe that has a successor finish what it has in flight, and end it."""

        async def retire() -> None:
            # What the server sent on it before it heard of the successor is still on its way.
            await asyncio.wait({pipe.ended}, timeout=RETIREMENT)
            await pipe.drain(self.settings.drain_timeout_s, "another pipe, with newer certificates, took its place")

        task = self._loop.create_task(retire(), name="retire")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _use(self, pipe: Pipe) -> None:
        """Make a pipe the one to the server."""
        self._last_cause = ""
        self._pipe = pipe
        connected, self._connected = self._connected, self._loop.create_future()
        connected.set_result(pipe)

    def _identity_changed(self, news: News) -> None:
        if news.identity:
            self._outdated.set()

    async def _dial_until_connected(self, note: Callable[[RetryCallState], None], *, succeeds: bool = False) -> Pipe:
        # Whatever fails, a full disk or a bug, the next attempt may not: nobody else would dial.
        attempts = AsyncRetrying(
            wait=partial(back_off, self.settings.reconnect_min_s, self.settings.reconnect_max_s),
            before_sleep=note,
        )
        pipe: Pipe = await attempts(self._attempt, succeeds)
        return pipe

    async def _attempt(self, succeeds: bool) -> Pipe:
        settings = self.settings
        self.stats.count(Count.CONNECT_NEW)
        self._outdated.clear()
        started = self._loop.time()
        try:
            carrier = await self._dial()
            pipe = self.make_pipe(carrier, dials=True, succeeds=succeeds)
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
            except asyncio.CancelledError:
                pipe.close(Goaway.SHUTDOWN, "no pipe is wanted any more")
                raise
            return pipe
        finally:
            self.stats.timing(Timing.CONNECT_ATTEMPT, self._loop.time() - started)

    async def _dial(self) -> Carrier:
        """Make a connection to the server.

        Raises:
            ConnectError: it could not be made.
        """
        settings, identity = self.settings, self.identity
        shown, verified_by = self._shown
        carrier = await dial(
            settings.target_hostname, settings.target_port, identity, self.limits, settings.connect_timeout_s,
            revocations=self.custody.revocations, expected=shown if verified_by == identity.ca_pem else b"",
        )  # fmt: skip
        self._shown = (carrier.peer.certificate, identity.ca_pem)
        return carrier

    def _note_failure(self, state: RetryCallState) -> None:
        """Tell of a failed attempt."""
        self._log_failure(state, "cannot connect to the server")
        self._tell("connect_fail")
        self._failed_attempts = state.attempt_number

    def _note_no_successor(self, pipe: Pipe, state: RetryCallState) -> None:
        self._log_failure(state, "cannot connect to the server anew, and stay with the pipe of before")
        # A server that has a new certificate, too, has shown it by now. Which intermediates the old one brought is not
        # known: as a rule they are this node's own.
        peer = pipe.peer
        if peer.certificate and not self.custody.trusts(peer.certificate, self.identity.certificate_pem):
            pipe.close(Goaway.CERTIFICATE, UNTRUSTED.format(peer.name))

    def _log_failure(self, state: RetryCallState, what: str) -> None:
        """Count and log a failed attempt, loudly where the cause is news."""
        self.meter.failed_connects += 1
        error = state.outcome.exception() if state.outcome is not None else None
        expected = isinstance(error, ConnectError)
        cause = str(error) if expected else repr(error)
        log.log(
            logging.DEBUG if cause == self._last_cause else logging.WARNING,
            "%s: %s (attempt %d, trying on)", what, cause, state.attempt_number,
            exc_info=None if expected else error,
        )  # fmt: skip
        self._last_cause = cause

    def _tell(self, event: str) -> None:
        """Tell of success or failure, under the event's first name or, in a class of the user's own, its other one."""
        for name in (event, event.replace("connect_", "connection_")):
            hook = getattr(self._events, name, None)
            if hook is not None:
                self.notifier.notify(hook, self._failed_attempts, self._last_disconnected)
                return
