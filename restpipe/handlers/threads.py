"""Threads for handlers that are not asynchronous."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class HandlerThreads:
    """A bounded pool of daemon threads.

    The pools of the standard library are joined when the interpreter exits, so that a handler that never returns would
    keep a node from stopping. These are not.

    Args:
        most: threads that may exist. What comes while all are busy waits for one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._count = 0
        self._idle = 0
        self._lock = threading.Lock()

    @property
    def busy(self) -> int:
        """Threads that run a handler, those included that nobody waits for any more."""
        return self._count - self._idle

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread and return what it returns, or raise what it raises.

        Cancelling stops the wait, and the call where it has not begun; a thread cannot be stopped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        self._jobs.put((loop, future, lambda: context.run(function)))
        self._start_thread_if_needed()
        return await future

    def _start_thread_if_needed(self) -> None:
        with self._lock:
            if self._idle >= self._jobs.qsize() or self._count >= self._most:
                return
            self._count += 1
            self._idle += 1
        threading.Thread(target=self._work, name=f"handler-{self._count}", daemon=True).start()
        if self._count == self._most:
            log.warning("all %d handler threads are in use; further events wait for one", self._most)

    def _work(self) -> None:
        while True:
            loop, future, function = self._jobs.get()
            with self._lock:
                self._idle -= 1
            try:
                if not future.cancelled():
                    _settle(loop, future, function)
            finally:
                del loop, future, function
                with self._lock:
                    self._idle += 1


def _settle(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", function: Callable[[], Any]) -> None:
    result: Any = None
    error: BaseException | None = None
    try:
        result = function()
    except StopIteration as stop:
        # A future refuses StopIteration: it would end the coroutine that awaits it.
        error = RuntimeError("the handler raised StopIteration")
        error.__cause__ = stop
    except BaseException as raised:  # noqa: BLE001 - SystemExit is the handler's affair, not the thread's
        error = raised

    def deliver() -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:
        log.debug("a handler returned after its loop was closed")
