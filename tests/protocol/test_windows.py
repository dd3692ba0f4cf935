"""Credit: what may travel, and when more may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.exceptions import ProtocolError
from restpipe.protocol.windows import MAX_WINDOW, Growth, ReceiveWindow, SendWindow


def growth(budget: int, round_trip: float = 0.05) -> Growth:
    """Make what the windows of a pipe share, once its round trip is known."""
    made = Growth(budget)
    made.measured(round_trip)
    return made


def turn(window: ReceiveWindow, now: float) -> int:
    """Let a whole window arrive and be consumed; return the credit."""
    size = window.available
    window.receive(size)
    return window.consume(size, now)


def test_a_budget_leaves_half_of_what_is_left_to_those_who_come_late() -> None:
    budget = Growth(100)
    assert [budget.take(20), budget.take(80), budget.take(80)] == [20, 40, 20]
    budget.give_back(40)
    assert budget.available == 60


def test_a_shorter_round_trip_is_followed_at_once_and_a_longer_one_slowly() -> None:
    path = Growth(0)
    assert path.round_trip is None
    for measured, believed in ((0.1, 0.1), (0.05, 0.05), (0.45, 0.1), (0.9, 0.2), (0.05, 0.05)):
        path.measured(measured)
        assert path.round_trip == pytest.approx(believed)


def test_what_waits_behind_a_grown_window_is_not_taken_for_the_path() -> None:
    path = growth(100, round_trip=0.05)
    path.take(20)
    path.measured(0.9)
    assert path.round_trip == 0.05
    path.measured(0.01)
    assert path.round_trip == 0.01
    path.give_back(20)
    path.measured(0.09)
    assert path.round_trip == pytest.approx(0.02)


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
    window = ReceiveWindow(100, 100, Growth(0))
    window.receive(60)
    with pytest.raises(ProtocolError, match="41 bytes of body where the credit was 40"):
        window.receive(41)
    window.receive(40)


def test_credit_is_granted_once_a_quarter_of_a_window_was_consumed_and_not_before() -> None:
    window = ReceiveWindow(100, 100, Growth(0))
    window.receive(100)
    for _ in range(4):
        assert window.consume(24, 0.0) == 0
        assert window.consume(1, 0.0) == 25


def test_a_window_that_turns_over_with_the_round_trip_doubles_up_to_its_limit() -> None:
    window = ReceiveWindow(100, 350, growth(1000, round_trip=0.05))
    credit = [turn(window, number * 0.05) for number in range(5)]
    assert credit == [100, 200, 400 - 50, 350, 350]
    assert window.size == 350


def test_a_window_that_its_reader_or_its_path_takes_longer_for_stays_as_it_is() -> None:
    window = ReceiveWindow(100, 1000, growth(1000, round_trip=0.05))
    assert [turn(window, number * 0.1) for number in range(5)] == 5 * [100]


def test_a_window_that_takes_far_longer_shrinks_to_where_it_began_and_gives_back_what_it_took() -> None:
    shared = growth(1000, round_trip=0.05)
    window = ReceiveWindow(100, 400, shared)
    assert [turn(window, number * 0.05) for number in range(3)] == [100, 200, 400]
    assert (window.size, shared.available) == (400, 700)
    sizes = []
    for number in range(1, 60):  # its reader takes a little each second
        window.receive(min(50, window.available))
        window.consume(50, float(number))
        sizes.append(window.size)
    assert sizes == sorted(sizes, reverse=True)
    assert (window.size, window.available, shared.available) == (100, 100, 1000)


def test_a_window_is_judged_by_the_whole_of_it_and_not_by_a_part_that_came_in_one_go() -> None:
    window = ReceiveWindow(100, 1000, growth(1000, round_trip=0.05))
    window.receive(100)
    grants = []
    for number in range(8):  # two halves at once, then nothing for as long as the path needs for both
        grants.append(window.consume(50, number // 2 * 0.1))
        window.receive(50)
    assert grants == 8 * [50]


def test_a_window_that_a_frame_all_but_fills_counts_as_one() -> None:
    window = ReceiveWindow(1000, 2000, growth(1000, round_trip=0.05))
    assert turn(window, 0.0) == 1000
    window.receive(1000)
    assert window.consume(960, 0.05) == 960 + 500
    assert window.size == 1500


def test_a_window_does_not_grow_before_the_round_trip_is_known() -> None:
    window = ReceiveWindow(100, 1000, Growth(1000))
    assert [turn(window, 0.0) for _ in range(5)] == 5 * [100]


def test_a_window_grows_no_further_than_half_of_what_is_left_of_the_budget() -> None:
    shared = growth(60)
    windows = [ReceiveWindow(100, 1000, shared) for _ in range(2)]
    for window, grown in zip(windows, (30, 15), strict=True):
        turn(window, 0.0)
        assert turn(window, 0.05) == 100 + grown
    assert shared.available == 15


def test_a_limit_below_the_initial_size_lets_a_window_neither_grow_nor_shrink() -> None:
    shared = growth(30)
    window = ReceiveWindow(100, 10, shared)
    assert [turn(window, 0.0) for _ in range(3)] == 3 * [100]
    assert shared.available == 30


def test_a_closed_window_gives_back_what_it_grew_by_and_only_once() -> None:
    shared = growth(30)
    window = ReceiveWindow(100, 1000, shared)
    turn(window, 0.0)
    turn(window, 0.0)
    assert shared.available == 15
    window.close()
    window.close()
    assert shared.available == 30


@given(
    initial=st.integers(1, 1000),
    limit=st.integers(0, 5000),
    total=st.integers(0, 5000),
    steps=st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 0.01, 1.0]))),
)
def test_every_byte_of_a_window_is_free_or_held_or_about_to_be_granted(
    initial: int, limit: int, total: int, steps: list[tuple[int, float, float, float]]
) -> None:
    shared = growth(total)
    windows = [ReceiveWindow(initial, limit, shared) for _ in range(2)]
    senders = [SendWindow(initial) for _ in range(2)]
    held = [0, 0]
    now = 0.0
    for body, sent, consumed, passed in steps:
        window, sender = windows[body], senders[body]
        now += passed
        size = int(sent * sender.available)
        sender.spend(size)
        window.receive(size)
        held[body] += size
        size = int(consumed * held[body])
        held[body] -= size
        if credit := window.consume(size, now):
            sender.grant(credit)
        assert sender.available == window.available >= 0
        assert window.size == window.available + held[body] + window._consumed
        assert initial <= window.size <= max(initial, limit)
        assert shared.available == total - sum(each.size - initial for each in windows) >= 0
    # A reader that takes everything never leaves the sender without credit.
    for window, sender, rest in zip(windows, senders, held, strict=True):
        assert sender.available + window.consume(rest, now) > 0
    for window in windows:
        window.close()
    assert shared.available == total


@pytest.mark.parametrize("round_trip", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("rate", [1e5, 1e7, 1e9])
def test_a_window_becomes_what_a_path_carries_and_not_many_times_as_much(rate: float, round_trip: float) -> None:
    limit = 2**31 - 1
    window = ReceiveWindow(65536, limit, growth(4 * limit, round_trip))
    now = 0.0
    sizes = []
    for _ in range(100):
        now += max(round_trip, window.size / rate)  # credit limits it, or the path does
        turn(window, now)
        sizes.append(window.size)
    carried = rate * round_trip
    assert sizes[-1] == sizes[40]
    assert min(carried, limit / 2) <= sizes[-1] <= max(65536, 3 * carried + 2 * rate * 0.005)


def test_a_window_follows_a_path_that_becomes_slower() -> None:
    shared = growth(2**31, round_trip=0.05)
    window = ReceiveWindow(65536, 2**30, shared)
    now = 0.0
    settled = []
    for rate in (1e8, 1e7, 1e8):
        for _ in range(200):
            now += max(0.05, window.size / rate) / 4
            window.receive(window.size // 4)
            window.consume(window.size // 4, now)
        settled.append(window.size)
    fast, slow, again = settled
    assert 0.05 * 1e8 <= fast <= 3 * 0.05 * 1e8
    assert 0.05 * 1e7 <= slow <= 4 * 0.05 * 1e7
    assert 0.05 * 1e8 <= again <= 3 * 0.05 * 1e8
