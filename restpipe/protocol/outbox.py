"""What waits to be written, and in which order it leaves."""

from collections import OrderedDict, deque
from collections.abc import Callable

from restpipe.protocol.encoding import encode_chunk_head
from restpipe.protocol.exchange import Exchange
from restpipe.protocol.limits import MAX_ENVELOPES

# What stands before the data of a chunk takes at most this many bytes.
CHUNK_OVERHEAD = 40
# In a round of many exchanges none gets a smaller turn than this, so that chunks stay worth their envelope.
SMALLEST_TURN = 8 * 1024
# The rest of a frame is left empty below this: the next frame follows at once.
SMALLEST_REST = 1024


class Outbox:
    """Envelopes of one side, by class: control first, then heads, then bodies round-robin.

    Envelopes are kept encoded, each as a frame of its own: the concatenation of encoded frames is an encoded frame.

    Args:
        half_sent: called with an exchange when the last of its local half has left.
    """

    def __init__(self, half_sent: Callable[[Exchange], None]) -> None:
        self._half_sent = half_sent
        # A server has thousands of outboxes, most of them idle: an empty deque takes ten times what a list takes.
        self._control: list[bytes] = []
        self._heads: OrderedDict[int, tuple[Exchange, bytes, bool]] = OrderedDict()
        self._passed_over = 0
        self._closed = False
        self._round: OrderedDict[int, Exchange] = OrderedDict()
        self._wanting: list[int] = []

    @property
    def control_depth(self) -> int:
        """Control envelopes that wait."""
        return len(self._control)

    @property
    def depth(self) -> int:
        """Envelopes that wait, and bodies that could go on."""
        return len(self._control) + len(self._heads) + len(self._round)

    def put_control(self, envelope: bytes) -> None:
        """Queue an encoded ping, pong, credit, cancel, goaway or hello."""
        if not self._closed:
            self._control.append(envelope)

    def put_head(self, exchange: Exchange, envelope: bytes, *, more: bool) -> None:
        """Queue an encoded request or response, which ends the local half where it says that no `more` follows."""
        exchange.local_begun = True
        exchange.head_unsent = True
        exchange.finishing = not more
        self._heads[exchange.id] = exchange, envelope, more

    def put_body(self, exchange: Exchange, data: bytes | memoryview, *, more: bool) -> None:
        """Queue a piece of the body of the local half, the last where `more` is unset."""
        if data:
            if exchange.pieces is None:
                exchange.pieces = deque()
            exchange.pieces.append(data)
            exchange.buffered += len(data)
        exchange.finishing = not more
        self.schedule(exchange)

    def abandon(self, exchange: Exchange) -> None:
        """End the local half without sending what waits of it."""
        if exchange.head_unsent:
            del self._heads[exchange.id]
        exchange.abandon()

    def close(self) -> None:
        """Let nothing leave any more but the control that waits: what is unsent now stays unsent."""
        self._closed = True

    def schedule(self, exchange: Exchange) -> None:
        """Let an exchange that has both bytes and credit take part in the round."""
        if not exchange.scheduled and exchange.sendable:
            exchange.scheduled = True
            self._round[exchange.id] = exchange

    def want(self, exchange: Exchange) -> None:
        """Have `take_wanting` tell of an exchange."""
        self._wanting.append(exchange.id)

    def take_wanting(self) -> list[int]:
        """Return the ids of exchanges of whose body more is wanted: enough of it has left since the last call."""
        wanting, self._wanting = self._wanting, []
        return wanting

    def next_frame(self, limit: int) -> bytes | None:
        """Return the next frame of at most `limit` bytes and `MAX_ENVELOPES`, or None where nothing can be sent.

        A head larger than `limit` travels alone; `Connection` bounds it by what the peer accepts.
        """
        parts: list[bytes | memoryview] = []
        room = limit
        if self._passed_over in self._heads and not self._closed:
            room -= self._take_head(parts)
        room = self._take_control(parts, room)
        # A Cancel may free the place that a Request takes: no head overtakes control that waited before it.
        if not self._control and not self._closed:
            room = self._take_heads(parts, room)
            if not self._heads:
                self._take_chunks(parts, room)
        return b"".join(parts) if parts else None

    def _take_control(self, parts: list[bytes | memoryview], room: int) -> int:
        taken = 0
        for envelope in self._control:
            if (len(envelope) > room and parts) or len(parts) >= MAX_ENVELOPES:
                break
            parts.append(envelope)
            room -= len(envelope)
            taken += 1
        if taken:
            del self._control[:taken]
        return room

    def _take_heads(self, parts: list[bytes | memoryview], room: int) -> int:
        heads = self._heads
        while heads and len(parts) < MAX_ENVELOPES:
            exchange, envelope, _ = next(iter(heads.values()))
            if len(envelope) > room and parts:
                # It goes first the next time: control that keeps coming could leave no room for it for ever.
                self._passed_over = exchange.id
                break
            room -= self._take_head(parts)
        return room

    def _take_head(self, parts: list[bytes | memoryview]) -> int:
        _, (exchange, envelope, more) = self._heads.popitem(last=False)
        exchange.head_unsent = False
        parts.append(envelope)
        if more:
            self.schedule(exchange)
        else:
            exchange.local_open = False
            self._half_sent(exchange)
        return len(envelope)

    def _take_chunks(self, parts: list[bytes | memoryview], room: int) -> None:
        turns = self._round
        room -= CHUNK_OVERHEAD
        while turns and room >= SMALLEST_REST and len(parts) < MAX_ENVELOPES:
            turn = max(SMALLEST_TURN, room // len(turns))
            _, exchange = turns.popitem(last=False)
            exchange.scheduled = False
            if not exchange.sendable:
                continue
            room -= self._take_chunk(parts, exchange, min(turn, room)) + CHUNK_OVERHEAD
            self.schedule(exchange)

    def _take_chunk(self, parts: list[bytes | memoryview], exchange: Exchange, most: int) -> int:
        """Move what may leave of a body, at most `most` bytes, into one chunk; return how many they are."""
        pieces = exchange.pieces
        most = min(most, exchange.send_window.available)
        at = len(parts)
        size = 0
        while pieces and size < most and len(parts) < MAX_ENVELOPES:
            piece = pieces.popleft()
            left = most - size
            if len(piece) > left:
                piece = memoryview(piece)
                pieces.appendleft(piece[left:])
                piece = piece[:left]
            parts.append(piece)
            size += len(piece)
        exchange.buffered -= size
        exchange.send_window.spend(size)
        more = bool(pieces) or not exchange.finishing
        parts.insert(at, encode_chunk_head(exchange.id, size, more=more))
        if not more:
            exchange.local_open = False
            self._half_sent(exchange)
        elif exchange.wants_more:
            self._wanting.append(exchange.id)
        return size
