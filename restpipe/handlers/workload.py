"""How much a pool of threads has to do: who may wait for a thread, and who is better told to come back.

A queue is there for bursts; one that stays only makes everybody late, and no more is done for it. To tell them apart by
the time for which the queue stands is the idea of controlled delay (RFC 8289). How long one more would wait is known
beforehand here, by how long calls take: who would wait too long is refused as it comes.
"""

import math
from collections import deque

# Seconds that a call of a burst may wait.
BURST = 1.0
# Of these, the share for which a queue may stand: so long it is a burst.
STANDS = 0.1
# And the share that is borne where it is none. By default, with its way back, who waited so long in vain is refused
# within 50 ms.
STEADY = 0.04
# Where calls take long, a burst may wait for so many, one after the other, whatever the seconds.
TURNS = 2
# Seconds after which those who were refused come back, as `Retry-After` tells them: there is too much to do until
# nobody was refused for as long.
BACK = 1.0
# Seconds beyond those of the slowest after which a call counts as one that does not return: a process may stand.
STUCK = 1.0
# Calls by which it is known how long they take.
MEMORY = 32


class Workload:
    """What is known of the calls that threads run, and of those that wait for one.

    Times are monotonic, in seconds.

    Args:
        burst: seconds that a call of a burst may wait, unless calls take long.
    """

    def __init__(self, burst: float = BURST) -> None:
        self._burst = burst
        self._took: deque[float] = deque(maxlen=MEMORY)
        self._begun: dict[object, float] = {}
        self._queue_since = 0.0
        self._refused = -math.inf

    def begin(self, call: object, now: float) -> None:
        """Note that a thread begins with a call."""
        self._begun[call] = now

    def end(self, call: object, now: float) -> None:
        """Note that a call returned."""
        self._took.append(now - self._begun.pop(call))

    def begin_queue(self, now: float) -> None:
        """Note that a call begins to wait, and is the only one."""
        self._queue_since = now

    def refuse(self, now: float) -> None:
        """Note that a call is refused."""
        self._refused = now

    def patience(self, ahead: int, idle: int, within: float, now: float) -> float:
        """Return for how long one more call may wait; 0: it is to be refused.

        Args:
            ahead: calls that wait already, but for those that idle threads are about to take.
            idle: how many these are.
            within: seconds after which the call is of no use. Half of them are for waiting.
            now: the time.
        """
        most = min(self.bearable(now), within / 2)
        return most if (ahead + 0.5) / self._pace(idle, now) <= most else 0.0

    def bearable(self, now: float) -> float:
        """Return for how long one more call may wait that has the time."""
        if self._queue_stands(now) or now - self._refused < BACK:
            return max(STEADY * self._burst, self._usual / 2)
        return max(self._burst, TURNS * self._slowest)

    def surplus(self, waiting: int, idle: int, now: float) -> int:
        """Return how many of the calls that wait are to be refused, once it is clear that they are no burst."""
        if not self._queue_stands(now):
            return 0
        return max(0, waiting - int(self.bearable(now) * self._pace(idle, now) + 0.5))

    def _queue_stands(self, now: float) -> bool:
        return now - self._queue_since > max(STANDS * self._burst, TURNS * self._slowest)

    @property
    def _usual(self) -> float:
        return sum(self._took) / len(self._took) if self._took else 0.0

    @property
    def _slowest(self) -> float:
        return max(self._took, default=0.0)

    def _pace(self, idle: int, now: float) -> float:
        """Return how many calls begin in a second."""
        usual = max(self._usual, 1e-6)
        stuck = self._slowest + STUCK
        pace = idle / usual
        for begun in self._begun.values():
            lasted = now - begun
            # What runs on for long is expected to do so for as long again.
            pace += 1 / (lasted if lasted > stuck else usual)
        return pace
