"""All who ask have turns: one thing of each, then the next one of each."""

from hypothesis import given
from hypothesis import strategies as st

from restpipe.handlers.fair_queue import FairQueue

NAMES = st.sampled_from("abc")
# What waits, by who asks for it, in the order in which it came; and how much was taken in between.
SERIES = st.lists(st.tuples(NAMES, st.integers(0, 2)), max_size=30)


def queue_of(*asked: str) -> FairQueue[str, int]:
    """Let things wait whose keys are who asks and a number: a1, a2, b1."""
    queue: FairQueue[str, int] = FairQueue()
    for number, by in enumerate(asked):
        queue.put(by, f"{by}{asked[: number + 1].count(by)}", number)
    return queue


def rest(queue: FairQueue[str, int]) -> list[str]:
    """Take all that waits."""
    return [queue.pop()[0] for _ in range(len(queue))]


def test_who_asks_for_one_thing_waits_for_one_of_each_other() -> None:
    assert rest(queue_of(*"aaaabbc")) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_who_had_a_turn_has_the_next_one_after_all_others() -> None:
    queue = queue_of(*"aab")
    assert queue.pop() == ("a1", 0)
    queue.put("c", "c1", 3)
    assert rest(queue) == ["b1", "a2", "c1"]


def test_what_is_discarded_has_no_turn_and_to_discard_what_is_gone_does_nothing() -> None:
    queue = queue_of(*"aab")
    for key in ("b1", "a1", "a1", "z1"):
        queue.discard(key)
    assert "a1" not in queue
    assert "a2" in queue
    assert rest(queue) == ["a2"]
    assert "a2" not in queue


def test_who_asks_alone_has_all_of_his_ahead_and_a_newcomer_one_of_each() -> None:
    assert queue_of(*"aaaa").ahead("a") == 4
    assert queue_of(*"aaaa").ahead("b") == 1
    assert queue_of(*"aaab").ahead("c") == 2
    assert queue_of().ahead("a") == 0


@given(SERIES, NAMES)
def test_no_more_have_their_turn_before_it_than_are_told_to_be_ahead(series: list[tuple[str, int]], by: str) -> None:
    queue: FairQueue[str, int] = FairQueue()
    for number, (name, taken) in enumerate(series):
        queue.put(name, f"{name}{number}", number)
        for _ in range(min(taken, len(queue))):
            queue.pop()
    waiting, ahead = len(queue), queue.ahead(by)
    queue.put(by, "new", 0)
    order = rest(queue)
    assert len(order) == waiting + 1
    assert order.index("new") <= ahead <= waiting


@given(SERIES, st.integers(0, 10))
def test_the_last_are_of_those_that_may_be_chosen_whose_turn_comes_last(
    series: list[tuple[str, int]], most: int
) -> None:
    names = [name for name, _ in series]
    last = queue_of(*names).last(most, lambda key: key != "b1")
    turns = {key: int(key[1:]) for key in rest(queue_of(*names)) if key != "b1"}
    assert len(last) == min(most, len(turns))
    spared = turns.keys() - set(last)
    assert max((turns[key] for key in spared), default=0) <= min((turns[key] for key in last), default=len(names))
