"""Credit arithmetic: how many bytes of a body may still travel."""

from restpipe.exceptions import ProtocolError

MAX_WINDOW = 2**31 - 1


# A window that is consumed in less than so many round trips is what limits its sender: one that waits for credit needs
# little more than one, while on a path that is full a window takes the longer the larger it is, which ends the growth.
_ROUND_TRIPS = 1.5
# Seconds that two event loops, busy with other work, may need beside the path to turn a window over.
_TURN = 0.005
# A window that took as many times as long as one that is just large enough is too large. Below 2, one that doubled
# could be.
_TOO_LONG = 2
# Of a round trip that is longer than those before it, this much is believed: it may have waited behind a body.
_BELIEF = 1 / 8


class Growth:
    """What the windows of a pipe share: the bytes by which they may grow, and the round trip for which they grow.

    Args:
        budget: bytes by which they may grow, together, beyond their initial size.

    Attributes:
        available: what is left of the budget.
        round_trip: seconds; None before the first `measured`.
    """

    __slots__ = ("_budget", "available", "round_trip")

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self.available = budget
        self.round_trip: float | None = None

    def take(self, wanted: int) -> int:
        """Take up to `wanted` bytes, and no more than half of what is left, so that those who come late find some."""
        taken = min(wanted, self.available // 2)
        self.available -= taken
        return taken

    def give_back(self, taken: int) -> None:
        """Return bytes that were taken."""
        self.available += taken

    def measured(self, round_trip: float) -> None:
        """Follow a shorter round trip at once, and a longer one slowly: the path alone counts, not what waits on it.

        While a window is grown a longer one is not believed at all: what waits is what that window lets through. Where
        the path itself became longer, windows shrink until none is grown.
        """
        known = self.round_trip
        if known is None or round_trip < known:
            self.round_trip = round_trip
        elif self.available == self._budget:
            self.round_trip = known + (round_trip - known) * _BELIEF

    def turn(self) -> float | None:
        """Return the seconds within which a window is consumed that is too small for the path; None: not known yet."""
        return None if self.round_trip is None else _ROUND_TRIPS * self.round_trip + _TURN


class FlowControl:
    """Makes the windows of a pipe's exchanges.

    Args:
        send_initial: bytes, from the peer's Hello.
        receive_initial: bytes, as in this side's Hello.
        limit: bytes that a receive window may grow to.
        growth: shared by the receive windows.
    """

    __slots__ = ("_growth", "_limit", "_receive_initial", "_send_initial")

    def __init__(self, *, send_initial: int, receive_initial: int, limit: int, growth: Growth) -> None:
        self._send_initial = send_initial
        self._receive_initial = receive_initial
        self._limit = limit
        self._growth = growth

    def send_window(self) -> "SendWindow":
        """Return the window of a half that this side sends."""
        return SendWindow(self._send_initial)

    def receive_window(self) -> "ReceiveWindow":
        """Return the window of a half that this side receives."""
        return ReceiveWindow(self._receive_initial, self._limit, self._growth)


class SendWindow:
    """What the peer still permits this side to send of one body.

    Args:
        initial: bytes, from the peer's Hello.
    """

    __slots__ = ("available",)

    def __init__(self, initial: int) -> None:
        self.available = initial

    def spend(self, size: int) -> None:
        """Account for `size` bytes that are sent; the caller made sure that they are available."""
        self.available -= size

    def grant(self, size: int) -> None:
        """Add credit from the peer.

        Raises:
            ProtocolError: the grant is empty, or the window would exceed 2^31-1 bytes.
        """
        if size == 0:
            raise ProtocolError("a credit of 0 bytes")
        self.available += size
        if self.available > MAX_WINDOW:
            raise ProtocolError(f"credit of {size} bytes lets the window exceed {MAX_WINDOW}")


class ReceiveWindow:
    """What this side still permits the peer to send of one body, and when to permit more.

    Bytes that arrived are held until they are consumed, so `size` bounds the memory that one body takes.

    However fast its reader and its path, a sender gets no more than a window across in a round trip. So the window
    doubles, up to `limit` and as far as the budget goes, where a whole one was consumed in little more than that, much
    as QUIC and yamux have it. It shrinks again, though not below its initial size, where its reader or the path takes
    far longer: the rest would only wait, unread or in the queues of the path, in front of everything else. To shrink it
    withholds credit that is due.

    Args:
        initial: bytes, as in this side's Hello.
        limit: bytes that the window may grow to.
        growth: shared by the windows of a pipe.
    """

    __slots__ = ("_consumed", "_growth", "_initial", "_limit", "_since", "_turned", "available", "size")

    def __init__(self, initial: int, limit: int, growth: Growth) -> None:
        self.size = initial
        self.available = initial
        self._initial = initial
        self._limit = max(initial, limit)
        self._growth = growth
        self._consumed = 0
        # Bytes that were consumed since then, for which credit was granted; None before the first grant.
        self._turned = 0
        self._since: float | None = None

    def withhold(self) -> None:
        """Permit nothing before `permit`."""
        self.available = 0

    def permit(self) -> int:
        """Permit what was withheld; return the credit to grant."""
        self.available = self.size
        return self.size

    def receive(self, size: int) -> None:
        """Account for `size` bytes that arrived.

        Raises:
            ProtocolError: they are more than was permitted.
        """
        if size > self.available:
            raise ProtocolError(f"{size} bytes of body where the credit was {self.available}")
        self.available -= size

    def consume(self, size: int, now: float) -> int:
        """Account for `size` bytes that the application took; return the credit to grant now, 0 for none yet.

        Credit is granted in steps of at least a quarter of the window: it costs few envelopes, and most of the window
        travels.
        """
        self._consumed += size
        if 4 * self._consumed < self.size:
            return 0
        credit = self._consumed + self._resize(now)
        self.available += credit
        self._consumed = 0
        return credit

    def _resize(self, now: float) -> int:
        """Let the window follow the path once it was turned over; return the bytes by which it grew, or shrank."""
        turn = self._growth.turn()
        if self._since is None or turn is None:
            self._since = now
            return 0
        self._turned += self._consumed
        if 8 * self._turned < 7 * self.size:  # a frame may leave a little of a window that it all but fills
            return 0
        took = (now - self._since) * self.size / self._turned
        self._turned = 0
        self._since = now
        if took < turn:
            change = self._growth.take(min(self.size, self._limit - self.size))
        elif took > _TOO_LONG * turn:
            change = -min(self._consumed, self.size - self._initial)
            self._growth.give_back(-change)
        else:
            return 0
        self.size += change
        return change

    def close(self) -> None:
        """Give back what the window grew by."""
        self._growth.give_back(self.size - self._initial)
        self.size = self._initial
