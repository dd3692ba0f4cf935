"""The clocks of all exchanges of a pipe, on one timer: a timer for each would cost as much as the exchange."""

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Protocol


class Clocked(Protocol):
    """What has a clock.

    Attributes:
        deadline: when it runs out, in the loop's time; infinity once it was stopped.
    """

    deadline: float

    def expire(self) -> None:
        """Do what is to be done once the clock has run out."""


class Clocks:
    """Rings at the earliest deadline.

    Deadlines usually come in the order of their exchanges and are met long before, so the timer is hardly ever set.

    Args:
        live: returns those whose clocks may be running.
    """

    def __init__(self, live: Callable[[], Iterable[Clocked]]) -> None:
        self._live = live
        self._loop = asyncio.get_running_loop()
        self._rings_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def start(self, deadline: float) -> None:
        """Make sure that the timer rings by `deadline`."""
        if deadline < self._rings_at:
            self.stop()
            self._rings_at = deadline
            self._timer = self._loop.call_at(deadline, self._ring)

    def stop(self) -> None:
        """Ring no more."""
        self._rings_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        # The clock of uvloop is coarser than its timers: what ends within a millisecond has ended.
        now = self._loop.time() + 0.001
        self.stop()
        for clocked in list(self._live()):
            if clocked.deadline <= now:
                clocked.expire()
            else:
                self.start(clocked.deadline)
