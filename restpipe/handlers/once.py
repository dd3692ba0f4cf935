"""Serving requests with an Idempotency-Key: executed once, however often they come."""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable
from hashlib import sha256

from restpipe.exceptions import (
    AnswerNotKeptError,
    DeadlineError,
    EventError,
    InternalError,
    PeerRefusedError,
    PipeLostError,
)
from restpipe.handlers.answers import KEYED, AnswerMemory, Entry
from restpipe.pipe import Body, Incoming
from restpipe.protocol.failures import to_failure
from restpipe_pb.v1.pipe_pb2 import Request, Response

log = logging.getLogger(__name__)

# Requests from one peer that are executed at once: they go on without their exchanges, whose number has a bound.
MAX_RUNNING = 1000


class Recorded(Incoming):
    """A request that is executed to its end, whether or not the caller is still there; its answer is recorded.

    Args:
        first: the request as it came.
        body: its body.
        most: bytes of the largest answer that is recorded.

    Attributes:
        answer: encoded; None where it is too large, or streamed.
        cancelled_by: why it was cancelled, None where it was not.
    """

    __slots__ = ("_first", "_most", "answer", "cancelled_by")

    def __init__(self, first: Incoming, body: Body, most: int) -> None:  # not that of Incoming: its body has been read
        self._first = first
        self.live = first.live
        self._most = most
        self.loop = first.loop
        self.id = first.id
        self.timeout = first.timeout
        self.deadline = first.deadline
        self.request = first.request
        self.peer = first.peer
        self.body = body
        self.begun = True
        self.responded = False
        self.abandoned = False
        self.task = None
        self.answer: bytes | None = None
        self.cancelled_by: EventError | None = None

    def respond(self, response: Response) -> None:
        """Answer whoever is still there, and record the answer."""
        if self.responded or self.abandoned:
            return
        answer = None if response.more or response.ByteSize() > self._most else response.SerializeToString()
        self._first.respond(response)
        self.answer = answer
        self.responded = True
        self.deadline = math.inf

    async def send_body(self, pieces: AsyncIterable[bytes]) -> None:
        """Send the body that `respond` announced, unless the caller is gone."""
        if not self._first.abandoned:
            await self._first.send_body(pieces)

    @property
    def due(self) -> float:
        """When to give up, in the loop's time: later where the caller is there, and still sends its body."""
        return self.deadline if self.responded or self._first.abandoned else self._first.deadline


class Once:
    """Executes each request with a key once, and answers its repeats from memory.

    Args:
        memory: of answers.
        max_body: bytes of a body that a method is given whole.
    """

    def __init__(self, memory: AnswerMemory, max_body: int) -> None:
        self._memory = memory
        self._max_body = max_body
        self._timers: dict[Entry, asyncio.TimerHandle] = {}
        self._busy: Counter[str] = Counter()
        self._running: dict[Entry, tuple[Recorded, asyncio.Task[EventError | None]]] = {}

    def concerns(self, incoming: Incoming) -> bool:
        """Whether a request that has a key is to be served by `serve`."""
        return incoming.request.verb in KEYED and not isinstance(incoming, Recorded)

    async def serve(self, incoming: Incoming, execute: Callable[[Incoming], Awaitable[None]], *, streams: bool) -> None:
        """Have a request executed, wait for it where it is under way, or answer it from memory.

        Cancelling ends the wait. What is executed goes on, so that a repeat finds its answer.

        Args:
            incoming: the request.
            execute: answers it.
            streams: the handler reads the body as it arrives; then the length of it is compared, and not the body.

        Raises:
            KeyReusedError: the key was used for another request.
            AnswerNotKeptError: it was executed, and its answer is gone.
            PeerRefusedError: too many of the peer's are executed.
            EventError: it failed, now or when it was executed.
        """
        data = None if streams else await incoming.body.read(self._max_body)
        body = incoming.body if data is None else Body(data, more=False, length=None, consumed=None)
        mark = fingerprint(incoming.request, data)
        peer, key = incoming.pipe.peer.name, (incoming.peer.name, incoming.request.idempotency_key)
        while True:
            entry, new = self._memory.begin(peer, key, mark, incoming.loop.time(), incoming.timeout)
            if new and self._busy[peer] >= MAX_RUNNING:
                self._memory.forget(entry)
                raise PeerRefusedError(f"{MAX_RUNNING} requests with an Idempotency-Key are executed")
            if new:
                await self._begin(entry, Recorded(incoming, body, self._memory.max_bytes), execute)
                return
            under_way = self._running.get(entry)
            if under_way is not None:
                await asyncio.wait({under_way[1]})
            if not entry.forgotten:
                break
        if entry.answer is None:
            raise AnswerNotKeptError("the request was executed before; its answer was too large to keep, or streamed")
        incoming.respond(Response.FromString(entry.answer))

    def close(self) -> None:
        """Cancel what is still executed."""
        for entry in self._running:
            self._cancel(entry, PipeLostError("the node ended before the handler did"))

    async def _begin(self, entry: Entry, recorded: Recorded, execute: Callable[[Incoming], Awaitable[None]]) -> None:
        task = recorded.loop.create_task(self._run(entry, recorded, execute), name="once")
        self._running[entry] = recorded, task
        self._busy[entry.peer] += 1
        # `wait` leaves the task alone when it is cancelled.
        await asyncio.wait({task})
        error = task.result()
        if error is not None:
            raise error

    async def _run(
        self, entry: Entry, recorded: Recorded, execute: Callable[[Incoming], Awaitable[None]]
    ) -> EventError | None:
        error: EventError | None = None
        # Even where that is over by now, and what is executed is cancelled as soon as it waits.
        self._timers[entry] = recorded.loop.call_at(recorded.due, self._watch, entry, recorded)
        try:
            if recorded.cancelled_by is not None:
                raise recorded.cancelled_by
            await execute(recorded)
        except asyncio.CancelledError:
            error = recorded.cancelled_by or InternalError("the handler's side was cancelled")
        except EventError as raised:
            error = raised
        except Exception as raised:
            log.exception("a request of %s failed", recorded.peer.name)
            error = InternalError(f"{type(raised).__name__}: {raised}")
        finally:
            self._timers.pop(entry).cancel()
            del self._running[entry]
            self._busy[entry.peer] -= 1
        if error is not None and error.executed == "no":
            self._memory.forget(entry)
        elif error is None or recorded.responded:
            self._memory.finish(entry, recorded.answer, recorded.loop.time())
        else:
            failure = Response(failure=to_failure(error), return_code=error.return_code)
            self._memory.finish(entry, failure.SerializeToString(), recorded.loop.time())
        return error

    def _watch(self, entry: Entry, recorded: Recorded) -> None:
        """Cancel what is executed once its time is over, which starts again while a body arrives."""
        due = recorded.due
        if due == math.inf:
            return
        if due > recorded.loop.time():
            self._timers[entry] = recorded.loop.call_at(due, self._watch, entry, recorded)
        else:
            self._cancel(entry, DeadlineError(f"the handler did not answer within {recorded.timeout:g} s"))

    def _cancel(self, entry: Entry, error: EventError) -> None:
        recorded, task = self._running[entry]
        recorded.abandoned = True
        recorded.cancelled_by = error
        if entry in self._timers:  # else it has yet to begin; a task that is cancelled before that cleans nothing up
            task.cancel()


def fingerprint(request: Request, body: bytes | None) -> bytes:
    """Return what differs where two requests ask for something else; None: of the body, the length that was told."""
    asked = Request(
        verb=request.verb,
        noun=request.noun,
        arguments=request.arguments,
        query=request.query,
        content_type=request.content_type,
    )
    if body is not None:
        asked.body = sha256(body).digest()
    elif request.HasField("body_length"):
        asked.body_length = request.body_length
    return sha256(asked.SerializeToString(deterministic=True)).digest()
