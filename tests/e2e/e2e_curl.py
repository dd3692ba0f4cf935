"""The real curl, as users type it."""

import json
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Any

# Seconds; reached only where a test fails.
PATIENCE = 60


@dataclass(frozen=True)
class Answer:
    """What curl received."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> int:
        return int(self.headers["x-event-return-code"])

    @property
    def outcome(self) -> tuple[int, int, str]:
        """HTTP status, return code, and whether it was executed."""
        return self.status, self.code, self.json["executed"]


class Curl:
    """A request under way. Ended, if need be, with the block that it is used in.

    Args:
        url: where.
        options: of curl.
        data: body, sent by POST unless the options say otherwise.
        uploads: the body is what `write` gives.
    """

    def __init__(self, url: str, *options: str, data: bytes | None = None, uploads: bool = False) -> None:
        body = () if data is None else ("--data-binary", "@-", "-H", "Content-Type: application/octet-stream")
        if uploads:
            body = ("-X", "POST", "-T", ".")  # reads what it sends, and writes what it gets, as they come
        command = ("curl", "-sS", "-i", "--no-buffer", "--noproxy", "*", *body, *options, url)
        self._data = data
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if uploads or data is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> "Curl":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._popen.kill()
        self._popen.communicate()

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self._popen.stdin is None:
            raise AssertionError("it uploads nothing")
        self._popen.stdin.write(data)

    def read_until(self, end: bytes) -> bytes:
        """Read, as it arrives, up to `end`; head and body."""
        if self._popen.stdout is None:
            raise AssertionError("the output is a pipe")
        read = b""
        while not read.endswith(end):
            byte = self._popen.stdout.read(1)
            assert byte, f"{read!r} does not end with {end!r}, and nothing follows"
            read += byte
        return read

    def read_to_end(self) -> bytes:
        """Read the rest of the answer, which comes to its end."""
        rest, errors = self._popen.communicate(timeout=PATIENCE)
        assert self._popen.returncode == 0, f"curl: {errors.decode()}"
        return rest

    def answer(self) -> Answer:
        """Wait for the whole answer."""
        output, errors = self._popen.communicate(self._data, PATIENCE)
        assert self._popen.returncode == 0, f"curl: {errors.decode()}"
        return _parsed(output)

    def failure(self) -> int:
        """Wait for curl to fail, and return its exit code."""
        self._popen.communicate(self._data, PATIENCE)
        assert self._popen.returncode != 0
        return self._popen.returncode


def curl(url: str, *options: str, data: bytes | None = None) -> Answer:
    """Make a request, and wait for its answer.

    Args:
        url: where.
        options: of curl.
        data: body, sent by POST unless the options say otherwise.
    """
    with Curl(url, *options, data=data) as request:
        return request.answer()


def _parsed(output: bytes) -> Answer:
    head, _, body = output.partition(b"\r\n\r\n")
    if head.split()[1] == b"100":  # Continue: the answer follows
        return _parsed(body)
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(status.split()[1]), headers, body)
