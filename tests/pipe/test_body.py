"""A body as its reader sees it."""

import asyncio

import pytest

from restpipe.exceptions import BodyTooLargeError, PipeLostError
from restpipe.pipe import Body

pytestmark = pytest.mark.usefixtures("leak_free")


def body(first: bytes = b"", *, more: bool = True, length: int | None = None) -> tuple[Body, list[int]]:
    """Make a body, and the list of what is told to be consumed."""
    consumed: list[int] = []
    return Body(first, more=more, length=length, consumed=consumed.append), consumed


async def pieces_of(read: Body) -> list[bytes]:
    return [piece async for piece in read]


async def test_pieces_come_in_order_and_as_they_arrived() -> None:
    read, _ = body(b"one")
    read.feed(b"two", more=True)
    read.feed(b"three", more=False)
    assert await pieces_of(read) == [b"one", b"two", b"three"]
    assert await pieces_of(read) == []


async def test_a_reader_waits_for_what_comes() -> None:
    read, _ = body()
    reading = asyncio.ensure_future(pieces_of(read))
    for piece, more in ((b"one", True), (b"two", True), (b"", False)):
        await asyncio.sleep(0)
        assert not reading.done()
        read.feed(piece, more=more)
    assert await reading == [b"one", b"two"]


async def test_bytes_are_consumed_when_they_are_taken_and_not_before() -> None:
    read, consumed = body(b"1234")
    read.feed(b"567", more=False)
    assert consumed == []
    assert await anext(read) == b"1234"
    assert consumed == [4]
    assert await anext(read) == b"567"
    assert consumed == [4, 3]


async def test_what_has_arrived_is_taken_at_once_up_to_enough() -> None:
    read, consumed = body(b"1234")
    for piece in (b"56", b"789", b"0"):
        read.feed(piece, more=True)
    assert await read.read_some(5) == b"123456"
    assert consumed == [4, 2]
    assert await read.read_some(100) == b"7890"
    reading = asyncio.ensure_future(read.read_some(100))
    await asyncio.sleep(0)
    assert not reading.done()
    read.feed(b"x", more=False)
    assert await reading == b"x"
    assert await read.read_some(100) == b""


async def test_an_empty_body_is_complete_and_has_no_pieces() -> None:
    read, _ = body(more=False)
    assert read.complete
    assert read.length == 0
    assert await pieces_of(read) == []
    assert await read.read(0) == b""


async def test_a_body_is_read_whole_up_to_the_limit() -> None:
    read, _ = body(b"abc")
    reading = asyncio.ensure_future(read.read(6))
    await asyncio.sleep(0)
    read.feed(b"def", more=False)
    assert await reading == b"abcdef"


async def test_a_body_is_not_read_beyond_the_limit() -> None:
    read, _ = body(b"abc")
    reading = asyncio.ensure_future(read.read(5))
    await asyncio.sleep(0)
    read.feed(b"def", more=True)
    with pytest.raises(BodyTooLargeError, match="the body has more bytes than the 5 that are held whole"):
        await reading


async def test_a_body_that_came_with_its_head_is_held_to_the_limit() -> None:
    read, _ = body(b"abcdef", more=False)
    with pytest.raises(BodyTooLargeError, match="has 6 bytes, more than the 5 that are held"):
        await read.read(5)


async def test_a_body_that_is_announced_too_long_is_refused_before_it_is_read() -> None:
    read, consumed = body(b"abc", length=7)
    with pytest.raises(BodyTooLargeError, match="has 7 bytes, more than the 6 that are held"):
        await read.read(6)
    assert consumed == []


async def test_a_body_that_arrived_while_nobody_read_is_held_to_the_limit() -> None:
    read, _ = body(b"abc")
    read.feed(b"def", more=False)
    with pytest.raises(BodyTooLargeError):
        await read.read(5)


async def test_a_broken_body_gives_what_arrived_and_then_the_error() -> None:
    read, _ = body(b"one")
    read.feed(b"two", more=True)
    read.fail(PipeLostError("lost"))
    read.fail(PipeLostError("lost again"))
    assert [await anext(read), await anext(read)] == [b"one", b"two"]
    for _ in range(2):
        with pytest.raises(PipeLostError, match=r"^lost$"):
            await anext(read)


async def test_a_reader_that_waits_sees_the_body_break() -> None:
    read, _ = body()
    reading = asyncio.ensure_future(read.read(100))
    await asyncio.sleep(0)
    read.fail(PipeLostError("lost"))
    with pytest.raises(PipeLostError):
        await reading


async def test_a_complete_body_cannot_break() -> None:
    read, _ = body(b"all", more=False)
    read.fail(PipeLostError("lost"))
    assert await pieces_of(read) == [b"all"]


async def test_a_cancelled_reader_loses_nothing() -> None:
    read, _ = body()
    reading = asyncio.ensure_future(anext(read))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    read.feed(b"kept", more=False)
    assert await pieces_of(read) == [b"kept"]
