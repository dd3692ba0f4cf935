"""With an Idempotency-Key, a request is executed once, whatever becomes of its caller and its pipe."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from memory_pipes import PATIENCE, Joint, Pipes, memory_pipes

from restpipe import EventContext, Reply
from restpipe.exceptions import (
    AnswerNotKeptError,
    BadArgumentsError,
    DeadlineError,
    EventError,
    HandlerError,
    KeyReusedError,
    PeerRefusedError,
    PipeLostError,
)
from restpipe.handlers.answers import MAX_KEY, AnswerMemory
from restpipe.handlers.dispatch import Dispatcher
from restpipe.handlers.threads import HandlerThreads
from restpipe.pipe import Incoming
from restpipe.stats import NullStats
from restpipe_pb.v1.pipe_pb2 import Request

Paid = tuple[int, bytes, str | None]


class Payments:
    """Counts what it executes."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.ended = asyncio.Event()

    async def post_payment(self, ctx: EventContext, post_data: Any, amount: int = 1) -> Reply:
        self._begin("payment")
        await self.release.wait()
        return Reply(
            {"run": self.runs["payment"]}, status=201, code=7, headers={"X-Key": ctx.headers["idempotency-key"]}
        )

    async def post_refused(self, ctx: EventContext, post_data: Any) -> None:
        self._begin("refused")
        raise ValueError("no cover")

    def patch_large(self, ctx: EventContext, post_data: Any) -> bytes:
        self._begin("large")
        return bytes(2000)

    async def post_stream(self, ctx: EventContext, post_data: Any) -> AsyncIterator[bytes]:
        self._begin("stream")
        try:
            yield b"first"
            await self.release.wait()
            yield b"last"
        finally:
            self.ended.set()

    async def post_read(self, ctx: EventContext, body: AsyncIterator[bytes]) -> int:
        self._begin("read")
        return sum([len(piece) async for piece in body])

    async def post_slow(self, ctx: EventContext, post_data: Any) -> None:
        self._begin("slow")
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def put_payment(self, ctx: EventContext, post_data: Any) -> None:
        self._begin("put")

    def _begin(self, name: str) -> None:
        self.runs[name] += 1
        self.entered.set()


class Office:
    """A node that serves payments, to callers whose pipes come and go."""

    def __init__(self, pipes: Pipes) -> None:
        self.handler = Payments()
        self.threads = HandlerThreads(2)
        self._pipes = pipes
        self._dispatcher = Dispatcher(
            self.handler, threads=self.threads, max_body=1 << 20, send_tracebacks=True, stats=NullStats(),
            memory=AnswerMemory(max_bytes=1000),
        )  # fmt: skip

    async def join(self, time_left: float | None = None, then: Callable[[], None] | None = None) -> Joint:
        """Let a caller come, whose requests have so much time, and are followed by that, before they are executed."""

        async def serve(incoming: Incoming) -> None:
            if time_left is not None:
                incoming.deadline = incoming.loop.time() + time_left
            if then is not None:
                incoming.loop.call_soon(then)
            await self._dispatcher.serve(incoming)

        return await self._pipes.join(self.handler, serve=serve)

    def close(self) -> None:
        self._dispatcher.close()


@pytest.fixture
async def office(leak_free: None) -> AsyncIterator[Office]:
    async with memory_pipes() as pipes:
        office = Office(pipes)
        yield office
        office.close()


def pay(
    joint: Joint, noun: str = "payment", *, verb: str = "post", key: str = "k", **more: Any
) -> "asyncio.Task[Paid]":
    options: dict[str, Any] = {
        "timeout_ms": int(1000 * PATIENCE),
        "idempotency_key": key,
        "content_type": "text/plain",
    } | more
    return asyncio.create_task(_paid(joint, Request(verb=verb, noun=noun, **options)))


async def _paid(joint: Joint, request: Request) -> Paid:
    answer = await joint.calling.call(request)
    headers = {header.name: header.value for header in answer.response.headers}
    return answer.response.status, await answer.body.read(1 << 20), headers.get("x-key")


async def failed(task: "asyncio.Task[Paid]", kind: type[EventError]) -> str:
    with pytest.raises(kind) as raised:
        await task
    assert type(raised.value) is kind
    return str(raised.value)


async def test_a_repeat_is_answered_as_the_first_was_and_executes_nothing(office: Office) -> None:
    joint = await office.join()
    office.handler.release.set()
    first = await pay(joint)
    assert first == (201, b'{"run": 1}', "k")
    assert await pay(joint) == first
    assert await pay(joint, key="l") == (201, b'{"run": 2}', "l")


async def test_a_repeat_that_comes_while_the_first_is_executed_waits_for_it(office: Office) -> None:
    joint = await office.join()
    tasks = [pay(joint) for _ in range(3)]
    await office.handler.entered.wait()
    office.handler.release.set()
    assert await asyncio.gather(*tasks) == 3 * [(201, b'{"run": 1}', "k")]


async def test_what_is_executed_goes_on_without_its_pipe_and_the_repeat_finds_its_answer(office: Office) -> None:
    joint = await office.join()
    first = pay(joint)
    await office.handler.entered.wait()
    await joint.lose()
    await failed(first, PipeLostError)
    repeat = pay(await office.join())
    office.handler.release.set()
    assert await repeat == (201, b'{"run": 1}', "k")


async def test_what_is_executed_goes_on_where_its_caller_gives_up_and_where_the_repeat_does(office: Office) -> None:
    joint = await office.join()
    for _ in range(2):
        impatient = pay(joint)
        await office.handler.entered.wait()
        impatient.cancel()
        await asyncio.wait({impatient})
    office.handler.release.set()
    assert await pay(joint) == (201, b'{"run": 1}', "k")


@pytest.mark.parametrize(
    "other",
    [{"body": b"two"}, {"arguments": ["1"]}, {"content_type": "text/html"}, {"noun": "refused"}, {"verb": "patch"}],
)
async def test_a_key_of_another_request_is_refused(office: Office, other: dict[str, Any]) -> None:
    joint = await office.join()
    office.handler.release.set()
    await pay(joint, body=b"one")
    if other.get("verb") == "patch":
        other = {"noun": "large", "verb": "patch"}
    assert "another request" in await failed(pay(joint, **{"body": b"one"} | other), KeyReusedError)
    assert office.handler.runs == {"payment": 1}


async def test_a_failure_of_the_handler_is_remembered_like_an_answer(office: Office) -> None:
    joint = await office.join()
    for _ in range(2):
        assert await failed(pay(joint, "refused"), HandlerError) == "no cover"
    assert office.handler.runs == {"refused": 1}


async def test_a_request_that_was_not_executed_leaves_its_key_free(office: Office) -> None:
    joint = await office.join()
    office.handler.release.set()
    await failed(pay(joint, arguments=["x"]), BadArgumentsError)
    assert await pay(joint, arguments=["2"]) == (201, b'{"run": 1}', "k")


async def test_a_request_that_gets_no_thread_leaves_its_key_free(office: Office) -> None:
    joint = await office.join()
    begun, released = threading.Barrier(3), threading.Event()

    def block() -> None:
        begun.wait(PATIENCE)
        released.wait(PATIENCE)

    blocking = [asyncio.create_task(office.threads.run(block)) for _ in range(2)]
    await asyncio.to_thread(begun.wait, PATIENCE)  # a call that waits for a thread beside them may have its turn first
    await failed(pay(joint, "large", verb="patch", timeout_ms=2_000), PeerRefusedError)
    assert office.handler.runs["large"] == 0
    released.set()
    await asyncio.gather(*blocking)
    assert (await pay(joint, "large", verb="patch"))[0] == 200
    assert office.handler.runs["large"] == 1


@pytest.mark.parametrize(("verb", "noun", "size"), [("patch", "large", 2000), ("post", "stream", 9)])
async def test_an_answer_that_is_not_kept_is_said_to_be_gone_and_nothing_runs_again(
    office: Office, verb: str, noun: str, size: int
) -> None:
    joint = await office.join()
    office.handler.release.set()
    assert len((await pay(joint, noun, verb=verb))[1]) == size
    assert "executed before" in await failed(pay(joint, noun, verb=verb), AnswerNotKeptError)
    assert office.handler.runs == {noun: 1}


async def test_a_stream_ends_with_its_pipe(office: Office) -> None:
    joint = await office.join()
    answer = await joint.calling.call(Request(verb="post", noun="stream", idempotency_key="k", timeout_ms=10_000))
    assert await anext(answer.body) == b"first"
    await joint.lose()
    office.handler.release.set()
    async with asyncio.timeout(PATIENCE):
        await office.handler.ended.wait()


async def test_a_body_that_is_read_as_it_arrives_is_compared_by_its_length(office: Office) -> None:
    joint = await office.join()
    first = await pay(joint, "read", body=b"abc", body_length=3)
    assert first[1] == b"3"
    assert await pay(joint, "read", body=b"xyz", body_length=3) == first
    await failed(pay(joint, "read", body=b"abcd", body_length=4), KeyReusedError)
    assert office.handler.runs == {"read": 1}


async def test_the_deadline_ends_what_is_executed_with_and_without_its_caller(office: Office) -> None:
    for number, lost in enumerate((False, True), 1):
        joint = await office.join()
        office.handler.entered.clear()
        office.handler.ended.clear()
        first = pay(joint, "slow", key=str(number), timeout_ms=200)
        await office.handler.entered.wait()
        if lost:
            await joint.lose()
        await failed(first, PipeLostError if lost else DeadlineError)
        async with asyncio.timeout(PATIENCE):
            await office.handler.ended.wait()
        await failed(pay(await office.join(), "slow", key=str(number)), DeadlineError)
    assert office.handler.runs == {"slow": 2}


async def test_a_request_whose_time_is_over_as_it_begins_ends_like_any_other(office: Office) -> None:
    joint = await office.join(time_left=0.0)
    for _ in range(2):
        await failed(pay(joint, "slow"), DeadlineError)
    assert office.handler.runs == {"slow": 1}


async def test_a_key_means_nothing_to_a_verb_that_is_idempotent_anyhow(office: Office) -> None:
    joint = await office.join()
    for _ in range(2):
        await pay(joint, verb="put")
    assert office.handler.runs == {"put": 2}


async def test_a_node_that_stops_cancels_what_is_executed_without_a_caller(office: Office) -> None:
    joint = await office.join()
    first = pay(joint, "slow")
    await office.handler.entered.wait()
    await joint.lose()
    await failed(first, PipeLostError)
    office.close()
    async with asyncio.timeout(PATIENCE):
        await office.handler.ended.wait()


async def test_whoever_still_waits_at_a_node_that_stops_is_told_so_and_of_no_deadline(office: Office) -> None:
    joint = await office.join()
    first = pay(joint, "slow")
    await office.handler.entered.wait()
    office.close()
    assert "the node ended" in await failed(first, PipeLostError)


async def test_whoever_comes_as_a_node_stops_is_told_so_and_nothing_runs(office: Office) -> None:
    joint = await office.join(then=office.close)
    assert "the node ended" in await failed(pay(joint, "slow"), PipeLostError)
    assert not office.handler.runs


async def test_a_key_that_would_fill_the_memory_is_refused_and_nothing_runs(office: Office) -> None:
    joint = await office.join()
    assert str(MAX_KEY) in await failed(pay(joint, key="k" * (MAX_KEY + 1)), BadArgumentsError)
    assert not office.handler.runs


async def test_a_caller_has_no_more_executed_than_its_share_and_those_can_be_waited_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restpipe.handlers.once.MAX_RUNNING", 2)
    joint = await office.join()
    first, second = pay(joint, key="1"), pay(joint, key="2")
    while office.handler.runs["payment"] < 2:
        await office.handler.entered.wait()
        office.handler.entered.clear()
    await failed(pay(joint, key="3"), PeerRefusedError)
    repeat = pay(joint, key="1")
    office.handler.release.set()
    assert (await first)[:2] == (await repeat)[:2]
    await second
    assert (await pay(joint, key="3"))[0] == 201
    assert office.handler.runs["payment"] == 3
