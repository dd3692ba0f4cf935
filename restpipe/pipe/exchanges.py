"""The two ends of an exchange: `Call` and its `Answer` where it was opened, `Incoming` where it is served."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterable, Callable, Iterator
from typing import TYPE_CHECKING

from restpipe.exceptions import BadAnswerError, EventError, HandlerError, PipeLostError, ThreadsBusyError
from restpipe.pipe.body import Body
from restpipe.protocol.failures import from_failure, to_failure
from restpipe_pb.v1.pipe_pb2 import Request, Response

if TYPE_CHECKING:
    from restpipe.pipe.live import LiveExchanges
    from restpipe.pipe.pipe import Pipe


class LiveExchange:
    """What both ends share: the exchange's clock, and the body they receive.

    The clock runs for `timeout` seconds and starts again with each piece of body that moves.

    Attributes:
        id: the exchange's number on the pipe.
        timeout: seconds.
        deadline: when the clock runs out, in the loop's time; infinity once it was stopped.
        live: the pipe's, of which this is one.
        loop: the event loop; asking asyncio for it costs a system call, before Python 3.12.
    """

    __slots__ = ("body", "deadline", "id", "live", "loop", "timeout")

    body: Body

    def __init__(self, live: "LiveExchanges", exchange_id: int, timeout: float) -> None:
        self.live = live
        self.loop = live.loop
        self.id = exchange_id
        self.timeout = timeout
        self.deadline = live.loop.time() + timeout

    @property
    def label(self) -> str:
        """What names the exchange, at both ends and among those of other pipes."""
        return f"{self.live.pipe.name}-{self.id}"

    @property
    def remaining(self) -> float:
        """Seconds until the clock runs out, 0 where it has, and `timeout` where it was stopped."""
        return min(self.timeout, max(0.0, self.deadline - self.loop.time()))

    def make_body(self, head: Request | Response) -> None:
        """Prepare for the body that came, and comes, with a head."""
        more = head.more
        length = head.body_length if more and head.HasField("body_length") else None
        # Most bodies are here with their heads: they refer to no exchange, so that no cycle waits for the collector.
        self.body = Body(head.body, more=more, length=length, consumed=self._consumed if more else None)

    def progress(self) -> None:
        """Start the clock again, unless it was stopped."""
        if self.deadline < math.inf:
            self.deadline = self.loop.time() + self.timeout

    def stop_clock(self) -> None:
        """Let the exchange take as long as it takes."""
        self.deadline = math.inf

    def expire(self) -> None:
        """Do what is to be done once the clock has run out."""
        raise NotImplementedError

    def _consumed(self, size: int) -> None:
        self.progress()
        self.live.consume(self.id, size)


class Call(LiveExchange):
    """An exchange that this node opened."""

    __slots__ = ("head", "sent_at", "upload")

    def __init__(self, live: "LiveExchanges", exchange_id: int, timeout: float) -> None:
        super().__init__(live, exchange_id, timeout)
        self.head: asyncio.Future[Response] = self.loop.create_future()
        self.upload: asyncio.Task[None] | None = None
        self.sent_at = self.deadline - timeout

    def answer(self, response: Response) -> None:
        """Hand the response to whoever waits."""
        # Even where the caller was cancelled a moment ago: pieces of the body may follow before that is known.
        self.make_body(response)
        if self.head.done():
            return
        if response.HasField("failure"):
            self.head.set_exception(from_failure(response.failure))
        else:
            self.head.set_result(response)

    def fail(self, error: EventError) -> None:
        """Let whoever waits for the response, or reads its body, see `error`."""
        if not self.head.done():
            self.head.set_exception(error)
        elif not self.head.cancelled() and self.head.exception() is None:
            self.body.fail(error)

    def expire(self) -> None:
        """Give up."""
        self.live.expire_call(self)

    @property
    def pipe(self) -> "Pipe":
        """By which it goes."""
        return self.live.pipe

    def cancel(self, message: str) -> None:
        """Tell the peer that the answer is no longer wanted."""
        self.live.cancel_call(self, message)


class PipeDepartsError(PipeLostError):
    """The pipe takes no new exchanges, and this one would not end by itself."""


class Answer:
    """The answer to a call.

    Attributes:
        response: its head.
        body: its body. Read it, or `close` the answer.
    """

    __slots__ = ("_call", "body", "response")

    def __init__(self, call: Call, response: Response) -> None:
        self._call = call
        self.response = response
        self.body = call.body

    @property
    def label(self) -> str:
        """What names the exchange, at both ends and among those of other pipes."""
        return self._call.label

    def stop_clock(self) -> None:
        """Let the rest take as long as it takes."""
        self._call.stop_clock()

    @contextlib.contextmanager
    def on_departure(self, act: Callable[[], object]) -> Iterator[None]:
        """Have `act` called within the block once the pipe takes no new exchanges, and lives on for what has an end."""
        pipe = self._call.pipe

        def called(_: object) -> None:
            if not pipe.ended.done():
                act()

        departing = pipe.departing
        departing.add_done_callback(called)
        try:
            yield
        finally:
            departing.remove_done_callback(called)

    def close(self) -> None:
        """Cancel the exchange where it is not over. The handler is told."""
        if not self.body.complete:
            self.body.fail(BadAnswerError("the answer was closed before its end"))
            self._call.cancel("the caller closed the answer")


class Incoming(LiveExchange):
    """An exchange that the peer opened, for the handler to answer.

    Attributes:
        request: its head.
        body: its body, as it arrives.
        peer: who asks.
        begun: the task that serves it has begun.
        abandoned: nobody wants the answer any more; the task that serves it is being cancelled.
    """

    __slots__ = ("abandoned", "begun", "peer", "request", "responded", "task")

    def __init__(self, live: "LiveExchanges", exchange_id: int, request: Request) -> None:
        super().__init__(live, exchange_id, request.timeout_ms / 1000)
        self.request = request
        self.peer = live.pipe.peer
        self.responded = False
        self.begun = False
        self.abandoned = False
        self.task: asyncio.Task[None] | None = None
        self.make_body(request)
        if request.more and request.awaits_credit:
            self.body.ask = self._want_body

    @property
    def pipe(self) -> "Pipe":
        """The pipe it came by, to call back."""
        return self.live.pipe

    def _want_body(self) -> None:
        self.live.want_body(self.id)

    def respond(self, response: Response) -> None:
        """Answer; what `response.more` announces is sent by `send_body`. Without effect once answered or abandoned.

        Raises:
            BadResultError: the head is larger than the peer accepts. Nothing was answered.
        """
        if self.responded or self.abandoned:
            return
        self.live.respond(self.id, response)
        self.responded = True
        self.stop_clock()

    def fail(self, error: EventError) -> None:
        """Answer with a failure; where the answer has begun, break its body off instead."""
        if self.responded:
            self.live.break_off(self.id, f"{error.exception_class}: {error}")
        else:
            if error.executed == "no" and not isinstance(error, ThreadsBusyError):  # that is no fault of the peer's
                self.live.refused(passed_on=bool(self.request.to))
            elif isinstance(error, HandlerError):
                self.live.raised()
            self.respond(Response(failure=to_failure(error), return_code=error.return_code))

    async def send_body(self, pieces: AsyncIterable[bytes]) -> None:
        """Send the body that `respond` announced, as the peer grants credit, to its end.

        Raises:
            Exception: what `pieces` raised. The body has not ended then.
        """
        await self.live.send_body(self.id, pieces)

    def expire(self) -> None:
        """Answer that the deadline passed, and cancel the handler."""
        self.live.expire_incoming(self)

    def cut(self, error: EventError) -> None:
        """Answer with a failure, or break the answer off, and cancel the handler."""
        self.fail(error)
        self.abandon(error)

    def abandon(self, error: EventError) -> None:
        """Cancel the handler: nobody waits for it."""
        self.abandoned = True
        self.stop_clock()
        self.body.fail(error)
        if self.task is not None:
            self.task.cancel()
            if not self.begun:
                self.live.forget_incoming(self.id)
