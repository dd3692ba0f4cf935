"""What blocks the event loop is named in the log, and who only has much to do is not."""

import asyncio
import functools
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from restpipe.handlers import blocked
from restpipe.handlers.blocked import LoopWatch
from restpipe.handlers.events import EventTable

PATIENCE = 30.0
# Looks at what a loop runs, again and again, while threads come and go and every look makes garbage that is collected.
LOOKS = """
import asyncio, gc, sys, threading, time
from restpipe.handlers.blocked import LoopWatch

def slowly(*_):
    for _ in range(10_000):
        pass

def come_and_go():
    while not over.is_set():
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

def busy(depth=5):
    return busy(depth - 1) if depth else sum(number for number in range(3))

async def run():
    watch = LoopWatch({}, asyncio.get_running_loop())
    watch._loop_thread = threading.get_ident()

    def look():
        until = time.monotonic() + 1
        while time.monotonic() < until:
            watch._running()
        over.set()

    threads = [threading.Thread(target=target) for target in (look, come_and_go)]
    for thread in threads:
        thread.start()
    while not over.is_set():
        busy()
    for thread in threads:
        thread.join()

sys.setswitchinterval(0.00001)
gc.callbacks.append(slowly)
gc.set_threshold(3)
over = threading.Event()
asyncio.run(run())
assert gc.isenabled()
"""


def decorated(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def wrapper(*arguments: Any) -> Any:
        return await method(*arguments)

    return wrapper


class Log(logging.Handler):
    """Keeps what is logged, and lets threads and the event loop wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def wait(self, pattern: str) -> str:
        """Block until a line matches; return it."""

        def found() -> list[str]:
            return [line for line in self.lines if re.search(pattern, line)]

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), self.lines
            return found()[0]


class Handler:
    """Blocks until that is noticed."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def get_block(self, ctx: Any, post_data: Any) -> None:
        self._wait()

    @decorated
    async def get_hidden(self, ctx: Any, post_data: Any) -> None:
        self._wait()

    def _wait(self) -> None:
        self._log.wait("blocks the event loop")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    for name in ("INTERVAL", "PATIENCE", "MOMENT"):
        monkeypatch.setattr(blocked, name, 0.02)
    log = Log()
    blocked.log.addHandler(log)
    yield log
    blocked.log.removeHandler(log)


@pytest.fixture
async def handler(log: Log) -> Any:
    return Handler(log)


@pytest.fixture
async def watch(handler: Handler) -> Any:
    watch = LoopWatch(EventTable(handler).methods, asyncio.get_running_loop())
    watch.start()
    yield watch
    watch.stop()


async def answered(watch: LoopWatch) -> None:
    """Let the watch ask once, and be answered."""
    async with asyncio.timeout(PATIENCE):
        while not watch._depth:  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("name", ["get_block", "get_hidden"])
async def test_a_method_that_blocks_the_loop_is_named_with_the_place_and_then_with_how_long(
    log: Log, handler: Handler, watch: LoopWatch, name: str
) -> None:
    await answered(watch)
    await asyncio.create_task(getattr(handler, name)(None, None))
    begin = log.wait("blocks the event loop")
    assert re.fullmatch(rf"Handler\.{name} blocks the event loop, .* about \d+\.\d s by now \(.*\.py:\d+\): .*", begin)
    await asyncio.to_thread(log.wait, rf"^Handler\.{name} blocked the event loop for about \d+\.\d s$")
    assert len(log.lines) == 2


async def test_what_is_no_method_of_the_handler_is_named_as_well(log: Log, watch: LoopWatch) -> None:
    await answered(watch)

    async def something_else() -> None:
        log.wait("blocks the event loop")

    await asyncio.create_task(something_else())
    assert "something_else blocks the event loop" in log.lines[0]


async def test_a_loop_that_has_much_to_do_is_not_blocked(
    log: Log, watch: LoopWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop answers late, and each time that somebody looks another step runs."""
    await answered(watch)
    looked = threading.Event()
    steps = iter(range(1000))

    def running() -> tuple[Any, str, str]:
        if next(steps) > 10:
            looked.set()
        return object(), "busy", "here"

    monkeypatch.setattr(watch, "_running", running)
    while not looked.is_set():
        threading.Event().wait(0.1)
        await asyncio.sleep(0)
    assert log.lines == []


async def test_it_ends_when_it_is_stopped_also_while_the_loop_is_blocked(log: Log, watch: LoopWatch) -> None:
    await answered(watch)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "loop watch"]
    log.wait("blocks the event loop")  # this very test does
    watch.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert len(log.lines) == 1


def test_it_ends_with_the_loop(log: Log) -> None:
    async def run() -> threading.Thread:
        LoopWatch({}, asyncio.get_running_loop()).start()
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "loop watch"]
        return thread

    thread = asyncio.run(run())
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert log.lines == []


def test_who_looks_while_garbage_is_collected_and_threads_come_and_go_waits_for_nobody() -> None:
    """CPython 3.11 has them wait for each other for ever: https://github.com/python/cpython/issues/106883."""
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
