"""Envelopes, encoded by hand, are what protobuf makes of them."""

import pytest
from envelopes import envelope
from hypothesis import example, given
from hypothesis import strategies as st
from sides import frame

from restpipe.protocol.encoding import Message, encode, encode_chunk_head, varint
from restpipe.protocol.outbox import CHUNK_OVERHEAD
from restpipe_pb.v1.pipe_pb2 import (
    Cancel,
    Chunk,
    Credit,
    Envelope,
    Frame,
    Goaway,
    Hello,
    Ping,
    Pong,
    Request,
    Response,
)

KINDS: dict[str, Message] = {
    "hello": Hello(revision=1, software="restpipe/1.0.0"),
    "request": Request(verb="get", noun="time", timeout_ms=60_000),
    "response": Response(status=200, body=b"x" * 300),
    "credit": Credit(bytes=70_000),
    "cancel": Cancel(message="over"),
    "ping": Ping(id=7),
    "pong": Pong(),
    "goaway": Goaway(reason=Goaway.SHUTDOWN),
}
IDS = st.integers(0, 2**64 - 1)


def by_protobuf(exchange_id: int, kind: str, message: Message) -> bytes:
    envelope = Envelope(exchange_id=exchange_id)
    getattr(envelope, kind).CopyFrom(message)
    return Frame(envelopes=[envelope]).SerializeToString()


@pytest.mark.parametrize("kind", KINDS)
@given(exchange_id=IDS)
@example(exchange_id=0)
@example(exchange_id=127)
@example(exchange_id=128)
@example(exchange_id=2**14 - 1)
@example(exchange_id=2**14)
@example(exchange_id=2**21 - 1)
@example(exchange_id=2**21)
def test_every_kind_is_encoded_as_protobuf_does(kind: str, exchange_id: int) -> None:
    assert encode(exchange_id, kind, KINDS[kind]) == by_protobuf(exchange_id, kind, KINDS[kind])


@given(size=st.integers(0, 2**22))
@example(size=0)
@example(size=2**14)
@example(size=2**21)
def test_the_length_of_a_message_is_encoded_whatever_it_is(size: int) -> None:
    message = Response(body=bytes(size))
    assert encode(1, "response", message) == by_protobuf(1, "response", message)


@given(number=IDS)
def test_a_number_takes_seven_bits_a_byte_the_lowest_first(number: int) -> None:
    encoded = varint(number)
    assert sum((byte & 127) << 7 * i for i, byte in enumerate(encoded)) == number
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]
    assert encoded[-1] or number == 0


EDGES = [n for bits in (7, 14, 21) for n in (2**bits - 9, 2**bits - 1, 2**bits)]


@given(exchange_id=st.integers(1, 2**64 - 1), size=st.sampled_from([0, 1, *EDGES]), more=st.booleans())
def test_a_chunk_is_what_protobuf_makes_of_it(exchange_id: int, size: int, more: bool) -> None:
    data = size * b"d"
    head = encode_chunk_head(exchange_id, size, more=more)
    assert len(head) <= CHUNK_OVERHEAD
    chunk = Envelope(exchange_id=exchange_id, chunk=Chunk(data=data, more=more))
    assert Frame.FromString(head + data) == Frame(envelopes=[chunk])
    assert len(head + data) == len(frame(chunk))


def test_chunks_can_be_joined_with_other_envelopes() -> None:
    other = envelope(1, Chunk(data=b"one", more=True))
    joined = (
        frame(other) + encode_chunk_head(3, 3, more=False) + b"two" + encode_chunk_head(5, 0, more=False) + frame(other)
    )
    sent = Frame.FromString(joined).envelopes
    assert list(sent) == [other, envelope(3, Chunk(data=b"two")), envelope(5, Chunk()), other]
