"""How much a pool of threads has to do: who may wait for a thread, and who is better told to come back.

A queue is there for bursts; one that stays only makes everybody late, and no more is done for it. To tell them apart by
the time for which the queue stands is the idea of controlled delay (RFC 8289). How long one more would wait is known
beforehand here, by how long calls take: who would wait too long is refused as it comes.
"""

import math

# Seconds that a burst may wait, unless a call takes longer.
LONGEST = 1.0
# Of these, the share for which a queue may stand, unless a call takes longer: so long it is a burst.
BURST = 0.1
# And the share that is borne where it is none, unless half a call takes longer. By default, with its way back, who
# waited so long in vain is refused within 50 ms.
STEADY = 0.04
# Seconds after which those who were refused come back, as `Retry-After` tells them: there is too much to do until
# nobody was refused for as long.
BACK = 1.0
# Seconds beyond the usual after which a call counts as one that does not return. So long a process may stand.
STUCK = 1.0
# Times its usual time that a call may well take: who waits for it is not to be refused a moment before.
WELL = 1.5
# Calls of which the mean is what a call usually takes.
MEMORY = 32


class Workload:
    """What is known of the calls that threads run, and of those that wait for one.

    Times are monotonic, in seconds.

    Args:
        longest: seconds that a burst may wait.
    """

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._usual = 0.0
        self._ended = 0
        self._begun: dict[object, float] = {}
        self._queue_since = 0.0
        self._refused = -math.inf

    def begin(self, call: object, now: float) -> None:
        """Note that a thread begins with a call."""
        self._begun[call] = now

    def end(self, call: object, now: float) -> None:
        """Note that a call returned."""
        self._ended = min(self._ended + 1, MEMORY)
        self._usual += (now - self._begun.pop(call) - self._usual) / self._ended

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
        most = self._bearable(now)
        if (ahead + 0.5) / self._pace(idle, now) > min(most, within / 2):
            return 0.0
        return min(most if self._crowded(now) else max(most, WELL * self._usual), within / 2)

    def surplus(self, waiting: int, idle: int, now: float) -> int:
        """Return how many of the calls that wait are to be refused, once it is clear that they are no burst."""
        if not self._queue_stands(now):
            return 0
        return max(0, waiting - int(self._bearable(now) * self._pace(idle, now) + 0.5))

    def _bearable(self, now: float) -> float:
        """Return for how long one more call may wait."""
        if self._crowded(now):
            return max(STEADY * self._longest, self._usual / 2)
        return max(self._longest, self._usual)

    def _crowded(self, now: float) -> bool:
        return self._queue_stands(now) or now - self._refused < BACK

    def _queue_stands(self, now: float) -> bool:
        return now - self._queue_since > max(BURST * self._longest, WELL * self._usual)

    def _pace(self, idle: int, now: float) -> float:
        """Return how many calls begin in a second."""
        usual = max(self._usual, 1e-6)
        pace = idle / usual
        for begun in self._begun.values():
            lasted = now - begun
            # What runs on for long is expected to do so for as long again.
            pace += 1 / (lasted if lasted > usual + STUCK else usual)
        return pace
