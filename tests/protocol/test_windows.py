"""Credit: what may travel, and when more may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.exceptions import ProtocolError
from restpipe.protocol.windows import MAX_WINDOW, Budget, ReceiveWindow, SendWindow


def test_a_budget_gives_what_is_wanted_as_long_as_it_has_it() -> None:
    budget = Budget(10)
    assert [budget.take(6), budget.take(6), budget.take(6)] == [6, 4, 0]
    budget.give_back(3)
    assert budget.take(6) == 3


def test_a_send_window_shrinks_by_what_is_sent_and_grows_by_what_is_granted() -> None:
    window = SendWindow(100)
    window.spend(100)
    assert window.available == 0
    window.grant(7)
    assert window.available == 7


def test_a_grant_of_nothing_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="a credit of 0 bytes"):
        SendWindow(100).grant(0)


def test_a_send_window_grows_to_the_largest_window_and_not_beyond() -> None:
    window = SendWindow(100)
    window.grant(MAX_WINDOW - 100)
    assert window.available == MAX_WINDOW
    with pytest.raises(ProtocolError, match="credit of 1 bytes lets the window exceed 2147483647"):
        window.grant(1)


def test_bytes_beyond_the_credit_break_the_protocol() -> None:
    window = ReceiveWindow(100, 100, Budget(0))
    window.receive(60)
    with pytest.raises(ProtocolError, match="41 bytes of body where the credit was 40"):
        window.receive(41)
    window.receive(40)


def test_credit_is_granted_once_half_a_window_was_consumed_and_not_before() -> None:
    window = ReceiveWindow(100, 100, Budget(0))
    window.receive(100)
    assert window.consume(49) == 0
    assert window.consume(1) == 50
    assert window.consume(49) == 0
    assert window.consume(1) == 50


def test_a_window_doubles_with_each_grant_up_to_its_limit() -> None:
    window = ReceiveWindow(100, 350, Budget(1000))
    credit = []
    for _ in range(4):
        size = window.available
        window.receive(size)
        credit.append(window.consume(size))
    assert credit == [200, 400 - 50, 350, 350]
    assert window.size == 350


def test_a_window_grows_no_further_than_the_budget() -> None:
    budget = Budget(30)
    window = ReceiveWindow(100, 1000, budget)
    window.receive(100)
    assert window.consume(100) == 130
    assert budget.available == 0


def test_a_limit_below_the_initial_size_lets_a_window_neither_grow_nor_shrink() -> None:
    budget = Budget(30)
    window = ReceiveWindow(100, 10, budget)
    window.receive(100)
    assert window.consume(100) == 100
    assert budget.available == 30


def test_a_closed_window_gives_back_what_it_grew_by_and_only_once() -> None:
    budget = Budget(30)
    window = ReceiveWindow(100, 1000, budget)
    window.receive(100)
    window.consume(100)
    window.close()
    window.close()
    assert budget.available == 30


@given(
    initial=st.integers(1, 1000),
    limit=st.integers(0, 5000),
    total=st.integers(0, 5000),
    shares=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1))),
)
def test_every_byte_of_a_window_is_free_or_held_or_about_to_be_granted(
    initial: int, limit: int, total: int, shares: list[tuple[float, float]]
) -> None:
    budget = Budget(total)
    window = ReceiveWindow(initial, limit, budget)
    sender = SendWindow(initial)
    held = 0
    for sent, consumed in shares:
        size = int(sent * sender.available)
        sender.spend(size)
        window.receive(size)
        held += size
        size = int(consumed * held)
        held -= size
        credit = window.consume(size)
        if credit:
            assert 2 * credit >= window.size / 2
            sender.grant(credit)
        assert sender.available == window.available
        assert 0 <= window.available + held <= window.size
        assert initial <= window.size <= max(initial, limit)
        assert budget.available == total - (window.size - initial) >= 0
    # A reader that takes everything never leaves the sender without credit.
    credit = window.consume(held)
    assert sender.available + credit > 0
