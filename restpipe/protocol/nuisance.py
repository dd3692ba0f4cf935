"""What a peer sends that costs more than it is worth."""

from restpipe.protocol.limits import (
    CANCEL_COST,
    CREDIT_COST,
    FEW_ENVELOPES,
    FOR_OTHERS,
    MAX_ENVELOPES,
    MOST_OWED,
    PASSED_ON,
    PING_COST,
    RAISED_COST,
    REFUSAL_COST,
    REST_EACH,
    TOLERATED,
)


class Nuisance:
    """Adds up the seconds for which to leave a peer unread, so that it takes a fraction of this node's time.

    They are owed, and paid in parts, after a few envelopes each.

    Pings and credit are the peer's own doing. Cancels, and requests for what there is not or makes a handler raise, a
    server may pass on from those who ask it: they weigh less then. For that server they weigh more than others.

    Args:
        by_server: the peer is a server.

    Attributes:
        owed: seconds.
        taken: envelopes of the turn at hand.
    """

    __slots__ = ("_cancel", "_raised", "_refusal", "owed", "taken")

    def __init__(self, *, by_server: bool) -> None:
        weight = FOR_OTHERS if by_server else 1.0
        self._cancel = CANCEL_COST * weight
        self._refusal = REFUSAL_COST * weight
        self._raised = RAISED_COST * weight
        self.owed = 0.0
        self.taken = 0

    def ping(self) -> None:
        """Note a ping of the peer's."""
        self.owed += PING_COST

    def credit(self) -> None:
        """Note a credit."""
        self.owed += CREDIT_COST

    def cancel(self, *, passed_on: bool = False) -> None:
        """Note a cancel that was no answer to one of this side's."""
        self.owed += self._cancel * (PASSED_ON if passed_on else 1)

    def refusal(self, *, passed_on: bool = False) -> None:
        """Note a request that was of no use."""
        self.owed += self._refusal * (PASSED_ON if passed_on else 1)

    def raised(self) -> None:
        """Note a request that made a handler raise."""
        self.owed += self._raised

    @property
    def turn(self) -> int:
        """Envelopes to take before others have their turn."""
        return MAX_ENVELOPES if self.owed <= TOLERATED else FEW_ENVELOPES

    def rest(self) -> float:
        """Return the seconds to leave the peer unread after the turn at hand, 0 where that is not worth a timer."""
        owed = min(self.owed, MOST_OWED)
        rest = min(owed, self.taken * REST_EACH) if owed > TOLERATED else 0.0
        self.owed = owed - rest
        return rest
