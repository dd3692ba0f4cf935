"""A request is sent once it can be, again where that is safe, and its caller learns what became of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from live_handlers import Events
from memory_pipes import PATIENCE, Joint, Pipes, memory_pipes

from restpipe.exceptions import (
    BodyTooLargeError,
    DeadlineError,
    HandlerError,
    NoHandlerError,
    PeerAbsentError,
    PeerAmbiguousError,
    PeerRefusedError,
    PipeLostError,
    TooManyExchangesError,
)
from restpipe.handlers.base import Reply
from restpipe.handlers.context import EventContext
from restpipe.handlers.payload import PostData
from restpipe.nodes.exchanges import Patience, RepeatableBody, exchange
from restpipe.pipe import Answer, Incoming, Pipe
from restpipe.protocol.limits import Limits
from restpipe_pb.v1.pipe_pb2 import Goaway, Request

IDEMPOTENT = ["get", "head", "put", "delete"]
OTHERS = ["post", "patch"]
PATIENT = Patience(PATIENCE, PATIENCE)


class Way:
    """The way to a peer whose pipes come and go."""

    def __init__(self) -> None:
        self.pipe: Pipe | None = None
        self.waits: list[float] = []
        self._came = asyncio.Event()
        self._asked = asyncio.Event()

    def open(self, joint: Joint) -> None:
        self.pipe = joint.calling
        self._came.set()

    async def asked(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.waits) < times:
                self._asked.clear()
                await self._asked.wait()

    async def __call__(self, wait: float) -> Pipe:
        self.waits.append(wait)
        self._asked.set()
        if self.pipe is not None and self.pipe.available:
            return self.pipe
        self._came.clear()
        try:
            await asyncio.wait_for(self._came.wait(), wait)
        except TimeoutError:
            raise PeerAbsentError("the peer is away") from None
        if self.pipe is None:
            raise AssertionError("nothing came")
        return self.pipe


@pytest.fixture
async def pipes(leak_free: None) -> AsyncIterator[Pipes]:
    async with memory_pipes() as made:
        yield made


@pytest.fixture
async def handler() -> Events:
    return Events()


@pytest.fixture
async def way() -> Way:
    return Way()


def ask(
    way: Callable[[float], Awaitable[Pipe]],
    verb: str,
    noun: str,
    *,
    patience: Patience = PATIENT,
    stream: "Stream | None" = None,
    **request: Any,
) -> "asyncio.Task[tuple[Answer, int]]":
    return asyncio.create_task(exchange(way, lambda _pipe: Request(verb=verb, noun=noun, **request), stream, patience))


async def entered(handler: Events) -> None:
    """Wait until an event waits, and be ready for the next."""
    async with asyncio.timeout(PATIENCE):
        await handler.entered.wait()
    handler.entered.clear()


async def whole(task: "asyncio.Task[tuple[Answer, int]]") -> tuple[bytes, int]:
    async with asyncio.timeout(PATIENCE):
        answer, attempts = await task
        return await answer.body.read(1 << 20), attempts


async def test_what_is_answered_at_once_took_one_attempt(pipes: Pipes, handler: Events, way: Way) -> None:
    way.open(await pipes.join(handler))
    assert await whole(ask(way, "get", "value")) == (b'{"value": 1}', 1)


@pytest.mark.parametrize("verb", IDEMPOTENT)
async def test_an_idempotent_verb_whose_pipe_is_lost_is_sent_again_on_the_next(
    pipes: Pipes, handler: Events, way: Way, verb: str
) -> None:
    way.open(first := await pipes.join(handler))
    task = ask(way, verb, "wait")
    await entered(handler)
    await first.lose()
    handler.release.set()
    way.open(await pipes.join(handler))
    _, attempts = await whole(task)
    assert attempts == 2
    assert handler.runs[f"{verb} wait"] == 2


class Once(Events):
    """Has conditions that hold once: for the first."""

    async def _condition(self, ctx: EventContext) -> Reply:
        await self._wait(ctx)
        return Reply(status=201 if self.runs[f"{ctx.verb} {ctx.noun}"] == 1 else 412)

    async def get_made(self, ctx: EventContext, _post_data: PostData) -> Reply:
        return await self._condition(ctx)

    async def put_made(self, ctx: EventContext, _post_data: PostData) -> Reply:
        return await self._condition(ctx)


async def test_of_a_repeat_whose_condition_does_not_hold_the_outcome_is_unknown(pipes: Pipes, way: Way) -> None:
    handler = Once()
    way.open(first := await pipes.join(handler))
    task = ask(way, "put", "made")
    await entered(handler)
    await first.lose()
    handler.release.set()
    way.open(second := await pipes.join(handler))
    with pytest.raises(PipeLostError, match="the condition of its repeat does not hold"):
        await whole(task)
    assert handler.runs["put made"] == 2
    assert second.calling.in_flight == 0
    answer, attempts = await ask(way, "put", "made")  # it was not lost: the answer is what it says
    assert (answer.response.status, attempts) == (412, 1)


async def test_a_repeat_that_changes_nothing_is_told_of_its_condition(pipes: Pipes, way: Way) -> None:
    handler = Once()
    way.open(first := await pipes.join(handler))
    task = ask(way, "get", "made")
    await entered(handler)
    await first.lose()
    handler.release.set()
    way.open(await pipes.join(handler))
    answer, attempts = await task
    assert (answer.response.status, attempts) == (412, 2)


@pytest.mark.parametrize("verb", OTHERS)
async def test_other_verbs_are_not_repeated_and_their_outcome_is_unknown(
    pipes: Pipes, handler: Events, way: Way, verb: str
) -> None:
    way.open(first := await pipes.join(handler))
    task = ask(way, verb, "wait")
    await entered(handler)
    way.open(await pipes.join(handler))
    await first.lose()
    with pytest.raises(PipeLostError) as caught:
        await task
    assert caught.value.executed == "unknown"
    assert caught.value.instance == f"urn:restpipe:request:{first.calling.name}-2"
    assert handler.runs[f"{verb} wait"] == 1


@pytest.mark.parametrize("verb", OTHERS)
async def test_a_request_with_a_key_is_repeated_to_a_peer_that_remembers_the_key(
    pipes: Pipes, handler: Events, way: Way, verb: str
) -> None:
    way.open(first := await pipes.join(handler, remembers="one"))
    task = ask(way, verb, "wait", idempotency_key="k")
    await entered(handler)
    await first.lose()
    handler.release.set()
    way.open(await pipes.join(handler, remembers="one"))
    assert (await whole(task))[1] == 2


@pytest.mark.parametrize("verb", OTHERS)
async def test_a_request_with_a_key_is_not_repeated_to_a_peer_that_was_started_anew(
    pipes: Pipes, handler: Events, way: Way, verb: str
) -> None:
    way.open(first := await pipes.join(handler, remembers="one"))
    task = ask(way, verb, "wait", idempotency_key="k")
    await entered(handler)
    await first.lose()
    handler.release.set()
    way.open(await pipes.join(handler, remembers="two"))
    with pytest.raises(PipeLostError, match="was started anew") as caught:
        await task
    assert caught.value.executed == "unknown"
    assert handler.runs == {f"{verb} wait": 1}


@pytest.mark.parametrize(
    ("verb", "noun"), [("get", "once"), ("head", "once"), ("put", "once_more"), ("put", "once/more")]
)
async def test_what_is_marked_at_most_once_is_not_repeated_head_as_the_get_that_serves_it(
    pipes: Pipes, handler: Events, way: Way, verb: str, noun: str
) -> None:
    way.open(first := await pipes.join(handler))
    task = ask(way, verb, noun)
    await entered(handler)
    way.open(await pipes.join(handler))
    await first.lose()
    with pytest.raises(PipeLostError):
        await task
    assert handler.runs.total() == 1


class Stream(RepeatableBody):
    """A body that follows its head, and counts how often it was begun."""

    def __init__(self, *, repeatable: bool) -> None:
        self.repeatable = repeatable
        self.begun = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        yield b"the "
        yield b"body"


class Echo(Events):
    async def put_echo(self, ctx: Any, post_data: tuple[str, bytes]) -> bytes:
        await self._wait(ctx)
        return post_data[1]


async def test_a_stream_that_passed_is_not_repeated(pipes: Pipes, way: Way) -> None:
    way.open(first := await pipes.join(handler := Echo()))
    task = ask(way, "put", "echo", stream=Stream(repeatable=False))
    await entered(handler)
    way.open(await pipes.join(handler))
    await first.lose()
    with pytest.raises(PipeLostError):
        await task


async def test_a_stream_that_is_still_held_is_repeated_from_its_beginning(pipes: Pipes, way: Way) -> None:
    way.open(first := await pipes.join(handler := Echo()))
    task = ask(way, "put", "echo", stream=(stream := Stream(repeatable=True)))
    await entered(handler)
    way.open(await pipes.join(handler))
    await first.lose()
    handler.release.set()
    assert await whole(task) == (b"the body", 2)
    assert stream.begun == 2


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_stream_is_not_begun_before_there_is_a_pipe(pipes: Pipes, way: Way, *, repeatable: bool) -> None:
    task = ask(way, "put", "echo", stream=(stream := Stream(repeatable=repeatable)))
    await way.asked(1)
    assert stream.begun == 0
    way.open(await pipes.join(handler := Echo()))
    handler.release.set()
    assert await whole(task) == (b"the body", 1)


@pytest.mark.parametrize("size", [10, 40_000])
async def test_a_repeat_carries_the_whole_body_however_long(pipes: Pipes, way: Way, size: int) -> None:
    handler = Echo()
    body = bytes(range(10)) * (size // 10)
    way.open(first := await pipes.join(handler))
    task = ask(way, "put", "echo", body=body, content_type="application/x", arguments=[])
    await entered(handler)
    await first.lose()
    handler.release.set()
    way.open(await pipes.join(handler))
    assert await whole(task) == (body, 2)


@pytest.mark.parametrize("verb", ["get", "post"])
async def test_what_was_never_sent_is_sent_when_the_peer_comes(
    pipes: Pipes, handler: Events, way: Way, verb: str
) -> None:
    handler.release.set()
    task = ask(way, verb, "wait")
    await asyncio.sleep(0)
    way.open(await pipes.join(handler))
    assert (await whole(task))[1] == 1


@pytest.mark.parametrize("verb", ["get", "post"])
async def test_what_a_leaving_peer_refused_goes_to_its_successor_as_the_first_attempt(
    pipes: Pipes, handler: Events, way: Way, verb: str
) -> None:
    way.open(first := await pipes.join(handler))
    # Its goaway is on the way when the request leaves.
    first.serving.close(Goaway.SHUTDOWN, "restarting")
    handler.release.set()
    task = ask(way, verb, "wait")
    await way.asked(2)
    way.open(await pipes.join(handler))
    assert (await whole(task))[1] == 1
    assert handler.runs[f"{verb} wait"] == 1


async def test_a_peer_that_stays_and_refuses_is_an_answer(pipes: Pipes, way: Way) -> None:
    async def refuse(incoming: Incoming) -> None:
        raise PeerRefusedError("at the limit")

    way.open(await pipes.join(object(), serve=refuse))
    with pytest.raises(PeerRefusedError, match="at the limit"):
        await ask(way, "get", "value")
    assert len(way.waits) == 1


async def test_too_many_exchanges_are_refused_unsent(pipes: Pipes, handler: Events, way: Way) -> None:
    way.open(await pipes.join(handler, limits=Limits(max_exchanges=1)))
    first = ask(way, "post", "wait")
    await entered(handler)
    with pytest.raises(TooManyExchangesError) as caught:
        await ask(way, "post", "wait")
    assert (caught.value.executed, caught.value.retryable) == ("no", True)
    handler.release.set()
    await whole(first)
    assert handler.runs["post wait"] == 1


@pytest.mark.parametrize(
    ("noun", "body", "error"),
    [("raise", b"", HandlerError), ("nonesuch", b"", NoHandlerError), ("value", bytes(2 << 20), BodyTooLargeError)],
)
async def test_a_failure_of_the_peer_is_final(
    pipes: Pipes, handler: Events, way: Way, noun: str, body: bytes, error: type[Exception]
) -> None:
    way.open(await pipes.join(handler))
    with pytest.raises(error):
        await ask(way, "get", noun, body=body)
    assert len(way.waits) == 1


async def test_an_absent_peer_is_waited_for_as_long_as_the_patience_says(way: Way) -> None:
    with pytest.raises(PeerAbsentError) as caught:
        await ask(way, "get", "value", patience=Patience(PATIENCE, 0.01))
    assert (way.waits, caught.value.executed, caught.value.retryable) == ([0.01], "no", True)


async def test_the_deadline_bounds_the_wait_for_an_absent_peer(way: Way) -> None:
    with pytest.raises(DeadlineError, match=r"no pipe within 0\.01 s: the peer is away") as caught:
        await ask(way, "get", "value", patience=Patience(0.01, PATIENCE))
    assert caught.value.executed == "no"


async def test_the_time_that_was_spent_waiting_is_not_the_handlers(pipes: Pipes, handler: Events, way: Way) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    task = ask(way, "get", "wait")
    await asyncio.sleep(0)
    joint = await pipes.join(handler)
    await asyncio.sleep(0.1)
    way.open(joint)
    await entered(handler)
    spent = loop.time() - started
    assert PATIENCE - spent - 0.5 < handler.remaining <= PATIENCE - 0.1
    handler.release.set()
    await whole(task)


async def test_at_the_deadline_the_handler_is_cancelled_and_whether_it_was_sent_is_told(
    pipes: Pipes, handler: Events, way: Way
) -> None:
    way.open(await pipes.join(handler))
    with pytest.raises(DeadlineError) as caught:
        await ask(way, "get", "wait", patience=Patience(0.05, PATIENCE))
    assert caught.value.executed == "unknown"
    async with asyncio.timeout(PATIENCE):
        await handler.cancelled.wait()


async def test_all_attempts_together_have_one_deadline(pipes: Pipes, handler: Events, way: Way) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    way.open(joint := await pipes.join(handler))
    task = ask(way, "get", "wait", patience=Patience(0.5, PATIENCE))
    for _ in range(3):
        await entered(handler)
        await joint.lose()
        way.open(joint := await pipes.join(handler))
    with pytest.raises((DeadlineError, PipeLostError)) as caught:
        await task
    assert caught.value.executed == "unknown"
    assert loop.time() - started < 2


async def test_a_caller_that_goes_away_cancels_the_handler(pipes: Pipes, handler: Events, way: Way) -> None:
    way.open(joint := await pipes.join(handler))
    task = ask(way, "get", "wait")
    await entered(handler)
    task.cancel()
    async with asyncio.timeout(PATIENCE):
        await handler.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(PATIENCE / 2):
        await joint.calling.drain(PATIENCE)  # returns early once nothing is in flight


# After a loss nothing that the repeat meets may claim that the request was not executed.


async def lost_once(pipes: Pipes, handler: Events, way: Any, **options: Any) -> "asyncio.Task[tuple[Answer, int]]":
    """Return a request whose first attempt reached the handler, whereupon the pipe was lost."""
    joint = await pipes.join(handler)
    way.open(joint)
    task = ask(way, "get", "wait", **options)
    await entered(handler)
    way.pipe = None
    await joint.lose()
    return task


async def test_a_lost_request_whose_peer_stays_away_has_an_unknown_outcome(
    pipes: Pipes, handler: Events, way: Way
) -> None:
    task = await lost_once(pipes, handler, way, patience=Patience(PATIENCE, 0.05))
    with pytest.raises(PipeLostError, match="lost after the request was sent, and the peer is away") as lost:
        await task
    assert lost.value.instance  # of the attempt whose outcome is unknown
    assert lost.value.attempts == 1


async def test_a_lost_request_whose_deadline_passes_before_the_next_pipe_has_an_unknown_outcome(
    pipes: Pipes, handler: Events, way: Way
) -> None:
    task = await lost_once(pipes, handler, way, patience=Patience(0.2, PATIENCE))
    with pytest.raises(PipeLostError, match="after the request was sent"):
        await task


async def test_a_lost_request_whose_peer_became_ambiguous_has_an_unknown_outcome(pipes: Pipes, handler: Events) -> None:
    class Ambiguous(Way):
        async def __call__(self, wait: float) -> Pipe:
            if self.waits:
                raise PeerAmbiguousError("alpha, beta")
            return await super().__call__(wait)

    task = await lost_once(pipes, handler, Ambiguous())
    with pytest.raises(PipeLostError, match="after the request was sent, and alpha, beta"):
        await task


async def test_a_lost_request_that_finds_too_many_exchanges_has_an_unknown_outcome(
    pipes: Pipes, handler: Events, way: Way
) -> None:
    task = await lost_once(pipes, handler, way)
    full = await pipes.join(handler, limits=Limits(max_exchanges=1))
    blocking = asyncio.create_task(full.calling.call(Request(verb="post", noun="wait", timeout_ms=10_000)))
    await entered(handler)
    way.open(full)
    with pytest.raises(PipeLostError, match="after the request was sent"):
        await task
    blocking.cancel()


async def test_a_lost_request_that_the_next_peer_does_not_know_may_have_been_executed(
    pipes: Pipes, handler: Events, way: Way
) -> None:
    task = await lost_once(pipes, handler, way)
    way.open(await pipes.join(object()))
    with pytest.raises(NoHandlerError) as caught:
        await task
    assert caught.value.executed == "unknown"
