"""As many requests wait as a node has places, and no peer takes the places of all."""

import contextlib
import time
from unittest.mock import Mock

import pytest

from restpipe.exceptions import TooManyExchangesError
from restpipe.web import admission as admission_module
from restpipe.web.admission import Admission, Place


def fill(admission: Admission, peer: str) -> int:
    """Let in for a peer as many as there is room for; return their number."""
    entered = 0
    with contextlib.suppress(TooManyExchangesError):
        while True:
            admission.check(peer)
            admission.take(peer)
            entered += 1
    return entered


def test_the_only_peer_has_all_places() -> None:
    assert fill(Admission(100, shared=False), "server") == 100


def test_each_of_several_peers_finds_places_however_many_the_others_took() -> None:
    admission = Admission(100, shared=True)
    assert fill(admission, "alpha") == 50
    assert fill(admission, "beta") == 25
    assert [fill(admission, name) for name in "abcdef"] == [13, 6, 3, 2, 1, 0]


def test_a_place_that_was_left_is_free_again() -> None:
    admission = Admission(4, shared=True)
    for _ in range(3):
        assert fill(admission, "alpha") == 2
        assert fill(admission, "beta") == 1
        for peer in ("alpha", "beta", "alpha"):
            admission.give_back(peer)
        assert not admission._by_peer  # no peer is remembered that has none


@pytest.mark.parametrize("shared", [False, True])
def test_one_place_is_one_request(shared: bool) -> None:
    admission = Admission(1, shared=shared)
    assert fill(admission, "alpha") == 1
    assert fill(admission, "alpha") == 0
    assert fill(admission, "beta") == 0
    admission.give_back("alpha")
    assert fill(admission, "beta") == 1


@pytest.mark.parametrize(("shared", "told"), [(False, "4 requests wait"), (True, "2 requests to this peer wait")])
def test_a_refusal_says_how_many_wait(shared: bool, told: str) -> None:
    admission = Admission(4, shared=shared)
    fill(admission, "alpha")
    with pytest.raises(TooManyExchangesError, match=told):
        admission.check("alpha")


def test_a_request_takes_its_place_when_it_leaves_and_once() -> None:
    admission = Admission(2, shared=True)
    places = [Place(admission, "alpha", Mock()) for _ in range(5)]
    for place in places:
        place.make_request(Mock())
        place.make_request(Mock())  # a repeat
    for peer in ("alpha", "beta"):
        with pytest.raises(TooManyExchangesError):
            admission.check(peer)
    for place in places:
        place.leave()
    assert fill(admission, "beta") == 1


def test_a_crowd_that_waited_for_its_peer_takes_no_places_of_those_that_come_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admission = Admission(2, shared=True)
    places = [Place(admission, "alpha", Mock()) for _ in range(5)]
    monkeypatch.setattr(admission_module, "monotonic", lambda: time.monotonic() + 1)
    for place in places:
        place.make_request(Mock())
    assert fill(admission, "alpha") == 1
    for place in places:
        place.leave()
    assert fill(admission, "beta") == 1
    assert fill(admission, "beta") == 0
