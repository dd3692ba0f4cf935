"""The verdict: joins the ledger with what HTTP callers were told, and finds what must never be."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bodies import sum_of
from calls import Call
from ledger import Entry, Taken

# Whether a node was killed or stopped by the test itself at any time between two moments.
Disturbed = Callable[[str, float, float], bool]
# Seconds for which the machine kept the callers themselves from running, between two moments.
Stalled = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never be, and was.

    Attributes:
        rule: that is broken.
        what: broke it.
    """

    rule: str
    what: str


TWICE = "executed more often than permitted"
LATE = "no HTTP answer by the deadline + 1 s"
ELSE = "the answer to something else"
TORN = "a body taken for whole that is not what was sent"
SENT = '"never sent", and executed'
UNDONE = "answered, and not executed"
FAILED = "failed without any fault"
BACK = "not connected again"
IDLE = "not idle after the load"
GROWTH = "memory grows under steady load"
# Seconds in which every request, or the next piece of its body, is done; shorter deadlines may pass on a busy machine.
ENOUGH = 5.0
RULES = (TWICE, LATE, ELSE, TORN, SENT, UNDONE, FAILED, BACK, IDLE, GROWTH)


def check_calls(
    calls: Sequence[Call],
    entries: Iterable[Entry],
    taken: Mapping[str, Taken] = MappingProxyType({}),
    *,
    grace: float = 1.0,
    sound_since: float = math.inf,
    disturbed: Disturbed = lambda _node, _begun, _ended: False,
    stalled: Stalled = lambda _begun, _ended: 0.0,
) -> list[Violation]:
    """Return every violation by a request.

    Args:
        calls: all that were made, each with a nonce of its own.
        entries: of the ledger.
        taken: what handlers had of streamed bodies, by nonce.
        grace: seconds beyond its deadline that an answer may take.
        sound_since: when the last fault was over, and every node back: nothing that begins later may fail.
        disturbed: tells of nodes that the test made unable to answer whoever asked them.
        stalled: tells of time that is not the nodes' fault.
    """
    executed = list(entries)
    times = Counter(entry.nonce for entry in executed)
    known = {call.nonce: call for call in calls}
    found = [Violation(ELSE, f"{entry} was asked for by nobody") for entry in executed if entry.nonce not in known]
    found += [
        Violation(ELSE, f"{entry} was asked of {known[entry.nonce].serving}")
        for entry in executed
        if entry.nonce in known and entry.node != known[entry.nonce].serving
    ]
    for call in calls:
        had = taken.get(call.nonce, Taken())
        found += _faults_of(call, times[call.nonce])
        found += _torn(call, had)
        hasty = call.timeout < ENOUGH and (call.status in {408, 504} or call.told == "broken")
        if call.begun > sound_since and call.told not in {"done", "left"} and not hasty:
            found.append(Violation(FAILED, str(call)))
        excused = disturbed(call.asked, call.begun, call.ended)
        if call.told == "none" and not excused:
            found.append(Violation(LATE, f"no answer to {call}"))
        # The time of a streamed body starts again with each piece, as its caller or its handler saw it.
        due = max(call.begun, call.moved, had.moved) + call.timeout
        over = call.ended - due - grace - stalled(call.begun, call.ended)
        if over > 0 and not excused:
            found.append(Violation(LATE, f"{over:.2f} s too late: {call}"))
    return found


def _faults_of(call: Call, times: int) -> Iterator[Violation]:
    """Yield what is wrong with a call whose nonce was executed so many times."""
    if times > 1 and not call.kind.repeatable:
        yield Violation(TWICE, f"{times} times: {call}")
    if call.status and times > call.attempts and call.kind.repeatable:
        yield Violation(TWICE, f"{times} times, and X-Event-Attempts tells of {call.attempts}: {call}")
    if call.status == 200 and (call.nonce_answered, call.node_answered) != (call.nonce, call.serving):
        yield Violation(ELSE, str(call))
    if call.told == "no" and times:
        yield Violation(SENT, f"{times} times: {call}")
    if call.told in {"done", "broken", "yes"} and not times:
        yield Violation(UNDONE, str(call))


def _torn(call: Call, taken: Taken) -> Iterator[Violation]:
    """Yield what was taken for a whole body by the caller or a handler, and is not what the other one sent."""
    streamed = call.kind.streams != ""
    right = call.size, sum_of(call.nonce, call.size) if streamed else ""
    if call.told == "done" and (call.size_answered, call.sum_answered) != right:
        yield Violation(TORN, f"by the caller: {call}")
    for whole in taken.wholes:
        if whole != right:
            yield Violation(TORN, f"by the handler, {whole}: {call}")
