"""Sides of a pipe without a carrier between them."""

from envelopes import Message, envelope, opened

from restpipe.protocol.connection import Connection
from restpipe.protocol.events import Event
from restpipe.protocol.limits import REVISION, Limits
from restpipe_pb.v1.pipe_pb2 import Envelope, Frame, Hello


def frame(*envelopes: Envelope) -> bytes:
    """Encode a frame of envelopes."""
    return Frame(envelopes=envelopes).SerializeToString()


def hello(
    *,
    revision: int = REVISION,
    initial_window: int = 65536,
    max_exchanges: int = 100,
    max_frame_bytes: int = 1024 * 1024,
) -> Hello:
    """Make a Hello that every node accepts, but for what the test says."""
    return Hello(
        revision=revision,
        software="peer/1.0",
        initial_window=initial_window,
        max_exchanges=max_exchanges,
        max_frame_bytes=max_frame_bytes,
    )


def connection(*, dials: bool = True, limits: Limits | None = None, now: float = 0.0) -> Connection:
    """Make a side that has neither sent nor received anything."""
    return Connection(dials=dials, limits=limits or Limits(), hello=Hello(software="restpipe/1.0"), now=now)


class Side:
    """A connection whose peer is the test.

    Args:
        dials: the connection made the call, so that its ids are odd and the test's even.
        limits: the connection's.
        greeting: the test's Hello; None leaves the handshake to the test.
    """

    def __init__(
        self,
        *,
        dials: bool = True,
        limits: Limits | None = None,
        greeting: Hello | None = hello(),  # noqa: B008
    ) -> None:
        self.core = connection(dials=dials, limits=limits)
        if greeting is not None:
            self.take(0, greeting)
            self.sent()

    def take(self, exchange_id: int, message: Message, now: float = 0.0) -> list[Event]:
        """Let one envelope arrive."""
        return self.core.receive(frame(envelope(exchange_id, message)), now)

    def sent(self) -> list[tuple[int, Message]]:
        """Write all that can be written; return its envelopes."""
        return [opened(each) for data in self.frames() for each in Frame.FromString(data).envelopes]

    def frames(self) -> list[bytes]:
        """Write all that can be written; return the frames."""
        frames = []
        while (data := self.core.next_frame()) is not None:
            frames.append(data)
        return frames
