"""Handlers that are not asynchronous run in a bounded number of threads, which harm nobody."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable
from functools import partial

import pytest

from restpipe.exceptions import ThreadsBusyError
from restpipe.handlers.threads import HandlerThreads

PATIENCE = 10.0

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


class Blocked:
    """A function that returns once it is released."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.released = threading.Event()
        self.begun = asyncio.Event()
        self.thread: threading.Thread

    def __call__(self) -> str:
        self.thread = threading.current_thread()
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.released.wait(PATIENCE)
        return threading.current_thread().name


async def raised_by(awaitable: Awaitable[object]) -> BaseException | None:
    """Return what is raised, be it what pytest would take for its own."""
    try:
        await awaitable
    except BaseException as raised:  # noqa: BLE001
        return raised
    return None


async def test_a_function_runs_in_a_thread_and_its_result_is_returned() -> None:
    threads = HandlerThreads(1)
    assert await threads.run(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize(
    "error",
    [ValueError("a"), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError("own")],
    ids=repr,
)
async def test_what_a_function_raises_is_raised_and_its_thread_lives_on(error: BaseException) -> None:
    def fail() -> None:
        raise error

    threads = HandlerThreads(1)
    assert await raised_by(threads.run(fail)) is error
    assert await threads.run(lambda: 1) == 1
    assert threads.busy == 0


async def test_stop_iteration_does_not_end_the_coroutine_that_waits() -> None:
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as raised:
        await HandlerThreads(1).run(lambda: next(iter(())))
    assert isinstance(raised.value.__cause__, StopIteration)


async def test_a_function_sees_the_context_variables_of_its_caller_and_keeps_its_own() -> None:
    def look_and_set() -> str:
        seen = variable.get()
        variable.set("function")
        return seen

    variable.set("caller")
    threads = HandlerThreads(1)
    assert await threads.run(look_and_set) == "caller"
    assert await threads.run(look_and_set) == "caller"
    assert variable.get() == "caller"


async def test_no_more_threads_run_than_may_and_the_rest_wait_in_order() -> None:
    threads = HandlerThreads(2)
    blocked = [Blocked(), Blocked()]
    running = [asyncio.create_task(threads.run(function)) for function in blocked]
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(function.begun.wait() for function in blocked))
    assert threads.busy == 2
    order: list[int] = []
    waiting = [asyncio.create_task(threads.run(lambda i=i: order.append(i))) for i in range(5)]  # type: ignore[misc]
    await asyncio.sleep(0)
    assert not order
    blocked[0].released.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]
    assert threads.busy >= 1
    blocked[1].released.set()
    assert len(set(await asyncio.gather(*running))) == 2


async def test_functions_run_side_by_side_while_there_are_threads() -> None:
    most = 20
    threads = HandlerThreads(most)
    barrier = threading.Barrier(most)
    async with asyncio.timeout(PATIENCE):
        for _ in range(50):  # each function needs all others to run
            await asyncio.gather(*(threads.run(lambda: barrier.wait(PATIENCE)) for _ in range(most)))


async def test_an_idle_thread_is_used_before_another_is_made() -> None:
    threads = HandlerThreads(10)
    used = set()
    for _ in range(5):
        used.add(await threads.run(threading.get_ident))
    assert len(used) == 1


async def test_that_all_threads_are_in_use_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    threads = HandlerThreads(2)
    with caplog.at_level(logging.WARNING, "restpipe.handlers.threads"):
        for _ in range(3):
            barrier = threading.Barrier(2)
            await asyncio.gather(*(threads.run(lambda: barrier.wait(PATIENCE)) for _ in range(2)))  # noqa: B023
    assert caplog.messages == ["all 2 handler threads are in use; further events wait for one, or are refused"]


async def test_a_function_whose_caller_went_away_before_it_began_is_not_called_and_not_kept() -> None:
    threads = HandlerThreads(1)
    blocked = Blocked()
    running = asyncio.create_task(threads.run(blocked))
    async with asyncio.timeout(PATIENCE):
        await blocked.begun.wait()

    class Function:
        def __call__(self) -> None:
            called.append(self)

    called: list[Function] = []
    function = Function()
    kept = weakref.ref(function)
    waiting = asyncio.create_task(threads.run(function))
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    del function, waiting
    await asyncio.sleep(0)  # the loop is done with the task
    gc.collect()
    assert kept() is None
    blocked.released.set()
    await running
    assert await threads.run(lambda: 1) == 1
    assert not called


@contextlib.asynccontextmanager
async def all_busy(threads: HandlerThreads, number: int) -> AsyncIterator[None]:
    """Keep all threads busy."""
    functions = [Blocked() for _ in range(number)]
    running = [asyncio.create_task(threads.run(function)) for function in functions]
    async with asyncio.timeout(PATIENCE):
        for function in functions:
            await function.begun.wait()
        try:
            yield
        finally:
            for function in functions:
                function.released.set()
            await asyncio.gather(*running)


async def test_a_burst_waits_and_all_of_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, called = HandlerThreads(2, burst=PATIENCE), list[int]()  # a machine may stand still for a second
    async with all_busy(threads, 2):
        burst = [asyncio.create_task(threads.run(partial(called.append, i), PATIENCE)) for i in range(500)]
        await asyncio.sleep(0)
    await asyncio.gather(*burst)
    assert sorted(called) == list(range(500))


async def test_of_a_queue_that_stands_the_last_are_refused_and_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("restpipe.handlers.threads.monotonic", lambda: now)
    threads, called = HandlerThreads(4), list[int]()

    def usual() -> None:
        nonlocal now
        now += 0.1

    for _ in range(10):
        await threads.run(usual)
    async with all_busy(threads, 4):
        waiting = [asyncio.create_task(threads.run(partial(called.append, i), 100.0)) for i in range(10)]
        await asyncio.sleep(0)
        now += 1.1
        waiting[-1].cancel()
        with pytest.raises(ThreadsBusyError, match=r"^all 4 handler threads are busy, and 2 calls wait for one$"):
            await threads.run(partial(called.append, 10), 100.0)
        await asyncio.wait(waiting[1:])
        assert waiting[-1].cancelled()
        assert [type(call.exception()) for call in waiting[1:-1]] == [ThreadsBusyError] * 8
    await waiting[0]
    assert called == [0]


async def test_peers_have_turns_however_much_one_asks_for() -> None:
    threads, called = HandlerThreads(1), list[str]()
    async with all_busy(threads, 1):
        waiting = [
            asyncio.create_task(threads.run(partial(called.append, by + str(number)), PATIENCE, by))
            for number, by in enumerate("aaaab")
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert called == ["a0", "b4", "a1", "a2", "a3"]


async def test_where_a_peer_asks_for_too_much_others_are_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("restpipe.handlers.threads.monotonic", lambda: now)
    threads = HandlerThreads(4)

    def usual() -> None:
        nonlocal now
        now += 0.1

    for _ in range(10):
        await threads.run(usual)
    async with all_busy(threads, 4):
        flood = [asyncio.create_task(threads.run(lambda: 1, 100.0, "a")) for _ in range(10)]
        await asyncio.sleep(0)
        now += 1.1
        with pytest.raises(ThreadsBusyError):
            await threads.run(lambda: 1, 100.0, "a")
        other = asyncio.create_task(threads.run(lambda: 2, 100.0, "b"))
        await asyncio.sleep(0)
        assert not other.done()
    assert await other == 2
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int] * 2 + [ThreadsBusyError] * 8


async def test_what_waited_in_vain_for_half_of_its_time_is_refused_and_never_called() -> None:
    threads, called = HandlerThreads(1), list[int]()
    async with all_busy(threads, 1):
        with pytest.raises(ThreadsBusyError) as refused:
            await threads.run(lambda: called.append(1), 0.1)
        assert refused.value.executed == "no"
    assert await threads.run(lambda: 1, PATIENCE) == 1
    assert not called


async def test_what_has_no_time_of_its_own_waits_whatever_else_is_refused() -> None:
    threads = HandlerThreads(1, 0.01)
    async with all_busy(threads, 1):
        own = asyncio.create_task(threads.run(lambda: "own"))
        for _ in range(20):
            with pytest.raises(ThreadsBusyError):
                await threads.run(lambda: "too much", 0.01)
    assert await own == "own"


async def test_a_function_whose_caller_went_away_runs_on_and_its_result_is_dropped() -> None:
    threads = HandlerThreads(1)
    blocked = Blocked()
    running = asyncio.create_task(threads.run(blocked))
    async with asyncio.timeout(PATIENCE):
        await blocked.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert threads.busy == 1
    blocked.released.set()
    assert await threads.run(lambda: 1) == 1


async def test_nothing_of_a_function_that_raised_is_kept() -> None:
    class Large:
        pass

    threads = HandlerThreads(1)
    kept: list[weakref.ref[Large]] = []

    def fail() -> None:
        large = Large()
        kept.append(weakref.ref(large))
        raise ValueError("broken")

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            await threads.run(fail)
        await threads.run(lambda: None)  # the thread is done with the one before
        assert kept[0]() is None
    finally:
        gc.enable()


async def test_where_the_system_gives_no_thread_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = HandlerThreads(4)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ThreadsBusyError, match=r"^no handler thread could be started: can't start new thread$"):
            await threads.run(lambda: 1)
    blocked = Blocked()
    running = asyncio.create_task(threads.run(blocked))
    async with asyncio.timeout(PATIENCE):
        await blocked.begun.wait()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        waiting = asyncio.create_task(threads.run(lambda: 1))
        await asyncio.sleep(0)
    blocked.released.set()
    async with asyncio.timeout(PATIENCE):
        assert await waiting == 1
        await running


NEVER_RETURNS = """
import asyncio, threading
from restpipe.handlers.threads import HandlerThreads

async def main():
    threads = HandlerThreads(2)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    def never():
        loop.call_soon_threadsafe(begun.set)
        threading.Event().wait()
    waiting = asyncio.create_task(threads.run(never))
    await begun.wait()
    waiting.cancel()
    print("left", threads.busy)

asyncio.run(main())
"""

RETURNS_LATE = """
import asyncio, logging, threading
from restpipe.handlers.threads import HandlerThreads

logging.disable()
release = threading.Event()

async def main():
    threads = HandlerThreads(1)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    def late():
        loop.call_soon_threadsafe(begun.set)
        release.wait()
    waiting = asyncio.create_task(threads.run(late))
    await begun.wait()
    return threads

threads = asyncio.run(main())
release.set()

async def again():
    return await asyncio.wait_for(threads.run(lambda: "alive"), 10)

print(asyncio.run(again()))
"""


@pytest.mark.parametrize(("script", "output"), [(NEVER_RETURNS, "left 1\n"), (RETURNS_LATE, "alive\n")])
def test_a_function_that_does_not_return_keeps_no_process_from_ending(script: str, output: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, output, "")


async def ended(thread: threading.Thread) -> bool:
    """Whether a thread ends."""
    await asyncio.to_thread(thread.join, PATIENCE)
    return not thread.is_alive()


async def test_the_threads_of_a_pool_that_is_closed_end_once_they_have_nothing_to_do() -> None:
    threads, blocked = HandlerThreads(2), Blocked()
    blocking = asyncio.create_task(threads.run(blocked))
    await blocked.begun.wait()
    idle = await threads.run(lambda: threading.current_thread())
    threads.close()
    assert await ended(idle)
    assert threads.busy == 1
    blocked.released.set()
    await blocking
    assert await ended(blocked.thread)
    assert threads.busy == 0
    assert await threads.run(lambda: 1) == 1
