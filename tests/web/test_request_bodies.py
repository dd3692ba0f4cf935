"""The body of an HTTP request passes as it arrives, and its beginning is held for as long as it is short."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from restpipe.exceptions import BadRequestError
from restpipe.web.callers import CallerGone
from restpipe.web.request_bodies import HELD_BODY, Upload, read_whole

GONE = {"type": "http.disconnect"}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


class Arriving:
    """What arrives of a request."""

    def __init__(self, *messages: MutableMapping[str, Any]) -> None:
        self._messages: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.asked = 0
        self.asked_twice = asyncio.Event()
        for message in messages:
            self._messages.put_nowait(message)

    async def __call__(self) -> MutableMapping[str, Any]:
        self.asked += 1
        if self.asked == 2:
            self.asked_twice.set()
        return await self._messages.get()


async def pieces_of(upload: Upload) -> list[bytes]:
    return [piece async for piece in upload]


async def test_nothing_is_asked_for_before_somebody_reads() -> None:
    arriving = Arriving(part(b"one", more=False))
    upload = Upload(arriving)
    aiter(upload)
    assert arriving.asked == 0
    assert await pieces_of(upload) == [b"one"]
    assert arriving.asked == 1


async def test_pieces_pass_as_they_arrive_and_empty_ones_do_not() -> None:
    upload = Upload(Arriving(part(b""), part(b"one"), part(b""), part(b"two"), part(b"", more=False)))
    assert await anext(upload) == b"one"
    assert not upload.complete
    assert await pieces_of(upload) == [b"one", b"two"]
    assert upload.complete


async def test_a_body_without_a_piece_is_at_its_end() -> None:
    assert await pieces_of(Upload(Arriving(part(b"", more=False)))) == []


async def test_a_new_reader_begins_at_the_beginning_and_asks_for_the_rest() -> None:
    arriving = Arriving(part(b"one"), part(b"two"), part(b"three", more=False))
    upload = Upload(arriving)
    assert [await anext(upload), await anext(upload)] == [b"one", b"two"]
    assert await pieces_of(upload) == await pieces_of(upload) == [b"one", b"two", b"three"]
    assert upload.repeatable
    assert arriving.asked == 3


async def test_a_reader_that_is_cancelled_while_it_waits_loses_nothing() -> None:
    arriving = Arriving(part(b"one"))
    upload = Upload(arriving)
    reading = asyncio.create_task(pieces_of(upload))
    await arriving.asked_twice.wait()
    reading.cancel()
    await asyncio.wait({reading})
    arriving._messages.put_nowait(part(b"two", more=False))
    assert await pieces_of(upload) == [b"one", b"two"]


@pytest.mark.parametrize(("size", "repeatable"), [(HELD_BODY, True), (HELD_BODY + 1, False)])
async def test_what_is_long_is_not_held(size: int, *, repeatable: bool) -> None:
    upload = Upload(Arriving(part(b"x"), part(bytes(size - 1)), part(b"", more=False)))
    assert [len(piece) async for piece in upload] == [1, size - 1]
    assert upload.repeatable == repeatable
    assert bool(upload._held) == repeatable


async def test_a_caller_that_hangs_up_breaks_its_body() -> None:
    upload = Upload(Arriving(part(b"one"), GONE))
    assert await anext(upload) == b"one"
    with pytest.raises(BadRequestError, match="hung up before the end"):
        await anext(upload)
    assert not upload.complete


async def test_a_small_body_is_read_whole_or_not_at_all() -> None:
    assert await read_whole(Arriving(part(b"one", more=False))) == b"one"
    assert await read_whole(Arriving(part(b"one"), part(b""), part(b"two", more=False))) == b"onetwo"
    with pytest.raises(CallerGone):
        await read_whole(Arriving(part(b"one"), GONE))
