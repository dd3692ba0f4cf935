"""One request, from its arrival at a node to the answer of the peer: waiting for the pipe, repeating what is safe."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn

from restpipe.exceptions import (
    DeadlineError,
    EventError,
    NotSentError,
    PeerAbsentError,
    PeerRefusedError,
    PipeLostError,
)
from restpipe.handlers.events import IDEMPOTENT
from restpipe.pipe import Answer, Pipe
from restpipe_pb.v1.pipe_pb2 import Request

# Verbs that change what their conditions are about (RFC 9110 section 13.1).
_CHANGING = frozenset(("put", "delete"))
# Seconds by which a timer may ring too early.
EARLY = 0.01

PipeTo = Callable[[float], Awaitable[Pipe]]
MakeRequest = Callable[[Pipe], Request]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request may take.

    Attributes:
        deadline: seconds for all of it.
        connection: seconds of them to wait for a peer that is not connected.
    """

    deadline: float
    connection: float


class Tried:
    """How far a request has got.

    Attributes:
        pipe: that it left by last.
        request: that was made for it.
        times: how often it was sent.
        lost: of one attempt, at least, the outcome is unknown.
        instance: what identifies that attempt, "" where there is none.
        memory: what keeps the request from being executed twice, "" where nothing does.
    """

    __slots__ = ("instance", "lost", "memory", "pipe", "request", "times")

    def __init__(self) -> None:
        self.pipe: Pipe | None = None
        self.request: Request | None = None
        self.times = 0
        self.lost = False
        self.instance = ""
        self.memory = ""


class RepeatableBody(AsyncIterable[bytes]):
    """A body that may be sent again. Each attempt iterates over it anew.

    Attributes:
        repeatable: the next iteration will yield all of it.
    """

    repeatable: bool


Exchange = Callable[
    [PipeTo, MakeRequest, AsyncIterable[bytes] | None, Patience], Coroutine[Any, Any, tuple[Answer, int]]
]


async def exchange(
    pipe_to: PipeTo,
    make_request: MakeRequest,
    body: AsyncIterable[bytes] | None,
    patience: Patience,
    tried: Tried | None = None,
) -> tuple[Answer, int]:
    """Have a request answered; return the answer and the number of times that the request was sent.

    A request that never left this node is sent when the pipe is back. One that was sent and whose pipe was lost is sent
    again only if its verb is idempotent and its handler does not object, or it has a key and its peer remembers it; and
    if its body can be repeated.

    Args:
        pipe_to: returns the pipe to the peer, or waits for it for the given seconds.
        make_request: returns the request for the pipe that it is about to leave by, without `timeout_ms`; called for
            each attempt, for the pipe keeps the message. What it raises is raised here.
        body: what follows `Request.body`; not to be sent again unless it is a `RepeatableBody`, and says so.
        patience: how long it may take.
        tried: kept up to date, for those who want to know however it ends.

    Raises:
        EventError: it failed; the class says how, and whether it was executed.

    Cancelling cancels the exchange and the peer's handler.
    """
    tried = tried or Tried()
    try:
        return await _attempt(pipe_to, make_request, body, patience, tried), tried.times
    except EventError as error:
        error.attempts = tried.times
        error.instance = error.instance or tried.instance
        if tried.lost and error.executed == "no":
            _fail_after_loss(error)
        raise


async def _attempt(
    pipe_to: PipeTo, make_request: MakeRequest, body: AsyncIterable[bytes] | None, patience: Patience, tried: Tried
) -> Answer:
    """Send a request until it is answered, or may not be sent again."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience.deadline
    while True:
        tried.pipe = pipe = await _pipe_in_time(pipe_to, patience, deadline, loop)
        if tried.memory and tried.request is not None and memory_of(pipe, tried.request) != tried.memory:
            raise _lost("the peer was started anew: it remembers no Idempotency-Key")
        tried.request = request = make_request(pipe)
        if tried.lost and request.to:
            request.repeated = True
        request.timeout_ms = max(1, round(1000 * (deadline - loop.time())))
        tried.times += 1
        try:
            answer = await pipe.call(request, body)
        except PipeLostError as error:
            if not (_is_to_be_repeated(error, pipe, request) and _can_follow_again(body)):
                raise
            tried.lost = True
            tried.instance = error.instance
            tried.memory = memory_of(pipe, request) if request.idempotency_key else ""
        except PeerRefusedError:
            # By a peer that stays it is an answer; by one that leaves, a reason to wait for its successor.
            if pipe.available or not _can_follow_again(body):
                raise
            tried.times -= 1
        else:
            if not (tried.lost and answer.response.status == 412 and request.verb in _CHANGING):
                return answer
            answer.close()
            raise _lost("the condition of its repeat does not hold: perhaps because the first was executed")


def _fail_after_loss(error: EventError) -> NoReturn:
    """Tell of what was not executed this time, and may have been the time before."""
    if isinstance(error, NotSentError | DeadlineError):
        lost = _lost(str(error))
        lost.attempts, lost.instance = error.attempts, error.instance
        raise lost from error
    error.executed = "unknown"
    raise error


def _lost(why: str) -> PipeLostError:
    return PipeLostError(f"the pipe was lost after the request was sent, and {why}")


def memory_of(pipe: Pipe, request: Request) -> str:
    """Return the name of what keeps a request with a key from being executed twice, "" where nothing does."""
    return pipe.relays if request.to else pipe.remembers


def is_repeatable(pipe: Pipe, request: Request) -> bool:
    """Whether a request whose outcome is unknown may be sent again; one to another client, to ask the server."""
    if request.idempotency_key:
        return True
    if request.to:
        return request.verb in IDEMPOTENT
    # HEAD is served by the method of GET where it has none of its own.
    verb = "get" if request.verb == "head" else request.verb
    noun = request.noun.replace("/", "_")
    return request.verb in IDEMPOTENT and not {(request.verb, noun), (verb, noun)} & pipe.at_most_once


def _is_to_be_repeated(error: PipeLostError, pipe: Pipe, request: Request) -> bool:
    if request.HasField("caller"):  # it is passed on: the node that it comes from repeats it, and counts
        return False
    # Where this pipe lives, the next one on the way was lost, and the node there knows.
    return is_repeatable(pipe, request) if pipe.ended.done() else error.repeatable


def _can_follow_again(body: AsyncIterable[bytes] | None) -> bool:
    return body is None or (isinstance(body, RepeatableBody) and body.repeatable)


async def _pipe_in_time(pipe_to: PipeTo, patience: Patience, deadline: float, loop: asyncio.AbstractEventLoop) -> Pipe:
    try:
        return await pipe_to(max(0.0, min(patience.connection, deadline - loop.time())))
    except PeerAbsentError as error:
        if loop.time() > deadline - EARLY:
            raise DeadlineError(f"no pipe within {patience.deadline:g} s: {error}", executed="no") from error
        raise
