"""What every carrier does, whichever side made the call."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from carriers import End, Identities, grpc_ends, memory_ends

from restpipe.protocol.limits import FIRST_FRAME_BYTES, Limits
from restpipe.transport.carrier import Carrier, CarrierLostError

pytestmark = pytest.mark.usefixtures("leak_free")

# More than any carrier buffers.
PLENTY = 4 * Limits().max_window
# No carrier takes a frame that nobody reads for this long, in seconds.
LONG = 0.3


@dataclass(frozen=True)
class Pair:
    """Two carriers that are joined."""

    here: End
    there: End


@pytest.fixture(params=["memory", "grpc"])
async def ends(request: pytest.FixtureRequest, identities: Identities) -> AsyncIterator[tuple[End, End]]:
    joined = memory_ends() if request.param == "memory" else grpc_ends(identities)
    async with asyncio.timeout(20), joined as pair:
        yield pair


@pytest.fixture(params=["dialling", "accepting"])
def pair(request: pytest.FixtureRequest, ends: tuple[End, End]) -> Pair:
    return Pair(*ends) if request.param == "dialling" else Pair(*reversed(ends))


async def write_all(carrier: Carrier, frames: list[bytes]) -> None:
    for frame in frames:
        await carrier.write(frame)


async def read_all(carrier: Carrier) -> list[bytes]:
    frames = []
    while (frame := await carrier.read()) is not None:
        frames.append(frame)
    return frames


async def writes_fail(carrier: Carrier) -> None:
    """Write until it fails: what is still on its way from the other side is not known here at once."""
    with contextlib.suppress(CarrierLostError):
        while True:
            await carrier.write(b"lost")
            await asyncio.sleep(0)


async def stalled_write(carrier: Carrier) -> asyncio.Task[None]:
    """Write until a write waits; return the task that waits."""
    frame = bytes(Limits().frame_bytes)
    for _ in range(PLENTY // len(frame)):
        write = asyncio.ensure_future(carrier.write(frame))
        _, waiting = await asyncio.wait({write}, timeout=LONG)
        if waiting:
            return write
        await write
    raise AssertionError(f"{PLENTY} bytes were taken that nobody read")


async def read_past(write: asyncio.Task[None], pair: Pair) -> None:
    """Read until a write that waits is done, and what is written after it is here."""

    async def follow() -> None:
        await write
        await pair.here.carrier.write(b"after it")

    following = asyncio.create_task(follow())
    while (frame := await pair.there.carrier.read()) != b"after it":
        assert frame is not None
    await following


async def test_frames_arrive_whole_and_in_order(pair: Pair) -> None:
    frames = [bytes([n % 256]) * size for n, size in enumerate([1, 0, 16 * 1024, 3, 200_000, 0, 7] * 5)]
    writing = asyncio.create_task(write_all(pair.here.carrier, frames))
    assert [await pair.there.carrier.read() for _ in frames] == frames
    await writing


async def test_the_largest_frame_that_is_accepted_before_any_hello_arrives(pair: Pair) -> None:
    frame = bytes(range(256)) * (FIRST_FRAME_BYTES // 256)
    writing = asyncio.create_task(pair.here.carrier.write(frame))
    assert await pair.there.carrier.read() == frame
    await writing


async def test_both_directions_work_at_once(pair: Pair) -> None:
    frames = [bytes(32 * 1024)] * 100
    writing = [asyncio.create_task(write_all(end.carrier, frames)) for end in (pair.here, pair.there)]
    reading = [asyncio.create_task(_read_count(end.carrier, len(frames))) for end in (pair.here, pair.there)]
    assert await asyncio.gather(*reading) == [frames, frames]
    await asyncio.gather(*writing)


async def _read_count(carrier: Carrier, count: int) -> list[bytes | None]:
    return [await carrier.read() for _ in range(count)]


async def test_a_write_waits_for_a_reader(pair: Pair) -> None:
    write = await stalled_write(pair.here.carrier)
    await read_past(write, pair)


async def test_a_writer_that_waits_does_not_stop_the_other_direction(pair: Pair) -> None:
    write = await stalled_write(pair.here.carrier)
    for _ in range(20):
        await pair.there.carrier.write(b"past it")
        assert await pair.here.carrier.read() == b"past it"
    assert not write.done()
    await read_past(write, pair)


async def test_the_end_is_seen_after_everything_that_was_written(pair: Pair) -> None:
    frames = [b"one", b"two", bytes(100_000)]
    await write_all(pair.here.carrier, frames)
    closing = asyncio.ensure_future(pair.here.close())
    assert await read_all(pair.there.carrier) == frames
    assert await pair.there.carrier.read() is None
    await pair.there.close()
    await closing


async def test_writing_to_a_carrier_that_the_other_side_closed_fails(pair: Pair) -> None:
    closing = asyncio.ensure_future(pair.there.close())
    assert await pair.here.carrier.read() is None
    await closing
    await writes_fail(pair.here.carrier)


async def test_a_write_that_waits_ends_when_the_other_side_closes(pair: Pair) -> None:
    write = await stalled_write(pair.here.carrier)
    await pair.there.close()
    await asyncio.wait({write})  # gRPC does not always tell that it was in vain; the next one does
    assert write.exception() is None or isinstance(write.exception(), CarrierLostError)
    assert await pair.here.carrier.read() is None
    await writes_fail(pair.here.carrier)


async def test_a_closed_carrier_reads_nothing_and_takes_nothing(ends: tuple[End, End]) -> None:
    dialling, accepting = ends
    await asyncio.gather(dialling.close(), accepting.close())
    assert await dialling.carrier.read() is None
    with pytest.raises(CarrierLostError):
        await dialling.carrier.write(b"late")


async def test_closing_ends_a_read_and_a_write_that_wait(ends: tuple[End, End]) -> None:
    dialling, _ = ends
    read = asyncio.ensure_future(dialling.carrier.read())
    write = await stalled_write(dialling.carrier)
    await dialling.close()
    assert await read is None
    with pytest.raises(CarrierLostError):
        await write


async def test_closing_twice_is_closing(pair: Pair) -> None:
    await asyncio.gather(pair.here.close(), pair.here.close())
    await pair.here.close()
    assert await pair.there.carrier.read() is None


async def test_a_cancelled_read_is_cancelled_and_the_carrier_can_be_closed(pair: Pair) -> None:
    read = asyncio.ensure_future(pair.here.carrier.read())
    await pair.here.carrier.write(b"by now it waits")
    assert await pair.there.carrier.read() == b"by now it waits"
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    closing = asyncio.ensure_future(pair.here.close())
    assert await pair.there.carrier.read() is None
    await closing


async def test_each_end_knows_the_other(pair: Pair) -> None:
    assert {pair.here.carrier.peer.address, pair.there.carrier.peer.address} == {"127.0.0.1"}
