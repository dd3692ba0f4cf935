"""A handler knows what it serves and for whom, and can call its caller back meanwhile."""

import asyncio
import datetime
import enum
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest
from joined import CLIENT, PATIENCE, Joined, joined
from pydantic import BaseModel

from restpipe.exceptions import (
    BadAnswerError,
    BadArgumentsError,
    BadResultError,
    DeadlineError,
    EventError,
    HandlerError,
    NoHandlerError,
)
from restpipe.handlers.base import ClientEventHandler, Reply, ServerEventHandler
from restpipe.handlers.context import EventContext, PeerContext, Result, read_result
from restpipe.handlers.payload import JSON


class Colour(enum.Enum):
    RED = "red"


class Size(enum.Enum):
    SMALL = 1


class Model(BaseModel):
    name: str


class Caller(ClientEventHandler):
    """The handler of the node that calls, which is called back."""

    async def get_cat(self, ctx: EventContext, post_data: Any, x: str, y: str = "") -> dict[str, str]:
        return {"caller": ctx.caller, "cat": x + y}

    def get_cat_sync(self, ctx: EventContext, post_data: Any, x: str, y: str = "") -> dict[str, str]:
        return {"caller": ctx.caller, "cat": x + y}

    async def post_echo(self, ctx: EventContext, post_data: Any) -> Reply:
        mime_type, data = post_data
        return Reply(
            data, mime_type=mime_type or None, code=7, status=201, headers={"X-Sent": ctx.headers.get("x-sent", "")}
        )

    async def get_depth(self, ctx: EventContext, post_data: Any, depth: int) -> int:
        return (await ctx.call("get", "depth", depth - 1)).data + 1 if depth else 0

    def get_depth_sync(self, ctx: EventContext, post_data: Any, depth: int) -> int:
        return int(ctx.call_sync("get", "depth_sync", depth - 1).data) + 1 if depth else 0

    async def get_typed(
        self,
        ctx: EventContext,
        post_data: Any,
        a: int | None = None,
        b: bool | None = None,
        c: datetime.datetime | None = None,
        d: uuid.UUID | None = None,
        e: Colour | None = None,
        f: Size | None = None,
        g: list[str] | None = None,
        h: Model | None = None,
        i: dict[str, int] | None = None,
        j: float | None = None,
        k: Literal["x", 2] | None = None,
        m: str | None = None,
    ) -> str:
        return repr([a, b, c, d, e, f, g, h, i, j, k, m])

    async def get_remaining(self, ctx: EventContext, post_data: Any) -> float:
        return ctx.remaining

    async def get_malformed(self, ctx: EventContext, post_data: Any) -> tuple[str, int, bytes]:
        return JSON, 0, b"{"

    async def get_large(self, ctx: EventContext, post_data: Any) -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 1000

    async def get_broken(self, ctx: EventContext, post_data: Any) -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("broken")

    async def get_failing(self, ctx: EventContext, post_data: Any) -> None:
        raise KeyError("a")

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def get_hanging(self, ctx: EventContext, post_data: Any) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


class Serving(ServerEventHandler):
    """The handler that serves; its methods call back."""

    def __init__(self) -> None:
        self.seen: EventContext | None = None

    async def post_see(self, ctx: EventContext, post_data: Any, **anything: str) -> None:
        self.seen = ctx

    async def get_back(self, ctx: EventContext, post_data: Any, noun: str, *arguments: str) -> Any:
        return (await ctx.call("get", noun, *arguments)).data

    def get_back_sync(self, ctx: EventContext, post_data: Any, noun: str, *arguments: str) -> Any:
        return ctx.call_sync("get", noun, *arguments).data

    async def get_depth(self, ctx: EventContext, post_data: Any, depth: int) -> int:
        return (await ctx.call("get", "depth", depth - 1)).data + 1 if depth else 0

    def get_depth_sync(self, ctx: EventContext, post_data: Any, depth: int) -> int:
        return int(ctx.call_sync("get", "depth_sync", depth - 1).data) + 1 if depth else 0

    async def get_mistaken(self, ctx: EventContext, post_data: Any) -> Any:
        return ctx.call_sync("get", "cat", "x").data

    async def get_stream(self, ctx: EventContext, post_data: Any) -> AsyncIterator[str]:
        for x in "abc":
            yield (await ctx.call("get", "cat", x)).data["cat"]

    def get_stream_sync(self, ctx: EventContext, post_data: Any) -> Iterator[str]:
        for x in "abc":
            yield ctx.call_sync("get", "cat/sync", x).data["cat"]


async def context_of(nodes: Joined, handler: Serving, *arguments: str, **options: Any) -> EventContext:
    """Return the context of an event that was served."""
    await nodes.call("post", "see", *arguments, **options)
    assert handler.seen is not None
    return handler.seen


def peer_context(nodes: Joined, *, timeout: float = PATIENCE, max_body: int = 1 << 20) -> PeerContext:
    """Return the context that a hook of the serving node has."""
    return PeerContext(nodes.serving, asyncio.get_running_loop(), timeout, max_body)


# What it knows


async def test_an_event_knows_its_caller_and_its_request() -> None:
    handler = Serving()
    async with joined(handler) as nodes:
        ctx = await context_of(
            nodes,
            handler,
            query=[("a", "1"), ("b", ""), ("c", "ü")],
            headers=[("x-a", "1"), ("x-b", "2"), ("x-a", "3")],
            content_type="text/plain; a=b",
            body=b"x",
            timeout=5.0,
        )
        assert (ctx.verb, ctx.noun) == ("post", "see")
        assert ctx.peer == CLIENT
        assert (ctx.caller, ctx.peer.address, ctx.peer.certificate) == ("client", "192.0.2.1", b"a certificate")
        assert ctx.headers == {"x-a": "1, 3", "x-b": "2", "content-type": "text/plain; a=b"}
        assert ctx.query == [("a", "1"), ("b", ""), ("c", "ü")]
        assert 0 < ctx.remaining <= 5.0
        assert ctx.exchange_id == 1
        assert (await context_of(nodes, handler)).exchange_id == 3
        assert (await context_of(nodes, handler)).headers == {}


async def test_the_logger_of_an_event_says_which_it_is(caplog: pytest.LogCaptureFixture) -> None:
    handler = Serving()
    async with joined(handler) as nodes:
        ctx = await context_of(nodes, handler)
        ctx.log.error("of the event")
        peer_context(nodes).log.error("of the peer")
    of_event, of_peer = caplog.records
    assert (of_event.name, of_event.levelno) == ("restpipe.handler", logging.ERROR)
    assert (vars(of_event)["peer"], vars(of_event)["exchange"], vars(of_event)["event"]) == ("client", 1, "post see")
    assert vars(of_peer)["peer"] == "client"


# Calling back


async def test_a_hook_calls_the_peer_that_connected() -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes:
        result = await peer_context(nodes).call("GET", "/cat/", "hello ", y="world")
        assert result.data == {"caller": "server", "cat": "hello world"}
        assert (result.mime_type, result.return_code, result.status, result.headers) == (JSON, 0, 200, {})


@pytest.mark.parametrize("serving", ["back", "back/sync"])
@pytest.mark.parametrize("called", ["cat", "cat/sync"])
async def test_a_handler_calls_back_while_it_serves(serving: str, called: str) -> None:
    async with joined(Serving(), calling_handler=Caller(), threads=1) as nodes, asyncio.timeout(PATIENCE):
        answer = await nodes.get(serving, called, "hello ", "world")
        assert answer.data == {"caller": "server", "cat": "hello world"}


async def test_handlers_call_each_other_back_and_forth() -> None:
    async with joined(Serving(), calling_handler=Caller(), threads=1) as nodes, asyncio.timeout(PATIENCE):
        assert (await nodes.get("depth", "50")).data == 50
        assert (await nodes.get("depth_sync", "1")).data == 1  # two nodes, a thread each


async def test_plain_handlers_call_each_other_as_deep_as_there_are_threads() -> None:
    async with joined(Serving(), calling_handler=Caller(), threads=5) as nodes, asyncio.timeout(PATIENCE):
        assert (await nodes.get("depth_sync", "9")).data == 9
        # An end, though not the wanted one.
        with pytest.raises(EventError, match=r"all 5 handler threads are busy|within 0\.\d+ s"):
            await nodes.get("depth_sync", "10", timeout=0.6)
        assert (await nodes.get("depth", "2")).data == 2


async def test_many_handlers_call_back_at_once() -> None:
    async with joined(Serving(), calling_handler=Caller(), threads=2) as nodes, asyncio.timeout(PATIENCE):
        for noun in ("back", "back/sync"):
            answers = await asyncio.gather(*(nodes.get(noun, "cat", str(number)) for number in range(100)))
            assert [answer.data["cat"] for answer in answers] == [str(number) for number in range(100)]


@pytest.mark.parametrize("noun", ["stream", "stream/sync"])
async def test_a_generator_calls_back_between_its_pieces(noun: str) -> None:
    async with joined(Serving(), calling_handler=Caller(), threads=1) as nodes, asyncio.timeout(PATIENCE):
        assert (await nodes.get(noun)).body == b"abc"


async def test_call_sync_in_the_event_loop_is_refused_instead_of_blocking_it() -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes, asyncio.timeout(PATIENCE):
        with pytest.raises(HandlerError, match=r"await ctx.call") as failed:
            await nodes.get("mistaken")
        assert failed.value.exception_class == "RuntimeError"


async def test_arguments_arrive_as_what_they_were() -> None:
    when, which = datetime.datetime(2024, 1, 2, 3, 4, 5), uuid.UUID(int=1)
    values = [-1, True, when, which, Colour.RED, Size.SMALL, ["a", "b,c"], Model(name="ü"), {"a": 1}, 1.5, 2, "null"]
    async with joined(Serving(), calling_handler=Caller()) as nodes:
        ctx = peer_context(nodes)
        assert (await ctx.call("get", "typed", *values)).data == repr(values)
        by_name = dict(zip("abcdefghijkm", values, strict=True))
        assert (await ctx.call("get", "typed", **by_name)).data == repr(values)  # type: ignore[arg-type]


async def test_a_keyword_argument_that_is_none_is_left_out() -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes:
        result = await peer_context(nodes).call("get", "typed", a=None, m=None)
        assert result.data == repr([None] * 12)


@pytest.mark.parametrize(
    ("data", "mime_type", "returned", "as_type"),
    [
        ({"a": [1]}, None, {"a": [1]}, JSON),
        ("text", None, "text", JSON),
        (b"\xff", None, b"\xff", "application/octet-stream"),
        ("grün", "text/plain", "grün".encode(), "text/plain"),
        (b"x" * 100_000, "image/png", b"x" * 100_000, "image/png"),
        (None, None, "", JSON),  # the caller echoes the two empty texts
        (Model(name="Ada"), None, {"name": "Ada"}, JSON),
    ],
)
async def test_a_body_is_sent_and_returned(data: Any, mime_type: str | None, returned: object, as_type: str) -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes:
        result = await peer_context(nodes).call(
            "post", "echo", data=data, mime_type=mime_type, headers={"X-Sent": "yes"}
        )
    assert result == Result(returned, as_type, 7, 201, {"x-sent": "yes"})


async def test_what_cannot_be_sent_is_not() -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes:
        with pytest.raises(BadResultError):
            await peer_context(nodes).call("post", "echo", data=object())
        assert nodes.serving.in_flight == 0


# What can fail


@pytest.mark.parametrize(
    ("noun", "error", "said"),
    [
        ("none", NoHandlerError, "get_none"),
        ("cat", BadArgumentsError, "'x'"),
        ("failing", HandlerError, "'a'"),
        ("malformed", BadAnswerError, "line 1 column 1"),
        ("large", BadAnswerError, "20000"),
        ("broken", BadAnswerError, "broken"),
    ],
)
async def test_a_call_that_fails_says_how(noun: str, error: type[EventError], said: str) -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes:
        with pytest.raises(EventError, match=said) as failed:
            await peer_context(nodes, max_body=20_000).call("get", noun)
        assert type(failed.value) is error
        assert (await peer_context(nodes).call("get", "cat", "x")).status == 200
        await nodes.idle()


@pytest.mark.parametrize("noun", ["back", "back/sync"])
async def test_what_a_call_back_raises_is_the_handlers_to_handle(noun: str) -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes:
        with pytest.raises(HandlerError, match="get_none") as failed:
            await nodes.get(noun, "none")
        assert (failed.value.exception_class, failed.value.status) == ("NoHandlerError", 500)


async def test_a_call_back_has_the_time_that_remains() -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes:
        assert 0 < (await nodes.get("back", "remaining", timeout=3.0)).data <= 3.0
        ctx = peer_context(nodes, timeout=5.0)
        assert 3.0 < (await ctx.call("get", "remaining")).data <= 5.0
        assert 0 < (await ctx.call("get", "remaining", timeout=2.0)).data <= 2.0
        assert (await ctx.call("get", "remaining", timeout=float("inf"))).data > 1e6


async def test_a_call_back_ends_with_its_timeout() -> None:
    caller = Caller()
    async with joined(Serving(), calling_handler=caller) as nodes, asyncio.timeout(PATIENCE):
        with pytest.raises(DeadlineError):
            await peer_context(nodes).call("get", "hanging", timeout=0.05)
        await caller.cancelled.wait()


async def test_a_call_back_is_cancelled_with_the_handler_that_made_it() -> None:
    caller = Caller()
    async with joined(Serving(), calling_handler=caller) as nodes, asyncio.timeout(PATIENCE):
        call = asyncio.create_task(nodes.get("back", "hanging"))
        await caller.begun.wait()
        call.cancel()
        await caller.cancelled.wait()
        await nodes.idle()


async def test_call_sync_works_in_any_thread() -> None:
    async with joined(Serving(), calling_handler=Caller()) as nodes, asyncio.timeout(PATIENCE):
        ctx = peer_context(nodes)
        results: list[Result] = []
        thread = threading.Thread(target=lambda: results.append(ctx.call_sync("get", "cat", "x", y="y", timeout=5.0)))
        thread.start()
        await asyncio.to_thread(thread.join, PATIENCE)
        assert results[0].data["cat"] == "xy"


async def test_an_answer_that_is_not_read_to_its_end_is_closed() -> None:
    async with joined(Caller()) as nodes, asyncio.timeout(PATIENCE):
        with pytest.raises(BadAnswerError, match="more bytes than the 10"):
            await read_result(await nodes.begin("get", "large"), 10)
        await nodes.idle()
        assert nodes.serving.in_flight == 0
