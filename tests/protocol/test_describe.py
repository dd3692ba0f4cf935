"""A frame is told in one line, which gives away nothing of what it carries."""

import pytest
from envelopes import Message, envelope
from hypothesis import given
from hypothesis import strategies as st
from sides import frame, hello

from restpipe.protocol.describe import describe_frame
from restpipe_pb.v1.pipe_pb2 import (
    Cancel,
    Chunk,
    Credit,
    Envelope,
    Failure,
    Goaway,
    Header,
    Ping,
    Pong,
    Request,
    Response,
)


@pytest.mark.parametrize(
    ("exchange_id", "message", "line"),
    [
        (0, hello(), "hello"),
        (1, Request(verb="get", noun="time"), "request 1 ('get', 0 bytes)"),
        (1, Request(verb="put", body=b"12345", more=True), "request 1 ('put', 5 bytes...)"),
        (3, Response(status=204), "response 3 (204, 0 bytes)"),
        (3, Response(status=200, body=b"1", more=True), "response 3 (200, 1 bytes...)"),
        (3, Response(failure=Failure(kind=Failure.BUSY)), "response 3 (failure, 0 bytes)"),
        (5, Chunk(data=b"123", more=True), "chunk 5 (3 bytes...)"),
        (5, Chunk(), "chunk 5 (0 bytes)"),
        (7, Credit(bytes=99), "credit 7 (99 bytes)"),
        (7, Cancel(message="secret"), "cancel 7"),
        (0, Ping(id=4), "ping"),
        (0, Pong(id=4), "pong"),
        (0, Goaway(reason=Goaway.TAKEOVER, message="secret"), "goaway (TAKEOVER)"),
        (0, Goaway(reason=77), "goaway (77)"),  # type: ignore[arg-type]
    ],
)
def test_an_envelope_is_told_by_its_kind_its_exchange_and_its_size(
    exchange_id: int, message: Message, line: str
) -> None:
    data = frame(envelope(exchange_id, message))
    assert describe_frame(data) == f"{len(data)} bytes: {line}"


def test_the_envelopes_of_a_frame_are_told_in_order() -> None:
    data = frame(envelope(0, Ping()), Envelope(), envelope(1, Cancel()))
    assert describe_frame(data) == f"{len(data)} bytes: ping, an envelope of unknown kind, cancel 1"


def test_a_frame_that_does_not_parse_is_told_by_its_size() -> None:
    assert describe_frame(b"\xff\xff") == "2 bytes that do not parse"


def test_neither_bodies_nor_arguments_nor_headers_are_told() -> None:
    header = Header(name="secret", value="secret")
    request = Request(verb="put", noun="secret", arguments=["secret"], headers=[header], body=b"secret")
    response = Response(status=200, headers=[header], content_type="secret", body=b"secret")
    failure = Response(failure=Failure(message="secret", traceback="secret"))
    told = describe_frame(frame(envelope(1, request), envelope(2, response), envelope(4, failure)))
    assert "secret" not in told


@given(verb=st.text(), reason=st.integers(-(2**31), 2**31 - 1))
def test_a_line_is_one_line_of_printable_characters_whatever_the_peer_sends(verb: str, reason: int) -> None:
    goaway = Goaway(reason=reason)  # type: ignore[arg-type]
    told = describe_frame(frame(envelope(1, Request(verb=verb)), envelope(0, goaway)))
    assert told.isprintable()
    assert len(told) < 300


@given(st.binary())
def test_arbitrary_bytes_are_told(data: bytes) -> None:
    assert describe_frame(data).startswith(f"{len(data)} bytes")
