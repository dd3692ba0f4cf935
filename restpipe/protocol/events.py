"""What `Connection.receive` and `Connection.tick` report."""

from typing import NamedTuple

from restpipe.exceptions import ProtocolError
from restpipe_pb.v1.pipe_pb2 import Goaway, Hello, Request, Response


class PeerReady(NamedTuple):
    """The peer's Hello arrived: exchanges can be opened."""

    hello: Hello


class RequestReceived(NamedTuple):
    """The peer opened an exchange. Answer it with `respond`, or end it with `cancel`."""

    exchange_id: int
    request: Request


class ResponseReceived(NamedTuple):
    """The answer to an exchange of this side; its body follows where `response.more`."""

    exchange_id: int
    response: Response


class BodyReceived(NamedTuple):
    """A piece of the body of the peer's half. Call `consume` once the application has taken it."""

    exchange_id: int
    data: bytes
    more: bool


class Cancelled(NamedTuple):
    """The peer ended its half without completing it. The exchange is over."""

    exchange_id: int
    message: str


class Refused(NamedTuple):
    """The peer leaves, and never began this exchange. The exchange is over."""

    exchange_id: int
    message: str


class PongReceived(NamedTuple):
    """The peer is alive; `round_trip` seconds passed since the ping."""

    round_trip: float


class PeerLeaving(NamedTuple):
    """The peer accepts no new exchanges. Where `at_once`, it ends the call now."""

    reason: Goaway.Reason.ValueType
    message: str
    at_once: bool


class PeerSilent(NamedTuple):
    """Nothing was received for the heartbeat timeout: the pipe is dead."""

    timeout: float


class Broken(NamedTuple):
    """The peer broke the protocol: write what `next_frame` still has, then end the call."""

    error: ProtocolError


Event = (
    PeerReady
    | RequestReceived
    | ResponseReceived
    | BodyReceived
    | Cancelled
    | Refused
    | PongReceived
    | PeerLeaving
    | PeerSilent
    | Broken
)
