"""A node counts all that it does, and remembers what is worth it, in bounded room."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest
from memory_pipes import PATIENCE

from restpipe.exceptions import EventError, HandlerError, PeerAbsentError
from restpipe.nodes import metering
from restpipe.nodes.exchanges import Patience
from restpipe.nodes.metering import HISTORY, MAX_NOUN, MAX_REMEMBERED, REMEMBERED_A_SECOND, Meter, Remembered
from restpipe.nodes.traffic import Sample
from restpipe.pipe import Incoming, Pipe, PipeEnd
from restpipe.protocol.limits import Limits
from restpipe.stats import NullStats
from restpipe.transport.carrier import Peer
from restpipe.transport.memory import memory_pair
from restpipe_pb.v1.pipe_pb2 import Goaway, Hello, Request, Response

PATIENT = Patience(PATIENCE, PATIENCE)


def _given(request: Request, _pipe: Pipe) -> Request:
    return request


def pass_a_second(meter: Meter) -> None:
    meter._tick(asyncio.get_running_loop().time())
    meter.stop()


class Joined:
    """Two meters, and a pipe between them that opens exchanges at the first and serves them at the second."""

    def __init__(self) -> None:
        self.opening, self.serving = Meter([], durations=False), Meter([], durations=False)
        self.entered = asyncio.Event()
        self.pipes: list[Pipe] = []
        self.runs: list[asyncio.Task[PipeEnd]] = []
        self.serving_tasks: set[asyncio.Task[None]] = set()
        ends = memory_pair(Peer("asking", "192.0.2.1"), Peer("asked", "192.0.2.2"))
        for meter, end, dials in ((self.opening, ends[0], True), (self.serving, ends[1], False)):
            carrier, serve, traffic = meter.metered(end, self._serve)
            pipe = Pipe(carrier, dials=dials, limits=Limits(), hello=Hello(), serve=serve, stats=NullStats())
            meter.follow(pipe, traffic)
            self.pipes.append(pipe)

    async def _serve(self, incoming: Incoming) -> None:
        if incoming.request.noun == "raise":
            raise HandlerError("the secret", exception_class="LookupError")
        if incoming.request.noun == "wait" and incoming.task is not None:
            self.serving_tasks.add(incoming.task)
            self.entered.set()
            await asyncio.Event().wait()
        incoming.respond(Response(status=200, body=b"1"))

    async def ask(self, noun: str = "value", *, verb: str = "get", target: str = "", times: int = 1) -> None:
        async def pipe_to(_wait: float) -> Pipe:
            return self.pipes[0]

        for _ in range(times):
            request = Request(verb=verb, noun=noun, target=target)
            with contextlib.suppress(EventError):
                await self.opening.exchange(pipe_to, partial(_given, request), None, PATIENT)

    async def ask_nobody(self) -> None:
        async def pipe_to(_wait: float) -> Pipe:
            raise PeerAbsentError("client 'x' is not connected")

        with pytest.raises(PeerAbsentError):
            await self.opening.exchange(pipe_to, lambda _: Request(), None, PATIENT)

    @property
    def last(self) -> tuple[Remembered, Remembered]:
        """What either side remembers first."""
        return self.opening.remembered()[0], self.serving.remembered()[0]


@pytest.fixture
async def joined() -> AsyncIterator[Joined]:
    joined = Joined()
    joined.runs = [asyncio.create_task(pipe.run()) for pipe in joined.pipes]
    await asyncio.gather(*(pipe.wait_ready() for pipe in joined.pipes))
    yield joined
    for pipe in joined.pipes:
        pipe.close(Goaway.SHUTDOWN, "the test is over")
    await asyncio.wait(joined.runs)


async def test_both_sides_remember_who_asked_what_of_whom_and_how_it_ended(joined: Joined) -> None:
    await joined.ask("value")
    opened, served = joined.last
    assert (opened.side, opened.verb, opened.noun, opened.outcome) == ("opened", "get", "value", "done")
    assert (served.side, served.verb, served.noun, served.outcome) == ("served", "get", "value", "done")
    assert (opened.peer, served.peer) == ("asked", "asking")
    assert opened.request_id == served.request_id != ""
    assert 0 <= served.seconds <= opened.seconds < PATIENCE
    await joined.ask("raise")
    opened, served = joined.last
    assert (opened.outcome, opened.fault) == (served.outcome, served.fault) == ("failed", "LookupError")
    assert opened.request_id == served.request_id != ""


async def test_what_never_got_as_far_as_a_pipe_says_why(joined: Joined) -> None:
    await joined.ask_nobody()
    (event,) = joined.opening.remembered()
    assert (event.outcome, event.peer, event.request_id) == ("unsent", "", "")
    assert event.fault == "client 'x' is not connected"
    assert joined.opening.totals == Sample(1, 1, 0, 0, *joined.opening.totals[4:])


async def test_many_that_are_done_push_nothing_that_failed_out_of_memory(joined: Joined) -> None:
    await joined.ask("raise")
    for _ in range(3):
        await joined.ask(times=REMEMBERED_A_SECOND + 20)
        pass_a_second(joined.opening)
    remembered = joined.opening.remembered()
    assert [event.outcome for event in remembered] == ["done"] * 3 * REMEMBERED_A_SECOND + ["failed"]
    assert joined.opening.totals.opened == 3 * (REMEMBERED_A_SECOND + 20) + 1
    for _ in range(MAX_REMEMBERED // REMEMBERED_A_SECOND):
        await joined.ask(times=REMEMBERED_A_SECOND)
        pass_a_second(joined.opening)
    remembered = joined.opening.remembered()
    assert [event.outcome for event in remembered] == ["done"] * MAX_REMEMBERED + ["failed"]
    sequence = [event.sequence for event in remembered]
    assert sequence == sorted(sequence, reverse=True)
    assert joined.opening.remembered(sequence[5]) == remembered[:5]


async def test_memory_is_bounded_whatever_fails(joined: Joined) -> None:
    for _ in range(MAX_REMEMBERED + 10):
        await joined.ask_nobody()
    assert len(joined.opening.remembered()) == MAX_REMEMBERED
    for _ in range(HISTORY + 10):
        pass_a_second(joined.opening)
    assert len(joined.opening.samples) == HISTORY


async def test_what_is_slow_is_remembered_beside_what_failed(joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    await joined.ask(times=REMEMBERED_A_SECOND)
    monkeypatch.setattr(metering, "SLOW", 0.0)
    await joined.ask("slow")
    for event in joined.last:
        assert (event.noun, event.outcome) == ("slow", "done")


async def test_a_long_noun_is_cut_and_a_query_is_not_told(joined: Joined) -> None:
    await joined.ask("n" * 10_000)
    for event in joined.last:
        assert event.noun == "n" * (MAX_NOUN - 1) + "…"
    await joined.ask("", target="/app/login?password=secret")
    for event in joined.last:
        assert event.noun == "/app/login"


async def test_an_exchange_that_ends_with_its_pipe_is_counted_and_stays_counted(joined: Joined) -> None:
    await joined.ask()
    waiting = asyncio.create_task(joined.ask("wait", verb="post"))
    async with asyncio.timeout(PATIENCE):
        await joined.entered.wait()
    joined.pipes[1].close(Goaway.TAKEOVER, "cut")
    await waiting
    await asyncio.wait(joined.runs, timeout=PATIENCE)
    await asyncio.wait(joined.serving_tasks, timeout=PATIENCE)
    assert joined.opening.traffic == joined.serving.traffic == {}
    opened, served = joined.last
    assert (opened.noun, opened.outcome, served.outcome) == ("wait", "unknown", "cancelled")
    assert joined.opening.totals[:2] == (2, 1)
    assert joined.serving.totals[2:4] == (2, 1)
    assert joined.opening.totals.sent > 0 < joined.serving.totals.received


async def test_samples_add_up_to_the_totals_and_a_rate_goes_back_to_none(joined: Joined) -> None:
    (traffic,) = joined.opening.traffic.values()
    await joined.ask(times=30)
    pass_a_second(joined.opening)
    assert 1 < traffic.rate <= 30
    await joined.ask("raise", times=3)
    for _ in range(60):
        pass_a_second(joined.opening)
    assert traffic.rate == 0
    samples = [sample for _, sample in joined.opening.samples]
    assert [sample.opened for sample in samples[:3]] == [30, 3, 0]
    assert [sample.opened_failed for sample in samples[:3]] == [0, 3, 0]
    assert tuple(map(sum, zip(*samples, strict=True))) == joined.opening.totals


async def test_a_sample_is_taken_each_second_until_the_node_stops() -> None:
    meter, sampled = Meter([], durations=False), asyncio.Event()
    tick = meter._tick

    def tell(due: float) -> None:
        tick(due)
        sampled.set()

    meter._tick = tell  # type: ignore[method-assign]
    meter.start()
    async with asyncio.timeout(PATIENCE):
        await sampled.wait()
    meter.stop()
    assert len(meter.samples) == 1
    assert meter._timer is not None
    assert meter._timer.cancelled()
