"""From the bytes of a frame to its envelopes."""

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError

from restpipe.exceptions import ProtocolError
from restpipe.protocol.limits import MAX_ENVELOPES
from restpipe_pb.v1.pipe_pb2 import Envelope, Frame, Hello


def decode(data: bytes, most: int) -> Sequence[Envelope]:
    """Decode a frame.

    Args:
        data: the frame.
        most: bytes that it may have.

    Raises:
        ProtocolError: it is too large, or none.
    """
    if len(data) > most:
        raise ProtocolError(f"a frame of {len(data)} bytes, {most} are accepted")
    try:
        envelopes = Frame.FromString(data).envelopes
    except DecodeError as error:
        raise ProtocolError(f"a frame of {len(data)} bytes does not parse") from error
    if not envelopes:
        raise ProtocolError("a frame without an envelope")
    if len(envelopes) > MAX_ENVELOPES:
        raise ProtocolError(f"a frame of {len(envelopes)} envelopes, {MAX_ENVELOPES} are accepted")
    return envelopes


@lru_cache(maxsize=16)
def shared_hello(data: bytes) -> Hello:
    """Decode a Hello; thousands of clients of one release say the same, and what they serve takes memory."""
    return Hello.FromString(data)
