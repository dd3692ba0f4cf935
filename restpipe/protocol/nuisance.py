"""What a peer sends that costs more than it is worth."""

from restpipe.protocol.limits import CANCEL_COST, CREDIT_COST, FOR_OTHERS, PING_COST, REFUSAL_COST


class Nuisance:
    """Adds up the seconds for which to leave a peer unread, so that it takes a fraction of this node's time.

    Pings and credit are the peer's own doing. Cancels, and requests for what there is not, a server may pass on from
    those who ask it: they weigh less then.

    Args:
        by_server: the peer is a server.
    """

    __slots__ = ("_cancel", "_refusal", "_seconds")

    def __init__(self, *, by_server: bool) -> None:
        weight = FOR_OTHERS if by_server else 1.0
        self._cancel = CANCEL_COST * weight
        self._refusal = REFUSAL_COST * weight
        self._seconds = 0.0

    def ping(self) -> None:
        """Note a ping of the peer's."""
        self._seconds += PING_COST

    def credit(self) -> None:
        """Note a credit."""
        self._seconds += CREDIT_COST

    def cancel(self) -> None:
        """Note a cancel that was no answer to one of this side's."""
        self._seconds += self._cancel

    def refusal(self) -> None:
        """Note a request that was of no use."""
        self._seconds += self._refusal

    def take(self) -> float:
        """Return the seconds that came together since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
