"""The checker: that what is sound passes, and that nothing of what must never be does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from bodies import sum_of
from calls import KINDS, STREAMED, Call
from census import Census, beyond_idle, growth
from checker import ELSE, FAILED, IDLE, LATE, RULES, SENT, TORN, TWICE, UNDONE, check_calls
from ledger import Entry, Ledger, Taken

GET, _, ONCE, POST, KEYED = KINDS
UP, _, DOWN, _ = STREAMED
DONE = Call(
    nonce="n1", kind=POST, asked="server", serving="c1", size=3, timeout=5.0, begun=100.0, ended=100.1,
    told="done", status=200, nonce_answered="n1", node_answered="c1", size_answered=3,
)  # fmt: skip
ENTRY = Entry("n1", "c1", 10)
SIZE = 100_000
WHOLE = SIZE, sum_of("n1", SIZE)
STREAM = replace(DONE, kind=DOWN, size=SIZE, size_answered=SIZE, sum_answered=WHOLE[1])


def rules_broken_by(call: Call, *entries: Entry, taken: Mapping[str, Taken] | None = None, **options: Any) -> list[str]:
    return [violation.rule for violation in check_calls([call], entries, taken or {}, **options)]


def test_what_is_sound_passes() -> None:
    assert rules_broken_by(DONE, ENTRY) == []
    assert rules_broken_by(replace(DONE, told="no", status=503)) == []
    assert rules_broken_by(replace(DONE, told="unknown", status=502)) == []
    assert rules_broken_by(replace(DONE, told="unknown", status=502), ENTRY) == []
    assert rules_broken_by(replace(DONE, told="yes", status=500), ENTRY) == []
    assert rules_broken_by(replace(DONE, kind=GET, attempts=2), ENTRY, replace(ENTRY, pid=11)) == []
    assert rules_broken_by(replace(DONE, kind=GET, told="unknown", attempts=3), ENTRY, ENTRY, ENTRY) == []


@pytest.mark.parametrize("kind", [POST, KEYED, ONCE], ids=lambda kind: kind.name)
@pytest.mark.parametrize("told", ["done", "yes", "unknown", "none"])
def test_a_second_execution_of_what_may_not_be_repeated_is_found(kind: object, told: object) -> None:
    call = replace(DONE, kind=kind, told=told)  # type: ignore[arg-type]
    excused: dict[str, Any] = {"disturbed": lambda *_: True}
    assert rules_broken_by(call, ENTRY, replace(ENTRY, pid=11), **excused) == [TWICE]


def test_more_executions_than_the_answer_tells_of_are_found() -> None:
    assert rules_broken_by(replace(DONE, kind=GET), ENTRY, ENTRY) == [TWICE]
    assert rules_broken_by(replace(DONE, kind=GET, attempts=2), ENTRY, ENTRY, ENTRY) == [TWICE]
    assert rules_broken_by(replace(DONE, kind=GET, told="unknown", status=502), ENTRY, ENTRY) == [TWICE]


def test_an_answer_that_is_late_or_never_comes_is_found() -> None:
    assert rules_broken_by(replace(DONE, ended=106.1), ENTRY) == [LATE]
    assert rules_broken_by(replace(DONE, ended=105.9), ENTRY) == []
    assert rules_broken_by(replace(DONE, ended=106.1, told="no")) == [LATE]
    assert rules_broken_by(replace(DONE, told="none")) == [LATE]


def test_only_a_fault_of_the_asked_node_at_that_time_excuses_that_there_is_no_answer() -> None:
    def disturbed(node: str, begun: float, ended: float) -> bool:
        return node == "server" and begun == 100.0

    assert rules_broken_by(replace(DONE, told="none"), disturbed=disturbed) == []
    assert rules_broken_by(replace(DONE, told="none", ended=200.0), disturbed=disturbed) == []
    assert rules_broken_by(replace(DONE, told="none", asked="c2"), disturbed=disturbed) == [LATE]
    assert rules_broken_by(replace(DONE, told="none", begun=99.0), disturbed=disturbed) == [LATE]


def test_time_for_which_the_machine_stood_still_is_not_counted() -> None:
    late = replace(DONE, ended=107.0)
    assert rules_broken_by(late, ENTRY, stalled=lambda _begun, _ended: 2.0) == []
    assert rules_broken_by(late, ENTRY, stalled=lambda _begun, _ended: 0.5) == [LATE]


@pytest.mark.parametrize(
    "wrong",
    [{"nonce_answered": "n2"}, {"node_answered": "c2"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_answer_to_something_else_is_found(wrong: dict[str, str]) -> None:
    assert rules_broken_by(replace(STREAM, told="left", **wrong), ENTRY) == [ELSE]  # type: ignore[arg-type]
    assert rules_broken_by(replace(DONE, **wrong), ENTRY) == [ELSE]  # type: ignore[arg-type]


def test_streamed_bodies_that_are_whole_or_seen_to_be_broken_pass() -> None:
    assert rules_broken_by(STREAM, ENTRY) == []
    assert rules_broken_by(replace(STREAM, kind=UP), ENTRY, taken={"n1": Taken(wholes=[WHOLE])}) == []
    for told in ("broken", "left"):
        assert rules_broken_by(replace(STREAM, told=told, size_answered=9, sum_answered="9"), ENTRY) == []
    assert rules_broken_by(replace(STREAM, kind=UP, told="unknown", status=502), ENTRY, taken={"n1": Taken(5.0)}) == []


@pytest.mark.parametrize("wrong", [{"size_answered": SIZE - 1}, {"sum_answered": sum_of("n2", SIZE)}])
def test_an_answer_that_was_cut_or_changed_and_looks_whole_to_its_caller_is_found(wrong: dict[str, str | int]) -> None:
    assert rules_broken_by(replace(STREAM, **wrong), ENTRY) == [TORN]  # type: ignore[arg-type]


@pytest.mark.parametrize("told", ["unknown", "left", "none"])
def test_a_body_that_was_cut_or_changed_and_looks_whole_to_its_handler_is_found(told: object) -> None:
    upload = replace(STREAM, kind=UP, told=told, status=0)  # type: ignore[arg-type]
    excused: dict[str, Any] = {"disturbed": lambda *_: True}
    for wrong in ((SIZE - 1, WHOLE[1]), (SIZE, sum_of("n2", SIZE))):
        assert rules_broken_by(upload, ENTRY, taken={"n1": Taken(wholes=[wrong])}, **excused) == [TORN]


def test_the_time_of_a_streamed_body_starts_again_with_each_piece() -> None:
    long = replace(STREAM, ended=300.0)
    assert rules_broken_by(long, ENTRY) == [LATE]
    assert rules_broken_by(replace(long, moved=295.0), ENTRY) == []
    assert rules_broken_by(long, ENTRY, taken={"n1": Taken(moved=295.0)}) == []
    assert rules_broken_by(replace(long, moved=290.0), ENTRY, taken={"n1": Taken(moved=293.0)}) == [LATE]


@pytest.mark.parametrize("told", ["no", "unknown", "broken"])
def test_a_failure_while_nothing_is_at_fault_is_found(told: object) -> None:
    failed = replace(STREAM, told=told, status=502, kind=GET, timeout=10.0)  # type: ignore[arg-type]
    executed = () if told == "no" else (ENTRY,)
    assert rules_broken_by(failed, *executed, sound_since=99.0) == [FAILED]
    assert rules_broken_by(failed, *executed, sound_since=101.0) == []


def test_a_short_deadline_may_pass_and_nothing_else_while_nothing_is_at_fault() -> None:
    passed = replace(DONE, told="unknown", status=504, timeout=2.0)
    assert rules_broken_by(passed, sound_since=99.0) == []
    assert rules_broken_by(replace(passed, status=408), sound_since=99.0) == []
    assert rules_broken_by(replace(STREAM, told="broken", timeout=2.0), ENTRY, sound_since=99.0) == []
    assert rules_broken_by(replace(passed, timeout=5.0), sound_since=99.0) == [FAILED]
    assert rules_broken_by(replace(passed, status=408, timeout=5.0), sound_since=99.0) == [FAILED]
    assert rules_broken_by(replace(passed, status=502), sound_since=99.0) == [FAILED]


def test_an_execution_elsewhere_or_that_nobody_asked_for_is_found() -> None:
    assert rules_broken_by(replace(DONE, told="unknown"), replace(ENTRY, node="c2")) == [ELSE]
    assert rules_broken_by(replace(DONE, told="unknown"), replace(ENTRY, nonce="n9")) == [ELSE]


def test_never_sent_of_what_was_executed_is_found() -> None:
    assert rules_broken_by(replace(DONE, told="no"), ENTRY) == [SENT]


@pytest.mark.parametrize("told", ["done", "yes"])
def test_an_answer_without_an_execution_is_found(told: object) -> None:
    assert rules_broken_by(replace(DONE, told=told)) == [UNDONE]  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["descriptors", "threads", "tasks", "exchanges"])
def test_anything_above_the_idle_level_is_found(what: str) -> None:
    idle = Census(descriptors=20, threads=10, tasks=9, exchanges=0, memory=1)
    assert beyond_idle("c1", idle, idle) == []
    (violation,) = beyond_idle("c1", idle, replace(idle, **{what: 100}))
    assert violation.rule == IDLE
    assert what in violation.what
    assert beyond_idle("c1", idle, replace(idle, exchanges=1))


def test_memory_that_grows_is_measured_by_the_minute() -> None:
    mib = 1024 * 1024
    assert growth([(0, 50 * mib), (60, 50 * mib)]) == 0
    assert growth([(second, 50 * mib + second * mib // 40) for second in range(0, 120, 5)]) == pytest.approx(1.5)
    up_and_down = [(second, (50 + second % 3) * mib) for second in range(120)]
    assert growth(up_and_down) == pytest.approx(0, abs=0.05)


def test_the_ledger_has_every_line_that_was_written(tmp_path: object) -> None:
    ledger = Ledger(tmp_path / "ledger")  # type: ignore[operator]
    assert ledger.entries() == []
    ledger.path.write_text("n1 c1 10\nn2 server 11\nn1 c1 12\n")
    assert ledger.entries() == [ENTRY, Entry("n2", "server", 11), Entry("n1", "c1", 12)]
    assert ledger.times() == {"n1": 2, "n2": 1}
    assert ledger.taken() == {}
    (tmp_path / "ledger.bodies").write_text("n1 5.5\nn2 6.0\nn1 5.75\nn1 5.8 3 abc\n")  # type: ignore[operator]
    assert ledger.taken() == {"n1": Taken(5.8, [(3, "abc")]), "n2": Taken(6.0)}


def test_every_rule_has_words_of_its_own() -> None:
    assert len(set(RULES)) == len(RULES)
