"""Bounds that no pipe can work within are refused, on this side and on the peer's."""

import pytest
from sides import hello

from restpipe.exceptions import ProtocolError
from restpipe.protocol.limits import INLINE_BYTES, SMALLEST_WINDOW, Limits, check_hello
from restpipe.protocol.windows import MAX_WINDOW
from restpipe_pb.v1.pipe_pb2 import Hello


def test_the_smallest_and_the_largest_bounds_of_a_peer_are_accepted() -> None:
    check_hello(hello(initial_window=16384, max_exchanges=1, max_frame_bytes=65536))
    check_hello(hello(initial_window=2**31 - 1, max_exchanges=2**32 - 1, max_frame_bytes=2**32 - 1))


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (hello(initial_window=16383), "an initial window of 16383 bytes"),
        (hello(initial_window=2**31), "an initial window of 2147483648 bytes"),
        (hello(max_exchanges=0), "it permits no exchange"),
        (hello(max_frame_bytes=65535), "frames of at most 65535 bytes"),
        (Hello(), "revision"),
    ],
)
def test_a_peer_that_grants_less_than_the_protocol_demands_is_refused(refused: Hello, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        check_hello(refused)


@pytest.mark.parametrize("revision", [0, 2])
def test_a_peer_of_another_revision_is_refused_with_both_revisions_named(revision: int) -> None:
    expected = rf"^this node speaks revision 1 of the protocol, the peer \('peer/1.0'\) {revision}$"
    with pytest.raises(ProtocolError, match=expected):
        check_hello(hello(revision=revision))


def test_what_a_peer_calls_itself_is_named_without_control_characters_and_in_short() -> None:
    foreign = hello(revision=2)
    foreign.software = "\x1b[31m\n" + 1000 * "x"
    with pytest.raises(ProtocolError) as caught:
        check_hello(foreign)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_a_first_piece_of_body_fits_every_window() -> None:
    assert INLINE_BYTES <= SMALLEST_WINDOW


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_window", 16383),
        ("initial_window", MAX_WINDOW + 1),
        ("max_window", -1),
        ("max_window", MAX_WINDOW + 1),
        ("window_budget", -1),
        ("max_exchanges", 0),
        ("max_frame_bytes", 65535),
        ("frame_bytes", 4095),
    ],
)
def test_bounds_that_no_pipe_can_work_within_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match="window|" + name):
        Limits(**{name: value})


def test_the_smallest_bounds_are_accepted() -> None:
    Limits(
        initial_window=16384, max_window=0, window_budget=0, max_exchanges=1, max_frame_bytes=65536, frame_bytes=4096
    )


@pytest.mark.parametrize("name", ["", "5f1c09a2b3d4", "x" * 32])
def test_a_pipe_may_have_a_name(name: str) -> None:
    named = hello()
    named.pipe = name
    check_hello(named)


@pytest.mark.parametrize("name", ["x" * 33, "a b", "a-b", "ä", "\n"])
def test_a_name_that_may_not_go_into_a_log_is_refused(name: str) -> None:
    named = hello()
    named.pipe = name
    with pytest.raises(ProtocolError, match="name of the pipe"):
        check_hello(named)
