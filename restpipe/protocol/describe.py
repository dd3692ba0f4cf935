"""Frames in words, for DEBUG: kinds, exchanges and sizes, never bodies, arguments or headers."""

from google.protobuf.message import DecodeError

from restpipe_pb.v1.pipe_pb2 import Envelope, Frame, Goaway


def describe_frame(data: bytes) -> str:
    """Say in one line what a frame carries."""
    try:
        envelopes = Frame.FromString(data).envelopes
    except DecodeError:
        return f"{len(data)} bytes that do not parse"
    return f"{len(data)} bytes: " + ", ".join(map(_describe, envelopes))


def _describe(envelope: Envelope) -> str:
    kind = envelope.WhichOneof("kind")
    exchange = envelope.exchange_id
    match kind:
        case "request":
            request = envelope.request
            return (
                f"request {exchange} ({request.verb[:16]!a}, {len(request.body)} bytes{'...' if request.more else ''})"
            )
        case "response":
            response = envelope.response
            status = "failure" if response.HasField("failure") else response.status
            return f"response {exchange} ({status}, {len(response.body)} bytes{'...' if response.more else ''})"
        case "chunk":
            return f"chunk {exchange} ({len(envelope.chunk.data)} bytes{'...' if envelope.chunk.more else ''})"
        case "credit":
            return f"credit {exchange} ({envelope.credit.bytes} bytes)"
        case "goaway":
            reason = envelope.goaway.reason
            known = reason in Goaway.Reason.values()
            return f"goaway ({Goaway.Reason.Name(reason) if known else reason})"
        case None:
            return "an envelope of unknown kind"
        case _:
            return f"{kind} {exchange}" if exchange else kind
