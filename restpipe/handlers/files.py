"""A directory as a handler: `restpipe client --files DIR`.

    GET     files//a/b.txt     a file, or a range of it, or nothing where the caller has it; or a directory as JSON
    PUT     files//a/b.txt     makes or replaces it, once all of it is there; directories on the way are made
    DELETE  files//a/b.txt     deletes a file, or a directory that is empty

What is asked for lies within the directory, or is refused: a link is followed where it is relative and stays within.
The answers of PUT and DELETE are durable.
"""

import asyncio
import errno
import heapq
import io
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from restpipe.exceptions import ConfigError
from restpipe.handlers import payload
from restpipe.handlers.base import EventHandler, Reply
from restpipe.handlers.beneath import BadNameError, located, open_to_read, sync_directory
from restpipe.handlers.conditional import failed_precondition, validators_of
from restpipe.handlers.context import EventContext
from restpipe.handlers.file_answers import PIECE, guess_type
from restpipe.handlers.leftovers import UPLOAD_PREFIX, make_upload, remove_leftovers
from restpipe.handlers.payload import PostData
from restpipe.handlers.problems import file_refused

T = TypeVar("T")

# Entries of a directory that one answer lists; their names are in memory meanwhile.
MOST_LISTED = 10_000
# Bytes of an upload that are not yet on the disk: what the last step has to wait for.
UNSYNCED = 64 * 1024 * 1024

_STATUS = {
    errno.ENOENT: 404,
    errno.ENOTDIR: 404,
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.EROFS: 403,
    errno.ELOOP: 403,
    errno.EISDIR: 409,
    errno.EEXIST: 409,
    errno.ENOTEMPTY: 409,
    errno.EBUSY: 409,
    errno.ENAMETOOLONG: 400,
    errno.EINVAL: 400,
    errno.EFBIG: 413,
    errno.ENOSPC: 507,
    errno.EDQUOT: 507,
}
# Browsers run what these have in it, as if the node itself had said it, unless told otherwise.
_ACTIVE = ("text/html", "text/xml", "application/xml", "+xml")


class FileServer(EventHandler):
    """Serves the files of a directory, to be read.

    Derive from it for events of your own beside `files`, and say which directory there, or when it is made:

        class Handler(FileServer):
            directory = "/srv/files"

    Args:
        directory: in place of the class's.

    Raises:
        ConfigError: there is no such directory.
    """

    directory: str | Path | None = None
    wrong_verb_hints: ClassVar[Mapping[str, str]] = {
        "files": "the directory is served to be read, RP_FILES_WRITABLE=1 (--files-writable) lets it be changed"
    }

    def __init__(self, directory: str | Path | None = None) -> None:
        chosen = directory or self.directory
        if chosen is None:
            raise ConfigError(
                f"{type(self).__name__} needs a directory: set RP_FILES in place of it, "
                "or derive a class from it that has `directory = ...`"
            )
        self._root = Path(chosen).expanduser().absolute()
        if not self._root.is_dir():
            raise ConfigError(f"{self._root} is no directory")

    def get_files(self, ctx: EventContext, _post_data: PostData, *path: str, after: str = "") -> Reply:
        """Return a file, or the entries of a directory.

        Entries are in the order of their names, at most 10,000 in one answer, which then has a link to the next.
        Names that are not UTF-8 are left out.
        """
        try:
            return self._read(path, after)
        except (OSError, BadNameError) as error:
            return _refusal(error, path, ctx.request_id)

    def _read(self, path: Sequence[str], after: str) -> Reply:
        names = _names_of(path)
        with located(self._root, names) as place:
            descriptor = open_to_read(place)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            try:
                return _listing(descriptor, after)
            finally:
                os.close(descriptor)
        file = _OpenFile(descriptor)
        if not path[-1]:
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a directory")
        mime_type = guess_type(names[-1])
        headers = {"X-Content-Type-Options": "nosniff"}
        if mime_type.endswith(_ACTIVE):
            headers["Content-Security-Policy"] = "sandbox"
        return Reply(file, mime_type, headers=headers)


class WritableFileServer(FileServer):
    """Serves the files of a directory, to be read, replaced and deleted.

    Several that serve one directory may replace a file one after the other though a condition should have kept them.

    Args:
        directory: in place of the class's.

    Raises:
        ConfigError: there is no such directory.
    """

    wrong_verb_hints: ClassVar[Mapping[str, str]] = {}

    def __init__(self, directory: str | Path | None = None) -> None:
        super().__init__(directory)
        self._changing = threading.Lock()

    def tidy(self) -> None:
        """Remove, in a thread, what is left of uploads whose node was killed. A node does so when it starts."""
        threading.Thread(target=remove_leftovers, args=(self._root,), name="leftovers", daemon=True).start()

    async def put_files(self, ctx: EventContext, body: AsyncIterator[bytes], *path: str) -> Reply:
        """Make or replace a file by what is sent, once all of it is on the disk.

        Directories on the way are made. `If-Match` and `If-None-Match: *` are honoured.
        """
        if "content-range" in ctx.headers:  # RFC 9110 section 14.4
            return file_refused(400, "a part of a file cannot be put", ctx.request_id)
        upload = _Upload(ctx.headers, self._changing)
        try:
            await _in_thread(partial(upload.begin, self._root, path))
            async for pieces in _gathered(body):
                await _in_thread(partial(upload.write, pieces))
            return await _in_thread(upload.commit)
        except (OSError, BadNameError, _ConditionFailedError) as error:
            return _refusal(error, path, ctx.request_id)
        finally:
            await _in_thread(upload.close)

    def delete_files(self, ctx: EventContext, _post_data: PostData, *path: str) -> Reply:
        """Delete a file, a link, or a directory that is empty. `If-Match` is honoured."""
        try:
            return self._delete(_names_of(path), ctx.headers)
        except (OSError, BadNameError, _ConditionFailedError) as error:
            return _refusal(error, path, ctx.request_id)

    def _delete(self, names: list[str], headers: Mapping[str, str]) -> Reply:
        if not names:
            raise PermissionError(errno.EPERM, "the directory itself is not deleted")
        with located(self._root, names, follow_last=False) as place:
            with self._changing:
                status = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
                _check_condition("delete", headers, status)
                remove = os.rmdir if stat.S_ISDIR(status.st_mode) else os.unlink
                remove(place.name, dir_fd=place.directory)
            sync_directory(place.directory)
        return Reply(status=204)


class _Upload:
    """A file on its way in: under a name of its own beside the one that it will have. Every method blocks.

    Args:
        headers: of the request.
        changing: held while what is there is looked at and replaced.
    """

    def __init__(self, headers: Mapping[str, str], changing: threading.Lock) -> None:
        self._headers = headers
        self._changing = changing
        self._kept = ExitStack()
        self._unsynced = 0

    def begin(self, root: Path, path: Sequence[str]) -> None:
        """Make the file.

        Raises:
            OSError: there can be none.
            _ConditionFailedError: it is not wanted.
        """
        if not path or not path[-1]:
            raise IsADirectoryError(errno.EISDIR, "it names a directory")
        try:
            self._place = self._kept.enter_context(located(root, _names_of(path), make_directories=True))
        except NotADirectoryError as error:
            raise FileExistsError(errno.EEXIST, "a file is where a directory should be") from error
        replaced = self._check()
        self._name, descriptor = make_upload(self._place.directory)
        self._kept.callback(self._forget)
        self._file = self._kept.enter_context(os.fdopen(descriptor, "wb", buffering=0))
        if replaced is not None:
            os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode) & 0o777)

    def write(self, data: bytes) -> None:
        """Add to the file.

        Raises:
            OSError: the disk is full, for one.
        """
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        self._unsynced += len(data)
        if self._unsynced > UNSYNCED:
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def commit(self) -> Reply:
        """Let the file take its place, and return the answer that tells of it.

        Raises:
            OSError: it cannot.
            _ConditionFailedError: it is not wanted any more.
        """
        os.fsync(self._file.fileno())
        validators = validators_of(os.fstat(self._file.fileno()), time.time())
        directory, name = self._place
        with self._changing:
            replaced = self._check()
            os.replace(self._name, name, src_dir_fd=directory, dst_dir_fd=directory)
        sync_directory(directory)
        return Reply(status=201 if replaced is None else 204, headers=validators.headers)

    def close(self) -> None:
        """Leave nothing behind of what was not committed."""
        self._kept.close()

    def _check(self) -> os.stat_result | None:
        """Return the status of the file that would be replaced, None where there is none."""
        status: os.stat_result | None = None
        with suppress(FileNotFoundError):
            status = os.stat(self._place.name, dir_fd=self._place.directory, follow_symlinks=False)
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, "it is no file")
        _check_condition("put", self._headers, status)
        return status

    def _forget(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._place.directory)


class _OpenFile(io.FileIO):
    """A file that the garbage collector may close without a warning: where its caller left before it was opened."""

    def __del__(self) -> None:
        self.close()


class _ConditionFailedError(Exception):
    """A precondition of the request does not hold."""


def _names_of(path: Sequence[str]) -> list[str]:
    """Return the names that a path consists of. A slash at its end is none of them."""
    names = list(path[:-1] if path and not path[-1] else path)
    if any(name.startswith(UPLOAD_PREFIX) for name in names):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return names


def _listing(directory: int, after: str) -> Reply:
    with os.scandir(directory) as entries:
        known = (entry.name for entry in entries if entry.name > after and _is_listed(entry.name))
        names = heapq.nsmallest(MOST_LISTED + 1, known)
    headers = {}
    if len(names) > MOST_LISTED:
        names.pop()
        headers["Link"] = f'<?after={quote(names[-1], safe="")}>; rel="next"'
    listed = []
    for name in names:
        with suppress(FileNotFoundError):
            listed.append(_described(name, os.stat(name, dir_fd=directory, follow_symlinks=False)))
    return Reply(payload.encode_json(listed), payload.JSON, headers=headers)


def _is_listed(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not name.startswith(UPLOAD_PREFIX)


def _described(name: str, status: os.stat_result) -> dict[str, Any]:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
    size = status.st_size if kind == "file" else None
    return {"name": name, "type": kind, "size": size, "mtime": status.st_mtime}


def _check_condition(verb: str, headers: Mapping[str, str], status: os.stat_result | None) -> None:
    current = None if status is None else validators_of(status, time.time())
    if failed_precondition(verb, headers, current) is not None:
        raise _ConditionFailedError("what is there is not what the request is about")


def _refusal(error: Exception, path: Sequence[str], request_id: str) -> Reply:
    """Return the answer that says why a file is not given, or not taken.

    Raises:
        Exception: `error`, where it is no answer.
    """
    if isinstance(error, OSError):
        status = _STATUS.get(error.errno or 0)
        detail = f"{'/'.join(path) or 'the directory'}: {error.strerror}"
    else:
        status = 400 if isinstance(error, BadNameError) else 412
        detail = str(error)
    if status is None:
        raise error
    return file_refused(status, detail, request_id, type(error).__name__.lstrip("_"))


async def _gathered(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Gather what arrives into pieces that are worth a step in a thread."""
    pieces: list[bytes] = []
    size = 0
    async for piece in body:
        pieces.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(pieces)
            pieces.clear()
            size = 0
    if pieces:
        yield b"".join(pieces)


async def _in_thread(step: Callable[[], T]) -> T:
    """Take a step in a thread, one that is not the handlers': an upload may last, and would keep it.

    A step that has begun is taken to its end, also where it is cancelled: the next one finds nothing under way.
    """
    task = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody else asks for it
        raise
