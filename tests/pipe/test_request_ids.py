"""A request has one name in the logs of all nodes, which its caller may choose, within reason."""

import pytest

from restpipe.pipe.request_ids import request_id, traceparent
from restpipe_pb.v1.pipe_pb2 import Header, Request

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"


def request(name: str, *values: str) -> Request:
    return Request(headers=[Header(name="accept", value="*/*"), *(Header(name=name, value=value) for value in values)])


@pytest.mark.parametrize("chosen", ["1", "8f14e45f-ceea-467f", "A.b_c:d/e+f=g@h", "x" * 128])
def test_an_id_that_the_caller_chose_is_the_requests(chosen: str) -> None:
    assert request_id(request("x-request-id", chosen), "pipe-1") == chosen


@pytest.mark.parametrize("chosen", ["", "-x", "a b", "a\x1b[2J", "a\n", "näher", "x" * 129, '"', "{}", "a%0d"])
def test_an_id_that_may_not_go_into_a_log_is_replaced_by_the_name_of_the_exchange(chosen: str) -> None:
    assert request_id(request("x-request-id", chosen), "pipe-1") == "pipe-1"
    assert request_id(Request(), "pipe-1") == "pipe-1"


@pytest.mark.parametrize("value", [f"00-{TRACE}-01", f"00-{TRACE}-00", f"cc-{TRACE}-09", f"cc-{TRACE}-09-what.comes"])
def test_a_trace_context_is_taken_as_it_is(value: str) -> None:
    assert traceparent(request("traceparent", value)) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACE,
        f"ff-{TRACE}-01",
        f"00-{TRACE}-01-more",
        f"00-{TRACE}-1",
        f"00-{TRACE.upper()}-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        f"cc-{TRACE}-09-{'x' * 300}",
        f"00-{TRACE}-01\n",
    ],
)
def test_what_is_no_trace_context_is_none(value: str) -> None:
    assert traceparent(request("traceparent", value)) == ""
