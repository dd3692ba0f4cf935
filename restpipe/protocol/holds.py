"""What the requests in flight keep of the frames that brought them."""

from restpipe.protocol.limits import LARGE_FRAME, MAX_HEADS, SHARED_FRAMES
from restpipe_pb.v1.pipe_pb2 import Request


class Holds:
    """Bounds the memory of the peer's requests, which may be dozens of times what they had on the wire.

    A request that was decoded keeps all of its frame, and what else that brought may be over. So a frame counts as long
    as one of its requests lives. Once that is much, requests are copied out of their frames and count for themselves;
    its body does not, for there is credit for that.

    Attributes:
        held: bytes that count.
        large: the frame at hand may be bloated.
    """

    __slots__ = ("_frame", "held", "large")

    def __init__(self) -> None:
        self.held = 0
        self.large = False
        self._frame = Hold(self, 0)

    def begin_frame(self, size: int) -> None:
        """Take up a frame of so many bytes."""
        self._frame = Hold(self, size)
        self.large = size > LARGE_FRAME

    def take(self, request: Request) -> "tuple[Request, Hold | None]":
        """Return a request of the frame, in the form in which it is to be kept, and what it holds, to let go of later.

        Nothing is held where that would be too much.
        """
        hold = self._frame
        if self.held > SHARED_FRAMES:
            hold = Hold(self, request.ByteSize() - len(request.body))
            if self.held + hold.size > MAX_HEADS:
                return request, None
            request = Request.FromString(request.SerializeToString())
        if not hold.live:
            self.held += hold.size
        hold.live += 1
        return request, hold


class Hold:
    """A frame, or a request by itself, that requests in flight keep in memory.

    Attributes:
        size: bytes.
        live: requests that keep it.
    """

    __slots__ = ("_holds", "live", "size")

    def __init__(self, holds: Holds, size: int) -> None:
        self._holds = holds
        self.size = size
        self.live = 0

    def let_go(self) -> None:
        """Note that one of the requests is over."""
        self.live -= 1
        if not self.live:
            self._holds.held -= self.size
