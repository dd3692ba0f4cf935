"""Credit arithmetic: how many bytes of a body may still travel."""

from restpipe.exceptions import ProtocolError

MAX_WINDOW = 2**31 - 1


class Budget:
    """Bytes by which the windows of a pipe may grow, together, beyond their initial size.

    Args:
        total: bytes.
    """

    __slots__ = ("available",)

    def __init__(self, total: int) -> None:
        self.available = total

    def take(self, wanted: int) -> int:
        """Take up to `wanted` bytes; return how many there were."""
        taken = min(wanted, self.available)
        self.available -= taken
        return taken

    def give_back(self, taken: int) -> None:
        """Return bytes that were taken."""
        self.available += taken


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

    Bytes that arrived are held until they are consumed, so `size` bounds the memory that one body takes. The window
    doubles with each grant, up to `limit` and as far as the pipe's budget goes: a body that is consumed steadily soon
    has what its path needs, and one that nobody reads never grows.

    Args:
        initial: bytes, as in this side's Hello.
        limit: bytes that the window may grow to.
        budget: shared by the windows of a pipe.
    """

    __slots__ = ("_budget", "_consumed", "_initial", "_limit", "available", "size")

    def __init__(self, initial: int, limit: int, budget: Budget) -> None:
        self.size = initial
        self.available = initial
        self._initial = initial
        self._limit = max(initial, limit)
        self._budget = budget
        self._consumed = 0

    def receive(self, size: int) -> None:
        """Account for `size` bytes that arrived.

        Raises:
            ProtocolError: they are more than was permitted.
        """
        if size > self.available:
            raise ProtocolError(f"{size} bytes of body where the credit was {self.available}")
        self.available -= size

    def consume(self, size: int) -> int:
        """Account for `size` bytes that the application took; return the credit to grant now, 0 for none yet.

        Credit is granted in steps of at least half a window, so that it costs few envelopes.
        """
        self._consumed += size
        if 2 * self._consumed < self.size:
            return 0
        growth = self._budget.take(min(self.size, self._limit - self.size))
        credit = self._consumed + growth
        self.size += growth
        self.available += credit
        self._consumed = 0
        return credit

    def close(self) -> None:
        """Give back what the window grew by."""
        self._budget.give_back(self.size - self._initial)
        self.size = self._initial
