"""Handlers answer with files, by path or open, as HTTP has it; and every file is closed."""

import asyncio
import gzip
import io
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from joined import PATIENCE, Whole, joined

from restpipe.exceptions import BadAnswerError, HandlerError, PipeLostError
from restpipe.handlers.base import Reply
from restpipe.handlers.context import EventContext
from restpipe.handlers.file_answers import PIECE, FileAnswer, guess_type
from restpipe_pb.v1.pipe_pb2 import Goaway

TEXT = bytes(range(256)) * 4


class Given:
    """A handler that returns what the test says."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    async def get_file(self, ctx: EventContext, post_data: Any) -> Any:
        return self._make()

    async def post_file(self, ctx: EventContext, post_data: Any) -> Any:
        return self._make()


async def answer_of(make: Callable[[], Any], verb: str = "get", /, **headers: str) -> Whole:
    sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
    async with joined(Given(make)) as nodes:
        return await nodes.call(verb, "file", headers=sent)


def write(path: Path, content: bytes, mode: str = "wb") -> None:
    with path.open(mode) as file:
        file.write(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file.txt"
    write(file, TEXT)
    os.utime(file, (784111777, 784111777))
    return file


class Watched(io.BytesIO):
    """A file that tells when it is closed."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(content)
        self.closed_by = threading.Event()

    def close(self) -> None:
        super().close()
        self.closed_by.set()

    async def wait_closed(self) -> None:
        assert await asyncio.to_thread(self.closed_by.wait, PATIENCE)


# What is sent


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
@pytest.mark.parametrize("opened", [False, True], ids=["path", "open file"])
async def test_a_file_of_any_size_is_sent_with_its_length(path: Path, size: int, opened: bool) -> None:
    write(path, content := os.urandom(size))
    answer = await answer_of(lambda: path.open("rb") if opened else path)
    assert (answer.status, answer.code, answer.mime_type) == (200, 0, "text/plain")
    assert answer.body == content
    assert answer.length == size


async def test_the_length_of_a_file_is_known_before_its_end(path: Path) -> None:
    write(path, bytes(3 * PIECE))
    async with joined(Given(lambda: path)) as nodes:
        answer = await nodes.begin("get", "file")
        assert answer.body.length == 3 * PIECE
        assert not answer.body.complete
        answer.close()
        await nodes.idle()


@pytest.mark.parametrize("form", [lambda path: ("text/x", 7, path), lambda path: Reply(path, "text/x", 7)])
async def test_a_file_is_the_data_of_any_form_of_a_result(path: Path, form: Callable[[Path], Any]) -> None:
    answer = await answer_of(lambda: form(path))
    assert (answer.status, answer.code, answer.mime_type, answer.body) == (200, 7, "text/x", TEXT)


async def test_of_an_open_file_the_rest_is_sent(path: Path) -> None:
    def begun() -> Any:
        file = path.open("rb")
        assert file.read(1000) == TEXT[:1000]
        return file

    assert (await answer_of(begun)).body == TEXT[1000:]
    answer = await answer_of(begun, range="bytes=4-5")
    assert (answer.status, answer.body) == (206, TEXT[1004:1006])
    assert answer.headers["content-range"] == "bytes 4-5/24"


async def test_a_temporary_file_is_sent(path: Path) -> None:
    def made() -> Any:
        file = tempfile.NamedTemporaryFile(suffix=".json")  # noqa: SIM115 - it is closed when it is sent
        file.write(b"[1]")
        file.seek(0)
        return file

    answer = await answer_of(made)
    assert (answer.mime_type, answer.data) == ("application/json", [1])


async def test_what_a_file_unpacks_is_sent_whole_and_not_as_long_as_it_was_packed(path: Path) -> None:
    write(path, gzip.compress(bytes(PIECE + 1)))
    answer = await answer_of(lambda: gzip.GzipFile(path), range="bytes=0-1")
    assert (answer.status, answer.body, answer.length) == (200, bytes(PIECE + 1), None)
    assert "etag" not in answer.headers


async def test_a_pipe_is_sent_as_it_is_written(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    async with joined(Given(lambda: os.fdopen(reading, "rb"))) as nodes:
        os.write(writing, b"first")
        answer = await nodes.begin("get", "file")
        assert answer.body.length is None
        assert await anext(answer.body) == b"first"
        os.write(writing, b"last")
        os.close(writing)
        assert await answer.body.read(10) == b"last"
        await nodes.idle()


async def test_the_length_of_a_pipe_is_not_known_and_head_reads_nothing_of_it() -> None:
    reading, writing = os.pipe()
    answer = await answer_of(lambda: os.fdopen(reading, "rb"), "head")
    assert (answer.status, answer.length, answer.body) == (200, None, b"")
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"nobody reads")
    os.close(writing)


async def test_head_tells_what_get_would_and_sends_nothing(path: Path) -> None:
    got, head = await answer_of(lambda: path), await answer_of(lambda: path, "head")
    assert (head.status, head.mime_type, head.headers) == (got.status, got.mime_type, got.headers)
    assert (head.length, head.body) == (len(TEXT), b"")
    assert (await answer_of(lambda: path, "head", range="bytes=1-2")).length == len(TEXT)  # RFC 9110 section 14.2


@pytest.mark.parametrize(
    ("name", "mime_type"),
    [("a.txt", "text/plain"), ("a.tar.gz", "application/gzip"), ("a.svgz", "application/gzip"), ("a.Z", None),
     ("a", None), ("data:text/html,x", None), ("http://x/a.png", "image/png"), (5, None)],
)  # fmt: skip
def test_the_type_is_what_the_name_tells(name: object, mime_type: str | None) -> None:
    assert guess_type(name) == (mime_type or "application/octet-stream")


# Ranges and conditions


async def test_a_file_tells_its_validators(path: Path) -> None:
    headers = (await answer_of(lambda: path)).headers
    assert headers["last-modified"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"].strip('"')


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("bytes=1000-", 1000, 1023), ("bytes=-1", 1023, 1023), ("bytes=0-9", 0, 9)]
)
async def test_a_range_is_sent_alone(path: Path, asked: str, first: int, last: int) -> None:
    answer = await answer_of(lambda: path, range=asked)
    assert (answer.status, answer.code, answer.body) == (206, 0, TEXT[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/1024"
    assert answer.headers["etag"]


async def test_a_range_longer_than_a_piece_is_sent_to_its_end(path: Path) -> None:
    write(path, content := os.urandom(3 * PIECE))
    answer = await answer_of(lambda: path, range=f"bytes=7-{2 * PIECE}")
    assert (answer.status, answer.length, answer.body) == (206, 2 * PIECE - 6, content[7 : 2 * PIECE + 1])


async def test_several_ranges_are_answered_whole(path: Path) -> None:
    answer = await answer_of(lambda: path, range="bytes=0-1,4-5")
    assert (answer.status, answer.body) == (200, TEXT)


async def test_a_range_beyond_the_end_is_refused_with_the_length(path: Path) -> None:
    answer = await answer_of(lambda: path, range="bytes=1024-")
    assert (answer.status, answer.code, answer.mime_type) == (416, 248, "application/problem+json")
    assert answer.headers["content-range"] == "bytes */1024"
    assert answer.data["status"] == 416
    assert answer.data["instance"].removeprefix("urn:restpipe:request:")
    assert "1024 bytes" in answer.data["detail"]


async def test_a_range_of_a_file_that_has_changed_is_answered_whole(path: Path) -> None:
    etag = (await answer_of(lambda: path)).headers["etag"]
    assert (await answer_of(lambda: path, range="bytes=0-1", if_range=etag)).status == 206
    write(path, b"other")
    answer = await answer_of(lambda: path, range="bytes=0-1", if_range=etag)
    assert (answer.status, answer.body) == (200, b"other")


@pytest.mark.parametrize("verb", ["get", "head"])
async def test_a_file_that_the_caller_has_is_not_sent_again(path: Path, verb: str) -> None:
    etag = (await answer_of(lambda: path)).headers["etag"]
    answer = await answer_of(lambda: path, verb, if_none_match=etag, range="bytes=9999-")
    assert (answer.status, answer.code, answer.body, answer.mime_type) == (304, 0, b"", "")
    assert answer.length is None
    assert answer.headers["etag"] == etag


@pytest.mark.parametrize("verb", ["get", "head"])
async def test_a_file_that_is_not_the_one_asked_for_is_refused(path: Path, verb: str) -> None:
    answer = await answer_of(lambda: path, verb, if_match='"x"')
    assert (answer.status, answer.code, answer.mime_type) == (412, 248, "application/problem+json")
    assert answer.headers["etag"] != '"x"'
    assert bool(answer.body) == (verb == "get")


async def test_a_weak_etag_of_a_reply_spares_the_whole_file_and_picks_no_part_of_it(path: Path) -> None:
    def reply() -> Reply:
        return Reply(path, headers={"ETag": 'W/"v1"'})

    for same in ('W/"v1"', '"v1"'):
        assert (await answer_of(reply, if_none_match=same)).status == 304
        assert (await answer_of(reply, range="bytes=0-1", if_range=same)).status == 200
        assert (await answer_of(reply, if_match=same)).status == 412


async def test_the_date_of_a_reply_is_the_one_compared(path: Path) -> None:
    told, later = "Sat, 01 Jan 2000 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:01 GMT"  # the file is of 1994

    def reply() -> Reply:
        return Reply(path, headers={"Last-Modified": told})

    before = "Fri, 31 Dec 1999 23:59:59 GMT"
    assert (await answer_of(reply, if_modified_since=before)).status == 200
    assert (await answer_of(reply, if_unmodified_since=before)).status == 412
    assert (await answer_of(reply, if_modified_since=told)).status == 304
    assert (await answer_of(reply, if_unmodified_since=later)).status == 200
    assert (await answer_of(reply, range="bytes=0-1", if_range=told)).status == 206


async def test_the_headers_of_a_reply_stand_and_its_etag_is_the_one_compared(path: Path) -> None:
    def reply() -> Reply:
        return Reply(path, headers={"ETag": '"mine"', "Cache-Control": "no-cache"})

    answer = await answer_of(reply)
    assert (answer.headers["etag"], answer.headers["cache-control"]) == ('"mine"', "no-cache")
    answer = await answer_of(reply, if_none_match='"mine"')
    assert (answer.status, answer.headers["cache-control"]) == (304, "no-cache")


@pytest.mark.parametrize(("verb", "status"), [("post", 200), ("get", 404)])
async def test_what_is_no_plain_get_is_answered_whole(path: Path, verb: str, status: int) -> None:
    headers = {"range": "bytes=0-1", "if_match": '"x"'}
    answer = await answer_of(lambda: Reply(path, status=status), verb, **headers)
    assert (answer.status, answer.body) == (status, TEXT)
    assert "etag" not in answer.headers


# Failures


async def test_a_file_that_is_missing_is_the_error_of_its_handler(tmp_path: Path) -> None:
    for path, name in ((tmp_path / "none", "FileNotFoundError"), (tmp_path, "IsADirectoryError")):
        with pytest.raises(HandlerError) as failed:
            await answer_of(lambda path=path: path)  # type: ignore[misc]
        assert failed.value.exception_class == name


async def test_a_file_that_becomes_shorter_breaks_its_answer(path: Path) -> None:
    write(path, bytes(40 * PIECE))
    async with joined(Given(lambda: path)) as nodes:
        answer = await nodes.begin("get", "file")
        os.truncate(path, PIECE)
        with pytest.raises(BadAnswerError, match=r"shorter"):
            await answer.body.read(1 << 30)
        await nodes.idle()


async def test_a_file_that_becomes_longer_is_sent_as_long_as_it_was(path: Path) -> None:
    write(path, bytes(40 * PIECE))
    async with joined(Given(lambda: path)) as nodes:
        answer = await nodes.begin("get", "file")
        write(path, b"more", "ab")
        assert await answer.body.read(1 << 30) == bytes(40 * PIECE)


# Closing


async def test_a_file_is_closed_when_it_has_been_sent(path: Path) -> None:
    file = Watched(TEXT)
    assert (await answer_of(lambda: file)).body == TEXT
    await file.wait_closed()


@pytest.mark.parametrize("verb", ["head", "get"])
async def test_a_file_of_which_nothing_is_sent_is_closed(verb: str) -> None:
    file = Watched()
    await answer_of(lambda: file, verb)
    await file.wait_closed()


async def test_a_file_whose_head_cannot_be_sent_is_closed(path: Path) -> None:
    file = Watched(TEXT)
    with pytest.raises(HandlerError):
        await answer_of(lambda: Reply(file, status=7))
    await file.wait_closed()


async def test_a_file_is_closed_when_its_caller_goes_away() -> None:
    file = Watched(bytes(40 * PIECE))
    async with joined(Given(lambda: file)) as nodes:
        (await nodes.begin("get", "file")).close()
        await file.wait_closed()


async def test_a_file_is_closed_when_the_pipe_is_lost() -> None:
    file = Watched(bytes(40 * PIECE))
    async with joined(Given(lambda: file)) as nodes:
        answer = await nodes.begin("get", "file")
        nodes.serving.close(Goaway.SHUTDOWN, "lost")
        await file.wait_closed()
        with suppress(PipeLostError):
            await answer.body.read(1 << 30)


def test_a_file_that_was_not_begun_is_closed_too(path: Path) -> None:
    file = path.open("rb")
    FileAnswer(Reply(file), "get", {}, "").close()
    assert file.closed
    FileAnswer(Reply(path), "get", {}, "").close()
