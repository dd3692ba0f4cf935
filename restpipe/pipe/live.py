"""The exchanges of a pipe that are under way: what is done with each, and what comes of each."""

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from restpipe.exceptions import (
    BadAnswerError,
    DeadlineError,
    EventError,
    InternalError,
    PeerRefusedError,
    PipeLostError,
)
from restpipe.pipe.clocks import Clocks
from restpipe.pipe.exchanges import Call, Incoming
from restpipe.pipe.request_ids import request_id
from restpipe.pipe.sender import Sender
from restpipe.pipe.turns import Turns
from restpipe.protocol import events
from restpipe.protocol.connection import Connection
from restpipe.stats import Count, Stats, Timing
from restpipe_pb.v1.pipe_pb2 import Request, Response

if TYPE_CHECKING:
    from restpipe.pipe.pipe import Pipe

log = logging.getLogger(__name__)

Serve = Callable[[Incoming], Awaitable[None]]


class LiveExchanges:
    """Those that this node opened, and those that its peer did.

    Args:
        pipe: theirs.
        core: knows their protocol.
        sender: sends their bodies, and whatever else the core has to send.
        serve: answers a request, as a task of its own.
        stats: counters.
        turns: at the node.

    Attributes:
        pipe: as above.
        loop: the event loop.
        calls: by id, those of this node.
        incoming: by id, those of the peer.
        clocks: of all of them.
    """

    __slots__ = ("_core", "_sender", "_serve", "_stats", "_turns", "calls", "clocks", "incoming", "loop", "pipe")

    def __init__(
        self, pipe: "Pipe", core: Connection, sender: Sender, serve: Serve, stats: Stats, turns: Turns
    ) -> None:
        self.pipe = pipe
        self.loop = asyncio.get_running_loop()
        self._core = core
        self._sender = sender
        self._serve = serve
        self._stats = stats
        self._turns = turns
        self.calls: dict[int, Call] = {}
        self.incoming: dict[int, Incoming] = {}
        self.clocks = Clocks(lambda: (*self.calls.values(), *self.incoming.values()))

    def end(self, message: str) -> None:
        """End all of them, for the pipe has ended."""
        for call in list(self.calls.values()):
            call.fail(self._end_of_call(call, message))
            # What is told to be unsent must not leave with the last frames.
            self.cancel_call(call, message)
        for incoming in list(self.incoming.values()):
            incoming.abandon(PipeLostError(message))

    # Calls of this node

    def open(self, request: Request, body: AsyncIterable[bytes] | None) -> Call:
        """Send a request, and its body as the peer grants credit.

        Raises:
            NotSentError: the pipe takes none, or no more.
            HeadersTooLargeError: the head does not fit the peer's frames.
        """
        if body is not None:
            request.more = True
        exchange_id = self._core.open(request)
        call = Call(self, exchange_id, request.timeout_ms / 1000)
        self.calls[exchange_id] = call
        if not request.HasField("caller"):  # it is not passed on for a peer
            self._turns.asked("", call.sent_at)
        self.clocks.start(call.deadline)
        if body is not None:
            call.upload = self.loop.create_task(self._upload(call, body), name="upload")
        self._sender.wake()
        self._stats.count(Count.SEND)
        return call

    def cancel_call(self, call: Call, message: str) -> None:
        """End a call of this node: nobody wants the answer."""
        self._forget(call)
        self._core.cancel(call.id, message)
        self._sender.wake()

    def expire_call(self, call: Call) -> None:
        """End a call whose clock ran out."""
        sent = "after it was sent" if not self._core.is_unsent(call.id) else "before it could be sent"
        call.fail(
            DeadlineError(
                f"no answer from {self.pipe.peer.name} within {call.timeout:g} s, {sent}",
                executed="no" if self._core.is_unsent(call.id) else "unknown",
            )
        )
        self.cancel_call(call, "deadline")

    def _forget(self, call: Call) -> None:
        if self.calls.pop(call.id, None) is not None and call.upload is not None:
            call.upload.cancel()
        self._sender.release(call.id)

    async def _upload(self, call: Call, body: AsyncIterable[bytes]) -> None:
        try:
            await self._sender.send_body(call.id, body, call.progress)
        except asyncio.CancelledError:
            raise
        except EventError as error:
            call.fail(error)
            self.cancel_call(call, str(error))
        except Exception as error:
            log.exception("the body of a request to %s broke", self.pipe.peer.name)
            call.fail(InternalError(f"the body of the request broke: {error!r}"))
            self.cancel_call(call, "the body of the request broke")

    def _end_of_call(self, call: Call, message: str) -> EventError:
        if self._core.is_unsent(call.id):
            return PeerRefusedError(f"the pipe to {self.pipe.peer.name} ended before the request was sent: {message}")
        return PipeLostError(f"the pipe to {self.pipe.peer.name} ended before the answer was complete: {message}")

    # Requests of the peer

    def consume(self, exchange_id: int, size: int) -> None:
        """Grant credit for `size` bytes that were taken."""
        self._core.consume(exchange_id, size, monotonic())
        self._sender.wake()

    def want_body(self, exchange_id: int) -> None:
        """Tell the caller to begin with the body that it holds back until it is wanted."""
        self._core.want_body(exchange_id)
        self._sender.wake()

    def respond(self, exchange_id: int, response: Response) -> None:
        """Answer a request of the peer's.

        Raises:
            BadResultError: its head is larger than the peer accepts.
        """
        self._core.respond(exchange_id, response)
        self._sender.wake()

    def refused(self, *, passed_on: bool) -> None:
        """Note that the peer asked for what there is not: here, or at another client."""
        self._core.nuisance.refusal(passed_on=passed_on)

    def raised(self) -> None:
        """Note that the peer asked for what made a handler raise."""
        self._core.nuisance.raised()

    def break_off(self, exchange_id: int, message: str) -> None:
        """End an answer whose body cannot be completed; without effect on one that is complete."""
        if self._core.is_open(exchange_id):
            self._core.cancel(exchange_id, message)
            self._sender.wake()

    async def send_body(self, exchange_id: int, pieces: AsyncIterable[bytes]) -> None:
        """Send the body of an answer to its end, or until nobody wants it any more."""
        await self._sender.send_body(exchange_id, pieces)

    def expire_incoming(self, incoming: Incoming) -> None:
        """Answer a request whose clock ran out."""
        incoming.fail(DeadlineError(f"the handler did not answer within {incoming.timeout:g} s"))
        incoming.abandon(DeadlineError("deadline"))

    async def _handle(self, incoming: Incoming) -> None:
        incoming.begun = True
        try:
            await self._serve(incoming)
            if self._core.is_open(incoming.id):
                raise InternalError("the handler's side did not complete its answer")
        except asyncio.CancelledError:
            if not incoming.abandoned:
                incoming.fail(InternalError("the handler's side was cancelled"))
        except EventError as error:
            incoming.fail(error)
        except Exception as error:
            extra = {"request_id": request_id(incoming.request, incoming.label)}
            log.exception("exchange %d of %s failed", incoming.id, self.pipe.peer.name, extra=extra)
            incoming.fail(InternalError(f"{type(error).__name__}: {error}"))
        finally:
            del self.incoming[incoming.id]

    def forget_incoming(self, exchange_id: int) -> None:
        """Forget a request whose task is cancelled before its first step, and so will run nothing at all."""
        del self.incoming[exchange_id]

    # What arrives

    def _take_request(self, event: events.RequestReceived) -> None:
        incoming = Incoming(self, event.exchange_id, event.request)
        self.incoming[event.exchange_id] = incoming
        self._turns.asked(incoming.peer.name, self.loop.time())
        self.clocks.start(incoming.deadline)
        self._stats.count(Count.RECEIVE)
        incoming.task = self.loop.create_task(self._handle(incoming))

    def _take_response(self, event: events.ResponseReceived) -> None:
        call = self.calls[event.exchange_id]
        self._stats.timing(Timing.SEND, self.loop.time() - call.sent_at)
        call.answer(event.response)
        if event.response.more:
            call.progress()
        else:
            self._forget(call)

    def _take_body(self, event: events.BodyReceived) -> None:
        exchange = self.calls.get(event.exchange_id) or self.incoming.get(event.exchange_id)
        if exchange is None:
            return
        exchange.body.feed(event.data, more=event.more)
        exchange.progress()
        if isinstance(exchange, Call) and not event.more:
            self._forget(exchange)

    def _take_cancelled(self, event: events.Cancelled) -> None:
        call = self.calls.get(event.exchange_id)
        if call is not None:
            call.fail(BadAnswerError(f"{self.pipe.peer.name} broke the answer off: {event.message}"))
            self._forget(call)
        self._sender.release(event.exchange_id)
        incoming = self.incoming.get(event.exchange_id)
        if incoming is not None:
            incoming.abandon(PipeLostError(f"cancelled by the caller: {event.message}"))

    def _take_refused(self, event: events.Refused) -> None:
        call = self.calls[event.exchange_id]
        call.fail(PeerRefusedError(f"{self.pipe.peer.name} refused the request unprocessed: {event.message}"))
        self._forget(call)

    TAKE: ClassVar[dict[type[Any], Callable[["LiveExchanges", Any], None]]] = {
        events.RequestReceived: _take_request,
        events.ResponseReceived: _take_response,
        events.BodyReceived: _take_body,
        events.Cancelled: _take_cancelled,
        events.Refused: _take_refused,
    }
