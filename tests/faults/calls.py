"""What HTTP callers asked for, and what they were told."""

from dataclasses import dataclass
from typing import Literal

# "done": the answer of the handler. "no", "yes", "unknown": a failure, by what it says of the execution. "none": no
# answer at all, for the connection to the node that was asked broke.
Told = Literal["done", "no", "yes", "unknown", "none"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of request.

    Attributes:
        name: as the verdict shows it.
        verb: of HTTP.
        noun: the event.
        keyed: has an Idempotency-Key.
        repeatable: RestPipe may execute it more than once.
        sizes: bytes that its body may have.
    """

    name: str
    verb: str
    noun: str
    keyed: bool = False
    repeatable: bool = False
    sizes: tuple[int, ...] = (0,)


KINDS = (
    Kind("GET", "GET", "note", repeatable=True),
    Kind("GET, in a thread", "GET", "note/sync", repeatable=True),
    Kind("GET, at most once", "GET", "once"),
    Kind("POST", "POST", "note", sizes=(1, 1000, 60_000)),
    Kind("POST with a key", "POST", "note", keyed=True, sizes=(1, 1000, 50_000)),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, over.

    Attributes:
        nonce: its own.
        kind: of request.
        asked: node whose web server was asked.
        serving: node whose handler was to answer.
        size: bytes of its body.
        timeout: seconds that it was given.
        begun: when it was made, by the clock of the caller.
        ended: when its answer was there, or that there would be none.
        told: what the caller was told.
        status: of HTTP; 0 for no answer.
        attempts: that the answer tells of.
        nonce_answered: by the handler's answer.
        node_answered: likewise.
        size_answered: likewise.
    """

    nonce: str
    kind: Kind
    asked: str
    serving: str
    size: int
    timeout: float
    begun: float
    ended: float
    told: Told
    status: int = 0
    attempts: int = 1
    nonce_answered: str = ""
    node_answered: str = ""
    size_answered: int = 0
