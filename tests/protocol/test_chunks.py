"""Chunks that are encoded by hand are those that protobuf reads."""

from hypothesis import given
from hypothesis import strategies as st
from sides import envelope, frame

from restpipe.protocol.chunks import chunk_head
from restpipe.protocol.outbox import CHUNK_OVERHEAD
from restpipe_pb.v1.pipe_pb2 import Chunk, Envelope, Frame

EDGES = [n for bits in (7, 14, 21) for n in (2**bits - 9, 2**bits - 1, 2**bits)]


@given(exchange_id=st.integers(1, 2**64 - 1), size=st.sampled_from([0, 1, *EDGES]), more=st.booleans())
def test_a_chunk_is_what_protobuf_makes_of_it(exchange_id: int, size: int, more: bool) -> None:
    data = size * b"d"
    head = chunk_head(exchange_id, size, more=more)
    assert len(head) <= CHUNK_OVERHEAD
    chunk = Envelope(exchange_id=exchange_id, chunk=Chunk(data=data, more=more))
    assert Frame.FromString(head + data) == Frame(envelopes=[chunk])
    assert len(head + data) == len(frame(chunk))


def test_chunks_can_be_joined_with_other_envelopes() -> None:
    other = envelope(1, Chunk(data=b"one", more=True))
    joined = frame(other) + chunk_head(3, 3, more=False) + b"two" + chunk_head(5, 0, more=False) + frame(other)
    sent = Frame.FromString(joined).envelopes
    assert list(sent) == [other, envelope(3, Chunk(data=b"two")), envelope(5, Chunk()), other]
