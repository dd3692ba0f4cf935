"""A head leaves with as much of its body as may stand in front of others, and within what its receiver takes."""

import pytest

from restpipe.exceptions import BadResultError, EventError, HeadersTooLargeError, ProtocolError
from restpipe.protocol.heads import check_outcome, check_parts, encode_head, split_body
from restpipe.protocol.limits import INLINE_BYTES, MAX_PARTS, SMALLEST_FRAME
from restpipe_pb.v1.pipe_pb2 import Failure, Frame, Header, Parameter, Request, Response

PLENTY = 1024 * 1024


@pytest.mark.parametrize("size", [0, INLINE_BYTES, INLINE_BYTES + 1, 3 * INLINE_BYTES])
@pytest.mark.parametrize("more", [False, True])
def test_of_a_body_the_first_bytes_stay_in_the_head_and_none_is_lost(size: int, more: bool) -> None:
    body = bytes(number % 251 for number in range(size))
    head = Request(body=body, more=more)
    rest = split_body(head)
    assert head.body + bytes(rest) == body
    assert len(head.body) == min(size, INLINE_BYTES)
    assert head.more == (more or size > INLINE_BYTES)


def test_a_head_is_encoded_as_an_envelope_of_its_exchange() -> None:
    (envelope,) = Frame.FromString(encode_head(7, "request", Request(verb="get"), PLENTY)).envelopes
    assert (envelope.exchange_id, envelope.request) == (7, Request(verb="get"))


@pytest.mark.parametrize(
    ("kind", "head", "error"),
    [("request", Request(), HeadersTooLargeError), ("response", Response(status=200), BadResultError)],
)
def test_a_head_that_its_receiver_would_not_take_is_the_fault_of_who_made_it(
    kind: str, head: Request | Response, error: type[EventError]
) -> None:
    head.headers.add(name="x", value="y" * SMALLEST_FRAME)
    with pytest.raises(error, match=f"the peer accepts {SMALLEST_FRAME}"):
        encode_head(1, kind, head, SMALLEST_FRAME)
    del head.headers[:]
    head.headers.extend([Header()] * (MAX_PARTS + 1))
    with pytest.raises(error, match=f"{MAX_PARTS + 1} headers"):
        encode_head(1, kind, head, PLENTY)


@pytest.mark.parametrize("part", [Request(headers=[Header()]), Request(query=[Parameter()]), Request(arguments=[""])])
def test_a_head_has_a_bound_of_each_of_its_parts(part: Request) -> None:
    encoded = part.SerializeToString()
    check_parts(Request.FromString(MAX_PARTS * encoded))
    with pytest.raises(ProtocolError, match=f"{MAX_PARTS + 1} headers, parameters or arguments"):
        check_parts(Request.FromString((MAX_PARTS + 1) * encoded))


def test_a_response_is_an_answer_or_a_failure() -> None:
    for outcome in (Response(status=200, body=b"a"), Response(status=599, more=True), Response(failure=Failure())):
        check_outcome(outcome)
    for neither in (
        Response(),
        Response(status=199),
        Response(status=600),
        Response(failure=Failure(), body=b"a"),
        Response(failure=Failure(), more=True),
    ):
        with pytest.raises(ProtocolError):
            check_outcome(neither)
