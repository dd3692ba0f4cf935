"""What a node counts, and remembers of its last exchanges, for its status page and for Prometheus.

An exchange costs two looks at the clock and two additions. What is told of it in words is put together when somebody
asks.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import AsyncIterable, Container
from itertools import chain
from typing import NamedTuple

from restpipe.exceptions import EventError
from restpipe.handlers.events import VERBS
from restpipe.nodes.exchanges import MakeRequest, Patience, PipeTo, Tried, exchange
from restpipe.nodes.traffic import BOUNDS, Durations, DurationsByEvent, MeteredCarrier, Sample, Tally, Traffic
from restpipe.pipe import Answer, Incoming, Pipe, PipeEnd, Serve
from restpipe.pipe.request_ids import id_of_instance, request_id
from restpipe.transport.carrier import Carrier
from restpipe_pb.v1.pipe_pb2 import Goaway, Request

# Events that are counted by name; peers say what they serve, and so could say anything.
MAX_EVENTS = 200
OTHER = "other"
OPENED = "opened"
SERVED = "served"
_VERBS = frozenset((*VERBS, "options", "connect"))

# Seconds of which the rates are kept, one sample for each.
HISTORY = 300
# Exchanges that are remembered: of those that failed or were slow, and of the others.
MAX_REMEMBERED = 250
# Of the others, those that are remembered of each second: more would push the rest of the last minute out.
REMEMBERED_A_SECOND = 20
# Seconds from which on an exchange is slow.
SLOW = 1.0
# Characters that are kept of what a peer or a caller named an event.
MAX_NOUN = 120
# Characters that are kept of what went wrong.
MAX_FAULT = 200


class Remembered(NamedTuple):
    """An exchange that is over.

    Attributes:
        sequence: grows with each.
        ended: when, in seconds since 1970.
        side: "opened" or "served".
        verb: of the event.
        noun: of it, or the path that is passed on to an HTTP service; cut where it is long.
        peer: the node at the other end, "" where there was none.
        request_id: as in the logs of both nodes, "" where there was no pipe.
        outcome: see `Meter`.
        seconds: that it took.
        fault: class of the exception, or where it did not get as far as a pipe, why; "" where it was done.
    """

    sequence: int
    ended: float
    side: str
    verb: str
    noun: str
    peer: str
    request_id: str
    outcome: str
    seconds: float
    fault: str


class Meter:
    """Counts what a node does. Used from the thread of its event loop alone.

    An exchange that was opened takes until the head of its answer; one that is served until its answer was handed over.
    The outcome is "done", "refused" (the caller's fault), "failed" (the handler's), "unsent", "unknown" or "cancelled".

    Args:
        serves: nouns that this node serves.
        durations: whether to keep durations by event.

    Attributes:
        durations: of exchanges, by side ("opened" or "served"), verb, event and outcome; None where they are not kept.
        repeats: attempts to have a request answered, beyond the first of each.
        connections: connections that were made.
        failed_connects: attempts to connect that failed.
        ended: pipes that have ended, by reason.
        traffic: of each pipe that has not ended.
        samples: of the last `HISTORY` seconds, each with its number in the sequence of what is remembered.
        sequence: number of what was remembered last.
    """

    def __init__(self, serves: Container[str], *, durations: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._serves = serves
        self._events: set[str] = set()
        self.durations: DurationsByEvent | None = {} if durations else None
        self.repeats = 0
        self.connections = 0
        self.failed_connects = 0
        self.ended: Counter[int] = Counter()
        self.traffic: dict[Pipe, Traffic] = {}
        self.samples: deque[tuple[int, Sample]] = deque(maxlen=HISTORY)
        self.sequence = 0
        # By pipes that have ended, and opened without getting as far as a pipe.
        self._past = Traffic()
        self._sampled = self.totals
        self._usual: deque[Remembered] = deque(maxlen=MAX_REMEMBERED)
        self._notable: deque[Remembered] = deque(maxlen=MAX_REMEMBERED)
        self._room = REMEMBERED_A_SECOND
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to sample."""
        self._timer = self._loop.call_later(1, self._tick, self._loop.time() + 1)

    def stop(self) -> None:
        """Sample no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def totals(self) -> Sample:
        """What was counted since the node was made."""
        totals = [0] * len(Sample._fields)
        for traffic in (self._past, *self.traffic.values()):
            traffic.add_to(totals)
        return Sample._make(totals)

    def remembered(self, since: int = 0) -> list[Remembered]:
        """Return the exchanges that are remembered, the last ones first; those after a number in the sequence."""
        newer = (each for each in chain(self._usual, self._notable) if each.sequence > since)
        return sorted(newer, reverse=True)

    def metered(self, carrier: Carrier, serve: Serve) -> tuple[Carrier, Serve, Traffic]:
        """Return what counts the frames of a new connection, and what counts the requests that come by it."""
        self.connections += 1
        traffic = Traffic()
        note = self._note

        async def counting(incoming: Incoming) -> None:
            started = time.monotonic()
            try:
                await serve(incoming)
            except BaseException as error:
                note(SERVED, traffic.served, started, incoming.request, incoming, None, error)
                raise
            note(SERVED, traffic.served, started, incoming.request, incoming, None, None)

        return MeteredCarrier(carrier, traffic), counting, traffic

    def follow(self, pipe: Pipe, traffic: Traffic) -> None:
        """Count what passes by a pipe, to its end."""
        self.traffic[pipe] = traffic

        def ended(end: asyncio.Future[PipeEnd]) -> None:
            del self.traffic[pipe]
            traffic.end(self._past)
            reason = end.result().reason  # a newer peer may have others
            self.ended[reason if reason in Goaway.Reason.values() else Goaway.UNSPECIFIED] += 1

        pipe.ended.add_done_callback(ended)

    async def exchange(
        self, pipe_to: PipeTo, make_request: MakeRequest, body: AsyncIterable[bytes] | None, patience: Patience
    ) -> tuple[Answer, int]:
        """Do what `restpipe.nodes.exchanges.exchange` does, and count it."""
        started = time.monotonic()
        tried = Tried()
        try:
            answered = await exchange(pipe_to, make_request, body, patience, tried)
        except BaseException as error:
            self._opened(started, tried, None, error)
            raise
        self._opened(started, tried, answered[0], None)
        return answered

    def _opened(self, started: float, tried: Tried, answer: Answer | None, error: BaseException | None) -> None:
        pipe = tried.pipe
        if tried.times > 1:
            self.repeats += tried.times - 1
        traffic = self.traffic.get(pipe, self._past) if pipe is not None else self._past
        self._note(OPENED, traffic.opened, started, tried.request, answer, pipe, error)

    def _note(
        self, side: str, tally: Tally, started: float, request: Request | None, end: Answer | Incoming | None,
        pipe: Pipe | None, error: BaseException | None,
    ) -> None:  # fmt: skip
        seconds = time.monotonic() - started
        tally.all += 1
        outcome = "done"
        if error is not None:
            tally.failed += 1
            outcome = _outcome(error)
        if self.durations is not None:
            self._measure(self.durations, side, request, pipe, outcome, seconds)
        if error is None and seconds < SLOW:
            if not self._room:
                return
            self._room -= 1
            memory = self._usual
        else:
            memory = self._notable
        self.sequence += 1
        peer = pipe.peer.name if pipe is not None else end.peer.name if isinstance(end, Incoming) else ""
        memory.append(
            Remembered(
                self.sequence, time.time(), side, "" if request is None else request.verb, _noun(request), peer,
                _request_id(request, end, error), outcome, seconds,
                _fault(error, told=request is None),
            )
        )  # fmt: skip

    def _measure(
        self, by_event: DurationsByEvent, side: str, request: Request | None, pipe: Pipe | None, outcome: str,
        seconds: float,
    ) -> None:  # fmt: skip
        verb, event = OTHER, OTHER
        if request is not None:
            noun = request.noun.replace("/", "_")
            if noun in self._events or self._admits(noun, pipe):
                event = noun
            if request.verb in _VERBS:
                verb = request.verb
        key = side, verb, event, outcome
        durations = by_event.get(key)
        if durations is None:
            durations = by_event[key] = Durations()
        durations.buckets[bisect_left(BOUNDS, seconds)] += 1
        durations.seconds += seconds

    def _admits(self, noun: str, peer: Pipe | None) -> bool:
        """Count an event by its name from now on, if its server says that there is one, and there is room."""
        if len(self._events) >= MAX_EVENTS:
            return False
        if peer is None:
            known = noun in self._serves
        else:
            known = any(event.noun == noun for event in peer.ready.result().manifest)
        if known:
            self._events.add(noun)
        return known

    def _tick(self, due: float) -> None:
        """Take the sample of a second."""
        self._timer = self._loop.call_at(due + 1, self._tick, due + 1)
        totals = self.totals
        self.sequence += 1
        self.samples.append((self.sequence, Sample._make(map(int.__sub__, totals, self._sampled))))
        self._sampled = totals
        for traffic in self.traffic.values():
            traffic.tick()
        self._room = REMEMBERED_A_SECOND


def _outcome(error: BaseException) -> str:
    if isinstance(error, EventError):
        if error.executed == "no":
            return "refused" if error.status < 500 else "unsent"
        return "failed" if error.executed == "yes" else "unknown"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "unknown"


def _noun(request: Request | None) -> str:
    """Return what an event is called, of bounded length; nothing of a query, which may hold what is secret."""
    if request is None:
        return ""
    noun = request.noun or request.target.partition("?")[0]
    return noun if len(noun) <= MAX_NOUN else noun[: MAX_NOUN - 1] + "…"


def _request_id(request: Request | None, end: Answer | Incoming | None, error: BaseException | None) -> str:
    if request is not None and end is not None:
        return request_id(request, end.label)
    return id_of_instance(error.instance) if isinstance(error, EventError) else ""


def _fault(error: BaseException | None, *, told: bool) -> str:
    """Say what went wrong; in words only where they are our own, and there is nothing else to tell."""
    if not isinstance(error, EventError):
        return ""
    return (str(error) if told else error.exception_class)[:MAX_FAULT]
