"""The file server gives and takes the files of a directory, refuses everything else, and says why."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joined import PATIENCE, Joined, Whole, joined

from restpipe.exceptions import ConfigError, HandlerError, WrongVerbError
from restpipe.handlers import files
from restpipe.handlers.events import EventTable
from restpipe.handlers.files import MOST_LISTED, FileServer, WritableFileServer
from restpipe.handlers.leftovers import UPLOAD_PREFIX
from restpipe_pb.v1.pipe_pb2 import Goaway

PROBLEM = "application/problem+json"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"of a")
    yield root
    assert (tmp_path / "secret").read_text() == "secret"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["root", "secret"]


@pytest.fixture
async def reading(root: Path) -> AsyncIterator[Joined]:
    async with joined(FileServer(root)) as nodes:
        yield nodes
        await nodes.idle()


@pytest.fixture
async def nodes(root: Path) -> AsyncIterator[Joined]:
    async with joined(WritableFileServer(root)) as nodes:
        yield nodes
        await nodes.idle()


def refused(answer: Whole) -> tuple[int, str]:
    """Return status and class of a refusal, which has the form and the return code of one."""
    assert (answer.code, answer.mime_type) == (248, PROBLEM)
    assert answer.data["status"] == answer.status
    assert answer.data["executed"] == "yes"
    assert answer.data["instance"].removeprefix("urn:restpipe:request:")
    return answer.status, answer.data["exception"]["class"]


def read(path: Path) -> bytes:
    return path.read_bytes()


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


# Reading


async def test_a_file_is_given(reading: Joined) -> None:
    answer = await reading.get("files", "a.txt")
    assert (answer.status, answer.code, answer.mime_type, answer.body) == (200, 0, "text/plain", b"of a")
    assert answer.headers["x-content-type-options"] == "nosniff"
    part = await reading.get("files", "a.txt", headers=[("range", "bytes=1-"), ("if-range", answer.headers["etag"])])
    assert (part.status, part.body) == (206, b"f a")
    again = await reading.get("files", "a.txt", headers=[("if-none-match", answer.headers["etag"])])
    assert again.status == 304


async def test_head_of_a_file_tells_its_length(reading: Joined) -> None:
    answer = await reading.call("head", "files", "a.txt")
    assert (answer.status, answer.length, answer.body) == (200, 4, b"")


@pytest.mark.parametrize("path", [(), ("",)])
async def test_a_directory_is_listed_in_the_order_of_names(root: Path, reading: Joined, path: tuple[str, ...]) -> None:
    (root / "link").symlink_to("a.txt")
    os.mkfifo(root / "Fifo")
    os.utime(root / "a.txt", (5, 5.5))
    answer = await reading.get("files", *path)
    assert (answer.status, answer.mime_type) == (200, "application/json")
    shown = [(each["name"], each["type"], each["size"]) for each in answer.data]
    assert shown == [("Fifo", "other", None), ("a.txt", "file", 4), ("link", "link", None), ("sub", "directory", None)]
    assert answer.data[1]["mtime"] == 5.5
    assert "link" not in answer.headers


@pytest.mark.parametrize("path", [("sub",), ("sub", "")])
async def test_a_directory_below_is_listed_with_or_without_a_slash(reading: Joined, path: tuple[str, ...]) -> None:
    assert (await reading.get("files", *path)).data == []


async def test_a_long_directory_is_listed_in_parts(
    root: Path, reading: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_LISTED >= 10_000
    monkeypatch.setattr(files, "MOST_LISTED", 2)
    for name in ("a&b", "c"):
        (root / "sub" / name).touch()
    assert "link" not in (await reading.get("files", "sub")).headers
    for name in ("e", "d"):
        (root / "sub" / name).touch()
    answer = await reading.get("files", "sub")
    assert [each["name"] for each in answer.data] == ["a&b", "c"]
    assert answer.headers["link"] == '<?after=c>; rel="next"'
    answer = await reading.get("files", "sub", query=[("after", "a&b")])
    assert [each["name"] for each in answer.data] == ["c", "d"]
    answer = await reading.get("files", "sub", query=[("after", "c")])
    assert [each["name"] for each in answer.data] == ["d", "e"]
    assert "link" not in answer.headers


async def test_names_that_no_url_can_tell_and_uploads_under_way_are_not_listed(root: Path, reading: Joined) -> None:
    (root / "sub" / os.fsdecode(b"\xff")).touch()
    (root / "sub" / f"{UPLOAD_PREFIX}1").write_text("half")
    assert (await reading.get("files", "sub")).data == []
    assert refused(await reading.get("files", "sub", f"{UPLOAD_PREFIX}1"))[0] == 404


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        (["none"], 404, "FileNotFoundError"),
        (["none", "a.txt"], 404, "FileNotFoundError"),
        (["a.txt", ""], 404, "NotADirectoryError"),
        (["a.txt", "b"], 404, "NotADirectoryError"),
        (["..", "secret"], 400, "BadNameError"),
        (["../secret"], 400, "BadNameError"),
        (["/etc/passwd"], 400, "BadNameError"),
        (["", "etc", "passwd"], 400, "BadNameError"),
        (["sub", ".", "x"], 400, "BadNameError"),
        (["a\0"], 400, "BadNameError"),
        (["n" * 256], 400, "OSError"),
        (["out"], 403, "LeadsOutError"),
        (["fifo"], 403, "NoFileError"),
    ],
)
async def test_what_is_not_given_is_refused_with_the_reason(
    root: Path, reading: Joined, path: list[str], status: int, name: str
) -> None:
    (root / "out").symlink_to("../secret")
    os.mkfifo(root / "fifo")
    assert refused(await reading.get("files", *path)) == (status, name)


@pytest.mark.parametrize("name", ["page.html", "drawing.svg"])
async def test_what_a_browser_would_run_is_to_be_run_apart(root: Path, reading: Joined, name: str) -> None:
    (root / name).write_text("<script>")
    assert (await reading.get("files", name)).headers["content-security-policy"] == "sandbox"
    assert "content-security-policy" not in (await reading.get("files", "a.txt")).headers


@pytest.mark.parametrize("verb", ["put", "delete", "post", "patch"])
async def test_where_it_is_not_switched_on_nothing_can_be_changed(root: Path, reading: Joined, verb: str) -> None:
    with pytest.raises(WrongVerbError) as refusal:
        await reading.call(verb, "files", "a.txt", body=b"new")
    assert refusal.value.allow == ("get", "head")
    assert "RP_FILES_WRITABLE=1 (--files-writable) lets it be changed" in str(refusal.value)
    assert read(root / "a.txt") == b"of a"


# Writing


async def test_a_file_is_made_and_replaced(root: Path, nodes: Joined) -> None:
    answer = await nodes.call("put", "files", "new.bin", body=b"one")
    assert (answer.status, answer.code, answer.body) == (201, 0, b"")
    assert read(root / "new.bin") == b"one"
    assert (await nodes.get("files", "new.bin")).headers["etag"] == answer.headers["etag"]
    answer = await nodes.call("put", "files", "new.bin", body=b"other")
    assert (answer.status, answer.body) == (204, b"")
    assert (await nodes.get("files", "new.bin")).body == b"other"
    assert (await nodes.get("files", "new.bin")).headers["etag"] == answer.headers["etag"]
    assert names(root) == ["a.txt", "new.bin", "sub"]


async def test_an_empty_file_is_made(root: Path, nodes: Joined) -> None:
    assert (await nodes.call("put", "files", "empty")).status == 201
    assert read(root / "empty") == b""


async def test_directories_on_the_way_are_made(root: Path, nodes: Joined) -> None:
    assert (await nodes.call("put", "files", "x", "y", "z", body=b"deep")).status == 201
    assert read(root / "x" / "y" / "z") == b"deep"


async def test_a_file_that_is_replaced_keeps_its_permissions(root: Path, nodes: Joined) -> None:
    (root / "a.txt").chmod(0o604)
    await nodes.call("put", "files", "a.txt", body=b"new")
    assert (root / "a.txt").stat().st_mode & 0o777 == 0o604


async def test_what_a_link_leads_to_is_replaced_and_not_the_link(root: Path, nodes: Joined) -> None:
    (root / "sub" / "link").symlink_to("../a.txt")
    assert (await nodes.call("put", "files", "sub", "link", body=b"new")).status == 204
    assert (root / "sub" / "link").is_symlink()
    assert read(root / "a.txt") == b"new"


async def pieces(count: int, size: int = 100_000) -> AsyncIterator[bytes]:
    for i in range(count):
        yield bytes([i % 256]) * size


async def test_a_large_file_is_taken_as_it_arrives(root: Path, nodes: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UNSYNCED", 1 << 20)
    assert (await nodes.call("put", "files", "large", pieces=pieces(100))).status == 201
    assert read(root / "large") == b"".join([piece async for piece in pieces(100)])


async def test_conditions_are_honoured(root: Path, nodes: Joined) -> None:
    etag = (await nodes.get("files", "a.txt")).headers["etag"]

    async def put(name: str, header: str, value: str) -> Whole:
        return await nodes.call("put", "files", name, body=b"new", headers=[(header, value)])

    assert refused(await put("a.txt", "if-none-match", "*")) == (412, "ConditionFailedError")
    assert refused(await put("a.txt", "if-match", '"x"'))[0] == 412
    assert refused(await put("none", "if-match", "*"))[0] == 412
    assert refused(await nodes.call("delete", "files", "a.txt", headers=[("if-match", '"x"')]))[0] == 412
    assert read(root / "a.txt") == b"of a"
    assert names(root) == ["a.txt", "sub"]
    assert (await put("a.txt", "if-match", etag)).status == 204
    assert (await put("none", "if-none-match", "*")).status == 201
    assert refused(await put("a.txt", "if-match", etag))[0] == 412


async def test_a_condition_that_ceases_to_hold_during_the_upload_fails(root: Path, nodes: Joined) -> None:
    etag = (await nodes.get("files", "a.txt")).headers["etag"]

    async def meanwhile() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        assert (await nodes.call("put", "files", "a.txt", body=b"meanwhile")).status == 204
        yield b"the end"

    answer = await nodes.call("put", "files", "a.txt", pieces=meanwhile(), headers=[("if-match", etag)])
    assert refused(answer)[0] == 412
    assert read(root / "a.txt") == b"meanwhile"
    assert names(root) == ["a.txt", "sub"]


async def test_a_verb_that_writable_files_do_not_have_is_refused_without_a_hint(root: Path, nodes: Joined) -> None:
    with pytest.raises(WrongVerbError) as refusal:
        await nodes.call("post", "files", "a.txt", body=b"new")
    assert "RP_FILES_WRITABLE" not in str(refusal.value)


async def test_a_part_of_a_file_is_not_taken(root: Path, nodes: Joined) -> None:
    headers = [("content-range", "bytes 0-1/4")]
    assert refused(await nodes.call("put", "files", "a.txt", body=b"xx", headers=headers))[0] == 400
    assert read(root / "a.txt") == b"of a"


@pytest.mark.parametrize(
    ("path", "status"),
    [([], 409), ([""], 409), (["sub"], 409), (["new", ""], 409), (["a.txt", "b"], 409), (["..", "x"], 400),
     (["../x"], 400), (["out", "x"], 403), (["fifo"], 403), (["n" * 256], 400), ([f"{UPLOAD_PREFIX}x"], 404)],
)  # fmt: skip
async def test_what_is_not_taken_is_refused_and_leaves_nothing(
    root: Path, nodes: Joined, path: list[str], status: int
) -> None:
    (root / "out").symlink_to("..")
    os.mkfifo(root / "fifo")
    before = names(root)
    assert refused(await nodes.call("put", "files", *path, body=b"new"))[0] == status
    assert names(root) == before


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EROFS, 403)])
async def test_a_disk_that_takes_no_more_is_told_of_and_nothing_is_left(
    root: Path, nodes: Joined, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    answer = await nodes.call("put", "files", "a.txt", body=b"new")
    assert refused(answer)[0] == status
    assert os.strerror(number) in answer.data["detail"]
    assert read(root / "a.txt") == b"of a"
    assert names(root) == ["a.txt", "sub"]


async def test_a_fault_that_has_no_answer_of_its_own_is_the_handlers(
    root: Path, nodes: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(HandlerError) as failed:
        await nodes.call("put", "files", "a.txt", body=b"new")
    assert failed.value.exception_class == "OSError"
    assert names(root) == ["a.txt", "sub"]


async def broken_off(root: Path, nodes: Joined, end: Callable[[Any], None]) -> None:
    """Begin to replace a file, end that before its end, and see that nothing came of it."""
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield bytes(1_000_000)
        begun.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(nodes.begin("put", "files", "a.txt", pieces=body()))
    await begun.wait()
    end(call)
    await asyncio.wait({call})
    assert call.cancelled() or call.exception()
    await nodes.idle()
    assert names(root) == ["a.txt", "sub"]
    assert read(root / "a.txt") == b"of a"


async def test_nothing_comes_of_an_upload_whose_caller_goes_away(root: Path, nodes: Joined) -> None:
    await broken_off(root, nodes, lambda call: call.cancel())


async def test_nothing_comes_of_an_upload_whose_pipe_is_lost(root: Path, nodes: Joined) -> None:
    await broken_off(root, nodes, lambda _: nodes.serving.close(Goaway.SHUTDOWN, "lost"))


async def test_uploads_that_last_keep_no_handler_waiting(root: Path) -> None:
    async with joined(WritableFileServer(root), threads=1) as nodes:
        begun = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield bytes(1_000_000)
            begun.set()
            await release.wait()

        release = asyncio.Event()
        upload = asyncio.create_task(nodes.call("put", "files", "slow", pieces=body()))
        await begun.wait()
        assert (await nodes.get("files", "a.txt")).body == b"of a"
        release.set()
        assert (await upload).status == 201


async def test_a_step_that_is_under_way_is_over_before_the_file_is_closed(
    root: Path, nodes: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release, real = threading.Event(), threading.Event(), os.fsync
    outcomes: list[str] = []
    monkeypatch.setattr(files, "UNSYNCED", 1)

    def slow(descriptor: int) -> None:
        entered.set()
        outcomes.append("released" if release.wait(PATIENCE) else "nobody released it")
        try:
            real(descriptor)
        except OSError as error:  # it was closed, and might be another's by now
            outcomes.append(str(error))

    monkeypatch.setattr(os, "fsync", slow)
    call = asyncio.create_task(nodes.begin("put", "files", "new", pieces=pieces(50)))
    assert await asyncio.to_thread(entered.wait, PATIENCE)
    call.cancel()
    await asyncio.wait({call})
    for _ in range(3):  # what is answered came after the cancellation, which has had its turns
        assert (await nodes.get("files", "a.txt")).body == b"of a"
    release.set()
    await nodes.idle()
    assert outcomes == ["released"]
    assert names(root) == ["a.txt", "sub"]


async def test_files_links_and_empty_directories_are_deleted(root: Path, nodes: Joined) -> None:
    (root / "out").symlink_to("../secret")
    for name in ("a.txt", "sub", "out"):
        answer = await nodes.call("delete", "files", name)
        assert (answer.status, answer.code, answer.body) == (204, 0, b"")
    assert names(root) == []


@pytest.mark.parametrize(
    ("path", "status"), [([], 403), ([""], 403), (["none"], 404), (["sub"], 409), (["..", "secret"], 400)]
)
async def test_what_is_not_deleted_is_refused(root: Path, nodes: Joined, path: list[str], status: int) -> None:
    (root / "sub" / "file").touch()
    assert refused(await nodes.call("delete", "files", *path))[0] == status


# As a class


async def test_a_class_of_the_users_own_has_events_beside_the_files(root: Path) -> None:
    class Mine(FileServer):
        directory = root

        async def get_name(self, ctx: Any, post_data: Any) -> str:
            return "mine"

    async with joined(Mine()) as nodes:
        assert (await nodes.get("name")).data == "mine"
        assert (await nodes.get("files", "a.txt")).body == b"of a"


def test_a_directory_that_is_not_named_or_not_there_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="RP_FILES"):
        FileServer()
    with pytest.raises(ConfigError, match=r"none is no directory"):
        FileServer(root / "none")


def test_files_are_served_beside_another_handler_unless_it_serves_them_itself(root: Path) -> None:
    class Other:
        def get_time(self, ctx: Any, post_data: Any) -> None:
            raise AssertionError

    class Same:
        def post_files(self, ctx: Any, post_data: Any) -> None:
            raise AssertionError

    table = EventTable(Other(), FileServer(root))
    assert {event.noun for event in table.manifest} == {"time", "files"}
    with pytest.raises(ConfigError, match=r"Same and restpipe\.\S+\.FileServer both serve the noun 'files'"):
        EventTable(Same(), FileServer(root))
