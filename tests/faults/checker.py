"""The verdict: joins the ledger with what HTTP callers were told, and finds what must never be."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from calls import Call
from ledger import Entry

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
SENT = '"never sent", and executed'
UNDONE = "answered, and not executed"
BACK = "not connected again"
IDLE = "not idle after the load"
GROWTH = "memory grows under steady load"
RULES = (TWICE, LATE, ELSE, SENT, UNDONE, BACK, IDLE, GROWTH)


def check_calls(
    calls: Sequence[Call],
    entries: Iterable[Entry],
    *,
    grace: float = 1.0,
    disturbed: Disturbed = lambda _node, _begun, _ended: False,
    stalled: Stalled = lambda _begun, _ended: 0.0,
) -> list[Violation]:
    """Return every violation by a request.

    Args:
        calls: all that were made, each with a nonce of its own.
        entries: of the ledger.
        grace: seconds beyond its deadline that an answer may take.
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
        found += _faults_of(call, times[call.nonce])
        excused = disturbed(call.asked, call.begun, call.ended)
        if call.told == "none" and not excused:
            found.append(Violation(LATE, f"no answer to {call}"))
        over = call.ended - call.begun - call.timeout - grace - stalled(call.begun, call.ended)
        if over > 0 and not excused:
            found.append(Violation(LATE, f"{over:.2f} s too late: {call}"))
    return found


def _faults_of(call: Call, times: int) -> Iterator[Violation]:
    """Yield what is wrong with a call whose nonce was executed so many times."""
    if times > 1 and not call.kind.repeatable:
        yield Violation(TWICE, f"{times} times: {call}")
    if call.told == "done":
        if times > call.attempts and call.kind.repeatable:
            yield Violation(TWICE, f"{times} times, and X-Event-Attempts tells of {call.attempts}: {call}")
        if (call.nonce_answered, call.node_answered, call.size_answered) != (call.nonce, call.serving, call.size):
            yield Violation(ELSE, str(call))
    if call.told == "no" and times:
        yield Violation(SENT, f"{times} times: {call}")
    if call.told in {"done", "yes"} and not times:
        yield Violation(UNDONE, str(call))
