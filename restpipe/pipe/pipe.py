"""The driver: one task reads, one writes, a timer beats."""

import asyncio
import logging
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from secrets import token_hex
from time import monotonic
from typing import Any, ClassVar

from restpipe.exceptions import ConnectError, EventError, PeerRefusedError
from restpipe.pipe.exchanges import Answer, Incoming
from restpipe.pipe.live import LiveExchanges, Serve
from restpipe.pipe.request_ids import instance, request_id
from restpipe.pipe.sender import Sender
from restpipe.pipe.turns import SHARED_ENVELOPES, Turns
from restpipe.protocol import events
from restpipe.protocol.connection import Connection
from restpipe.protocol.describe import describe_frame
from restpipe.protocol.limits import Limits
from restpipe.stats import Count, Stats, Timing
from restpipe.transport.carrier import Carrier, CarrierLostError, Peer
from restpipe_pb.v1.pipe_pb2 import Goaway, Hello, Request

log = logging.getLogger(__name__)

# Seconds that the last frames of a pipe, its goaway above all, have to leave.
FLUSH_TIMEOUT = 1.0
# Seconds between the frames that still arrive once a pipe has ended.
CROSSING_COST = 0.001


@dataclass(frozen=True, slots=True)
class PipeEnd:
    """Why a pipe ended.

    Attributes:
        reason: what was said in the goaway; UNSPECIFIED where the connection was lost.
        message: the cause in one line.
        by_peer: the other side ended it.
    """

    reason: Goaway.Reason.ValueType
    message: str
    by_peer: bool

    @property
    def lost(self) -> bool:
        """Whether the connection broke, so that nothing more can be written."""
        return self.reason == Goaway.UNSPECIFIED


class Pipe:
    """A live connection to one peer.

    `run` drives it. It may be used as soon as `ready` is done, and until `ended` is; calls on a pipe that ended fail as
    calls do whose pipe ends.

    Args:
        carrier: what brings the frames.
        dials: this node made the connection.
        limits: of this node.
        hello: what this node says of itself, but for its limits and the name of the pipe. The pipe keeps the message.
        serve: answers a request, as a task of its own.
        stats: counters.
        turns: at the node whose pipes share an event loop; without, this one has it for itself.

    Attributes:
        peer: the node at the other end.
        name: made at random, the same at both ends once `ready` is done.
        ready: done with the peer's Hello once exchanges can be opened.
        departing: done once one side accepts no new exchanges, or the pipe ended.
        ended: done with the reason once the pipe has ended. Await these three shielded, or with `asyncio.wait`: an
            `await` that is cancelled cancels what it waits for.
        round_trip: seconds that the last ping took, None before the first.
        at_most_once: verb and noun of the peer's events that must not be repeated unasked.
        forwards: the peer passes every request on to an HTTP service: what it wants is `Request.target`.
        remembers: name of the peer's memory of answers, "" where it has none.
        relays: name of what the peer remembers of the requests that it passes on, "" where it passes none on.
        knows_callers: the peer knows who is the caller of a request that is passed on to it.
    """

    def __init__(
        self,
        carrier: Carrier,
        *,
        dials: bool,
        limits: Limits,
        hello: Hello,
        serve: Serve,
        stats: Stats,
        turns: Turns | None = None,
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._carrier = carrier
        self._dials = dials
        self._stats = stats
        self.name = token_hex(6) if dials else ""
        hello.pipe = self.name
        self._core = Connection(dials=dials, limits=limits, hello=hello, now=monotonic())
        self._sender = Sender(self._core, carrier, self._nothing_follows)
        self._turns = turns or Turns()
        self._exchanges = LiveExchanges(self, self._core, self._sender, serve, stats, self._turns)
        self._draining: PipeEnd | None = None
        self._peer_goaway: events.PeerLeaving | None = None
        self._trace = log.isEnabledFor(logging.DEBUG)
        self.peer: Peer = carrier.peer
        self.ready: asyncio.Future[Hello] = loop.create_future()
        self.departing: asyncio.Future[str] = loop.create_future()
        self.ended: asyncio.Future[PipeEnd] = loop.create_future()
        self.round_trip: float | None = None
        self.at_most_once: frozenset[tuple[str, str]] = frozenset()
        self.forwards = False
        self.remembers = ""
        self.relays = ""
        self.knows_callers = False
        self._tick_timer = loop.call_later(self._core.tick_due - monotonic(), self._tick)

    # Life

    async def run(self) -> PipeEnd:
        """Drive the pipe until it ends; return why.

        Cancelling ends the pipe as if the connection was lost.
        """
        reader = self._loop.create_task(self._read(), name=f"pipe {self.peer.name} reader")
        writer = self._loop.create_task(self._write(), name=f"pipe {self.peer.name} writer")
        try:
            # A task that ends before the pipe does has failed; the pipe must not outlive it.
            waiters: set[asyncio.Future[Any]] = {self.ended, reader, writer}
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            self._end(PipeEnd(Goaway.UNSPECIFIED, "the pipe failed on this side", by_peer=False))
            return self.ended.result()
        finally:
            self._end(PipeEnd(Goaway.UNSPECIFIED, "the connection was lost", by_peer=False))
            await self._close(reader, writer)

    async def wait_ready(self) -> Hello:
        """Wait for the peer's Hello and return it.

        Raises:
            ConnectError: the pipe ended before.
        """
        waiters: set[asyncio.Future[Any]] = {self.ready, self.ended}
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            raise ConnectError(self.ended.result().message)
        return self.ready.result()

    async def drain(self, grace: float, message: str = "the node is shutting down") -> None:
        """Accept nothing new, let what is in flight finish for at most `grace` seconds, and end the pipe."""
        self._draining = PipeEnd(Goaway.SHUTDOWN, message, by_peer=False)
        self._core.goaway(Goaway.SHUTDOWN, message)
        self._sender.wake()
        if not self.departing.done():
            self.departing.set_result(message)
        await asyncio.wait({self.ended}, timeout=grace)
        self._end(self._draining)

    def close(self, reason: Goaway.Reason.ValueType, message: str) -> None:
        """End the pipe now, telling the peer why."""
        self._core.goaway(reason, message)
        self._end(PipeEnd(reason, message, by_peer=False))

    @property
    def available(self) -> bool:
        """Whether the pipe takes new calls."""
        return self._core.accepts_requests and not self.ended.done()

    @property
    def in_flight(self) -> int:
        """Exchanges under way, both ways."""
        return self._core.in_flight

    @property
    def served(self) -> list[Incoming]:
        """The requests of the peer that are being served."""
        return [incoming for incoming in self._exchanges.incoming.values() if incoming.begun]

    @property
    def queued(self) -> int:
        """Envelopes that wait to leave, and bodies that could go on."""
        return self._core.queued

    # Calls

    async def call(self, request: Request, body: AsyncIterable[bytes] | None = None) -> Answer:
        """Open an exchange and return its answer once the head of it is here.

        Args:
            request: its `timeout_ms` is the exchange's clock, which starts again with each piece of body that moves.
                The pipe keeps the message.
            body: follows `request.body`, sent as the peer grants credit.

        Raises:
            NotSentError: nothing of it left this node, or the peer refused it unprocessed.
            DeadlineError: the clock ran out.
            PipeLostError: the pipe ended after it was sent.
            EventError: the handler's side answered with a failure.

        Cancelling cancels the exchange, and its handler.
        """
        if self.ended.done():
            raise PeerRefusedError("the pipe has ended")
        call = self._exchanges.open(request, body)
        try:
            return Answer(call, await call.head)
        except asyncio.CancelledError:
            call.cancel("the caller went away")
            raise
        except EventError as error:
            error.instance = instance(request_id(request, call.label))
            raise

    # What arrives

    async def _read(self) -> None:
        carrier, core, nuisance = self._carrier, self._core, self._core.nuisance
        while (frame := await carrier.read()) is not None:
            if self._trace:
                log.debug("%s > %s", self.peer.name, describe_frame(frame))
            if self.ended.done():
                # It crossed the end: only taken off the carrier, for the peer's last write must not wait.
                await asyncio.sleep(CROSSING_COST)
                continue
            self._take(core.receive(frame, now := monotonic(), self._turn(now)))
            while True:
                if (rest := nuisance.rest()) or core.unread:
                    await asyncio.sleep(rest)
                if not core.unread or self.ended.done():
                    break
                self._take(core.receive_rest(now := monotonic(), self._turn(now)))
        goaway = self._peer_goaway
        if goaway is None:
            self._end(PipeEnd(Goaway.UNSPECIFIED, "the connection was lost", by_peer=False))
        else:
            self._end(PipeEnd(goaway.reason, goaway.message, by_peer=True))

    def _turn(self, now: float) -> int:
        """Return the envelopes to take before others have their turn."""
        most = self._core.nuisance.turn
        return min(most, SHARED_ENVELOPES) if self._turns.shared(now) else most

    def _take(self, arrived: list[events.Event]) -> None:
        exchanges = self._exchanges
        take_from_exchange = exchanges.TAKE.get
        for event in arrived:
            take = take_from_exchange(type(event))
            if take is not None:
                take(exchanges, event)
            else:
                self._TAKE[type(event)](self, event)
            if self.ended.done():
                break
        self._sender.wake()

    def _take_ready(self, event: events.PeerReady) -> None:
        self.at_most_once = frozenset((e.verb, e.noun) for e in event.hello.manifest if e.at_most_once)
        self.forwards = event.hello.forwards
        self.remembers = self._core.peer_remembers
        self.relays = event.hello.relays
        self.knows_callers = event.hello.knows_callers
        if not self._dials:
            self.name = self._core.peer_pipe or self.peer.name
        self.ready.set_result(event.hello)

    def _take_pong(self, event: events.PongReceived) -> None:
        self.round_trip = event.round_trip
        if self._dials:
            self._stats.count(Count.HEARTBEAT_SUCCESS)
            self._stats.timing(Timing.HEARTBEAT, event.round_trip)

    def _take_leaving(self, event: events.PeerLeaving) -> None:
        self._peer_goaway = event
        if not self.departing.done():
            self.departing.set_result(event.message)
        if event.at_once:
            self._end(PipeEnd(event.reason, event.message, by_peer=True))

    def _take_silent(self, event: events.PeerSilent) -> None:
        if self._dials:
            self._stats.count(Count.HEARTBEAT_FAIL)
        message = f"nothing was received for {event.timeout:g} s"
        self._end(PipeEnd(Goaway.HEARTBEAT, message, by_peer=False))

    def _take_broken(self, event: events.Broken) -> None:
        log.error("%s broke the protocol: %s", self.peer.name, event.error)
        self._end(PipeEnd(Goaway.PROTOCOL_ERROR, f"the peer broke the protocol: {event.error}", by_peer=False))

    _TAKE: ClassVar[dict[type[Any], Callable[["Pipe", Any], None]]] = {
        events.PeerReady: _take_ready,
        events.PongReceived: _take_pong,
        events.PeerLeaving: _take_leaving,
        events.PeerSilent: _take_silent,
        events.Broken: _take_broken,
    }

    # What leaves

    async def _write(self) -> None:
        try:
            await self._sender.run()
        except CarrierLostError as error:
            self._end(PipeEnd(Goaway.UNSPECIFIED, f"the connection was lost: {error}", by_peer=False))

    def _nothing_follows(self) -> bool:
        if self._draining is not None and self._core.in_flight == 0:
            self._end(self._draining)
        return self.ended.done()

    def _tick(self) -> None:
        for event in self._core.tick(monotonic()):
            self._TAKE[type(event)](self, event)
        self._sender.wake()
        if not self.ended.done():
            self._tick_timer = self._loop.call_later(self._core.tick_due - monotonic(), self._tick)

    # The end

    def _end(self, end: PipeEnd) -> None:
        """Note that the pipe ended; the first reason counts."""
        if self.ended.done():
            return
        self.ended.set_result(end)
        if not self.departing.done():
            self.departing.set_result(end.message)
        self._exchanges.end(end.message)
        self._sender.end_bodies()
        self._sender.wake()

    async def _close(self, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> None:
        self._tick_timer.cancel()
        self._exchanges.clocks.stop()
        self._sender.wake()
        if not self.ended.result().lost:
            await asyncio.wait({writer}, timeout=FLUSH_TIMEOUT)
        await self._carrier.close()
        # A pending write must not be cancelled: on a gRPC server the call would never get its status.
        await asyncio.wait({writer})
        reader.cancel()
        await asyncio.wait({reader})
        for task in (writer, reader):
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("the pipe to %s failed", self.peer.name, exc_info=error)
