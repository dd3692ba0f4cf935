"""A key is executed once as long as it may be repeated, and what is remembered is bounded."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from restpipe.exceptions import KeyReusedError, PeerRefusedError
from restpipe.handlers.answers import AnswerMemory, Entry

KEYS, BYTES, LIFETIME = 4, 100, 50.0


@dataclass
class Known:
    """What the test knows of a request."""

    entry: Entry
    fingerprint: bytes
    until: float
    state: str = "running"
    answer: bytes | None = field(default=None)


class Memory(RuleBasedStateMachine):
    """Callers of two peers begin, finish and repeat requests in any order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = AnswerMemory(max_keys=KEYS, max_bytes=BYTES, lifetime=LIFETIME)
        self.now = 0.0
        self.known: dict[tuple[str, str], Known] = {}

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        caller=st.sampled_from("AB"),
        key=st.sampled_from("abcdef"),
        fingerprint=st.sampled_from([b"1", b"1", b"2"]),
        patience=st.floats(1, 60),
    )
    def begin(self, caller: str, key: str, fingerprint: bytes, patience: float) -> None:
        known = self.known.get((caller, key))
        protected = known is not None and (known.state == "running" or self.now < known.until)
        try:
            entry, new = self.memory.begin(caller, ("C", key), fingerprint, self.now, patience)
        except KeyReusedError:
            assert known is not None
            assert known.fingerprint != fingerprint
            return
        except PeerRefusedError:
            assert not protected
            mine = [each for (other, _), each in self.known.items() if other == caller]
            assert sum(each.state == "running" or self.now < each.until for each in mine) == KEYS
            return
        if new:
            assert not protected
            self.known[caller, key] = Known(entry, fingerprint, self.now + patience)
        else:
            assert known is not None
            assert (known.entry, known.fingerprint) == (entry, fingerprint)
            assert entry.answer in (known.answer, None)
            assert known.state in ("running", "answered")

    @rule(data=st.data(), size=st.one_of(st.none(), st.integers(0, BYTES + 1)))
    def finish(self, data: st.DataObject, size: int | None) -> None:
        running = [each for each in self.known.values() if each.state == "running"]
        if running:
            known = data.draw(st.sampled_from(running))
            known.answer = None if size is None else bytes(size)
            known.state = "answered"
            self.memory.finish(known.entry, known.answer, self.now)

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        running = [key for key, each in self.known.items() if each.state == "running"]
        if running:
            known = self.known.pop(data.draw(st.sampled_from(running)))
            self.memory.forget(known.entry)
            assert known.entry.forgotten

    @invariant()
    def memory_is_bounded(self) -> None:
        for peer in self.memory._peers.values():
            assert len(peer.by_key) <= KEYS
            held = sum(len(entry.answer or b"") for entry in peer.by_key.values())
            assert held == peer.size <= BYTES
            assert {id(entry) for _, _, entry in peer.answered} <= {id(each) for each in peer.by_key.values()}


Memory.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
test_a_key_that_may_be_repeated_is_neither_forgotten_nor_executed_again = Memory.TestCase


def begun(memory: AnswerMemory, key: str, now: float = 0.0, caller: str = "A", peer: str = "P") -> Entry:
    entry, new = memory.begin(peer, (caller, key), b"1", now, 10.0)
    assert new
    return entry


def test_an_answer_is_remembered_as_it_was_given() -> None:
    memory = AnswerMemory()
    memory.finish(begun(memory, "a"), b"the answer", 1.0)
    entry, new = memory.begin("P", ("A", "a"), b"1", 2.0, 10.0)
    assert (entry.answer, new) == (b"the answer", False)


def test_a_key_of_one_caller_is_not_that_of_another() -> None:
    memory = AnswerMemory()
    assert begun(memory, "a", caller="A") is not begun(memory, "a", caller="B")


def test_an_answer_that_has_no_room_is_forgotten_and_its_key_is_not() -> None:
    memory = AnswerMemory(max_bytes=10)
    memory.finish(begun(memory, "a"), bytes(10), 1.0)
    memory.finish(begun(memory, "b"), bytes(1), 1.0)
    assert memory.begin("P", ("A", "b"), b"1", 2.0, 10.0)[0].answer is None
    # From 10 on, the first may be forgotten.
    memory.finish(begun(memory, "c", 11.0), bytes(10), 11.0)
    assert memory.begin("P", ("A", "c"), b"1", 12.0, 10.0)[0].answer == bytes(10)


def test_where_no_key_may_be_forgotten_a_request_is_refused_unprocessed() -> None:
    memory = AnswerMemory(max_keys=1)
    memory.finish(begun(memory, "a"), b"", 1.0)
    with pytest.raises(PeerRefusedError, match=r"^1 requests with an Idempotency-Key are remembered$"):
        memory.begin("P", ("A", "b"), b"1", 9.0, 10.0)
    begun(memory, "b", 10.0)


def test_all_callers_behind_one_peer_share_its_room() -> None:
    memory = AnswerMemory(max_keys=2)
    begun(memory, "a", caller="A")
    begun(memory, "a", caller="B")
    with pytest.raises(PeerRefusedError):
        begun(memory, "a", caller="C")
    begun(memory, "a", peer="Q")


def test_what_is_past_its_lifetime_is_forgotten_whoever_asks_and_what_runs_is_not() -> None:
    memory = AnswerMemory(lifetime=100.0)
    memory.finish(begun(memory, "a"), b"x", 1.0)
    begun(memory, "b")
    begun(memory, "c", 1000.0, peer="Q")
    assert begun(memory, "a", 1000.0)
    assert memory.begin("P", ("A", "b"), b"1", 1000.0, 10.0)[1] is False
