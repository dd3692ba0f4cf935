"""From an envelope to its bytes.

Each envelope is encoded as a frame of its own, for the concatenation of encoded frames is an encoded frame. What stands
around a message is put together by hand: to copy it into an `Envelope` and a `Frame` takes twice as long for a request,
and copies a body three times on its way.
"""

from restpipe_pb.v1.pipe_pb2 import Cancel, Chunk, Credit, Envelope, Frame, Goaway, Hello, Ping, Pong, Request, Response

Message = Hello | Request | Response | Credit | Cancel | Ping | Pong | Goaway

# https://protobuf.dev/programming-guides/encoding/#structure: the number of the field, then 2 for what has a length.
_ENVELOPE = bytes([Frame.DESCRIPTOR.fields_by_name["envelopes"].number << 3 | 2])
_EXCHANGE_ID = bytes([Envelope.DESCRIPTOR.fields_by_name["exchange_id"].number << 3])
_KINDS = {kind.name: bytes([kind.number << 3 | 2]) for kind in Envelope.DESCRIPTOR.oneofs_by_name["kind"].fields}
_DATA = bytes([Chunk.DESCRIPTOR.fields_by_name["data"].number << 3 | 2])
_MORE = bytes([Chunk.DESCRIPTOR.fields_by_name["more"].number << 3, 1])
_ONE_BYTE = [bytes([number]) for number in range(128)]


def encode(exchange_id: int, kind: str, message: Message) -> bytes:
    """Encode an envelope as a frame of its own.

    Args:
        exchange_id: 0 for what belongs to no exchange.
        kind: name of the field of `Envelope`.
        message: its value.
    """
    data = message.SerializeToString()
    head = _KINDS[kind] + varint(len(data))
    if exchange_id:
        head = _EXCHANGE_ID + varint(exchange_id) + head
    return _ENVELOPE + varint(len(head) + len(data)) + head + data


def encode_chunk_head(exchange_id: int, size: int, *, more: bool) -> bytes:
    """Encode a frame of one chunk, as far as the `size` bytes of its data, which follow."""
    # The data comes last, which protobuf leaves to its encoders.
    chunk = _MORE if more else b""
    if size:
        chunk += _DATA + varint(size)
    head = _EXCHANGE_ID + varint(exchange_id) + _KINDS["chunk"] + varint(len(chunk) + size) + chunk
    return _ENVELOPE + varint(len(head) + size) + head


def varint(number: int) -> bytes:
    """Encode a number of at least 0 in as many bytes as it needs, seven bits in each, the lowest first."""
    if number < 1 << 7:
        return _ONE_BYTE[number]
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    if number < 1 << 21:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    return bytes((number & 127 | 128,)) + varint(number >> 7)
