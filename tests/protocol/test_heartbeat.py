"""Pings are sent in time, a silent peer is found, and a late clock is not taken for silence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.exceptions import ProtocolError
from restpipe.protocol.heartbeat import Beat, Heartbeat


def test_a_ping_is_due_an_interval_after_the_last() -> None:
    heartbeat = Heartbeat(5, 12, now=100)
    assert heartbeat.due == 105
    assert heartbeat.tick(104.9) is Beat.NOTHING
    assert heartbeat.tick(105) is Beat.PING
    assert heartbeat.due == 110


def test_a_peer_is_dead_once_nothing_was_heard_for_the_timeout() -> None:
    heartbeat = Heartbeat(5, 12, now=100)
    assert [heartbeat.tick(105), heartbeat.tick(110)] == [Beat.PING, Beat.PING]
    assert heartbeat.due == 112
    assert heartbeat.tick(111.9) is Beat.NOTHING
    assert heartbeat.tick(112) is Beat.DEAD
    assert heartbeat.tick(113) is Beat.DEAD


def test_a_peer_that_is_heard_lives() -> None:
    heartbeat = Heartbeat(5, 12, now=100)
    for now in range(105, 1000, 5):
        assert heartbeat.tick(now) is Beat.PING
        heartbeat.heard(now + 1)


def test_a_process_that_stood_still_does_not_take_its_own_sleep_for_silence() -> None:
    heartbeat = Heartbeat(5, 12, now=100)
    heartbeat.heard(104)
    assert heartbeat.tick(180) is Beat.PING
    heartbeat.heard(180.1)
    assert heartbeat.tick(185) is Beat.PING


def test_a_short_sleep_is_no_more_silence_than_a_long_one() -> None:
    # The ping was due at 105: these 4.9 s are less than an interval and would complete the timeout.
    heartbeat = Heartbeat(5, 7, now=100)
    heartbeat.heard(102)
    assert heartbeat.tick(109.9) is Beat.PING


def test_a_sleep_hides_a_dead_peer_for_no_longer_than_a_timeout_after_it() -> None:
    heartbeat = Heartbeat(5, 12, now=100)
    assert heartbeat.tick(180) is Beat.PING
    assert heartbeat.tick(185) is Beat.PING
    assert heartbeat.tick(187) is Beat.DEAD


def test_what_was_heard_after_the_clock_was_due_lies_never_in_the_future() -> None:
    heartbeat = Heartbeat(5, 12, now=100)
    heartbeat.heard(119)
    assert heartbeat.tick(120) is Beat.PING
    assert heartbeat.tick(125) is Beat.PING
    assert heartbeat.tick(130) is Beat.PING
    assert heartbeat.tick(132) is Beat.DEAD


def test_a_ping_that_is_due_within_half_an_interval_joins_the_answer_to_the_peers_and_is_not_sent_again() -> None:
    heartbeat = Heartbeat(5, 12, now=100)
    assert not heartbeat.join(102.4)
    assert heartbeat.due == 105
    assert heartbeat.join(102.5)
    assert not heartbeat.join(104.9)
    heartbeat.heard(104)
    assert heartbeat.tick(105) is Beat.NOTHING
    assert heartbeat.due == 107.5
    assert heartbeat.tick(107.5) is Beat.PING


@given(st.lists(st.floats(0, 30), max_size=50))
def test_a_dead_peer_is_found_however_late_the_ticks_come(delays: list[float]) -> None:
    heartbeat = Heartbeat(5, 10, now=0)
    for pings, delay in enumerate(delays):
        if heartbeat.tick(heartbeat.due + delay) is Beat.DEAD:
            break
        assert pings < 4


def test_the_round_trip_is_that_of_the_last_ping_and_of_no_other() -> None:
    heartbeat = Heartbeat(5, 12, now=100)
    assert (heartbeat.last_ping, heartbeat.ping(101), heartbeat.ping(102)) == (0, 1, 2)
    assert heartbeat.pong(1, 103) is None
    assert heartbeat.pong(2, 103) == 1
    for never_sent in (0, 3):
        with pytest.raises(ProtocolError, match="answers no ping"):
            heartbeat.pong(never_sent, 104)
