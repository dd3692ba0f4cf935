"""Threads for handlers that are not asynchronous."""

import asyncio
import contextvars
import logging
import math
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any, TypeVar, cast

from restpipe.exceptions import ThreadsBusyError
from restpipe.handlers.fair_queue import FairQueue
from restpipe.handlers.workload import BURST, Workload

log = logging.getLogger(__name__)

T = TypeVar("T")
# What a function returned or raised. Not every exception can pass through a future: StopIteration is refused, and
# GeneratorExit closes the coroutine that waits instead of being raised in it.
_Outcome = tuple[Any, BaseException | None]


class HandlerThreads:
    """A bounded pool of daemon threads.

    The pools of the standard library are joined when the interpreter exits, so that a handler that never returns would
    keep a node from stopping. These are not.

    Args:
        most: threads that may exist. What comes while all are busy waits for one, if that will not take too long. Who
            asks for much does so at his own cost: all who ask have turns.
        burst: seconds that calls may wait that come together; more than those that calls take.
    """

    def __init__(self, most: int, burst: float = BURST) -> None:
        self._most = most
        self._count = 0
        self._idle = 0
        self._waiting: FairQueue[asyncio.Future[_Outcome], Callable[[], Any]] = FairQueue()
        self._timers: dict[asyncio.Future[_Outcome], asyncio.TimerHandle] = {}
        self._workload = Workload(burst)
        self._changed = threading.Condition()
        self._closed = False

    @property
    def busy(self) -> int:
        """Threads that run a handler, those included that nobody waits for any more."""
        return self._count - self._idle

    async def run(self, function: Callable[[], T], within: float = math.inf, by: str = "") -> T:
        """Call `function` in a thread and return what it returns, or raise what it raises.

        Cancelling stops the wait, and the call where it has not begun; a thread cannot be stopped.

        Args:
            function: what to call.
            within: seconds after which its result is of no use; infinity: it is called whatever the wait.
            by: name of the peer that asks for it, "" for this node.

        Raises:
            ThreadsBusyError: it would wait too long for a thread, or did, or there is none at all. It was not called.
        """
        future = self._put(function, within, by)
        try:
            result, error = await future
        except asyncio.CancelledError:
            with self._changed:
                self._waiting.discard(future)
            raise
        if error is None:
            return cast(T, result)
        try:
            raise error
        finally:
            del error, future  # the traceback holds this frame: together they would await the garbage collector

    def submit(self, function: Callable[[], object]) -> None:
        """Have `function` called in a thread, and nobody wait for it. What it raises is lost.

        Raises:
            ThreadsBusyError: there is no thread to be had.
        """
        self._put(function)

    def close(self) -> None:
        """Let threads end that have nothing to do; the others do once what they run returns."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, function: Callable[[], Any], within: float = math.inf, by: str = "") -> "asyncio.Future[_Outcome]":
        future: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        context = contextvars.copy_context()
        with self._changed:
            if self._idle <= len(self._waiting) and self._count < self._most:
                self._start_thread()
            if len(self._waiting) >= self._idle:
                self._queue(future, within, by)
            self._waiting.put(by, future, partial(context.run, function))
            self._changed.notify()
        return future

    def _queue(self, future: "asyncio.Future[_Outcome]", within: float, by: str) -> None:
        """See for how long a call is to wait.

        Raises:
            ThreadsBusyError: not at all.
        """
        now = monotonic()
        late = len(self._waiting) - self._idle
        if late == 0:
            self._workload.begin_queue(now)
        if within == math.inf:
            return
        ahead = max(0, self._waiting.ahead(by) - self._idle)
        patience = self._workload.patience(ahead, self._idle, within, now)
        if not patience:
            if self._workload.bearable(now) <= within / 2:  # it is not that the call has no time
                for last in self._waiting.last(self._workload.surplus(late, self._idle, now), self._is_refusable):
                    self._refuse(last, now)
                self._workload.refuse(now)
            raise self._refusal()
        self._timers[future] = future.get_loop().call_later(patience, self._give_up, future)
        future.add_done_callback(self._stop_timer)

    def _is_refusable(self, future: "asyncio.Future[_Outcome]") -> bool:
        return future in self._timers and not future.done()

    def _give_up(self, future: "asyncio.Future[_Outcome]") -> None:
        """Let a call wait no longer, unless it has begun."""
        with self._changed:
            if future in self._waiting and not future.done():
                self._refuse(future, monotonic())

    def _refuse(self, future: "asyncio.Future[_Outcome]", now: float) -> None:
        self._waiting.discard(future)
        self._workload.refuse(now)
        future.set_result((None, self._refusal()))

    def _refusal(self) -> ThreadsBusyError:
        waiting = len(self._waiting)
        return ThreadsBusyError(f"all {self._count} handler threads are busy, and {waiting} calls wait for one")

    def _stop_timer(self, future: "asyncio.Future[_Outcome]") -> None:
        self._timers.pop(future).cancel()

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"handler-{self._count + 1}", daemon=True).start()
        except RuntimeError as error:  # the system has no thread to give
            log.exception("no handler thread could be started beside the %d that there are", self._count)
            if self._count == 0:
                raise ThreadsBusyError(f"no handler thread could be started: {error}") from error
            return
        self._count += 1
        self._idle += 1
        if self._count == self._most:
            log.warning("all %d handler threads are in use; further events wait for one, or are refused", self._most)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        self._count -= 1
                        self._idle -= 1
                        return
                    self._changed.wait()
                future, function = self._waiting.pop()
                self._idle -= 1
                self._workload.begin(future, monotonic())
            outcome = None if future.cancelled() else _outcome_of(function)
            with self._changed:
                self._workload.end(future, monotonic())
                self._idle += 1  # before it is told: who hears of the outcome finds this thread idle
            if outcome is not None:
                _tell(future, outcome)
            del future, function, outcome


def run_in_loop(function: Callable[[], Coroutine[Any, Any, T]], loop: asyncio.AbstractEventLoop, instead: str) -> T:
    """Run in the event loop what `function` returns, and wait for it in this thread.

    Args:
        function: makes a coroutine.
        loop: that runs.
        instead: what to do in the event loop.

    Raises:
        RuntimeError: this is the event loop, which would wait for itself.
        BaseException: what the coroutine raises.
    """
    if _in_event_loop():
        raise RuntimeError(f"this would block the event loop: {instead}")
    return asyncio.run_coroutine_threadsafe(function(), loop).result()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _outcome_of(function: Callable[[], Any]) -> _Outcome:
    try:
        return function(), None
    except BaseException as raised:  # noqa: BLE001 - SystemExit is the handler's affair, not the thread's
        return None, raised


def _tell(future: "asyncio.Future[_Outcome]", outcome: _Outcome) -> None:
    def settle() -> None:
        if not future.cancelled():
            future.set_result(outcome)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        log.debug("a handler returned after its loop was closed")
