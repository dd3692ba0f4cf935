"""The state of both halves of an exchange."""

from collections import deque

from restpipe.protocol.exchange import Exchange
from restpipe.protocol.windows import FlowControl, Growth


def _exchange(*, mine: bool = True, window: int = 10) -> Exchange:
    flow = FlowControl(send_initial=window, receive_initial=10, limit=10, growth=Growth(0))
    return Exchange(1, mine=mine, flow=flow)


def test_the_head_of_the_peer_is_awaited_by_the_side_that_opened() -> None:
    assert not _exchange(mine=True).remote_begun
    assert _exchange(mine=False).remote_begun


def test_body_can_be_sent_where_there_are_both_bytes_and_credit() -> None:
    exchange = _exchange()
    sendable = [exchange.sendable]
    exchange.pieces = deque([b"data"])
    sendable.append(exchange.sendable)
    exchange.send_window.spend(10)
    sendable.append(exchange.sendable)
    assert sendable == [False, True, False]


def test_the_end_of_a_half_needs_no_credit() -> None:
    exchange = _exchange(window=0)
    exchange.finishing = True
    assert exchange.sendable


def test_nothing_can_be_sent_before_the_head_or_after_the_end() -> None:
    exchange = _exchange()
    exchange.pieces = deque([b"data"])
    exchange.head_unsent = True
    assert not exchange.sendable
    exchange.head_unsent = False
    exchange.local_open = False
    assert not exchange.sendable


def test_a_caller_hears_of_the_response_after_its_own_half_ended_and_a_handler_of_no_more_request() -> None:
    for mine in (True, False):
        exchange = _exchange(mine=mine)
        assert exchange.delivers
        exchange.local_open = False
        assert exchange.delivers == mine


def test_nothing_reaches_an_application_that_cancelled() -> None:
    for mine in (True, False):
        exchange = _exchange(mine=mine)
        exchange.wanted = False
        assert not exchange.delivers


def test_what_waited_is_dropped_when_a_half_is_abandoned() -> None:
    exchange = _exchange()
    exchange.head_unsent = True
    exchange.pieces = deque([b"data"])
    exchange.buffered = 4
    exchange.abandon()
    assert not exchange.local_open
    assert not exchange.head_unsent
    assert not exchange.pieces
    assert exchange.buffered == 0
