"""What HTTP callers asked for, and what they were told."""

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

# "done": the answer of the handler. "no", "yes", "unknown": a failure, by what it says of the execution. "broken": the
# answer began, and its caller saw that it did not end. "left": the caller itself went away, in the midst of a body.
# "none": no answer at all, for the connection to the node that was asked broke.
Told = Literal["done", "no", "yes", "unknown", "broken", "left", "none"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of request.

    Attributes:
        name: as the verdict shows it.
        verb: of HTTP.
        noun: the event.
        keyed: has an Idempotency-Key.
        repeatable: RestPipe may execute it more than once.
        sizes: bytes that its body may have; that of the answer for "down".
        streams: bodies that are streamed "up", with the request, or "down", with the answer.
    """

    name: str
    verb: str
    noun: str
    keyed: bool = False
    repeatable: bool = False
    sizes: tuple[int, ...] = (0,)
    streams: Literal["", "up", "down"] = ""


KINDS = (
    Kind("GET", "GET", "note", repeatable=True),
    Kind("GET, in a thread", "GET", "note/sync", repeatable=True),
    Kind("GET, at most once", "GET", "once"),
    Kind("POST", "POST", "note", sizes=(1, 1000, 60_000)),
    Kind("POST with a key", "POST", "note", keyed=True, sizes=(1, 1000, 50_000)),
)
MIB = 1024 * 1024
SIZES = (200_000, MIB, 3 * MIB + 1)
STREAMED = (
    Kind("upload", "POST", "bytes", sizes=SIZES, streams="up"),
    Kind("upload, to a thread", "POST", "bytes/sync", sizes=SIZES, streams="up"),
    Kind("download", "GET", "bytes", repeatable=True, sizes=SIZES, streams="down"),
    Kind("download, from a thread", "GET", "bytes/sync", repeatable=True, sizes=SIZES, streams="down"),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of whom.

    Attributes:
        kind: of request.
        asked: name of the node that is asked.
        serving: name of the node that is to answer.
        prefix: of the path that leads to it.
        size: bytes of the body.
        timeout: seconds that all of it may take; of a streamed body, from one piece to the next.
        wait: seconds that it may wait for an absent peer.
        nonce: its own.
    """

    kind: Kind
    asked: str
    serving: str
    prefix: str
    size: int
    timeout: float
    wait: str
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def path(self) -> str:
        """The path of the request, up to its first argument, which is the nonce."""
        return f"{self.prefix}/{self.kind.noun}//{self.nonce}"

    @property
    def headers(self) -> dict[str, str]:
        headers = {"X-Event-Timeout": f"{self.timeout:g}", "Prefer": f"wait={self.wait}"}
        return headers | ({"Idempotency-Key": self.nonce} if self.kind.keyed else {})

    def over(self, begun: float, ended: float, **facts: Any) -> "Call":
        """Return the call, with what became of it."""
        return Call(
            nonce=self.nonce, kind=self.kind, asked=self.asked, serving=self.serving, size=self.size,
            timeout=self.timeout, begun=begun, ended=ended, **facts,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """One request, over.

    Attributes:
        nonce: its own.
        kind: of request.
        asked: node whose web server was asked.
        serving: node whose handler was to answer.
        size: bytes of its body, or of the answer's where that is streamed.
        timeout: seconds that it was given; for a streamed body, from one piece to the next.
        begun: when it was made, by the clock of the caller.
        moved: when the caller saw a piece of a streamed body move last.
        ended: when its answer was there, or that there would be none.
        told: what the caller was told.
        status: of HTTP; 0 for no answer.
        attempts: that the answer tells of.
        nonce_answered: by the handler's answer.
        node_answered: likewise.
        size_answered: likewise; of a streamed answer, what the caller got.
        sum_answered: checksum of a streamed body, by who read it.
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
    sum_answered: str = ""
    moved: float = 0.0


def attempts_of(answer: httpx.Response) -> int:
    """Return how often a request was sent, as its answer tells."""
    return int(answer.headers.get("x-event-attempts", 1))
