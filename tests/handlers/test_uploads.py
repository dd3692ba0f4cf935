"""A method that asks for it reads the body as it arrives: pieces in the event loop, or a file in a thread."""

import asyncio
import csv
import functools
import io
import shutil
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from types import FunctionType, MethodType
from typing import IO, Any, BinaryIO, TextIO, cast

import pytest
import pytest_asyncio
from joined import PATIENCE, Joined, joined

from restpipe.exceptions import BadRequestError, ConfigError, DeadlineError, EventError, HandlerError, PipeLostError
from restpipe.handlers.arguments import Arguments
from restpipe.handlers.context import EventContext
from restpipe.handlers.events import EventTable

MAX_BODY = 100_000
LINES = b"a,b\n1,2\n3,4\n"


class Upload:
    """A body that is sent piece by piece, as the test says."""

    def __init__(self, *pieces: bytes | None) -> None:
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.taken = 0
        for piece in pieces:
            self.give(piece)

    def give(self, piece: bytes | Exception | None) -> None:
        """Send a piece; None ends the body, an exception breaks it."""
        self._queue.put_nowait(piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._queue.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            self.taken += 1
            yield piece


class Uploads:
    """Events that read their bodies as they arrive."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[object] = asyncio.Queue()
        self.release = threading.Event()
        self.kept: Any = None
        self._loop = asyncio.get_running_loop()

    def tell(self, what: object) -> None:
        """Tell the test, from any thread."""
        self._loop.call_soon_threadsafe(self.told.put_nowait, what)

    # In the event loop

    async def post_join(self, ctx: EventContext, body: AsyncIterator[bytes]) -> bytes:
        return b"|".join([piece async for piece in body])

    async def post_mirror(self, ctx: EventContext, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        yield b"begin "
        async for piece in body:
            yield piece

    async def post_watch(self, ctx: EventContext, body: AsyncIterator[bytes]) -> None:
        try:
            async for piece in body:
                self.tell(piece)
        except BaseException as error:
            self.tell(type(error))
            raise
        self.tell("a clean end")

    async def post_one(self, ctx: EventContext, body: AsyncIterator[bytes]) -> bytes:
        self.kept = body
        return await anext(aiter(body))

    async def post_head(self, ctx: EventContext, body: AsyncIterator[bytes]) -> Any:
        return [ctx.content_type, ctx.content_length]

    async def post_child(self, ctx: EventContext, body: AsyncIterator[bytes]) -> None:
        async def read() -> None:
            try:
                await anext(aiter(body))
            except EventError as error:
                self.tell(type(error))

        child = asyncio.create_task(read())
        try:
            await asyncio.Event().wait()
        finally:
            await child

    # In a thread

    def post_file(self, ctx: EventContext, body: BinaryIO, how: str) -> Any:
        return READINGS[how](body)

    def post_file_mirror(self, ctx: EventContext, body: IO[bytes]) -> Iterator[bytes]:
        yield b"begin "
        yield from body

    def post_file_watch(self, ctx: EventContext, body: BinaryIO) -> None:
        try:
            while piece := cast(io.BufferedReader, body).read1():
                self.tell(piece)
        except BaseException as error:
            self.tell(type(error))
            raise
        self.tell("a clean end")

    def post_file_one(self, ctx: EventContext, body: io.BufferedIOBase) -> bytes:
        with body:
            return body.read(1)

    def post_file_kept(self, ctx: EventContext, body: BinaryIO) -> None:
        self.kept = body

    def post_file_slow(self, ctx: EventContext, body: BinaryIO) -> int:
        self.release.wait(PATIENCE)
        return len(body.read())

    def post_file_mistaken(self, ctx: EventContext, body: BinaryIO) -> Any:
        async def read() -> bytes:
            return body.read()

        return read()


def into(body: BinaryIO) -> bytes:
    target = io.BytesIO()
    shutil.copyfileobj(body, target, 3)
    return target.getvalue()


def readinto(body: BinaryIO) -> list[int | bytes]:
    buffer = bytearray(5)
    size = cast(io.BufferedReader, body).readinto(buffer)
    return [size, bytes(buffer).decode()]  # type: ignore[list-item]


READINGS: dict[str, Callable[[BinaryIO], Any]] = {
    "whole": lambda body: body.read(),
    "copied": into,
    "into": readinto,
    "by size": lambda body: [body.read(size).decode() for size in (2, 3, 100, 1)],
    "by line": lambda body: [body.readline().decode(), [line.decode() for line in body]],
    "as text": lambda body: list(csv.DictReader(io.TextIOWrapper(body, encoding="utf-8", newline=""))),
    "what it is": lambda body: [body.readable(), body.writable(), body.seekable(), body.closed],
}


@pytest_asyncio.fixture
async def handler() -> Uploads:
    return Uploads()


@pytest_asyncio.fixture
async def nodes(handler: Uploads) -> AsyncIterator[Joined]:
    async with asyncio.timeout(PATIENCE), joined(handler, max_body=MAX_BODY, threads=2) as nodes:
        yield nodes


async def test_pieces_reach_the_method_as_they_are_sent(nodes: Joined, handler: Uploads) -> None:
    for noun in ("watch", "file/watch"):
        upload = Upload()
        asking = asyncio.create_task(nodes.call("post", noun, pieces=upload))
        for piece in (b"one", b"two", b"three"):
            upload.give(piece)
            assert await handler.told.get() == piece
        upload.give(None)
        assert await handler.told.get() == "a clean end"
        assert (await asking).status == 200


async def test_a_method_answers_while_it_reads(nodes: Joined) -> None:
    for noun in ("mirror", "file/mirror"):
        upload = Upload()
        answer = await nodes.begin("post", noun, pieces=upload)
        assert await anext(answer.body) == b"begin "
        for line in (b"one\n", b"two\n", b"three\n"):
            upload.give(line)
            assert await anext(answer.body) == line
        upload.give(None)
        assert await anext(answer.body, b"the end") == b"the end"


async def test_what_came_with_the_head_is_the_first_piece(nodes: Joined) -> None:
    assert (await nodes.call("post", "join", body=b"one")).body == b"one"
    assert (await nodes.call("post", "join", body=b"one", pieces=Upload(b"two", None))).body == b"one|two"


async def test_no_body_is_a_stream_that_is_at_its_end(nodes: Joined) -> None:
    assert (await nodes.call("post", "join")).body == b""
    assert (await nodes.call("post", "file", "whole")).body == b""


@pytest.mark.parametrize("noun", ["join", "file"])
async def test_a_stream_may_be_longer_than_what_is_held_whole(nodes: Joined, noun: str) -> None:
    arguments = ["whole"] if noun == "file" else []
    size = 20 * MAX_BODY
    answer = await nodes.call("post", noun, *arguments, body=bytes(size))
    assert len(answer.body.replace(b"|", b"")) == size


@pytest.mark.parametrize(
    ("how", "read"),
    [
        ("whole", LINES),
        ("copied", LINES),
        ("into", [5, "a,b\n1"]),
        ("by size", ["a,", "b\n1", ",2\n3,4\n", ""]),
        ("by line", ["a,b\n", ["1,2\n", "3,4\n"]]),
        ("as text", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ("what it is", [True, False, False, False]),
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_a_thread_reads_the_body_as_any_file(nodes: Joined, how: str, read: Any, *, split: bool) -> None:
    pieces = [LINES[i : i + 1] for i in range(len(LINES))] if split else [LINES]
    answer = await nodes.call("post", "file", how, pieces=Upload(*pieces, None))
    assert (answer.body if isinstance(read, bytes) else answer.data) == read


async def test_a_reader_that_pauses_stops_its_sender(nodes: Joined, handler: Uploads) -> None:
    upload = Upload(*[bytes(10_000)] * 1000, None)
    asking = asyncio.create_task(nodes.call("post", "file/slow", pieces=upload))
    other = await nodes.call("post", "join", pieces=Upload(b"another", None))
    assert other.body == b"another"
    assert upload.taken < 100
    handler.release.set()
    assert (await asking).data == 10_000_000
    assert upload.taken == 1000


async def test_the_context_tells_type_and_length_where_they_are_known(nodes: Joined) -> None:
    told = await nodes.call("post", "head", content_type="text/csv; header=present", body=b"1234")
    assert told.data == ["text/csv; header=present", 4]
    assert (await nodes.call("post", "head", pieces=Upload(b"1234", None))).data == ["", None]
    assert (await nodes.call("post", "head")).data == ["", 0]


# Ends that are none

# The handler's, or the caller's, which cancels.
WHICHEVER_CLOCK_RINGS = {DeadlineError, PipeLostError}


@pytest.mark.parametrize(("noun", "seen"), [("watch", asyncio.CancelledError), ("file/watch", PipeLostError)])
async def test_a_body_whose_sender_goes_away_has_no_clean_end(
    nodes: Joined, handler: Uploads, noun: str, seen: type[BaseException]
) -> None:
    asking = asyncio.create_task(nodes.call("post", noun, pieces=Upload(b"one")))
    assert await handler.told.get() == b"one"
    asking.cancel()
    assert await handler.told.get() is seen


async def test_a_body_that_breaks_has_no_clean_end(nodes: Joined, handler: Uploads) -> None:
    for noun, seen in (("watch", asyncio.CancelledError), ("file/watch", PipeLostError)):
        upload = Upload(b"one")
        asking = asyncio.create_task(nodes.call("post", noun, pieces=upload))
        assert await handler.told.get() == b"one"
        upload.give(BadRequestError("no more"))
        with pytest.raises(BadRequestError, match="no more"):
            await asking
        assert await handler.told.get() is seen


async def test_a_task_of_the_method_sees_the_break_too(nodes: Joined, handler: Uploads) -> None:
    with pytest.raises(DeadlineError):
        await nodes.call("post", "child", pieces=Upload(), timeout=0.05)
    assert await handler.told.get() in WHICHEVER_CLOCK_RINGS


async def test_a_body_that_stands_still_ends_with_the_deadline(nodes: Joined, handler: Uploads) -> None:
    for noun, seen in (("watch", {asyncio.CancelledError}), ("file/watch", WHICHEVER_CLOCK_RINGS)):
        with pytest.raises(DeadlineError):
            await nodes.call("post", noun, pieces=Upload(b"one"), timeout=0.05)
        assert await handler.told.get() == b"one"
        assert await handler.told.get() in seen


@pytest.mark.parametrize("noun", ["one", "file/one"])
async def test_a_method_need_not_read_to_the_end(nodes: Joined, noun: str) -> None:
    upload = Upload(b"1")
    assert (await nodes.call("post", noun, pieces=upload)).body == b"1"
    assert (await nodes.call("post", noun, body=b"2")).body == b"2"
    await nodes.idle()
    assert nodes.calling.in_flight == nodes.serving.in_flight == 0


async def test_a_stream_that_is_kept_beyond_the_answer_is_broken(nodes: Joined, handler: Uploads) -> None:
    await nodes.call("post", "one", pieces=Upload(b"1"))
    with pytest.raises(BadRequestError, match="before the event was answered"):
        await anext(handler.kept)
    await nodes.call("post", "file/kept", pieces=Upload(b"1"))
    with pytest.raises(BadRequestError, match="before the event was answered"):
        await asyncio.to_thread(handler.kept.read)


async def test_a_file_that_is_read_in_the_event_loop_is_refused_instead_of_blocking_it(nodes: Joined) -> None:
    with pytest.raises(HandlerError, match=r"would block the event loop: take AsyncIterator\[bytes\]") as failed:
        await nodes.call("post", "file/mistaken", pieces=Upload(b"1"))
    assert failed.value.exception_class == "RuntimeError"


# What a method may ask for


def plain(self: object, ctx: object, body: Any) -> None: ...
async def async_method(self: object, ctx: object, body: Any) -> None: ...
async def async_generator(self: object, ctx: object, body: Any) -> AsyncGenerator[bytes, None]:
    yield b""


def generator(self: object, ctx: object, body: Any) -> Iterator[bytes]:
    yield b""


def taking(function: Any, annotation: Any) -> Any:
    """Return a copy of a function that takes the body as this type."""
    copy = FunctionType(function.__code__, globals(), function.__qualname__)
    copy.__annotations__ = {"body": annotation}
    return copy


def of(function: Any) -> Arguments:
    return Arguments(MethodType(function, object()))


@pytest.mark.parametrize(
    "annotation",
    [BinaryIO, IO[bytes], IO, io.BufferedReader, io.BufferedIOBase, io.IOBase, "BinaryIO", "IO[bytes]"],
)
@pytest.mark.parametrize("function", [plain, generator])
def test_a_plain_method_may_read_a_file(function: Callable[..., Any], annotation: Any) -> None:
    assert of(taking(function, annotation)).open_body is not None


@pytest.mark.parametrize(
    "annotation", [AsyncIterator[bytes], AsyncIterable[bytes], AsyncIterator, "AsyncIterator[bytes]"]
)
@pytest.mark.parametrize("function", [async_method, async_generator])
def test_an_asynchronous_method_may_read_pieces(function: Callable[..., Any], annotation: Any) -> None:
    assert of(taking(function, annotation)).open_body is not None


def test_a_decorator_does_not_hide_that_a_method_is_asynchronous() -> None:
    inner = taking(async_method, AsyncIterator[bytes])

    @functools.wraps(inner)
    def outer(*arguments: object) -> Any:
        return inner(*arguments)

    assert of(outer).open_body is not None


@pytest.mark.parametrize(
    ("function", "annotation", "complaint"),
    [
        (async_method, BinaryIO, r"async_method would block .* plain `def`, or .* 'body' with AsyncIterator\[bytes\]"),
        (async_generator, IO[bytes], "async_generator would block"),
        (plain, AsyncIterator[bytes], "plain cannot read .* `async def`, or annotate 'body' with BinaryIO"),
        (generator, AsyncIterable[bytes], "generator cannot read"),
        (async_method, AsyncIterator[str], r"AsyncIterator\[bytes\] or as BinaryIO, not as .*AsyncIterator\[str\]"),
        (plain, IO[str], r"not as typing.IO\[str\]"),
        (plain, TextIO, "not as .*TextIO"),
        (plain, io.RawIOBase, "not as .*RawIOBase"),
        (plain, Iterator[bytes], "nothing can be converted to the type of 'body'"),
    ],
)
def test_a_stream_that_a_method_cannot_read_is_a_fault_of_the_handler(
    function: Callable[..., Any], annotation: Any, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        of(taking(function, annotation))


async def test_the_manifest_tells_which_events_stream_their_body(handler: Uploads) -> None:
    class Whole:
        async def post_whole(self, ctx: object, post_data: Any) -> None: ...

    assert all(event.streams_body for event in EventTable(handler).manifest)
    assert [event.streams_body for event in EventTable(Whole()).manifest] == [False]
