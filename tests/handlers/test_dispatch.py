"""What a handler does becomes the answer, and whatever it does harms nobody else."""

import asyncio
import contextlib
import contextvars
import datetime
import io
import json
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any

import pytest
from joined import PATIENCE, Figures, Joined, Whole, joined
from pydantic import BaseModel, field_serializer

from restpipe.exceptions import (
    BadAnswerError,
    BadArgumentsError,
    BadBodyError,
    BadResultError,
    BodyTooLargeError,
    DeadlineError,
    EventError,
    HandlerError,
    NoHandlerError,
    PeerRefusedError,
    PipeLostError,
    WrongVerbError,
)
from restpipe.handlers.base import Reply, ServerEventHandler
from restpipe.handlers.context import EventContext
from restpipe.pipe.live import LiveExchanges
from restpipe.protocol.limits import Limits
from restpipe.stats import Timing
from restpipe_pb.v1.pipe_pb2 import Goaway

BOTH_WAYS = pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])

Function = Callable[[], Any]


class Given:
    """A handler that returns, or raises, what the test says."""

    def __init__(self, function: Function) -> None:
        self._function = function

    async def get_async(self, ctx: EventContext, post_data: Any) -> Any:
        return self._function()

    def get_sync(self, ctx: EventContext, post_data: Any) -> Any:
        return self._function()

    async def get_neighbour(self, ctx: EventContext, post_data: Any) -> str:
        return "unaffected"


async def answer_of(function: Function, *, asynchronous: bool = True, verb: str = "get", **options: Any) -> Whole:
    """Return the answer of a handler that returns what `function` does."""
    async with joined(Given(function), **options) as nodes:
        return await nodes.call(verb, "async" if asynchronous else "sync")


async def failure_of(function: Function, *, asynchronous: bool = True, **options: Any) -> EventError:
    """Return the failure of a handler, whose pipe and neighbours it leaves alone."""
    async with joined(Given(function), **options) as nodes:
        with pytest.raises(EventError) as failed:
            await nodes.get("async" if asynchronous else "sync")
        assert (await nodes.get("neighbour")).data == "unaffected"
    return failed.value


# Finding the method


class Verbs(ServerEventHandler):
    async def get_time_utc(self, ctx: EventContext, post_data: Any) -> str:
        return f"{ctx.verb} {ctx.noun}"

    async def post_time(self, ctx: EventContext, post_data: Any) -> str:
        return "posted"

    async def put_time(self, ctx: EventContext, post_data: Any) -> str:
        return "put"

    async def delete_time(self, ctx: EventContext, post_data: Any) -> str:
        return "deleted"

    async def patch_time(self, ctx: EventContext, post_data: Any) -> str:
        return "patched"

    def start_hook(self, ctx: Any) -> None:
        raise AssertionError

    async def _get_private(self, ctx: EventContext, post_data: Any) -> None:
        raise AssertionError


async def test_each_verb_is_served_by_its_method() -> None:
    async with joined(Verbs()) as nodes:
        assert (await nodes.get("time/utc")).data == "get time/utc"
        assert [(await nodes.call(verb, "time")).data for verb in ("post", "put", "delete", "patch")] == [
            "posted",
            "put",
            "deleted",
            "patched",
        ]


@pytest.mark.parametrize("noun", ["time", "__init__", "start_hook", "_private", "x" * 10_000, "tіme/utc"])  # noqa: RUF001
async def test_what_is_no_event_is_not_found(noun: str) -> None:
    async with joined(Verbs()) as nodes:
        with pytest.raises(NoHandlerError) as refused:
            await nodes.get(noun)
        assert refused.value.status == (405 if noun == "time" else 404)
        assert (await nodes.get("time/utc")).status == 200


async def test_the_verbs_that_serve_a_noun_are_told_to_who_uses_another() -> None:
    async with joined(Verbs()) as nodes:
        with pytest.raises(WrongVerbError) as refused:
            await nodes.get("time")
    assert refused.value.allow == ("post", "put", "delete", "patch")


class Heads:
    async def get_text(self, ctx: EventContext, post_data: Any) -> Any:
        return Reply("grün", mime_type="text/plain", code=3, status=203, headers={"X-A": "b"})

    async def get_nothing(self, ctx: EventContext, post_data: Any) -> None:
        return None

    async def head_own(self, ctx: EventContext, post_data: Any) -> Any:
        return Reply(headers={"x-own": "yes"})

    async def get_own(self, ctx: EventContext, post_data: Any) -> Any:
        raise AssertionError

    def get_stream(self, ctx: EventContext, post_data: Any) -> Iterator[str]:
        yield "one"
        raise AssertionError

    async def post_text(self, ctx: EventContext, post_data: Any) -> None:
        raise AssertionError


async def test_head_is_answered_like_get_with_its_length_and_without_its_body() -> None:
    async with joined(Heads()) as nodes:
        got, head = await nodes.get("text"), await nodes.call("head", "text")
    assert got.body == "grün".encode()
    assert head == got._replace(body=b"", length=5)
    assert (head.status, head.code, head.headers) == (203, 3, {"x-a": "b"})


async def test_head_is_answered_by_its_own_method_where_there_is_one() -> None:
    async with joined(Heads()) as nodes:
        head = await nodes.call("head", "own")
        assert (head.headers, head.length, head.body) == ({"x-own": "yes"}, None, b"")
        assert (await nodes.call("head", "nothing")).body == b""


async def test_head_of_a_stream_ends_with_its_first_piece() -> None:
    async with joined(Heads()) as nodes:
        head = await nodes.call("head", "stream")
        assert (head.body, head.length, head.mime_type) == (b"", None, "application/octet-stream")


# What it is called with


class Echo:
    async def post_async(self, ctx: EventContext, post_data: Any, x: int = 0, **others: str) -> Any:
        mime_type, data = post_data
        return {"type": mime_type, "data": data if isinstance(data, str | dict) else list(data), "x": x, **others}

    def post_sync(self, ctx: EventContext, post_data: Any, x: int = 0, **others: str) -> Any:
        mime_type, data = post_data
        return {"type": mime_type, "data": data if isinstance(data, str | dict) else list(data), "x": x, **others}

    async def post_length(self, ctx: EventContext, post_data: Any) -> int:
        return len(post_data[1])


@BOTH_WAYS
async def test_a_method_is_given_the_body_and_the_arguments(*, asynchronous: bool) -> None:
    noun = "async" if asynchronous else "sync"
    async with joined(Echo()) as nodes:
        assert (await nodes.call("post", noun)).data == {"type": "", "data": "", "x": 0}
        given = await nodes.call(
            "post", noun, "5", query=[("a", "b")], content_type="application/json; charset=utf-8", body=b'{"a": 1}'
        )
        assert given.data == {"type": "application/json", "data": {"a": 1}, "x": 5, "a": "b"}
        given = await nodes.call("post", noun, content_type="image/png", body=b"\0\xff")
        assert given.data == {"type": "image/png", "data": [0, 255], "x": 0}


async def test_a_large_body_is_given_whole() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 5_000

    async with joined(Echo()) as nodes:
        assert (await nodes.call("post", "length", body=b"x" * 500_000)).data == 500_000
        assert (await nodes.call("post", "length", pieces=pieces())).data == 500_000


async def test_a_body_over_the_limit_is_refused_by_the_limit() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    async with joined(Echo(), max_body=100_000) as nodes:
        assert (await nodes.call("post", "length", body=b"x" * 100_000)).data == 100_000
        for options in ({"body": b"x" * 100_001}, {"pieces": endless()}):
            with pytest.raises(BodyTooLargeError, match="100000"):
                await nodes.call("post", "length", **options)
        assert (await nodes.call("post", "length", body=b"x")).data == 1


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"query": [("x", "one")]}, BadArgumentsError, "argument 'x'"),
        ({"query": [("ctx", "1")]}, BadArgumentsError, "argument 'ctx'"),
        ({"content_type": "application/json", "body": b"{"}, BadBodyError, "line 1 column 1"),
    ],
)
async def test_what_does_not_fit_is_refused_and_the_method_not_called(
    options: dict[str, Any], error: type[EventError], said: str
) -> None:
    figures = Figures()
    async with joined(Echo(), stats=figures) as nodes:
        with pytest.raises(error, match=said) as refused:
            await nodes.call("post", "async", **options)
    assert refused.value.executed == "no"
    assert not figures.counts["message.received.handle.post_async.tick"]


# What it returns


class Model(BaseModel):
    name: str


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ({"a": 1}, (200, 0, "application/json", {}, b'{"a": 1}')),
        ("text", (200, 0, "application/json", {}, b'"text"')),
        (0, (200, 0, "application/json", {}, b"0")),
        ([], (200, 0, "application/json", {}, b"[]")),
        (None, (200, 0, "", {}, b"")),
        (b"\xff", (200, 0, "application/octet-stream", {}, b"\xff")),
        (b"", (200, 0, "application/octet-stream", {}, b"")),
        (Model(name="Ada"), (200, 0, "application/json", {}, b'{"name": "Ada"}')),
        (Point(1), (200, 0, "application/json", {}, b'{"x": 1}')),
        (datetime.date(2024, 1, 2), (200, 0, "application/json", {}, b'"2024-01-02"')),
        ({uuid.UUID(int=1)}, (200, 0, "application/json", {}, b'["00000000-0000-0000-0000-000000000001"]')),
        (("text/plain", 0, "grün"), (200, 0, "text/plain; charset=utf-8", {}, "grün".encode())),
        (("image/png", 7, b"\xff"), (200, 7, "image/png", {}, b"\xff")),
        (("application/json", -1, {"a": 1}), (200, -1, "application/json", {}, b'{"a": 1}')),
        (("", 2, [1]), (200, 2, "application/json", {}, b"[1]")),
        (("text/plain", 4, None), (200, 4, "text/plain", {}, b"")),
        (("a", True, "b"), (200, 0, "application/json", {}, b'["a", true, "b"]')),
        (("a", "b", "c"), (200, 0, "application/json", {}, b'["a", "b", "c"]')),
        ((1, 2, 3), (200, 0, "application/json", {}, b"[1, 2, 3]")),
        (["a", 1, "c"], (200, 0, "application/json", {}, b'["a", 1, "c"]')),
        (("a", 1), (200, 0, "application/json", {}, b'["a", 1]')),
        (Reply({"a": 1}), (200, 0, "application/json", {}, b'{"a": 1}')),
        (Reply(status=204), (204, 0, "", {}, b"")),
        (
            Reply("<p>", mime_type="text/html", code=9, status=599, headers={"X-Who": "me, \tå", "etag": '"1"'}),
            (599, 9, "text/html; charset=utf-8", {"x-who": "me, \tå", "etag": '"1"'}, b"<p>"),
        ),
    ],
    ids=repr,
)
@BOTH_WAYS
async def test_every_form_of_a_result_is_an_answer(
    result: object, answer: tuple[Any, ...], *, asynchronous: bool
) -> None:
    assert await answer_of(lambda: result, asynchronous=asynchronous) == (*answer, None)


async def test_a_large_result_arrives_whole() -> None:
    assert (await answer_of(lambda: b"x" * 3_000_000)).body == b"x" * 3_000_000


async def test_a_coroutine_that_a_plain_method_returns_is_awaited() -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return "later"

    assert (await answer_of(later, asynchronous=False)).data == "later"


class Touchy(BaseModel):
    name: str = ""

    @field_serializer("name")
    def refuse(self, name: str) -> str:
        raise KeyError(name)


@pytest.mark.parametrize(
    "result",
    [
        object(),
        {"a": float("nan")},
        "\ud800",
        ("text/plain", 0, {"a": 1}),
        ("text/plain", 0, "\ud800"),
        ("text/plain\r\nset-cookie: a=b", 0, b""),
        ("text/plain", 2**31, b""),
        Reply(b"", mime_type="text/plain\nx: y"),
        Reply(mime_type="text/\u2028plain"),
        Reply(status=99),
        Reply(status=199),
        Reply(status=600),
        Reply(status="200"),  # type: ignore[arg-type]
        Reply(code=2**40),
        Reply(code="0"),  # type: ignore[arg-type]
        Reply("text", status=204),
        Reply(b"text", status=304),
        Reply(headers={"x": "x" * 2_000_000}),
    ],
    ids=lambda result: repr(result)[:40].partition(" at 0x")[0],  # the same in every run
)
@BOTH_WAYS
async def test_what_cannot_be_sent_is_an_unusable_result(
    result: object, caplog: pytest.LogCaptureFixture, *, asynchronous: bool
) -> None:
    failed = await failure_of(lambda: result, asynchronous=asynchronous)
    assert type(failed) is BadResultError
    assert (failed.status, failed.return_code, failed.executed) == (500, 251, "yes")
    assert "Given.get_" in caplog.text


async def test_a_stream_of_a_status_without_a_body_is_an_unusable_result() -> None:
    assert type(await failure_of(lambda: Reply(iter([b"text"]), status=204))) is BadResultError
    assert (await answer_of(lambda: Reply(iter([]), status=204))).status == 204


async def test_what_raises_while_it_is_encoded_is_the_handlers_fault() -> None:
    failed = await failure_of(Touchy)
    assert type(failed) in (HandlerError, BadResultError)


HEADERS: list[Mapping[Any, Any]] = [
    {"x-a": "b\r\nset-cookie: c=d"},
    {"x-a": "b\n"},
    {"x-a": "b\0"},
    {"x-a": "b\x7f"},
    {"x-a": "\u2028"},
    {"x-a": "\u0100"},
    {"x-a": "\ud800"},
    {"x-a": 1},
    {"x-a": None},
    {"x-a": b"b"},
    {"x-a: b\r\nc": "d"},
    {"x a": "b"},
    {"": "b"},
    {"x-ä": "b"},
    {":status": "200"},
    {1: "b"},
    {"Content-Length": "5"},
    {"content-type": "text/html"},
    {"Transfer-Encoding": "chunked"},
    {"connection": "close"},
    {"upgrade": "h2c"},
    {"X-Event-Return-Code": "0"},
    {"X-Event-Attempts": "2"},
]


@pytest.mark.parametrize("headers", HEADERS, ids=ascii)
@pytest.mark.parametrize("data", [None, b"whole", "stream"])
async def test_no_header_of_a_handler_breaks_the_answer_apart(headers: Mapping[str, str], data: object) -> None:
    failed = await failure_of(lambda: Reply(iter([b"piece"]) if data == "stream" else data, headers=headers))
    assert type(failed) is BadResultError


# What it raises


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ValueError


def recurse() -> None:
    recurse()


def raises(error: BaseException) -> Function:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (ValueError("broken"), "ValueError", "broken"),
        (KeyError("a"), "KeyError", "'a'"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (GeneratorExit("a"), "GeneratorExit", "a"),
        (asyncio.CancelledError("its own"), "CancelledError", "its own"),
        (StopIteration(1), "RuntimeError", "coroutine raised StopIteration"),
        (StopAsyncIteration(1), "StopAsyncIteration", "1"),
        (TimeoutError(), "TimeoutError", ""),
        (ExceptionGroup("both", [ValueError(), KeyError()]), "ExceptionGroup", "both (2 sub-exceptions)"),
        (MemoryError(), "MemoryError", ""),
        (BadArgumentsError("of another node"), "BadArgumentsError", "of another node"),
        (PipeLostError("to another node"), "PipeLostError", "to another node"),
        (Unspeakable(), "Unspeakable", "the text of the exception cannot be made"),
    ],
    ids=repr,
)
@BOTH_WAYS
async def test_whatever_a_handler_raises_is_told_and_harms_nobody(
    error: BaseException, name: str, message: str, caplog: pytest.LogCaptureFixture, *, asynchronous: bool
) -> None:
    failed = await failure_of(raises(error), asynchronous=asynchronous)
    assert type(failed) is HandlerError
    assert (failed.status, failed.return_code, failed.executed) == (500, 251, "yes")
    assert (failed.exception_class, str(failed)) == (name, message)
    assert failed.traceback.startswith("Traceback (most recent call last)") or name == "ExceptionGroup"
    assert "raise error" in failed.traceback
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in logged] == [
        f"Given.get_{'async' if asynchronous else 'sync'} failed, called by client"
    ]


@BOTH_WAYS
async def test_endless_recursion_is_told(*, asynchronous: bool) -> None:
    failed = await failure_of(recurse, asynchronous=asynchronous)
    assert failed.exception_class == "RecursionError"
    assert "in recurse" in failed.traceback


async def test_text_that_is_no_utf_8_is_told() -> None:
    failed = await failure_of(raises(ValueError("caf\udce9")))
    assert type(failed) is HandlerError
    assert str(failed).startswith("caf")


@BOTH_WAYS
async def test_no_traceback_is_told_where_that_is_turned_off(*, asynchronous: bool) -> None:
    failed = await failure_of(raises(ValueError("broken")), asynchronous=asynchronous, send_tracebacks=False)
    assert (failed.exception_class, str(failed), failed.traceback) == ("ValueError", "broken", "")


# Time


class Waiting:
    """A handler whose methods wait to be released, and note how they end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.begun = asyncio.Event()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.release = threading.Event()

    async def get_async(self, ctx: EventContext, post_data: Any) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            self.ended.set_result(type(error).__name__)
            raise

    async def get_stubborn(self, ctx: EventContext, post_data: Any) -> str:
        self.begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        self.ended.set_result("returned")
        return "too late"

    async def get_converting(self, ctx: EventContext, post_data: Any) -> str:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set_result("raised")
            raise ValueError("while it was cancelled")

    def get_sync(self, ctx: EventContext, post_data: Any) -> str:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.release.wait(PATIENCE)
        self._loop.call_soon_threadsafe(self.ended.set_result, "returned")
        return threading.current_thread().name

    async def get_neighbour(self, ctx: EventContext, post_data: Any) -> str:
        return "unaffected"

    def get_neighbour_sync(self, ctx: EventContext, post_data: Any) -> str:
        return "unaffected"


@pytest.mark.parametrize(
    ("noun", "ending"), [("async", "CancelledError"), ("stubborn", "returned"), ("converting", "raised")]
)
async def test_a_handler_is_cancelled_when_its_caller_goes_away(noun: str, ending: str) -> None:
    handler = Waiting()
    async with joined(handler) as nodes, asyncio.timeout(PATIENCE):
        call = asyncio.create_task(nodes.get(noun))
        await handler.begun.wait()
        call.cancel()
        assert await handler.ended == ending
        await nodes.idle()
        assert (await nodes.get("neighbour")).data == "unaffected"
        assert nodes.serving.in_flight == 0


@pytest.mark.parametrize("noun", ["async", "stubborn", "sync"])
async def test_a_handler_that_outlives_the_deadline_is_given_up(noun: str) -> None:
    handler = Waiting()
    async with joined(handler) as nodes, asyncio.timeout(PATIENCE):
        call = asyncio.create_task(nodes.get(noun, timeout=0.3))
        await handler.begun.wait()
        with pytest.raises(DeadlineError):
            await call
        await nodes.idle()
        assert (await nodes.get("neighbour")).data == "unaffected"
        handler.release.set()
        await handler.ended


async def test_a_handler_is_cancelled_when_the_pipe_ends() -> None:
    handler = Waiting()
    async with joined(handler) as nodes, asyncio.timeout(PATIENCE):
        call = asyncio.create_task(nodes.get("async"))
        await handler.begun.wait()
        nodes.calling.close(Goaway.SHUTDOWN, "the end")
        with pytest.raises(PipeLostError):
            await call
        assert await handler.ended == "CancelledError"
        await nodes.idle()


class Counting(Waiting):
    called = 0

    def get_counted(self, ctx: EventContext, post_data: Any) -> None:
        self.called += 1


async def test_a_plain_handler_whose_caller_went_away_before_it_began_is_not_called() -> None:
    handler = Counting()
    async with joined(handler, threads=1) as nodes, asyncio.timeout(PATIENCE):
        blocking = asyncio.create_task(nodes.get("sync"))
        await handler.begun.wait()
        counted = asyncio.create_task(nodes.get("counted"))
        while nodes.serving.in_flight < 2:  # noqa: ASYNC110 - nobody tells that it is there
            await asyncio.sleep(0)
        counted.cancel()
        while nodes.serving.in_flight > 1:  # noqa: ASYNC110 - it has yet to learn of that, and tells nobody
            await asyncio.sleep(0)
        handler.release.set()
        await blocking
        assert (await nodes.get("neighbour_sync")).data == "unaffected"
        assert handler.called == 0


async def test_a_plain_handler_that_gets_no_thread_in_time_is_not_called_and_its_caller_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Counting()
    async with joined(handler, threads=1) as nodes, asyncio.timeout(PATIENCE):
        blocking = asyncio.create_task(nodes.get("sync"))
        await handler.begun.wait()
        for _ in range(20):
            with pytest.raises(PeerRefusedError, match=r"^all 1 handler threads are busy, and 0 calls") as refused:
                await nodes.get("counted", timeout=0.05)
            assert (refused.value.status, refused.value.executed, refused.value.retryable) == (503, "no", True)
        assert (await nodes.get("neighbour")).data == "unaffected"
        handler.release.set()
        await blocking
        assert (await nodes.get("neighbour_sync")).data == "unaffected"
        assert handler.called == 0
    assert "counted" not in caplog.text


async def test_who_gets_no_thread_at_all_is_told_whether_the_handler_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with joined(Given(lambda: iter([b"piece"]))) as nodes, asyncio.timeout(PATIENCE):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(PeerRefusedError, match="no handler thread could be started") as refused:
                await nodes.get("sync")
            with pytest.raises(HandlerError, match="no handler thread could be started") as failed:
                await nodes.get("async")
            assert (refused.value.executed, failed.value.executed) == ("no", "yes")
            assert (await nodes.get("neighbour")).data == "unaffected"
        assert (await nodes.get("sync")).body == b"piece"


async def test_that_a_node_has_too_much_to_do_is_not_held_against_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    def blame(_: LiveExchanges) -> None:
        raise AssertionError

    handler = Counting()
    async with joined(handler, threads=1) as nodes, asyncio.timeout(PATIENCE):
        blocking = asyncio.create_task(nodes.get("sync"))
        await handler.begun.wait()
        with monkeypatch.context() as patch:
            patch.setattr(LiveExchanges, "refused", blame)
            with pytest.raises(PeerRefusedError):
                await nodes.get("counted", timeout=0.05)
        handler.release.set()
        await blocking


async def test_blocked_threads_are_bounded_and_hold_up_no_other_handler_and_no_heartbeat() -> None:
    handler = Waiting()
    limits = Limits(heartbeat_interval=0.02, heartbeat_timeout=0.2)
    async with joined(handler, threads=2, limits=limits) as nodes, asyncio.timeout(PATIENCE):
        blocked = [asyncio.create_task(nodes.get("sync")) for _ in range(4)]
        await handler.begun.wait()
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * limits.heartbeat_timeout
        while loop.time() < until:
            assert (await nodes.get("neighbour")).data == "unaffected"
        assert nodes.threads.busy == 2
        assert nodes.calling.round_trip is not None
        handler.ended = asyncio.get_running_loop().create_future()
        handler.get_sync = None  # type: ignore[method-assign, assignment]
        for call in blocked[1:]:
            call.cancel()
        handler.release.set()
        assert (await blocked[0]).data.startswith("handler-")
        assert (await nodes.get("neighbour")).data == "unaffected"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


class Contexts:
    async def get_async(self, ctx: EventContext, post_data: Any) -> str:
        return self._seen()

    def get_sync(self, ctx: EventContext, post_data: Any) -> str:
        return self._seen()

    def _seen(self) -> str:
        seen = variable.get("nothing")
        variable.set("of another event")
        return seen


async def test_context_variables_do_not_leak_from_one_event_to_another() -> None:
    async with joined(Contexts()) as nodes:
        assert [(await nodes.get(noun)).data for noun in ("async", "sync", "async", "sync")] == ["nothing"] * 4


# Streams


class Streams:
    """A handler whose streams can be watched: each piece is made when the test says."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.steps = asyncio.Semaphore(0)
        self.thread_steps = threading.Semaphore(0)
        self.made = asyncio.Event()
        self.closed: asyncio.Future[str] = self._loop.create_future()

    async def get_async(self, ctx: EventContext, post_data: Any) -> AsyncIterator[bytes]:
        try:
            for number in range(3):
                await self.steps.acquire()
                self.made.set()
                yield b"piece %d," % number
        finally:
            self.closed.set_result("closed")

    def get_sync(self, ctx: EventContext, post_data: Any) -> Iterator[str]:
        try:
            for number in range(3):
                assert self.thread_steps.acquire(timeout=PATIENCE)
                self._loop.call_soon_threadsafe(self.made.set)
                yield f"piece {number},"
        finally:
            self._loop.call_soon_threadsafe(self.closed.set_result, "closed")

    async def get_kept(self, ctx: EventContext, post_data: Any) -> Iterator[str]:
        self.kept = self.get_sync(ctx, post_data)  # so that nothing but `close` ends it
        return self.kept

    async def get_neighbour(self, ctx: EventContext, post_data: Any) -> str:
        return "unaffected"

    def get_neighbour_sync(self, ctx: EventContext, post_data: Any) -> str:
        return "unaffected"

    def step(self) -> None:
        """Let one piece more be made."""
        self.steps.release()
        self.thread_steps.release()


@BOTH_WAYS
async def test_the_first_piece_is_seen_before_the_last_is_made(*, asynchronous: bool) -> None:
    handler = Streams()
    async with joined(handler) as nodes, asyncio.timeout(PATIENCE):
        handler.step()
        answer = await nodes.begin("get", "async" if asynchronous else "sync")
        assert (answer.response.status, answer.response.content_type) == (200, "application/octet-stream")
        assert await anext(answer.body) == b"piece 0,"
        assert not handler.closed.done()
        handler.step()
        assert await anext(answer.body) == b"piece 1,"
        handler.step()
        assert await answer.body.read(100) == b"piece 2,"
        assert await handler.closed == "closed"


@BOTH_WAYS
async def test_a_generator_is_closed_when_its_caller_goes_away_between_pieces(*, asynchronous: bool) -> None:
    handler = Streams()
    async with joined(handler) as nodes, asyncio.timeout(PATIENCE):
        handler.step()
        answer = await nodes.begin("get", "async" if asynchronous else "sync")
        assert await anext(answer.body) == b"piece 0,"
        answer.close()
        await nodes.idle()
        handler.step()  # a plain generator may be in its step, and is closed after it
        assert await handler.closed == "closed"
        assert (await nodes.get("neighbour")).data == "unaffected"


@pytest.mark.parametrize("threads", [1, 2])
async def test_a_plain_generator_whose_caller_goes_away_in_the_midst_of_a_step_is_closed_after_it(
    threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Streams()
    async with joined(handler, threads=threads) as nodes, asyncio.timeout(PATIENCE):
        call = asyncio.create_task(nodes.get("kept"))
        while not nodes.threads.busy:  # noqa: ASYNC110 - of a thread that waits nothing can be awaited
            await asyncio.sleep(0)
        call.cancel()
        await nodes.idle()  # which does not wait for the thread
        if threads > 1:  # nor does another thread
            assert (await nodes.get("neighbour/sync")).data == "unaffected"
        assert not handler.closed.done()
        handler.step()
        assert await handler.closed == "closed"
        assert (await nodes.get("neighbour/sync")).data == "unaffected"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@BOTH_WAYS
async def test_a_generator_whose_reader_is_slow_waits_and_is_closed_when_the_reader_goes_away(
    *, asynchronous: bool
) -> None:
    made = 0
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Endless:
        def get_sync(self, ctx: EventContext, post_data: Any) -> Iterator[bytes]:
            nonlocal made
            try:
                while True:
                    made += 1
                    yield b"x" * 10_000
            finally:
                loop.call_soon_threadsafe(closed.set)

        async def get_async(self, ctx: EventContext, post_data: Any) -> AsyncIterator[bytes]:
            for piece in self.get_sync(ctx, post_data):
                yield piece
            raise AssertionError

    async with joined(Endless()) as nodes, asyncio.timeout(PATIENCE):
        answer = await nodes.begin("get", "async" if asynchronous else "sync")
        for _ in range(200):
            with pytest.raises(NoHandlerError):
                await nodes.get("nothing")
        assert made < 50
        answer.close()
        await nodes.idle()
        await closed.wait()


async def test_the_steps_of_a_plain_generator_share_one_context() -> None:
    class Setting:
        def get_set(self, ctx: EventContext, post_data: Any) -> Iterator[str]:
            token = variable.set("kept")
            yield variable.get()
            yield variable.get()
            variable.reset(token)
            yield variable.get("reset")

    async with joined(Setting()) as nodes:
        assert (await nodes.get("set")).body == b"keptkeptreset"


def sync_pieces(*pieces: Any) -> Iterator[Any]:
    for piece in pieces:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


async def async_pieces(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


KINDS = pytest.mark.parametrize("made_of", [sync_pieces, async_pieces])


@KINDS
@BOTH_WAYS
async def test_a_generator_may_be_the_data_of_any_form_of_a_result(
    made_of: Callable[..., Any], *, asynchronous: bool
) -> None:
    def pieces() -> Any:
        return made_of(b"one ", "zwö ", bytearray(b"three "), memoryview(b"four"))

    body = "one zwö three four".encode()
    bare = await answer_of(pieces, asynchronous=asynchronous)
    assert bare == (200, 0, "application/octet-stream", {}, body, None)
    as_tuple = await answer_of(lambda: ("text/plain", 3, pieces()), asynchronous=asynchronous)
    assert as_tuple == (200, 3, "text/plain", {}, body, None)
    reply = await answer_of(
        lambda: Reply(pieces(), mime_type="text/csv", status=201, headers={"x-a": "b"}), asynchronous=asynchronous
    )
    assert reply == (201, 0, "text/csv", {"x-a": "b"}, body, None)


async def test_a_body_of_nothing_handed_back_is_nothing_again() -> None:
    answer = await answer_of(lambda: ("", 7, ""))
    assert (answer.status, answer.code, answer.mime_type, answer.body) == (200, 7, "", b"")


@KINDS
async def test_empty_streams_and_pieces_are_sent(made_of: Callable[..., Any]) -> None:
    assert (await answer_of(made_of)).body == b""
    assert (await answer_of(lambda: made_of(b"", "", b"a", b""))).body == b"a"


async def test_a_large_stream_arrives_whole() -> None:
    answer = await answer_of(lambda: async_pieces(*(bytes([number]) * 100_000 for number in range(50))))
    assert answer.body == b"".join(bytes([number]) * 100_000 for number in range(50))


class Closing(io.BytesIO):
    """A file that says when it was closed."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.was_closed = threading.Event()

    def close(self) -> None:
        super().close()
        self.was_closed.set()


async def test_an_iterator_that_is_no_generator_is_a_stream_and_a_file_is_closed() -> None:
    assert (await answer_of(lambda: iter(["a", b"b"]))).body == b"ab"
    file = Closing(b"one\ntwo\n")
    assert (await answer_of(lambda: ("text/plain", 0, file))).body == b"one\ntwo\n"
    assert await asyncio.to_thread(file.was_closed.wait, PATIENCE)


@KINDS
@pytest.mark.parametrize(
    "error",
    [
        ValueError("broken"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("own"),
        RecursionError(),
    ],
    ids=repr,
)
async def test_what_a_generator_raises_before_its_first_piece_is_told(
    made_of: Callable[..., Any], error: BaseException
) -> None:
    failed = await failure_of(lambda: made_of(error))
    assert type(failed) is HandlerError
    assert (failed.status, failed.exception_class, str(failed)) == (500, type(error).__name__, str(error))
    assert "raise piece" in failed.traceback


@KINDS
@pytest.mark.parametrize(
    "error",
    [ValueError("broken"), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError("own")],
    ids=repr,
)
async def test_what_a_generator_raises_after_its_first_piece_breaks_the_body_off(
    made_of: Callable[..., Any], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(Given(lambda: made_of(b"one", b"two", error))) as nodes:
        with pytest.raises(BadAnswerError, match=type(error).__name__):
            await nodes.get("async")
        assert (await nodes.get("neighbour")).data == "unaffected"
    assert "Given.get_async failed" in caplog.text


@KINDS
@pytest.mark.parametrize("piece", [None, 1, {"a": 1}, ["text"], "\ud800"], ids=ascii)
async def test_a_piece_that_is_neither_bytes_nor_text_is_an_unusable_result(
    made_of: Callable[..., Any], piece: object
) -> None:
    failed = await failure_of(lambda: made_of(piece))
    assert type(failed) is BadResultError
    async with joined(Given(lambda: made_of(b"one", piece))) as nodes:
        with pytest.raises(BadAnswerError, match="BadResultError"):
            await nodes.get("async")


@pytest.fixture
def told() -> "Iterator[SimpleQueue[logging.LogRecord]]":
    """What the handlers' side logs, from whichever thread, to be waited for."""
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(records)
    # As it is: preparing a record for another process would drop its exception.
    handler.prepare = lambda record: record  # type: ignore[method-assign]
    logger = logging.getLogger("restpipe.handlers")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@BOTH_WAYS
async def test_a_generator_that_raises_when_it_is_closed_harms_nobody(
    told: "SimpleQueue[logging.LogRecord]", *, asynchronous: bool
) -> None:
    def sync_stubborn() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            raise SystemExit(1)

    async def async_stubborn() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            raise SystemExit(1)

    async with joined(Given(async_stubborn if asynchronous else sync_stubborn)) as nodes:
        answer = await nodes.begin("get", "async")
        assert len(await anext(answer.body)) == 10_000
        answer.close()
        await nodes.idle()
        record = await asyncio.to_thread(told.get, timeout=PATIENCE)
        assert (await nodes.get("neighbour")).data == "unaffected"
    assert record.exc_info is not None
    assert record.exc_info[0] is SystemExit
    assert told.empty()


async def test_a_body_that_has_begun_and_breaks_is_seen_to_its_break() -> None:
    go_on = asyncio.Event()

    async def breaking() -> AsyncIterator[bytes]:
        yield b"one"
        await go_on.wait()
        raise ValueError("broken")

    async with joined(Given(breaking)) as nodes, asyncio.timeout(PATIENCE):
        answer = await nodes.begin("get", "async")
        assert answer.response.status == 200
        assert await anext(answer.body) == b"one"
        go_on.set()
        with pytest.raises(BadAnswerError, match="ValueError: broken"):
            await anext(answer.body)


# Figures


class Counted(Given):
    async def get_time_utc(self, ctx: EventContext, post_data: Any) -> int:
        return 1


async def test_events_are_counted_and_timed_by_method() -> None:
    figures = Figures()
    async with joined(Counted(raises(ValueError())), stats=figures) as nodes:
        await nodes.get("time/utc")
        await nodes.get("time_utc")
        await nodes.call("head", "time/utc")
        with pytest.raises(HandlerError):
            await nodes.get("sync")
        with pytest.raises(NoHandlerError):
            await nodes.get("x" * 1000)
    counted = {name: n for name, n in figures.counts.items() if ".handle." in name}
    assert counted == {
        "message.received.handle.get_time_utc.tick": 3,
        "message.received.handle.get_sync.tick": 1,
    }
    timed = {name: n for name, n in figures.timings.items() if ".handle." in name}
    assert timed == {
        "message.received.handle.get_time_utc.timing": 3,
        "message.received.handle.get_sync.timing": 1,
        Timing.HANDLE: 4,
    }


async def test_many_events_at_once_get_each_their_own_answer() -> None:
    class Numbered:
        async def get_async(self, ctx: EventContext, post_data: Any, number: int) -> int:
            await asyncio.sleep(0)
            return number

        def get_sync(self, ctx: EventContext, post_data: Any, number: int) -> int:
            return number

        def get_stream(self, ctx: EventContext, post_data: Any, number: str) -> Iterator[str]:
            yield from number

    async def check(nodes: Joined, number: int) -> None:
        noun = ("async", "sync", "stream")[number % 3]
        assert json.loads((await nodes.get(noun, str(number))).body) == number

    async with joined(Numbered()) as nodes, asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(check(nodes, number))
