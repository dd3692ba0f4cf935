"""The figures that a node keeps: plain numbers, which somebody else puts into words."""

import time
from typing import NamedTuple

from restpipe.transport.carrier import Carrier

# Seconds; the upper bounds of the buckets of durations, the last of which has none.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
# Share of the last second in the rate of a pipe, the rest being that of those before.
_SMOOTHING = 0.3


class Durations:
    """How often something took how long.

    Attributes:
        buckets: number of times for each of `BOUNDS`, and of those beyond.
        seconds: the sum.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0


# By side, verb, event and outcome.
DurationsByEvent = dict[tuple[str, str, str, str], Durations]


class Tally:
    """Exchanges that are over.

    Attributes:
        all: their number.
        failed: those of them whose outcome is not "done".
    """

    __slots__ = ("all", "failed")

    def __init__(self) -> None:
        self.all = 0
        self.failed = 0


class Traffic:
    """What passed by a pipe.

    Attributes:
        since: when it was made, in seconds since 1970.
        opened: exchanges that this node opened.
        served: exchanges that the peer opened.
        received: bytes of the frames that arrived.
        sent: bytes of the frames that left.
        rate: exchanges a second, both ways, over the last few seconds.
    """

    __slots__ = ("_counted", "opened", "rate", "received", "sent", "served", "since")

    def __init__(self) -> None:
        self.since = time.time()
        self.opened = Tally()
        self.served = Tally()
        self.received = 0
        self.sent = 0
        self.rate = 0.0
        self._counted = 0

    def add_to(self, totals: list[int]) -> None:
        """Add what passed to totals in the order of `Sample`."""
        totals[0] += self.opened.all
        totals[1] += self.opened.failed
        totals[2] += self.served.all
        totals[3] += self.served.failed
        totals[4] += self.received
        totals[5] += self.sent

    def end(self, past: "Traffic") -> None:
        """Count to that of the past from now on."""
        for ours, theirs in ((self.opened, past.opened), (self.served, past.served)):
            theirs.all += ours.all
            theirs.failed += ours.failed
        past.received += self.received
        past.sent += self.sent
        # Exchanges that end with their pipe are noted after it.
        self.opened, self.served = past.opened, past.served

    def tick(self) -> None:
        """Note that a second is over."""
        counted = self.opened.all + self.served.all
        if counted != self._counted or self.rate:
            rate = self.rate + (counted - self._counted - self.rate) * _SMOOTHING
            self.rate = rate if rate >= 0.01 else 0.0
            self._counted = counted


class Sample(NamedTuple):
    """What was counted within a second, or in all."""

    opened: int
    opened_failed: int
    served: int
    served_failed: int
    received: int
    sent: int


class MeteredCarrier:
    """A carrier whose frames are counted."""

    def __init__(self, carrier: Carrier, traffic: Traffic) -> None:
        self._carrier = carrier
        self._traffic = traffic
        self.peer = carrier.peer
        self.close = carrier.close

    async def read(self) -> bytes | None:
        """Return the next frame, None once the carrier ended."""
        frame = await self._carrier.read()
        if frame is not None:
            self._traffic.received += len(frame)
        return frame

    async def write(self, frame: bytes) -> None:
        """Hand over a frame.

        Raises:
            CarrierLostError: the carrier ended.
        """
        await self._carrier.write(frame)
        self._traffic.sent += len(frame)
