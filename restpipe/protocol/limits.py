"""The bounds of a pipe, and what a peer's Hello must grant."""

from dataclasses import dataclass

from restpipe.exceptions import ProtocolError
from restpipe.protocol.windows import MAX_WINDOW
from restpipe_pb.v1.pipe_pb2 import Hello

REVISION = 1
# Characters.
LONGEST_PIPE_NAME = 32
# Until the peer's Hello tells what it accepts: room for a manifest.
FIRST_FRAME_BYTES = 1024 * 1024
SMALLEST_WINDOW = 16 * 1024
SMALLEST_FRAME = 64 * 1024
# Envelopes in a frame: what bounds the time that one takes, in which nobody else has a turn.
MAX_ENVELOPES = 128
# Below this a sent frame might have no room for a piece of body.
SMALLEST_FRAME_SENT = 4 * 1024
# What a head carries of its body: nothing else can be sent in the midst of it.
INLINE_BYTES = 16 * 1024
# Seconds that a peer is left unread for each, about ten times what they take, so that a flood of them leaves this node
# to the other peers. A peer that does useful work sends few.
PING_COST = 0.0002
CANCEL_COST = 0.0003
CREDIT_COST = 0.00002
REFUSAL_COST = 0.0003
# A traceback, for the log and for the caller.
RAISED_COST = 0.0012
# What is passed on to another client takes so many times as long: two pipes, two exchanges, few of either in a frame.
PASSED_ON = 8
# Seconds of rest that are taken for each envelope at most, half of what the dearest costs. More than that is owed, so
# that a flood is taken evenly: all of the rest after all of what caused it would let the others wait for one, then the
# other.
REST_EACH = 0.0012
# Seconds that are owed at most: of many requests that failed at once, as where they waited for a client that was lost.
MOST_OWED = 0.25
# Seconds of rest that are not worth a timer: ordinary work owes less after each frame.
TOLERATED = 0.001
# Envelopes that are taken at once of a peer that owes more than that.
FEW_ENVELOPES = 4
# Share of the time for cancels and refusals for which a client leaves its server unread: it passes on what others ask,
# and holds each of them to all of that time. Left unread for what one of them does, it would delay them all.
FOR_OTHERS = 0.1
# Bytes of the frames that the requests in flight came in. Protobuf makes many times as much of them, and a request
# keeps all of its frame: beyond the first bound each is taken out of it, beyond the second refused.
SHARED_FRAMES = 4 * 1024 * 1024
MAX_HEADS = 8 * 1024 * 1024
# Headers, query parameters and arguments of a head, each; events, arguments and names of a manifest. What is two bytes
# on the wire may take fifty in memory.
MAX_PARTS = 1000
# Bytes of a frame below which they need not be counted.
LARGE_FRAME = 16 * 1024
MAX_MANIFEST = 10_000
# A peer that makes this many control envelopes wait (pongs, credit) does not read what it asks for.
MAX_CONTROL_DEPTH = 100_000
# What a Cancel or a Goaway says at most, so that it fits every frame.
MESSAGE_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one side of a pipe.

    Attributes:
        initial_window: bytes of each body that the peer may send before the first credit.
        max_window: bytes that the window of one body may grow to: what it may put in front of everything else.
        window_budget: bytes that all windows of the pipe may grow by, together.
        max_exchanges: exchanges that the peer may have open at once.
        max_frame_bytes: the largest frame accepted.
        frame_bytes: the largest frame sent, heads apart. Only a path that gave a body credit for as much fills it, so
            that a small request waits for one frame of bulk at most, and on a slow path for a small one.
        heartbeat_interval: seconds between pings.
        heartbeat_timeout: seconds of silence after which the peer is dead.

    Raises:
        ValueError: no pipe can work within these bounds.
    """

    initial_window: int = 64 * 1024
    max_window: int = 4 * 1024 * 1024
    window_budget: int = 64 * 1024 * 1024
    max_exchanges: int = 4096
    max_frame_bytes: int = 256 * 1024
    frame_bytes: int = 256 * 1024
    heartbeat_interval: float = 5.0
    heartbeat_timeout: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (
            ("initial_window", SMALLEST_WINDOW),
            ("max_window", 0),
            ("window_budget", 0),
            ("max_exchanges", 1),
            ("max_frame_bytes", SMALLEST_FRAME),
            ("frame_bytes", SMALLEST_FRAME_SENT),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, less than {least}")
        if max(self.initial_window, self.max_window) > MAX_WINDOW:
            raise ValueError(f"a window may exceed {MAX_WINDOW}")


def check_hello(hello: Hello) -> None:
    """Refuse a peer that this node cannot work with.

    Raises:
        ProtocolError: it speaks another revision, or grants less than the protocol demands.
    """
    if hello.revision != REVISION:
        raise ProtocolError(
            f"this node speaks revision {REVISION} of the protocol, the peer ({hello.software[:64]!a}) {hello.revision}"
        )
    if not SMALLEST_WINDOW <= hello.initial_window <= MAX_WINDOW:
        raise ProtocolError(f"an initial window of {hello.initial_window} bytes")
    if hello.max_exchanges < 1:
        raise ProtocolError("it permits no exchange")
    if hello.max_frame_bytes < SMALLEST_FRAME:
        raise ProtocolError(f"frames of at most {hello.max_frame_bytes} bytes")
    size = len(hello.manifest)
    if size <= MAX_MANIFEST:
        size += sum(len(event.arguments) + len(event.allow) for event in hello.manifest)
    if size > MAX_MANIFEST:
        raise ProtocolError(f"a manifest of more than {MAX_MANIFEST} events, arguments and names")
    if hello.pipe and not (len(hello.pipe) <= LONGEST_PIPE_NAME and hello.pipe.isascii() and hello.pipe.isalnum()):
        raise ProtocolError("a name of the pipe that is not made of a few letters and digits")
