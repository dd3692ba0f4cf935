"""What a peer owes for what it sends for nothing, and how that is paid."""

import pytest

from restpipe.protocol.limits import (
    FEW_ENVELOPES,
    FOR_OTHERS,
    MAX_ENVELOPES,
    MOST_OWED,
    PASSED_ON,
    REFUSAL_COST,
    REST_EACH,
    TOLERATED,
)
from restpipe.protocol.nuisance import Nuisance


def test_who_owes_is_taken_in_small_turns_with_a_rest_after_each_until_it_is_paid() -> None:
    nuisance = Nuisance(by_server=False)
    assert (nuisance.turn, nuisance.rest()) == (MAX_ENVELOPES, 0)
    for _ in range(3):
        nuisance.refusal(passed_on=True)
    total = owed = nuisance.owed
    rested = 0.0
    while nuisance.turn < MAX_ENVELOPES:
        nuisance.taken = nuisance.turn
        rest = nuisance.rest()
        assert 0 < rest <= nuisance.taken * REST_EACH
        rested += rest
        assert nuisance.owed == pytest.approx(total - rested)
    assert total - rested <= TOLERATED < owed
    assert nuisance.rest() == 0


def test_a_flood_that_is_passed_on_is_never_taken_in_large_turns_again() -> None:
    nuisance = Nuisance(by_server=False)
    nuisance.refusal(passed_on=True)
    for _ in range(1000):
        nuisance.taken = nuisance.turn
        assert nuisance.taken < MAX_ENVELOPES
        nuisance.rest()
        for _ in range(nuisance.taken):
            nuisance.refusal(passed_on=True)
    assert nuisance.owed <= MOST_OWED + FEW_ENVELOPES * REFUSAL_COST * PASSED_ON


def test_no_more_is_owed_than_a_moment_however_much_failed_at_once() -> None:
    nuisance = Nuisance(by_server=False)
    for _ in range(4096):
        nuisance.refusal(passed_on=True)
    rested = 0.0
    while nuisance.turn < MAX_ENVELOPES:
        nuisance.taken = nuisance.turn
        rested += nuisance.rest()
    assert rested <= MOST_OWED


def test_a_server_that_passes_on_what_others_ask_owes_less_for_what_they_did_and_all_for_what_it_does() -> None:
    client, server = Nuisance(by_server=False), Nuisance(by_server=True)
    for note, share in (
        (Nuisance.refusal, FOR_OTHERS),
        (Nuisance.cancel, FOR_OTHERS),
        (Nuisance.raised, FOR_OTHERS),
        (Nuisance.ping, 1),
        (Nuisance.credit, 1),
    ):
        for each in (client, server):
            each.owed = 0.0
            note(each)
        assert server.owed == pytest.approx(client.owed * share)
        assert client.owed > 0
