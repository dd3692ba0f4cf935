"""Bursts wait for a thread; where there is too much to do, most are refused as they come, and nobody waits for long."""

import itertools
import math

import pytest

from restpipe.handlers.workload import BACK, BURST, STANDS, STEADY, TURNS, Workload

NOW = 1000.0
LATER = 3600.0


def busy(threads: int, usual: float, *, since: float = NOW, burst: float = BURST) -> Workload:
    """Return the workload of so many threads, all busy since then with calls that usually take so long."""
    workload = Workload(burst)
    for call in range(threads):
        workload.begin(("before", call), since - usual)
        workload.end(("before", call), since)
        workload.begin(call, since)
    return workload


def admitted(workload: Workload, now: float, *, within: float = LATER, idle: int = 0) -> int:
    """Return how many may wait at once."""
    return next(ahead for ahead in itertools.count() if not workload.patience(ahead, idle, within, now))


@pytest.mark.parametrize(
    ("threads", "usual", "most"), [(10, 0.005, 2000), (10, 0.05, 200), (64, 0.05, 1280), (10, 1.0, 20), (1, 5.0, 2)]
)
def test_a_burst_of_a_second_or_of_two_calls_for_each_thread_waits_and_no_more(
    threads: int, usual: float, most: int
) -> None:
    workload = busy(threads, usual)
    workload.begin_queue(NOW)
    assert admitted(workload, NOW) == pytest.approx(most, abs=1)
    assert workload.patience(0, 0, LATER, NOW) == max(BURST, TURNS * usual)
    assert workload.surplus(10 * most, 0, NOW) == 0


@pytest.mark.parametrize(
    ("threads", "usual", "most"), [(10, 0.005, 80), (10, 0.05, 8), (64, 0.05, 51), (10, 1.0, 5), (1, 1.0, 1)]
)
def test_in_a_queue_that_stands_nobody_waits_for_longer_than_a_moment_or_half_a_call(
    threads: int, usual: float, most: int
) -> None:
    stands = NOW + max(STANDS * BURST, TURNS * usual) + 0.001
    workload = busy(threads, usual, since=stands)
    workload.begin_queue(NOW)
    assert admitted(workload, stands) == pytest.approx(most, abs=1)
    assert workload.patience(0, 0, LATER, stands) == pytest.approx(max(STEADY * BURST, usual / 2))
    assert workload.surplus(most + 100, 0, stands) == pytest.approx(100, abs=1)
    assert workload.surplus(most - 1, 0, stands) == 0


def test_once_somebody_was_refused_no_burst_is_borne_until_nobody_was_for_a_second() -> None:
    workload = busy(10, 0.05)
    workload.refuse(NOW)
    workload.begin_queue(NOW + 0.1)
    assert admitted(workload, NOW + 0.1) < 10
    workload.begin_queue(NOW + BACK)
    assert admitted(workload, NOW + BACK) > 100


def test_those_who_wait_are_told_to_leave_only_where_they_are_no_burst() -> None:
    workload = busy(10, 0.05)
    workload.begin_queue(NOW)
    workload.refuse(NOW)
    assert workload.surplus(100, 0, NOW + STANDS * BURST / 2) == 0
    assert workload.surplus(100, 0, NOW + 2 * STANDS * BURST) > 90


def test_who_wants_longer_queues_has_them() -> None:
    workload = busy(10, 0.05, burst=10.0)
    workload.begin_queue(NOW)
    assert admitted(workload, NOW) == pytest.approx(2000, abs=1)
    assert admitted(workload, NOW + 0.9) == pytest.approx(2000, abs=1)
    workload = busy(10, 0.05, since=NOW + 1.1, burst=10.0)
    workload.begin_queue(NOW)
    assert admitted(workload, NOW + 1.1) == pytest.approx(80, abs=1)


def test_a_few_slow_calls_among_fast_ones_let_more_wait_and_are_not_taken_for_stuck() -> None:
    workload = busy(10, 0.05)
    workload.begin("slow", NOW - 3)
    workload.end("slow", NOW)
    workload.begin_queue(NOW)
    assert workload.bearable(NOW) == 6.0
    assert admitted(workload, NOW + 3.5) == admitted(workload, NOW) > 150


def test_threads_that_do_not_return_are_not_counted_on() -> None:
    workload = busy(10, 0.05)
    for call in range(1, 10):
        workload.end(call, NOW + 0.05)
        workload.begin(call, NOW + 100)
    workload.begin_queue(NOW + 100)
    assert admitted(workload, NOW + 100) == pytest.approx(180, abs=1)  # call 0 is the one
    stuck = busy(10, 0.05)
    stuck.begin_queue(NOW + 100)
    assert admitted(stuck, NOW + 100) == 0


def test_a_process_that_stood_still_refuses_nobody_for_it() -> None:
    workload = busy(10, 0.05)
    workload.begin_queue(NOW + BURST)
    assert admitted(workload, NOW + BURST) == pytest.approx(200, abs=1)


def test_a_thread_that_is_about_to_take_a_call_counts() -> None:
    workload = Workload()
    for call in range(10):
        workload.begin(call, NOW - 0.05)
        workload.end(call, NOW)
    workload.begin_queue(NOW)
    assert admitted(workload, NOW, idle=10) == pytest.approx(200, abs=1)


def test_while_nothing_is_known_of_calls_all_may_wait_for_the_moment_of_a_burst() -> None:
    workload = Workload()
    for call in range(10):
        workload.begin(call, NOW)
    workload.begin_queue(NOW)
    assert workload.patience(10_000, 0, LATER, NOW) == BURST
    workload.end(0, NOW + 0.05)
    assert workload.patience(10_000, 1, LATER, NOW + 0.05) == 0


@pytest.mark.parametrize("within", [0.0, 0.001, 0.5])
def test_half_of_the_time_that_is_left_is_for_waiting(within: float) -> None:
    workload = busy(10, 0.05)
    workload.begin_queue(NOW)
    assert admitted(workload, NOW, within=within) == pytest.approx(100 * within, abs=1)
    assert workload.patience(0, 0, within, NOW) in (0.0, within / 2)


def test_what_calls_take_now_counts_and_not_what_they_took_long_ago() -> None:
    workload = busy(10, 10.0)
    for call in range(200):
        workload.begin(("now", call), NOW)
        workload.end(("now", call), NOW + 0.01)
    workload.begin_queue(NOW)
    assert admitted(workload, NOW) > 300
    assert math.isfinite(workload.patience(0, 0, math.inf, NOW))
