"""Who blocks the event loop: a thread that looks when the loop does not answer, and costs requests nothing."""

import asyncio
import gc
import logging
import sys
import threading
import time
from collections.abc import Mapping
from types import CodeType, FrameType

log = logging.getLogger(__name__)

# Seconds between two questions to the loop.
INTERVAL = 0.5
# Seconds without an answer after which the loop is blocked, if the same step of it still runs a moment later. What
# blocks for longer than all three is always found.
PATIENCE = 0.5
MOMENT = 0.05


class LoopWatch:
    """Logs what blocks the event loop, by the name of the handler's method where it is one, and for about how long.

    Args:
        methods: names of handler methods, by the code that runs while they do.
        loop: that is watched.
    """

    def __init__(self, methods: Mapping[CodeType, str], loop: asyncio.AbstractEventLoop) -> None:
        self._methods = methods
        self._loop = loop
        self._answered = threading.Event()
        self._over = threading.Event()
        self._loop_thread = 0
        # Frames of the loop itself, below those of each of its steps.
        self._depth = 0

    def start(self) -> None:
        """Begin; called in the event loop."""
        self._loop_thread = threading.get_ident()
        threading.Thread(target=self._watch, name="loop watch", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()
        self._answered.set()

    def _answer(self) -> None:
        self._depth = len(_stack(sys._getframe())) - 1  # noqa: SLF001 - documented, for want of another name
        self._answered.set()

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            self._answered.clear()
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # it is closed
                return
            asked = time.monotonic()
            # A whole process that stood still, or had no processor, is nobody's fault: it has the time again.
            while not self._answered.wait(PATIENCE) and time.monotonic() - asked > 2 * PATIENCE:
                asked = time.monotonic()
            if not self._answered.is_set():
                self._find(asked)

    def _find(self, asked: float) -> None:
        step, name, place = self._running()
        if self._answered.wait(MOMENT) or step is None or self._running()[0] is not step:
            return  # it has much to do, and does it
        del step
        log.warning(
            "%s blocks the event loop, and with it all of this node, for about %.1f s by now (%s): "
            "make it a plain `def`, or await what takes so long",
            name, time.monotonic() - asked, place,
        )  # fmt: skip
        self._answered.wait()
        if not self._over.is_set():
            log.warning("%s blocked the event loop for about %.1f s", name, time.monotonic() - asked)

    def _running(self) -> tuple[FrameType | None, str, str]:
        """Return the step of the loop that runs, its name, and where it is."""
        innermost = _innermost(self._loop_thread)
        steps = _stack(innermost)[self._depth :]
        if innermost is None or not steps:
            return None, "", ""
        step = next((frame for frame in steps if frame.f_code in self._methods), steps[0])
        name = self._methods.get(step.f_code, step.f_code.co_qualname)
        return step, name, f"{innermost.f_code.co_filename}:{innermost.f_lineno}"


def _innermost(thread: int) -> FrameType | None:
    """Return what a thread runs.

    CPython 3.11 may collect garbage while it looks, and then waits for ever for a thread that waits for it
    (https://github.com/python/cpython/issues/106883): no collection meanwhile.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames().get(thread)  # noqa: SLF001 - documented, for want of another name
    finally:
        if collecting:
            gc.enable()


def _stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of a stack, the outermost first."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]
