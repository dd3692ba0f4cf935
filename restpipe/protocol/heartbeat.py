"""When to ping, and when a silent peer is dead."""

from enum import Enum, auto

from restpipe.exceptions import ProtocolError


class Beat(Enum):
    """What a tick asks for."""

    NOTHING = auto()
    PING = auto()
    DEAD = auto()


class Heartbeat:
    """The clockwork of liveness; it reads no clock.

    Args:
        interval: seconds between pings.
        timeout: seconds of silence after which the peer is dead.
        now: any monotonic time in seconds; all later times are of the same clock.

    Attributes:
        last_ping: id of the last ping, 0 before the first.
    """

    __slots__ = ("_heard", "_interval", "_next_ping", "_pinged", "_timeout", "last_ping")

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._heard = now
        self._next_ping = now + interval
        self._pinged = now
        self.last_ping = 0

    @property
    def due(self) -> float:
        """The time at which `tick` has something to do."""
        return min(self._next_ping, self._heard + self._timeout)

    def heard(self, now: float) -> None:
        """Note that something was received."""
        self._heard = now

    def join(self, now: float) -> bool:
        """Say whether to ping now, beside the answer to the peer's ping: where the next is due within half an interval.

        It leaves with what is to be written anyway. A thousand idle pipes are mostly the cost of their writes.
        """
        if now < self._next_ping - self._interval / 2:
            return False
        self._next_ping = now + self._interval
        return True

    def tick(self, now: float) -> Beat:
        """Decide what to do at `now`.

        A tick that comes late tells that this process stood still. What the peer sent meanwhile is still unread, so the
        lateness does not count as silence.
        """
        death = self._heard + self._timeout
        due = min(self._next_ping, death)
        if now < due:
            return Beat.NOTHING
        if due == death:
            return Beat.DEAD
        self._heard = min(now, self._heard + now - due)
        self._next_ping = now + self._interval
        return Beat.PING

    def ping(self, now: float) -> int:
        """Return the id of a ping that is sent now."""
        self._pinged = now
        self.last_ping += 1
        return self.last_ping

    def pong(self, ping_id: int, now: float) -> float | None:
        """Return the seconds that the last ping took; None where an earlier one is answered.

        Raises:
            ProtocolError: no ping had this id.
        """
        if not 0 < ping_id <= self.last_ping:
            raise ProtocolError("it answers no ping")
        return now - self._pinged if ping_id == self.last_ping else None
