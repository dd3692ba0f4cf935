"""The body of an HTTP request passes as it arrives, and its beginning is held for as long as it is short."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from restpipe.exceptions import BadRequestError
from restpipe.nodes.held_bodies import HELD_BODY
from restpipe.web import request_bodies
from restpipe.web.callers import CallerGone, Receive, Unasked
from restpipe.web.request_bodies import AHEAD, Room, Upload, read_whole

PATIENCE = 10.0
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


def upload_of(receive: Receive, room: int = 1 << 30, unasked: Unasked | None = None) -> Upload:
    return Upload(receive, Room(room), unasked)


async def pieces_of(upload: Upload) -> list[bytes]:
    return [piece async for piece in upload]


async def test_nothing_is_asked_for_before_somebody_reads() -> None:
    arriving = Arriving(part(b"one", more=False))
    upload = upload_of(arriving)
    aiter(upload)
    assert arriving.asked == 0
    assert await pieces_of(upload) == [b"one"]
    assert arriving.asked == 1


async def test_pieces_pass_as_they_arrive_and_empty_ones_do_not() -> None:
    upload = upload_of(Arriving(part(b""), part(b"one"), part(b""), part(b"two"), part(b"", more=False)))
    assert await anext(upload) == b"one"
    assert not upload.complete
    assert await pieces_of(upload) == [b"one", b"two"]
    assert upload.complete


async def test_a_body_without_a_piece_is_at_its_end() -> None:
    assert await pieces_of(upload_of(Arriving(part(b"", more=False)))) == []


async def test_a_new_reader_begins_at_the_beginning_and_asks_for_the_rest() -> None:
    arriving = Arriving(part(b"one"), part(b"two"), part(b"three", more=False))
    upload = upload_of(arriving)
    assert [await anext(upload), await anext(upload)] == [b"one", b"two"]
    assert await pieces_of(upload) == await pieces_of(upload) == [b"one", b"two", b"three"]
    assert upload.repeatable
    assert arriving.asked == 3


async def test_a_reader_that_is_cancelled_while_it_waits_loses_nothing() -> None:
    arriving = Arriving(part(b"one"))
    upload = upload_of(arriving)
    reading = asyncio.create_task(pieces_of(upload))
    await arriving.asked_twice.wait()
    reading.cancel()
    await asyncio.wait({reading})
    arriving._messages.put_nowait(part(b"two", more=False))
    assert await pieces_of(upload) == [b"one", b"two"]


@pytest.mark.parametrize(("size", "repeatable"), [(HELD_BODY, True), (HELD_BODY + 1, False)])
async def test_what_is_long_is_not_held(size: int, *, repeatable: bool) -> None:
    upload = upload_of(Arriving(part(b"x"), part(bytes(size - 1)), part(b"", more=False)))
    assert [len(piece) async for piece in upload] == [1, size - 1]
    assert upload.repeatable == repeatable
    assert bool(upload._held) == repeatable


async def test_a_caller_that_hangs_up_breaks_its_body() -> None:
    upload = upload_of(Arriving(part(b"one"), GONE))
    assert await anext(upload) == b"one"
    with pytest.raises(BadRequestError, match="hung up before the end"):
        await anext(upload)
    assert not upload.complete


# Nobody reads


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "WATCH_INTERVAL", 0.001)


async def test_a_caller_that_hangs_up_while_nobody_reads_is_found_behind_what_it_sent_before(quick: None) -> None:
    upload = upload_of(Arriving(part(b"one"), part(b"two"), part(b""), part(b"three"), GONE))
    assert await anext(upload) == b"one"
    async with asyncio.timeout(PATIENCE):
        assert await upload.watch() == GONE
    assert [await anext(upload), await anext(upload)] == [b"two", b"three"]
    with pytest.raises(BadRequestError, match="hung up before the end"):
        await anext(upload)
    assert await upload.watch() == GONE


async def test_what_was_read_ahead_is_read_in_order_and_what_follows_too(quick: None) -> None:
    arriving = Arriving(part(b"one"), part(b"two"))
    upload = upload_of(arriving)
    watching = asyncio.create_task(upload.watch())
    while arriving.asked < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    reading = asyncio.create_task(pieces_of(upload))
    arriving._messages.put_nowait(part(b"three"))
    arriving._messages.put_nowait(part(b"four", more=False))
    async with asyncio.timeout(PATIENCE):
        assert await reading == [b"one", b"two", b"three", b"four"]
    assert not watching.done()
    arriving._messages.put_nowait(GONE)
    async with asyncio.timeout(PATIENCE):
        assert await watching == GONE


@pytest.mark.parametrize("end", [part(b"", more=False), GONE], ids=["its end", "hung up"])
async def test_an_end_without_a_byte_that_the_watch_comes_to_is_seen_by_who_waits_to_read(
    quick: None, end: dict[str, Any]
) -> None:
    arriving = Arriving(part(b"one"))
    upload = upload_of(arriving)
    watching = asyncio.create_task(upload.watch())
    await arriving.asked_twice.wait()
    assert await anext(upload) == b"one"
    reading = asyncio.create_task(anext(upload, b"no more"))
    while not upload.awaited:  # noqa: ASYNC110
        await asyncio.sleep(0)
    arriving._messages.put_nowait(end)
    async with asyncio.timeout(PATIENCE):
        if end is GONE:
            with pytest.raises(BadRequestError, match="hung up before the end"):
                await reading
        else:
            assert await reading == b"no more"
            assert upload.complete
    watching.cancel()
    await asyncio.wait({watching})


async def test_a_caller_is_read_from_by_who_reads_and_not_ahead_of_it(quick: None) -> None:
    arriving = Arriving(part(b"one"))
    upload = upload_of(arriving)
    watching = asyncio.create_task(upload.watch())
    reading = asyncio.create_task(pieces_of(upload))
    await arriving.asked_twice.wait()
    assert upload.awaited is True
    await asyncio.sleep(0.02)  # many intervals of the watch
    assert arriving.asked == 2
    arriving._messages.put_nowait(GONE)
    async with asyncio.timeout(PATIENCE):
        assert await watching == GONE
    with pytest.raises(BadRequestError):
        await reading
    assert not upload.awaited


@pytest.mark.parametrize("room", [1 << 30, AHEAD // 2])
async def test_no_more_is_read_ahead_than_there_is_room_for_and_the_room_is_given_back(quick: None, room: int) -> None:
    size = 1 << 20
    arriving = Arriving(*[part(bytes(size))] * 100)
    upload = upload_of(arriving, room)
    watching = asyncio.create_task(upload.watch())
    most = min(room, AHEAD) // size
    while arriving.asked < most:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert arriving.asked == most
    assert upload._room.left == room - most * size
    assert len(await anext(upload)) == size
    while arriving.asked < most + 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait({watching})
    upload.close()
    assert upload._room.left == room


class Cycle:
    """What uvicorn knows of a request."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.disconnected = False
        self.asked = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        self.asked.set()
        await asyncio.sleep(0)
        return part(b"one")


async def test_who_expects_to_be_asked_for_the_body_is_not_asked_by_the_watch(quick: None) -> None:
    cycle = Cycle()
    watching = asyncio.create_task(upload_of(cycle.receive, unasked=cycle).watch())
    await asyncio.sleep(0.02)
    assert not watching.done()
    cycle.disconnected = True
    async with asyncio.timeout(PATIENCE):
        assert await watching == GONE
    assert not cycle.asked.is_set()


async def test_who_has_begun_with_the_body_unasked_is_asked_for_more(quick: None) -> None:
    cycle = Cycle(b"one")
    watching = asyncio.create_task(upload_of(cycle.receive, unasked=cycle).watch())
    async with asyncio.timeout(PATIENCE):
        await cycle.asked.wait()
    watching.cancel()
    await asyncio.wait({watching})


async def test_a_small_body_is_read_whole_or_not_at_all() -> None:
    assert await read_whole(Arriving(part(b"one", more=False))) == b"one"
    assert await read_whole(Arriving(part(b"one"), part(b""), part(b"two", more=False))) == b"onetwo"
    with pytest.raises(CallerGone):
        await read_whole(Arriving(part(b"one"), GONE))
