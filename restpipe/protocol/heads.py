"""Requests and responses: what a head may be, and what it carries of its body."""

from collections.abc import Sized

from restpipe.exceptions import BadResultError, EventError, HeadersTooLargeError, ProtocolError
from restpipe.protocol.encoding import encode
from restpipe.protocol.limits import INLINE_BYTES, MAX_PARTS
from restpipe_pb.v1.pipe_pb2 import Request, Response

_TOO_LARGE: dict[str, type[EventError]] = {"request": HeadersTooLargeError, "response": BadResultError}


def split_body(head: Request | Response) -> memoryview:
    """Leave in a head what of its body travels inline; return the rest, which has to follow in chunks."""
    rest = memoryview(head.body)[INLINE_BYTES:]
    if rest:
        head.body = head.body[:INLINE_BYTES]
        head.more = True
    return rest


def encode_head(exchange_id: int, kind: str, head: Request | Response, most: int) -> bytes:
    """Encode a head for a peer that accepts frames of `most` bytes.

    Raises:
        HeadersTooLargeError: a request is larger than that, or has more parts than any peer accepts.
        BadResultError: a response is, or has.
    """
    envelope = encode(exchange_id, kind, head)
    size = len(envelope)
    if size > most:
        raise _TOO_LARGE[kind](f"the head of the {kind} takes {size} bytes, the peer accepts {most}")
    if size > 2 * MAX_PARTS:  # none takes less than two bytes
        try:
            check_parts(head)
        except ProtocolError as error:
            raise _TOO_LARGE[kind](f"the head of the {kind} has {error}") from None
    return envelope


def check_parts(head: Request | Response) -> None:
    """Refuse a head of so many parts that it takes far more memory than bytes.

    Raises:
        ProtocolError: it has more than are accepted.
    """
    parts: list[Sized] = [head.headers]
    if isinstance(head, Request):
        parts += head.query, head.arguments
    most = max(map(len, parts))
    if most > MAX_PARTS:
        raise ProtocolError(f"{most} headers, parameters or arguments, {MAX_PARTS} are accepted")


def check_outcome(response: Response) -> None:
    """Refuse a response that is neither an answer nor a failure.

    Raises:
        ProtocolError: its status is none, or it is a failure with a body.
    """
    if response.HasField("failure"):
        if response.body or response.more:
            raise ProtocolError("a failure with a body")
    elif not 200 <= response.status <= 599:
        raise ProtocolError(f"status {response.status}")
