"""An event loop in a thread of its own, for programs that block."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Entered = TypeVar("Entered")


class LoopThread(Generic[Entered]):
    """A thread with an event loop that keeps an asynchronous context manager entered until it is closed.

    It is closed at the end of the interpreter at the latest, and dies with it.

    Args:
        make: makes the context manager, in the thread.
        name: of the thread.

    Raises:
        BaseException: what entering raised.

    Attributes:
        entered: what the context manager was entered as.
    """

    def __init__(self, make: "Callable[[], contextlib.AbstractAsyncContextManager[Entered]]", name: str) -> None:
        self._make = make
        self._process = os.getpid()
        self._begun: concurrent.futures.Future[Entered] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._closing = False
        # Held while it is settled which comes first, a call or the end: what the loop is given in its last steps would
        # wait for ever. Reentrant, for a signal's handler may close the node.
        self._ordering = threading.RLock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        atexit.register(self.close)
        self._thread.start()
        try:
            self.entered = self._begun.result()
        except BaseException:
            self.close()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread's loop, and return what it returns. Any other thread may call this.

        What interrupts the wait, such as Ctrl-C, cancels the coroutine.

        Raises:
            RuntimeError: the thread was closed, or is the current one, or is one of the process before a fork.
            BaseException: what the coroutine raises.
        """
        try:
            future = self._submit(coroutine)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the node was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Leave the context manager, and wait until the thread has ended. Without effect on one that was closed."""
        atexit.unregister(self.close)
        if self._process != os.getpid() or self._thread is threading.current_thread():
            return
        with self._ordering:
            self._closing = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._leave)
        self._thread.join()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if self._process != os.getpid():  # first: a thread that is not here may have held the lock
            raise RuntimeError("the node belongs to the process before a fork: make another in this one")
        with self._ordering:
            if self._loop is None or self._closing or self._loop.is_closed():
                raise RuntimeError("the node was closed")
            if self._thread is threading.current_thread():
                raise RuntimeError("this would block the event loop of the node: handlers use `ctx.call`")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            if not self._begun.done():
                self._begun.set_exception(error)
        if not self._begun.done():
            self._begun.set_exception(RuntimeError("the node was closed"))

    async def _live(self) -> None:
        self._main = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        left = asyncio.Event()
        self._left = left
        if self._closing:
            return
        async with self._make() as entered:
            self._begun.set_result(entered)
            await left.wait()

    def _leave(self) -> None:
        if self._begun.done():
            self._left.set()
        elif self._main is not None:  # what takes so long to enter is wanted no more
            self._main.cancel()
