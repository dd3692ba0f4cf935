"""Messages of the protocol, in their envelopes and out of them."""

from restpipe_pb.v1.pipe_pb2 import Cancel, Chunk, Credit, Envelope, Goaway, Hello, Ping, Pong, Request, Response

Message = Hello | Request | Response | Chunk | Credit | Cancel | Ping | Pong | Goaway


def envelope(exchange_id: int, message: Message) -> Envelope:
    """Put a message into its envelope."""
    made = Envelope(exchange_id=exchange_id)
    kind = getattr(made, type(message).__name__.lower())
    kind.CopyFrom(message)
    kind.SetInParent()
    return made


def opened(sealed: Envelope) -> tuple[int, Message]:
    """Take a message out of its envelope."""
    kind = sealed.WhichOneof("kind")
    assert kind is not None
    return sealed.exchange_id, getattr(sealed, kind)
