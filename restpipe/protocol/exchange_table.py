"""The exchanges of a pipe that are under way, and the numbers they go by."""

from collections.abc import Callable, ValuesView

from restpipe.exceptions import ProtocolError
from restpipe.protocol.exchange import Exchange


class ExchangeTable:
    """Exchanges by their ids: odd ones were opened by the side that dialled, even ones by the other.

    Args:
        dials: this side made the call.

    Attributes:
        get: returns the exchange of an id; None where it is over, or was never opened.
        mine: how many of them this side opened.
        next_id: of the next exchange that this side opens.
        last_of_peer: the highest id that the peer used, 0 before the first.
        refused_above: since this side's Goaway, exchanges of the peer with higher ids were never begun.
    """

    __slots__ = ("_by_id", "_parity", "get", "last_of_peer", "mine", "next_id", "refused_above")

    def __init__(self, *, dials: bool) -> None:
        self._by_id: dict[int, Exchange] = {}
        self.get: Callable[[int], Exchange | None] = self._by_id.get
        self._parity = 1 if dials else 0
        self.next_id = 1 if dials else 2
        self.mine = 0
        self.last_of_peer = 0
        self.refused_above: int | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    def values(self) -> ValuesView[Exchange]:
        """Return all of them."""
        return self._by_id.values()

    @property
    def theirs(self) -> int:
        """How many of them the peer opened."""
        return len(self._by_id) - self.mine

    def add_mine(self, exchange: Exchange) -> None:
        """Take up an exchange of this side, which has `next_id`."""
        self.next_id += 2
        self.mine += 1
        self._by_id[exchange.id] = exchange

    def check_new(self, exchange_id: int) -> None:
        """Check the id of a Request.

        Raises:
            ProtocolError: the peer may not use it, or not any more.
        """
        if exchange_id % 2 == self._parity or exchange_id == 0:
            raise ProtocolError("an id that the peer may not choose")
        if exchange_id <= self.last_of_peer:
            raise ProtocolError(f"an id that is not above {self.last_of_peer}")

    def add_theirs(self, exchange: Exchange) -> None:
        """Take up an exchange of the peer's."""
        self.last_of_peer = exchange.id
        self._by_id[exchange.id] = exchange

    def remove(self, exchange: Exchange) -> None:
        """Forget an exchange that is over."""
        del self._by_id[exchange.id]
        exchange.close()
        if exchange.mine:
            self.mine -= 1

    def find(self, exchange_id: int, *, over_is_fine: bool = False) -> Exchange | None:
        """Find the exchange to which an envelope of the peer belongs.

        Args:
            exchange_id: of the envelope.
            over_is_fine: the envelope may have crossed the one that ended the exchange.

        Returns:
            None where the envelope is to be ignored.

        Raises:
            ProtocolError: the peer could not have sent it.
        """
        exchange = self._by_id.get(exchange_id)
        if exchange is not None and not (exchange.mine and exchange.head_unsent):
            return exchange
        if exchange_id % 2 == self._parity:
            opened = exchange is None and 0 < exchange_id < self.next_id
        elif self.refused_above is not None and exchange_id > self.refused_above:
            return None
        else:
            opened = 0 < exchange_id <= self.last_of_peer
        if opened and over_is_fine:
            return None
        raise ProtocolError("the exchange is over" if opened else "the exchange was never opened")

    def refused_by_peer(self, last_id: int) -> list[Exchange]:
        """Return the exchanges of this side that a Goaway of the peer's refuses: all above the last it began."""
        return [e for e in self._by_id.values() if e.mine and (e.head_unsent or e.id > last_id)]
