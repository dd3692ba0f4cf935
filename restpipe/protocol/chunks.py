"""Chunks, encoded by hand: a message object would copy a body three times on its way into a frame."""

# Keys of fields, as in https://protobuf.dev/programming-guides/encoding: the field's number and its wire type.
_VARINT, _LENGTH = 0, 2
_ENVELOPES = bytes((1 << 3 | _LENGTH,))
_EXCHANGE_ID = bytes((1 << 3 | _VARINT,))
_CHUNK = bytes((5 << 3 | _LENGTH,))
_DATA = bytes((1 << 3 | _LENGTH,))
_MORE = bytes((2 << 3 | _VARINT, 1))


def chunk_head(exchange_id: int, size: int, *, more: bool) -> bytes:
    """Encode a frame of one chunk, as far as the `size` bytes of its data, which follow."""
    # The data comes last, which protobuf leaves to its encoders.
    chunk = _MORE if more else b""
    if size:
        chunk += _DATA + _varint(size)
    envelope = _EXCHANGE_ID + _varint(exchange_id) + _CHUNK + _varint(len(chunk) + size) + chunk
    return _ENVELOPES + _varint(len(envelope) + size) + envelope


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
