"""Writes the log, and never keeps the node waiting for who reads it."""

import logging
import os
import select
import threading
from collections import deque

# Bytes that wait for a reader: what comes then is lost, and counted.
MOST = 4 * 1024 * 1024
# Seconds that they have at the end of the process.
FAREWELL = 1.0


class LogWriter(logging.Handler):
    """A handler that writes to a file descriptor at once, or has a thread do so where that would take a reader.

    A terminal that is paused, a pipe whose reader stands still: to wait for these would stop the event loop.

    Args:
        descriptor: to write to.
        most: bytes that may wait.
    """

    def __init__(self, descriptor: int, most: int = MOST) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._most = most
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)
        # A terminal that is ready may take less than a line, and then it is waited for.
        self._sure = not os.isatty(descriptor)
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._writing = False
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, now or once it is read."""
        try:
            line = self._line(record)
            with self._changed:
                self._put(line)
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all was written, for `FAREWELL` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing, FAREWELL)

    def _put(self, line: bytes) -> None:
        # What poll finds ready takes so many bytes without blocking (select.PIPE_BUF in Python's documentation).
        while line and self._sure and not self._writing and self._ready.poll(0):
            line = line[os.write(self._descriptor, line[: select.PIPE_BUF]) :]
        if not line:
            return
        if self._lost or self._size + len(line) > self._most:
            self._lost += 1
            return
        self._waiting.append(line)
        self._size += len(line)
        if not self._writing:
            threading.Thread(target=self._write, name="log", daemon=True).start()
            self._writing = True

    def _write(self) -> None:
        """Write what waits, as it is read."""
        while True:
            with self._changed:
                lines, self._size = b"".join(self._waiting), 0
                self._waiting.clear()
                if self._lost:
                    lines += self._line(self._loss())
                    self._lost = 0
                if not lines:
                    self._writing = False
                    self._changed.notify_all()
                    return
            self._write_whole(lines)

    def _write_whole(self, lines: bytes) -> None:
        try:
            while lines:
                self._ready.poll()  # who shares the descriptor may have it not block
                lines = lines[os.write(self._descriptor, lines) :]
        except OSError:
            return  # the reader is gone, or the disk is full: there is nowhere to say so

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _loss(self) -> logging.LogRecord:
        message = "%d entries of the log are lost: those before them were not read in time"
        return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, (self._lost,), None)
