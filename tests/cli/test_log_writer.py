"""The log reaches who reads it, whole and in order, and who does not read it keeps nobody waiting."""

import fcntl
import logging
import os
import pty
import re
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from restpipe.cli import log_writer
from restpipe.cli.log_writer import LogWriter

PATIENCE = 10.0
# As short as a word, and longer than a pipe that is ready is sure to take.
LENGTHS = (3, 200, 3 * select.PIPE_BUF)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe that one page fills."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    yield reading, writing
    for descriptor in (reading, writing):
        os.close(descriptor)


def log_all(writer: LogWriter, number: int, lengths: tuple[int, ...] = LENGTHS) -> list[str]:
    """Log some lines of different lengths; return them."""
    lines = [f"{each} ".ljust(lengths[each % len(lengths)], "x") for each in range(number)]
    for line in lines:
        writer.handle(logging.makeLogRecord({"msg": line}))
    return lines


def read(descriptor: int, size: int) -> str:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return data.decode()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "log"]


def test_what_nobody_reads_yet_waits_and_is_read_whole_and_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LogWriter(writing)
    lines = log_all(writer, 100)
    assert len(threads()) == 1
    text = "".join(f"{line}\n" for line in lines)
    assert read(reading, len(text)) == text
    for thread in threads():
        thread.join(PATIENCE)
    assert not threads()
    assert read(reading, len(log_all(writer, 1)[0]) + 1) == "0 x\n"
    assert not threads()


def test_a_terminal_that_nobody_reads_keeps_nobody_waiting_though_it_takes_a_part_of_a_line() -> None:
    reading, writing = pty.openpty()
    lines: list[str] = []
    writer = LogWriter(writing)
    logger = threading.Thread(target=lambda: lines.extend(log_all(writer, 1000, (100,))), daemon=True)
    logger.start()
    logger.join(PATIENCE)
    assert not logger.is_alive()
    text = "".join(f"{line}\r\n" for line in lines)
    assert read(reading, len(text)) == text
    for thread in threads():
        thread.join(PATIENCE)
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_a_file_is_written_by_no_other_thread(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        lines = log_all(LogWriter(file.fileno()), 100)
        assert not threads()
    assert (tmp_path / "log").read_text() == "".join(f"{line}\n" for line in lines)


def test_what_is_more_than_may_wait_is_lost_and_counted_where_it_would_stand(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines = log_all(LogWriter(writing, most=10 * LENGTHS[-1]), 100)
    kept, passed, losses, rest = 0, 0, 0, ""
    while passed < len(lines):
        *whole, rest = (rest + os.read(reading, select.PIPE_BUF).decode()).split("\n")
        for line in whole:
            lost = re.match(r"(\d+) entries of the log are lost: ", line)
            if lost:
                passed += int(lost[1])
                losses += 1
            else:
                assert line == lines[passed]
                passed += 1
                kept += 1
    assert passed == len(lines)
    assert losses
    assert kept > 20


def test_the_end_of_the_process_waits_for_a_reader_and_not_for_ever(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    writer = LogWriter(writing)
    lines = log_all(writer, 10)
    monkeypatch.setattr(log_writer, "FAREWELL", 0.01)
    writer.flush()
    assert threads()
    monkeypatch.setattr(log_writer, "FAREWELL", PATIENCE)
    size = sum(len(line) + 1 for line in lines)
    reader = threading.Thread(target=read, args=(reading, size))
    reader.start()
    writer.flush()
    assert not writer._writing
    reader.join(PATIENCE)


def test_a_reader_that_is_gone_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    reading, writing = os.pipe()
    writer = LogWriter(writing)
    log_all(writer, 100)
    os.close(reading)
    writer.flush()
    assert not writer._writing
    log_all(writer, 3)
    os.close(writing)
