"""Answers that are files: the path of one, or an open one."""

import contextlib
import io
import mimetypes
import os
import stat
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from restpipe.handlers import payload
from restpipe.handlers.base import Reply
from restpipe.handlers.conditional import failed_precondition, parse_date, requested_range, validators_of
from restpipe.handlers.problems import file_refused

# Bytes that are read at a time: a step in a thread costs as much as the reading of some 50 KiB.
PIECE = 256 * 1024

# Of a file that is compressed, the type is that of the compression: it is sent as it is, and not as an encoding.
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def is_file(data: Any) -> bool:
    """Whether data is sent as a file is: a path, or a file that is open in binary mode."""
    open_file = isinstance(data, io.IOBase | tempfile._TemporaryFileWrapper)  # noqa: SLF001 - it has no other name
    return isinstance(data, Path) or (open_file and not isinstance(data, io.TextIOBase))


class FileAnswer(Iterator[bytes]):
    """The pieces of a file, and the head of the answer that they are the body of.

    Every step blocks. The first opens the file where it is a path, and makes the head; nothing is touched before it.

    Of an open file, what is sent begins where it stands. The length of a regular file is told. Where it answers GET,
    and the reply asks for no status of its own, so are an ETag and a Last-Modified date, and it is sent as
    preconditions and a range ask for it.

    Args:
        reply: whose data is the file.
        verb: of the request, lower case.
        headers: of the request, names in lower case.
        request_id: likewise.

    Attributes:
        reply: the head, once the first step is done.
        length: of the body, in bytes; None where it is not known.
    """

    def __init__(self, reply: Reply, verb: str, headers: Mapping[str, str], request_id: str) -> None:
        self.reply = reply
        self.length: int | None = None
        self._file = reply.data
        self._verb = verb
        self._headers = headers
        self._request_id = request_id
        self._steps = self._pieces()

    def __next__(self) -> bytes:
        """Return the next piece.

        Raises:
            OSError: the file cannot be opened or read, or is shorter than it was.
        """
        return next(self._steps)

    def close(self) -> None:
        """Close the file."""
        self._steps.close()
        if not isinstance(self._file, Path):
            self._file.close()

    def _pieces(self) -> Generator[bytes, None, None]:
        opened = self._file.open("rb", buffering=0) if isinstance(self._file, Path) else self._file
        with contextlib.closing(opened) as file:
            mime_type = self.reply.mime_type or guess_type(getattr(file, "name", None))
            self.reply = replace(self.reply, mime_type=mime_type, data=None)
            read = getattr(file, "read1", file.read)  # of a pipe, what is there
            status = status_of_regular(file)
            if status is None:
                while self._verb != "head" and (piece := read(PIECE)):
                    yield piece
                return
            begin = file.tell()
            body = self._make_head(status, max(0, status.st_size - begin))
            self.length = len(body)
            if self._verb == "head" or not body:
                return
            if isinstance(body, bytes):
                yield body
                return
            file.seek(begin + body.start)
            left = len(body)
            while left:
                piece = read(min(PIECE, left))
                if not piece:
                    raise EOFError(f"the file has become shorter: {left} bytes are missing")
                left -= len(piece)
                yield piece

    def _make_head(self, status: os.stat_result, length: int) -> range | bytes:
        """Make the head; return which bytes of the file are sent, or what is sent in their place."""
        reply, whole = self.reply, range(length)
        if self._verb not in ("get", "head") or reply.status != 200:
            return whole
        given = {name.lower(): value for name, value in reply.headers.items()}
        current = validators_of(status, time.time())
        if "etag" in given:
            current = replace(current, etag=given["etag"])
        if "last-modified" in given:
            current = replace(current, modified=parse_date(given["last-modified"]))
        told = {"accept-ranges": "bytes"} | current.headers | given
        self.reply = replace(reply, headers=told)
        failed = failed_precondition(self._verb, self._headers, current)
        if failed == 304:
            self.reply = replace(reply, mime_type=None, status=304, headers=told)
            return b""
        if failed is not None:
            return self._refuse(failed, "the file is not the one that the request is about", told)
        part = requested_range(self._headers, current, length) if self._verb == "get" else None
        if part is None:
            return whole
        if not part:
            of_all = {"content-range": f"bytes */{length}"}
            return self._refuse(416, f"the file has {length} bytes, and none that the range asks for", told | of_all)
        of_all = {"content-range": f"bytes {part.start}-{part.stop - 1}/{length}"}
        self.reply = replace(reply, status=206, headers=told | of_all)
        return part

    def _refuse(self, status: int, detail: str, headers: Mapping[str, str]) -> bytes:
        refusal = file_refused(status, detail, self._request_id)
        self.reply = replace(refusal, data=None, headers=headers)
        return payload.encode_json(refusal.data)


def guess_type(name: object) -> str:
    """Return the MIME type that the name of a file tells."""
    if not isinstance(name, str):
        return payload.BINARY
    # With a slash before the name, which would otherwise be taken for a URL where it has a colon.
    mime_type, encoding = mimetypes.guess_type(f"/{Path(name).name}")
    if encoding:
        return _COMPRESSED.get(encoding, payload.BINARY)
    return mime_type or payload.BINARY


def status_of_regular(file: Any) -> os.stat_result | None:
    """Return the status of a regular file; None for a pipe, and for what unpacks a file, or is none of the system's."""
    raw = getattr(file, "raw", file)
    if not isinstance(raw, io.FileIO):
        return None
    status = os.fstat(raw.fileno())
    return status if stat.S_ISREG(status.st_mode) else None
