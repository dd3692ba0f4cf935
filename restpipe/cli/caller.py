"""One HTTP request for `restpipe call`: sent and received at once, whatever its size, in constant memory."""

import http.client
import json
import mimetypes
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.json import JSON
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from restpipe.cli.call import Outcome
from restpipe.cli.local import Connection, refusal
from restpipe.config import WebBind
from restpipe.config.values import MAX_SECONDS
from restpipe.exceptions import ConfigError
from restpipe.identity.wording import printable
from restpipe.version import __version__

PIECE = 64 * 1024
# Bytes from which on a transfer is worth a progress bar; and up to which an answer is laid out for a terminal.
LARGE = 1024 * 1024
# A node answers within the time of the exchange, which is at most RP_MAX_REQUEST_TIMEOUT_S; this is for one that hangs.
NODE_TIMEOUT = 3600.0
GRACE = 10.0
# Seconds after which who waits at a terminal is told so.
LONG = 5.0
_PROBLEM = "application/problem+json"
# What return codes of RestPipe's say of `executed`, where there is no document to say it; those left out: "yes".
_EXECUTED = {"245": "no", "249": "no", "246": "unknown", "247": "unknown", "250": "unknown"}

_WAY_OUT = {
    Outcome.NEVER_SENT: "it was never sent, and can safely be repeated",
    Outcome.UNKNOWN: "it may have been executed: look before you repeat it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user asks for.

    Attributes:
        method: upper case.
        target: path and query, encoded.
        headers: names and values.
        data: the body, "@" and the file it is in, or None.
        timeout: seconds for the exchange; the node's own where it is None.
        token: of the node; "" for none.
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    data: str | None
    timeout: float | None
    token: str


class _Body:
    """The body of the request.

    Args:
        data: see `Asked`.

    Raises:
        ConfigError: the file cannot be read.

    Attributes:
        content_type: its MIME type.
        length: bytes of it; None where that is not known.
    """

    def __init__(self, data: str) -> None:
        self._fd: int | None = None
        self._text = b""
        if not data.startswith("@"):
            self._text = data.encode(errors="surrogateescape")
            self.length: int | None = len(self._text)
            self.content_type = "application/json" if _is_json(data) else "text/plain; charset=utf-8"
            return
        name = data[1:]
        try:
            # By its number: a read of `sys.stdin` that is under way would keep the process from ending.
            self._fd = 0 if name == "-" else os.open(name, os.O_RDONLY)
            status = os.fstat(self._fd)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(0, "it is a directory")
            os.read(self._fd, 0)  # which fails where standard input was closed
        except OSError as error:
            raise ConfigError(f"cannot read {name}: {error.strerror}") from None
        self.length = status.st_size if name != "-" and stat.S_ISREG(status.st_mode) else None
        self.content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"

    def pieces(self) -> Iterator[bytes]:
        """Yield the body, no more of it than its length says."""
        if self._fd is None:
            if self._text:
                yield self._text
            return
        left = self.length
        while (left is None or left > 0) and (piece := os.read(self._fd, PIECE if left is None else min(PIECE, left))):
            if left is not None:
                left -= len(piece)
            yield piece
        if left:
            raise OSError("the file became shorter while it was sent")


class _Bars:
    """Progress on standard error, of transfers that are large; where standard error is a terminal and nothing else is.

    Args:
        shown: whether it may be.
    """

    def __init__(self, *, shown: bool) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)

    def follow(self, what: str, pieces: Iterator[bytes], total: int | None) -> Iterator[bytes]:
        """Yield the pieces, and show how far they are."""
        task: TaskID | None = None
        seen = 0
        for piece in pieces:
            yield piece
            seen += len(piece)
            if task is None and max(seen, total or 0) >= LARGE:
                self._progress.start()
                task = self._progress.add_task(what, total=total)
            if task is not None:
                self._progress.update(task, completed=seen)

    def end(self) -> None:
        """Remove them."""
        self._progress.stop()


class _Upload(threading.Thread):
    """Sends the body, while the answer may already be read."""

    def __init__(self, connection: Connection, pieces: Iterator[bytes], *, chunked: bool) -> None:
        super().__init__(daemon=True)
        self._connection = connection
        self._pieces = pieces
        self._chunked = chunked
        self.fault: OSError | None = None

    def run(self) -> None:
        """Send it all; where the node takes no more of it, its answer says why."""
        source = iter(self._pieces)
        while True:
            try:
                piece = next(source, b"")
            except OSError as error:
                self.fault = error
                self._connection.shut_down()  # a body without its end is none
                return
            try:
                if self._chunked:
                    self._connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                elif piece:
                    self._connection.send(piece)
            except OSError:
                return
            if not piece:
                return


def perform(address: WebBind, asked: Asked, output: Path | None) -> Outcome:
    """Make the request, write its answer, and say how it went.

    Raises:
        ConfigError: the body cannot be read, or the output not be written.
        BrokenPipeError: nobody reads standard output.
        KeyboardInterrupt: the user did; the request is cancelled.
    """
    body = _Body(asked.data) if asked.data is not None else None
    if output is not None:
        _check_writable(output)
    connection = Connection(address)
    bars = _Bars(shown=sys.stderr.isatty() and (output is not None or not sys.stdout.isatty()))
    with ExitStack() as stack:
        stack.callback(bars.end)
        stack.enter_context(closing(connection))
        stack.callback(connection.shut_down)
        try:
            connection.connect()
        except OSError as error:
            return _tell(Outcome.NEVER_SENT, f"{refusal(address, error)}; is it running?")
        connection.sock.settimeout(NODE_TIMEOUT if asked.timeout is None else min(asked.timeout, MAX_SECONDS) + GRACE)
        upload: _Upload | None = None
        waiting = threading.Timer(LONG, sys.stderr.write, ["waiting for the answer; Ctrl-C cancels\n"])
        stack.callback(waiting.cancel)
        try:
            _send_head(connection, asked, body)
            if body is not None:
                pieces = bars.follow("sent", body.pieces(), body.length)
                upload = _Upload(connection, pieces, chunked=body.length is None)
                upload.start()
            elif sys.stderr.isatty():
                waiting.start()
            response = connection.getresponse()
            waiting.cancel()
        except (OSError, http.client.HTTPException) as error:
            cause = upload.fault if upload is not None and upload.fault is not None else error
            return _tell(Outcome.UNKNOWN, f"no answer came: {cause}")
        return _take(response, output, bars)


def _check_writable(output: Path) -> None:
    """Find out before anything is executed, without touching a file that is there.

    Raises:
        ConfigError: it cannot be written.
    """
    if not output.parent.is_dir():
        raise ConfigError(f"cannot write {output}: there is no directory {output.parent}")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise ConfigError(f"cannot write {output}: permission denied")


def _send_head(connection: Connection, asked: Asked, body: _Body | None) -> None:
    named = {name.lower() for name, _ in asked.headers}
    headers = {"User-Agent": f"restpipe/{__version__}", "Accept": "*/*"}
    if asked.token:
        headers["Authorization"] = f"Bearer {asked.token}"
    if asked.timeout is not None:
        headers["X-Event-Timeout"] = f"{asked.timeout:g}"
    if body is not None:
        headers["Content-Type"] = body.content_type
        headers |= {"Transfer-Encoding": "chunked"} if body.length is None else {"Content-Length": str(body.length)}
    connection.putrequest(asked.method, asked.target, skip_host="host" in named, skip_accept_encoding=True)
    for name, value in [*((n, v) for n, v in headers.items() if n.lower() not in named), *asked.headers]:
        connection.putheader(name, value)
    connection.endheaders()


def _take(response: http.client.HTTPResponse, output: Path | None, bars: _Bars) -> Outcome:
    """Write the answer, and say what it means."""
    begin, told = b"", dict[str, Any]()
    try:
        if response.headers.get_content_type() == _PROBLEM:
            begin = response.read(LARGE)
            document = _parsed(begin)
            if isinstance(document.get("exception"), dict):
                return _tell(_outcome_of(response, document), _line(response, document))
            # The answer to HEAD has no body. A document without an exception is the handler's own.
            code = response.headers.get("X-Event-Return-Code", "")
            if not begin and code in _EXECUTED:
                told = {"executed": _EXECUTED[code]}
        _write(response, begin, output, bars)
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _tell(Outcome.BROKEN, f"the answer broke off: {error}")
    except OSError as error:
        return _tell(Outcome.BROKEN, f"the answer could not be written: {error.strerror}")
    outcome = _outcome_of(response, told)
    if outcome is not Outcome.DONE:
        code = response.headers.get("X-Event-Return-Code", "")
        _tell(outcome, f"{response.status} {response.reason}{f', return code {code}' if code else ''}")
    return outcome


def _outcome_of(response: http.client.HTTPResponse, document: dict[str, Any]) -> Outcome:
    code = response.headers.get("X-Event-Return-Code")
    if 400 <= response.status < 500 and document.get("executed") != "unknown":
        return Outcome.REFUSED
    if response.status >= 400:
        # Without a code it is the answer of something between here and the node.
        executed = document.get("executed", "yes" if code is not None else "unknown")
        return {"no": Outcome.NEVER_SENT, "yes": Outcome.FAILED}.get(executed, Outcome.UNKNOWN)
    return Outcome.DONE if code in (None, "0") else Outcome.FAILED


def _write(response: http.client.HTTPResponse, begin: bytes, output: Path | None, bars: _Bars) -> None:
    """Write the body of the answer, of which `begin` has been read."""
    terminal = output is None and sys.stdout.isatty()
    if terminal and response.headers.get_content_type() == "application/json" and (response.length or LARGE) < LARGE:
        text = b"".join(_pieces(response))
        with suppress(ValueError, RecursionError):
            Console().print(JSON(text.decode()), soft_wrap=True)
            return
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return
    total = None if response.length is None else len(begin) + response.length
    pieces = bars.follow("received", chain([begin] if begin else [], _pieces(response)), total)
    with ExitStack() as stack:
        to: IO[bytes] = sys.stdout.buffer if output is None else stack.enter_context(output.open("wb"))
        for piece in pieces:
            to.write(piece)
            to.flush()


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body of the answer as it comes.

    Raises:
        HTTPException, OSError: it broke off.
    """
    while piece := response.read1(PIECE):
        yield piece
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


def _line(response: http.client.HTTPResponse, document: dict[str, Any]) -> str:
    """Say in one line what a problem document tells."""
    exception = document["exception"]
    detail = str(document.get("detail") or exception.get("message") or response.reason)
    title = str(document.get("title", ""))
    if title == "The event handler raised":
        title = f"{title} {exception.get('class', 'an exception')}"
    if response.status == http.HTTPStatus.UNAUTHORIZED:
        detail += "; set RP_WEB_TOKEN"
    return f"{response.status} {title}: {detail}"


def _tell(outcome: Outcome, text: str) -> Outcome:
    """Write a line to standard error; nothing that a terminal would obey is in it."""
    way_out = f" ({_WAY_OUT[outcome]})" if outcome in _WAY_OUT else ""
    line = " ".join(text.split()) + way_out
    sys.stderr.write(f"restpipe call: {printable(line)}\n")
    return outcome


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
