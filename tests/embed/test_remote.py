"""Calls of the other side: arguments, results, failures, bodies of any length both ways."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded import PATIENCE, Order, Serves, joined

import restpipe
from restpipe.exceptions import BadAnswerError, BadArgumentsError, DeadlineError, HandlerError

pytestmark = pytest.mark.usefixtures("leak_free")

MIB = 1 << 20


@pytest.fixture
async def pair(identity_files: Path) -> AsyncIterator[tuple[restpipe.ServerNode, restpipe.ClientNode]]:
    async with joined(identity_files, server=Serves("server"), client=Serves("client")) as nodes:
        yield nodes


@pytest.fixture
def node(pair: tuple[restpipe.ServerNode, restpipe.ClientNode]) -> restpipe.ClientNode:
    return pair[1]


async def test_arguments_and_results_are_data(node: restpipe.ClientNode) -> None:
    assert (await node.call("get", "sum", 2, y=3)).data == 5
    result = await node.call("post", "order", data={"item": "tea"})
    assert (result.data, result.return_code, result.status) == ({"item": "tea", "number": 1}, 3, 201)
    assert result.headers["x-mine"] == "1"


async def test_a_result_can_be_had_as_the_type_that_it_should_be(node: restpipe.ClientNode) -> None:
    result = await node.call("post", "order", data=Order(item="tea", number=2))
    assert result.parsed(Order) == Order(item="tea", number=2)
    with pytest.raises(BadAnswerError, match="the answer cannot be used"):
        result.parsed(list[int])


async def test_a_failure_is_raised_as_what_it_was(node: restpipe.ClientNode) -> None:
    with pytest.raises(HandlerError, match="the shelf is empty") as caught:
        await node.call("get", "boom")
    assert (caught.value.exception_class, caught.value.executed) == ("LookupError", "yes")
    with pytest.raises(BadArgumentsError, match="'x'"):
        await node.call("get", "sum", "two")


async def test_a_call_has_a_deadline_of_its_own(node: restpipe.ClientNode) -> None:
    with pytest.raises(DeadlineError):
        await node.call("get", "forever", timeout=0.05)


async def test_a_call_that_is_cancelled_cancels_the_handler(identity_files: Path) -> None:
    handler = Serves()
    async with joined(identity_files, client=handler) as (server, _):
        task = asyncio.create_task(server.client("alpha").call("get", "forever"))
        async with asyncio.timeout(PATIENCE):
            await handler.arrived.wait()
            task.cancel()
            await handler.cancelled.wait()
        await asyncio.wait({task})


async def test_an_answer_is_read_as_it_is_made(node: restpipe.ClientNode) -> None:
    async with node.stream("get", "count", 3) as stream:
        assert stream.length is None
        assert b"".join([piece async for piece in stream]) == b"0,1,2,"
    async with node.stream("get", "count", 3) as stream:
        assert await stream.read() == b"0,1,2,"


async def test_leaving_the_block_ends_the_generator_at_the_other_end(identity_files: Path) -> None:
    handler = Serves()
    async with joined(identity_files, client=handler) as (server, _):
        async with server.client("alpha").stream("get", "count", 10**9) as stream:
            assert await anext(aiter(stream))
        async with asyncio.timeout(PATIENCE):
            await handler.closed.wait()


async def test_an_answer_that_is_too_large_to_be_held_is_refused(identity_files: Path) -> None:
    async with joined(identity_files, server=Serves(), max_body_bytes=1000) as (_, client):
        with pytest.raises(BadAnswerError):
            await client.call("get", "count", 1000)
        async with client.stream("get", "count", 1000) as stream:
            with pytest.raises(BadAnswerError):
                await stream.read()


async def numbers(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(MIB)


def blocks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(MIB)


class Again:
    """What can be iterated over asynchronously, and is no iterator itself."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return numbers(3)


@pytest.mark.parametrize("body", [numbers, blocks, lambda _: Again()], ids=["asynchronous", "plain", "iterable"])
async def test_a_body_of_unknown_length_is_sent_as_it_is_made(node: restpipe.ClientNode, body: Any) -> None:
    result = await node.call("put", "size", data=body(3))
    assert result.data == {"size": 3 * MIB, "announced": None, "type": "application/octet-stream"}


async def test_a_file_is_sent_with_its_length_and_one_that_was_open_stays_so(
    node: restpipe.ClientNode, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(2 * MIB))
    result = await node.call("put", "size", data=path, mime_type="image/png")
    assert result.data == {"size": 2 * MIB, "announced": 2 * MIB, "type": "image/png"}
    with path.open("rb") as file:
        file.seek(MIB)
        assert (await node.call("put", "size", data=file)).data["announced"] == MIB
        assert file.tell() == 2 * MIB
    assert (await node.call("put", "file", data=io.BytesIO(b"12345"))).data == 5


class Changing(io.FileIO):
    """A file that has another size from the first read on."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path, "r+")
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        self.truncate(self._size)
        return super().read(size)


async def test_of_a_file_that_grows_while_it_is_sent_what_was_told_is_sent(
    node: restpipe.ClientNode, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(MIB))
    with Changing(path, 2 * MIB) as file:
        assert (await node.call("put", "size", data=file)).data["size"] == MIB


async def test_a_file_that_becomes_shorter_while_it_is_sent_is_not_taken_for_whole(
    node: restpipe.ClientNode, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(2 * MIB))
    with Changing(path, MIB) as file, pytest.raises(EOFError, match=f"{MIB} bytes are missing"):
        await node.call("put", "size", data=file)


async def test_the_length_of_what_a_file_unpacks_to_is_not_taken_from_the_file(
    node: restpipe.ClientNode, tmp_path: Path
) -> None:
    path = tmp_path / "packed.gz"
    path.write_bytes(gzip.compress(bytes(MIB)))
    with gzip.open(path) as file:
        result = await node.call("put", "size", data=file)
    assert (result.data["size"], result.data["announced"]) == (MIB, None)


async def test_a_body_goes_on_while_its_answer_is_read(node: restpipe.ClientNode) -> None:
    told = asyncio.Queue[bytes | None]()

    async def talk() -> AsyncIterator[bytes]:
        while (piece := await told.get()) is not None:
            yield piece

    async with asyncio.timeout(PATIENCE):
        told.put_nowait(b"one")
        async with node.stream("post", "echo", data=talk()) as stream:
            pieces = aiter(stream)
            assert await anext(pieces) == b"one"
            told.put_nowait(b"two")
            assert await anext(pieces) == b"two"
            told.put_nowait(None)
            assert [piece async for piece in pieces] == []


async def test_what_a_body_raises_is_raised_to_its_caller(node: restpipe.ClientNode, tmp_path: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        raise ZeroDivisionError("in the body")

    with pytest.raises(ZeroDivisionError, match="in the body"):
        await node.call("put", "size", data=breaks())
    with pytest.raises(FileNotFoundError):
        await node.call("put", "size", data=tmp_path / "none")


async def test_a_generator_that_is_a_body_is_closed_when_nobody_wants_it(node: restpipe.ClientNode) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            closed.set()

    async with node.stream("post", "echo", data=endless()) as stream:
        assert await anext(aiter(stream))
    assert closed.is_set()


async def test_calls_are_counted_where_the_node_counts(identity_files: Path) -> None:
    async with joined(identity_files, server=Serves(), metrics=True) as (_, client):
        await client.call("get", "name")
        meter = client._running().meter
        assert meter.totals.opened == 1
        assert any(key[0] == "opened" and key[2] == "name" for key in meter.durations or ())
