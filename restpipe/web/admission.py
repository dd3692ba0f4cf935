"""How many requests wait for their answers: few enough that those which are let in are answered soon."""

from time import monotonic

from restpipe.exceptions import TooManyExchangesError
from restpipe.nodes.exchanges import MakeRequest
from restpipe.pipe import Pipe
from restpipe_pb.v1.pipe_pb2 import Request

# Seconds after which a request that leaves for its peer has waited for it: where there was one, it leaves in its first
# step.
_AT_ONCE = 0.05


class Admission:
    """Lets requests in, and refuses those that would only make all of them slower.

    A peer may have as many requests waiting as places are free: one that does not answer leaves places to the others,
    however many peers do not. A request takes its place when it leaves for its peer at once. One that waited for an
    absent peer takes none, then or later: a crowd that was held back, and leaves together, is answered within a moment,
    in which those that come after would be refused.

    Args:
        most: requests that may wait.
        shared: by several peers; otherwise the only one may have all places.
    """

    def __init__(self, most: int, *, shared: bool) -> None:
        self._most = most
        self._shared = shared
        self._free = most
        self._by_peer: dict[str, int] = {}

    def check(self, peer: str) -> None:
        """See whether a request to this peer would be let in.

        Raises:
            TooManyExchangesError: too many wait.
        """
        waiting = self._by_peer.get(peer, 0)
        if waiting >= self._free and (self._shared or self._free <= 0):
            where = f"{waiting} requests to this peer" if self._free > 0 else f"{self._most} requests"
            raise TooManyExchangesError(f"{where} wait for their answers on this node, it takes no more for now")

    def take(self, peer: str) -> None:
        """Take a place."""
        self._free -= 1
        self._by_peer[peer] = self._by_peer.get(peer, 0) + 1

    def give_back(self, peer: str) -> None:
        """Free a place."""
        self._free += 1
        waiting = self._by_peer[peer] - 1
        if waiting:
            self._by_peer[peer] = waiting
        else:
            del self._by_peer[peer]


class Place:
    """The place of one request, to be left in the end.

    Args:
        admission: lets it in.
        peer: name of who is to answer.
        make_request: returns the request, for a pipe that it leaves by.

    Raises:
        TooManyExchangesError: too many wait.
    """

    __slots__ = ("_admission", "_make_request", "_peer", "_since", "_taken")

    def __init__(self, admission: Admission, peer: str, make_request: MakeRequest) -> None:
        admission.check(peer)
        self._admission = admission
        self._peer = peer
        self._make_request = make_request
        self._since = monotonic()
        self._taken = False

    def make_request(self, pipe: Pipe) -> Request:
        """Return the request, which leaves now."""
        if not self._taken and monotonic() - self._since < _AT_ONCE:
            self._taken = True
            self._admission.take(self._peer)
        return self._make_request(pipe)

    def leave(self) -> None:
        """Give the place back: the request has its answer, or will have none."""
        if self._taken:
            self._admission.give_back(self._peer)
