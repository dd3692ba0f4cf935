"""What a node counts for Prometheus: plain numbers, read when somebody asks for them.

Nothing of it is on the way of a request unless the node has a `Meter`.
"""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterable, Container

from restpipe.exceptions import EventError
from restpipe.handlers.events import VERBS
from restpipe.nodes.exchanges import MakeRequest, Patience, PipeTo, exchange
from restpipe.pipe import Answer, Incoming, Pipe
from restpipe.pipe.pipe import Serve
from restpipe.transport.carrier import Carrier
from restpipe_pb.v1.pipe_pb2 import Request

# Seconds; the upper bounds of the buckets of durations, the last of which has none.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
# Events that are counted by name; peers say what they serve, and so could say anything.
MAX_EVENTS = 200
OTHER = "other"
_VERBS = frozenset((*VERBS, "options", "connect"))


class Durations:
    """How often something took how long.

    Attributes:
        buckets: number of times for each of `BOUNDS`, and of those beyond.
        seconds: the sum.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0


class Meter:
    """Counts what a node does. Used from the thread of its event loop alone.

    Args:
        serves: nouns that this node serves.

    Attributes:
        durations: of exchanges, by side ("opened" or "served"), verb, event and outcome. One that was opened takes
            until the head of its answer, one that is served until its answer was handed over. The outcome is "done",
            "refused" (the caller's fault), "failed" (the handler's), "unsent", "unknown", or "cancelled".
        repeats: attempts to have a request answered, beyond the first of each.
        connections: connections that were made.
        received: bytes of the frames that arrived.
        sent: bytes of the frames that left.
    """

    def __init__(self, serves: Container[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._serves = serves
        self._events: set[str] = set()
        self.durations: dict[tuple[str, str, str, str], Durations] = {}
        self.repeats = 0
        self.connections = 0
        self.received = 0
        self.sent = 0

    def serving(self, serve: Serve) -> Serve:
        """Return what counts the requests that `serve` answers."""

        async def counting(incoming: Incoming) -> None:
            started = self._loop.time()
            outcome = "done"
            try:
                await serve(incoming)
            except EventError as error:
                outcome = _outcome(error)
                raise
            except BaseException:
                outcome = "cancelled"
                raise
            finally:
                request = incoming.request
                noun = request.noun.replace("/", "_")
                event = noun if noun in self._events or self._admits(noun, known=noun in self._serves) else OTHER
                self._note("served", request.verb, event, outcome, self._loop.time() - started)

        return counting

    def carrying(self, carrier: Carrier) -> Carrier:
        """Return what counts the bytes of a new connection's frames."""
        self.connections += 1
        return _Metered(carrier, self)

    async def exchange(
        self, pipe_to: PipeTo, make_request: MakeRequest, body: AsyncIterable[bytes] | None, patience: Patience
    ) -> tuple[Answer, int]:
        """Do what `restpipe.nodes.exchanges.exchange` does, and count it."""
        started = self._loop.time()
        outcome, verb, event = "done", OTHER, OTHER
        times = 0

        def make(pipe: Pipe) -> Request:
            nonlocal times, verb, event
            request = make_request(pipe)
            times += 1
            verb = request.verb
            noun = request.noun.replace("/", "_")
            event = noun if noun in self._events or self._admits(noun, known=_is_served_by(pipe, noun)) else OTHER
            return request

        try:
            return await exchange(pipe_to, make, body, patience)
        except EventError as error:
            outcome = _outcome(error)
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            if times > 1:
                self.repeats += times - 1
            self._note("opened", verb, event, outcome, self._loop.time() - started)

    def _admits(self, noun: str, *, known: bool) -> bool:
        if not known or len(self._events) >= MAX_EVENTS:
            return False
        self._events.add(noun)
        return True

    def _note(self, side: str, verb: str, event: str, outcome: str, seconds: float) -> None:
        key = side, verb if verb in _VERBS else OTHER, event, outcome
        durations = self.durations.get(key)
        if durations is None:
            durations = self.durations[key] = Durations()
        durations.buckets[bisect_left(BOUNDS, seconds)] += 1
        durations.seconds += seconds


class _Metered:
    """A carrier whose frames are counted."""

    def __init__(self, carrier: Carrier, meter: Meter) -> None:
        self._carrier = carrier
        self._meter = meter
        self.peer = carrier.peer
        self.close = carrier.close

    async def read(self) -> bytes | None:
        frame = await self._carrier.read()
        if frame is not None:
            self._meter.received += len(frame)
        return frame

    async def write(self, frame: bytes) -> None:
        await self._carrier.write(frame)
        self._meter.sent += len(frame)


def _is_served_by(pipe: Pipe, noun: str) -> bool:
    return any(event.noun == noun for event in pipe.ready.result().manifest)


def _outcome(error: EventError) -> str:
    if error.executed == "no":
        return "refused" if error.status < 500 else "unsent"
    return "failed" if error.executed == "yes" else "unknown"
