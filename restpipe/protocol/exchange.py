"""One request and its response, as one side of the pipe knows them."""

from collections import deque

from restpipe.protocol.holds import Hold
from restpipe.protocol.windows import FlowControl, ReceiveWindow, SendWindow

# Bytes of a body that should wait to leave: a frame may take the most of it, where the peer permits as much.
LOW_WATER = 64 * 1024
HIGH_WATER = 256 * 1024


class Exchange:
    """The state of both halves, and what waits to be sent on the local one.

    Attributes:
        id: the exchange's number on the pipe.
        mine: this side opened it.
        local_open: this side's half has not ended.
        local_begun: this side's head, its Request or Response, was given to the outbox.
        remote_open: the peer's half has not ended.
        remote_begun: the peer's head, its Request or Response, has arrived.
        wanted: the application still wants what arrives.
        head_unsent: this side's head waits in the outbox.
        pieces: body that waits for credit or for its turn. Like the windows it is made when a body needs it: most
            exchanges carry all they have in their heads.
        buffered: bytes in `pieces`.
        awaits_credit: nothing of the local body is to leave before the first credit.
        finishing: nothing will be added to `pieces`.
        hold: what the request keeps; None where this side opened it.
        passes_on: the peer asks for another node, by way of this one.
        scheduled: it stands in the outbox's round.
    """

    __slots__ = (
        "_flow",
        "_receive_window",
        "_send_window",
        "awaits_credit",
        "buffered",
        "finishing",
        "head_unsent",
        "hold",
        "id",
        "local_begun",
        "local_open",
        "mine",
        "passes_on",
        "pieces",
        "remote_begun",
        "remote_open",
        "scheduled",
        "wanted",
    )

    def __init__(self, exchange_id: int, *, mine: bool, flow: FlowControl) -> None:
        self.id = exchange_id
        self.mine = mine
        self.local_open = True
        self.local_begun = False
        self.remote_open = True
        self.remote_begun = not mine
        self.wanted = True
        self.head_unsent = False
        self.pieces: deque[bytes | memoryview] | None = None
        self.buffered = 0
        self.awaits_credit = False
        self.finishing = False
        self.hold: Hold | None = None
        self.passes_on = False
        self.scheduled = False
        self._flow = flow
        self._send_window: SendWindow | None = None
        self._receive_window: ReceiveWindow | None = None

    @property
    def send_window(self) -> SendWindow:
        """What may still be sent of the local half."""
        window = self._send_window
        if window is None:
            window = self._send_window = self._flow.send_window()
        return window

    @property
    def receive_window(self) -> ReceiveWindow:
        """What may still arrive of the remote half."""
        window = self._receive_window
        if window is None:
            window = self._receive_window = self._flow.receive_window()
        return window

    def hold_back(self) -> None:
        """Let nothing of the local body leave before the first credit."""
        self.awaits_credit = True
        self.send_window.available = 0

    def close(self) -> None:
        """Give back what the exchange holds of the pipe's budgets."""
        self.let_go()
        if self._receive_window is not None:
            self._receive_window.close()

    def let_go(self) -> None:
        """Keep nothing of the frame that the request came in."""
        if self.hold is not None:
            self.hold.let_go()
            self.hold = None

    @property
    def sendable(self) -> bool:
        """Whether a chunk could leave now, after the head: bytes with credit, or the bare end of the half."""
        if self.head_unsent or not self.local_open:
            return False
        return self.send_window.available > 0 if self.pieces else self.finishing

    @property
    def wants_more(self) -> bool:
        """Whether the application should add to the body: less waits than may leave at once."""
        return self.buffered < min(HIGH_WATER, max(LOW_WATER, self.send_window.available))

    @property
    def delivers(self) -> bool:
        """Whether what arrives goes to the application: a caller that still wants it, a handler that has not ended."""
        return self.wanted and (self.mine or self.local_open)

    def abandon(self) -> None:
        """End the local half without sending what waits."""
        self.local_open = False
        self.head_unsent = False
        self.pieces = None
        self.buffered = 0
