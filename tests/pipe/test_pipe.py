"""The driver: exchanges both ways at once, their clocks, and the end of a pipe at every moment."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pipes import (
    PATIENCE,
    TIMEOUT,
    Wire,
    echo,
    greeting,
    joined,
    make_pipe,
    nothing_is_kept,
    numbered,
    request,
    stream,
    until,
    whole,
    wired,
)
from typing import Any

import pytest
from carriers import Identities, grpc_ends, memory_ends

from restpipe.exceptions import (
    BadAnswerError,
    BodyTooLargeError,
    ConnectError,
    DeadlineError,
    HeadersTooLargeError,
    InternalError,
    PeerRefusedError,
    PipeLostError,
    TooManyExchangesError,
)
from restpipe.pipe import Answer, Incoming, Pipe, PipeEnd
from restpipe.pipe.pipe import FLUSH_TIMEOUT
from restpipe.protocol.exchange import LOW_WATER
from restpipe.protocol.limits import Limits
from restpipe.transport.carrier import CarrierLostError, Peer
from restpipe.transport.memory import DEPTH, MemoryCarrier
from restpipe_pb.v1.pipe_pb2 import Chunk, Credit, Envelope, Failure, Frame, Goaway, Header, Ping, Pong, Response

pytestmark = pytest.mark.usefixtures("leak_free")

MB = 1024 * 1024


@pytest.fixture(params=["memory", "grpc"])
def ends(request: pytest.FixtureRequest, identities: Identities) -> Any:
    return memory_ends() if request.param == "memory" else grpc_ends(identities)


class Stuck:
    """A handler that answers when it is told to, and remembers how it ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, incoming: Incoming) -> None:
        self.begun.set()
        try:
            await self.go_on.wait()
            await echo(incoming)
        except asyncio.CancelledError:
            self.ended.set_result("cancelled")
            raise
        self.ended.set_result("answered")


# Exchanges


async def test_calls_both_ways_at_once_get_their_own_answers(ends: Any) -> None:
    async with joined(ends=ends) as nodes:

        async def ask(number: int) -> bytes:
            pipe = nodes.dialling if number % 2 else nodes.accepting
            return await whole(await pipe.call(request(b"%d" % number)))

        assert await asyncio.gather(*map(ask, range(500))) == [b"%d" % number for number in range(500)]
        assert nodes.dialling.in_flight == nodes.accepting.in_flight == 0


async def test_a_handler_can_call_back_over_the_pipe_it_serves() -> None:
    async def serve(incoming: Incoming) -> None:
        depth = int(await incoming.body.read(10))
        inner = await incoming.pipe.call(request(b"%d" % (depth - 1))) if depth else None
        incoming.respond(Response(status=200, body=b"%d," % depth + (await whole(inner) if inner else b"")))

    async with joined(serve, serve_back=serve) as nodes:
        assert await whole(await nodes.dialling.call(request(b"5"))) == b"5,4,3,2,1,0,"


async def test_bodies_stream_both_ways_at_once_and_arrive_whole(ends: Any) -> None:
    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, more=True))
        await incoming.send_body(incoming.body)

    size = 3 * MB
    async with joined(serve, serve_back=serve, ends=ends) as nodes:
        answers = await asyncio.gather(
            *(pipe.call(request(numbered(0, 999)), _after(999, size)) for pipe in (nodes.dialling, nodes.accepting) * 2)
        )
        for body in await asyncio.gather(*map(whole, answers)):
            assert body == numbered(0, size)
        assert nodes.dialling.in_flight == nodes.accepting.in_flight == 0


async def _after(start: int, size: int) -> AsyncIterator[bytes]:
    while start < size:
        yield numbered(start, min(33_333, size - start))
        start += 33_333


class Counted:
    """A body without end that counts what was asked of it."""

    def __init__(self) -> None:
        self.bytes = 0
        self.begun = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        while True:
            self.begun.set()
            self.bytes += 10_000
            yield bytes(10_000)


# What is made of a body that nobody reads: its window, what waits before it, and the piece that was one too many.
STALLED = Limits().initial_window + LOW_WATER + 16_384 + 2 * 10_000


async def others_go_on(*pipes: Pipe) -> None:
    """Check that small requests and a long body pass."""
    for pipe in pipes:
        answers = await asyncio.gather(*(pipe.call(request(b"%d" % number)) for number in range(50)))
        assert await asyncio.gather(*map(whole, answers)) == [b"%d" % number for number in range(50)]
        assert len(await whole(await pipe.call(request(), stream(2 * MB)))) == 2 * MB


async def test_a_slow_reader_of_an_answer_stalls_no_other_exchange(ends: Any) -> None:
    source = Counted()

    async def serve(incoming: Incoming) -> None:
        if incoming.request.noun != "endless":
            return await echo(incoming)
        incoming.respond(Response(status=200, more=True))
        return await incoming.send_body(source.pieces())

    async with joined(serve, ends=ends) as nodes:
        answer = await nodes.dialling.call(request(noun="endless"))
        await others_go_on(nodes.dialling, nodes.accepting)
        assert 65_536 <= source.bytes <= STALLED
        for _ in range(100):
            await anext(answer.body)
        answer.close()


async def test_a_handler_that_does_not_read_stalls_no_other_exchange(ends: Any) -> None:
    source = Counted()
    stuck = Stuck()

    async def serve(incoming: Incoming) -> None:
        await (stuck(incoming) if incoming.request.noun == "endless" else echo(incoming))

    async with joined(serve, ends=ends) as nodes:
        calling = asyncio.ensure_future(nodes.dialling.call(request(noun="endless"), source.pieces()))
        await stuck.begun.wait()
        await others_go_on(nodes.dialling, nodes.accepting)
        assert 65_536 <= source.bytes <= STALLED
        calling.cancel()
        assert await stuck.ended == "cancelled"


async def test_a_caller_that_is_cancelled_cancels_its_handler() -> None:
    stuck = Stuck()
    async with joined(stuck) as nodes:
        calling = asyncio.ensure_future(nodes.dialling.call(request()))
        await stuck.begun.wait()
        calling.cancel()
        assert await stuck.ended == "cancelled"
        with pytest.raises(asyncio.CancelledError):
            await calling
        await until(lambda: nodes.dialling.in_flight == nodes.accepting.in_flight == 0)
        assert nodes.dialling.available


async def test_an_answer_that_arrives_as_its_caller_is_cancelled_harms_nobody() -> None:
    async with wired(dials=True) as wire:
        calling = asyncio.ensure_future(wire.pipe.call(request()))
        await wire.until("request")
        await wire.send(
            Envelope(exchange_id=1, response=Response(status=200, more=True)),
            Envelope(exchange_id=1, chunk=Chunk(data=b"late", more=True)),
        )
        # The reader wakes first: the call is cancelled, and does not know it yet.
        asyncio.get_running_loop().call_soon(calling.cancel)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await wire.until("cancel")
        await wire.send(Envelope(ping=Ping(id=1)))
        await wire.until("pong")


@pytest.mark.parametrize(
    ("raised", "seen"), [(BodyTooLargeError("too much"), BodyTooLargeError), (OSError("gone"), InternalError)]
)
async def test_a_body_that_breaks_at_the_caller_ends_the_exchange(raised: Exception, seen: type[Exception]) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"one"
        await stuck.begun.wait()
        raise raised

    stuck = Stuck()
    async with joined(stuck) as nodes:
        with pytest.raises(seen):
            await nodes.dialling.call(request(), source())
        assert await stuck.ended == "cancelled"
        assert await whole(await nodes.accepting.call(request(b"the pipe lives"))) == b"the pipe lives"


async def test_an_answer_ends_the_upload_that_it_did_not_wait_for() -> None:
    async def serve(incoming: Incoming) -> None:
        await anext(incoming.body)
        incoming.respond(Response(status=200, body=b"enough"))

    source = Counted()
    cancelled = asyncio.Event()

    async def slow_source() -> AsyncIterator[bytes]:
        yield b"one"
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with joined(serve) as nodes:
        assert await whole(await nodes.dialling.call(request(), slow_source())) == b"enough"
        await cancelled.wait()
        assert await whole(await nodes.dialling.call(request(), source.pieces())) == b"enough"
        await until(lambda: nodes.dialling.in_flight == nodes.accepting.in_flight == 0)
        made = source.bytes
        await others_go_on(nodes.accepting)
        assert source.bytes == made


async def test_requests_beyond_the_peer_s_limit_are_not_sent() -> None:
    stuck = Stuck()
    async with joined(stuck, limits=Limits(max_exchanges=1)) as nodes:
        calling = asyncio.ensure_future(nodes.dialling.call(request(b"one")))
        await stuck.begun.wait()
        with pytest.raises(TooManyExchangesError):
            await nodes.dialling.call(request())
        stuck.go_on.set()
        assert await whole(await calling) == b"one"


async def test_a_head_that_the_peer_would_not_take_is_not_sent() -> None:
    async with joined() as nodes:
        head = request()
        head.headers.append(Header(name="x", value="y" * 2 * MB))
        with pytest.raises(HeadersTooLargeError):
            await nodes.dialling.call(head)
        assert await whole(await nodes.dialling.call(request(b"next"))) == b"next"


async def test_a_pipe_takes_no_call_before_the_peer_s_hello() -> None:
    async with memory_ends() as (near, far):
        pipe = make_pipe(near.carrier, dials=True)
        run = asyncio.ensure_future(pipe.run())
        with pytest.raises(PeerRefusedError):
            await pipe.call(request())
        await far.close()
        await run
        with pytest.raises(ConnectError, match="the connection was lost"):
            await pipe.wait_ready()


# Clocks

SOON = 0.1


async def test_a_call_that_is_not_answered_in_time_fails_and_the_peer_is_told() -> None:
    async with wired(dials=True) as wire:
        with pytest.raises(DeadlineError, match="after it was sent") as caught:
            await wire.pipe.call(request(timeout=SOON))
        assert caught.value.executed == "unknown"
        assert (await wire.until("cancel")).message == "deadline"


async def test_a_call_that_could_not_be_sent_in_time_is_never_sent() -> None:
    async with wired(dials=True) as wire:
        calling = await unsent_call(wire, SOON)
        with pytest.raises(DeadlineError, match="before it could be sent") as caught:
            await calling
        assert caught.value.executed == "no"
        wire.pipe.close(Goaway.SHUTDOWN, "enough")
        assert "request" not in await kinds_of_rest(wire)


async def test_a_handler_that_ignores_its_cancellation_is_answered_for_in_time() -> None:
    ignored = asyncio.Event()
    go_on = asyncio.Event()

    async def serve(incoming: Incoming) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        ignored.set()
        await go_on.wait()
        await echo(incoming)

    async with wired(serve) as wire:
        await wire.send(Envelope(exchange_id=1, request=request(timeout=SOON)))
        answer = await wire.until("response")
        assert answer.failure.kind == Failure.DEADLINE
        assert answer.failure.message == "the handler did not answer within 0.1 s"
        await ignored.wait()
        go_on.set()
        await wire.send(Envelope(ping=Ping(id=1)))
        envelope = await wire.next()
        assert envelope is not None
        assert envelope.WhichOneof("kind") == "pong"
        assert wire.pipe.in_flight == 0


async def test_the_clock_of_a_call_starts_again_with_each_piece_of_the_answer() -> None:
    async with wired(dials=True) as wire:
        calling = asyncio.ensure_future(wire.pipe.call(request(timeout=5 * SOON)))
        await wire.until("request")
        await asyncio.sleep(3 * SOON)  # the passing of time is what is tested
        await wire.send(Envelope(exchange_id=1, response=Response(status=200, more=True)))
        answer = await calling
        for _ in range(2):  # pieces that arrive
            await asyncio.sleep(3 * SOON)
            await wire.send(Envelope(exchange_id=1, chunk=Chunk(data=b"x", more=True)))
        for _ in range(2):  # pieces that are taken
            await asyncio.sleep(3 * SOON)
            assert await anext(answer.body) == b"x"
        await wire.send(Envelope(exchange_id=1, chunk=Chunk(data=b"y", more=True)))
        assert await anext(answer.body) == b"y"
        with pytest.raises(DeadlineError):
            await anext(answer.body)


async def test_the_clock_of_a_handler_starts_again_with_each_piece_of_the_request() -> None:
    async with wired(echo) as wire:
        head = request(timeout=5 * SOON)
        head.more = True
        await wire.send(Envelope(exchange_id=1, request=head))
        for _ in range(8):
            await asyncio.sleep(SOON)
            await wire.send(Envelope(exchange_id=1, chunk=Chunk(data=b"x", more=True)))
        assert (await wire.until("response")).failure.kind == Failure.DEADLINE


async def test_an_answer_that_has_begun_takes_as_long_as_it_takes() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        await asyncio.sleep(2 * SOON)
        yield b"late"

    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, more=True))
        await incoming.send_body(slowly())

    async with wired(serve) as wire:
        await wire.send(Envelope(exchange_id=1, request=request(timeout=SOON)))
        assert (await wire.until("chunk")).data == b"late"


async def test_the_clock_of_an_upload_starts_again_with_each_piece_that_leaves() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(8):
            await asyncio.sleep(SOON)
            yield b"x"

    async with joined() as nodes:
        answer = await nodes.dialling.call(request(timeout=5 * SOON), slowly())
        assert await whole(answer) == b"x" * 8


async def test_an_answer_that_nobody_reads_is_given_up_and_its_sender_is_told() -> None:
    stalled = Counted()
    cancelled = asyncio.Event()

    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, more=True))
        try:
            await incoming.send_body(stalled.pieces())
        finally:
            cancelled.set()

    async with joined(serve) as nodes:
        answer = await nodes.dialling.call(request(timeout=SOON))
        await cancelled.wait()
        with pytest.raises(DeadlineError):
            await whole(answer)


# The end


async def test_a_call_that_was_sent_when_the_pipe_was_lost_has_an_unknown_outcome() -> None:
    async with wired(dials=True) as wire:
        calling = asyncio.ensure_future(wire.pipe.call(request()))
        await wire.until("request")
        await wire.carrier.close()
        with pytest.raises(PipeLostError, match="ended before the answer was complete: the connection was lost"):
            await calling
        assert (await wire.run).lost


async def test_a_body_that_was_on_its_way_when_the_pipe_was_lost_breaks() -> None:
    async with wired(dials=True) as wire:
        calling = asyncio.ensure_future(wire.pipe.call(request()))
        await wire.until("request")
        await wire.send(Envelope(exchange_id=1, response=Response(status=200, body=b"half", more=True)))
        answer = await calling
        await wire.carrier.close()
        assert await anext(answer.body) == b"half"
        with pytest.raises(PipeLostError):
            await anext(answer.body)


async def unsent_call(wire: Wire, patience: float = TIMEOUT) -> "asyncio.Task[Answer]":
    """Begin a call while the peer reads nothing, so that it cannot leave."""
    for _ in range(3 * DEPTH):
        await wire.send(Envelope(ping=Ping(id=1)))  # each makes the pipe write a frame, until none is taken any more
        for _ in range(5):
            await asyncio.sleep(0)
    calling = asyncio.ensure_future(wire.pipe.call(request(b"never to be sent", timeout=patience)))
    await until(lambda: wire.pipe.in_flight == 1)
    assert wire.pipe._core.is_unsent(1)
    return calling


async def kinds_of_rest(wire: Wire) -> set[str | None]:
    """Wait for the end; return the kinds of envelopes that came before it."""
    return {envelope.WhichOneof("kind") for envelope in await wire.rest()}


@pytest.mark.parametrize("how", ["lost", "closed", "drained", "refused", "cancelled"])
async def test_a_call_that_is_told_to_be_unsent_is_never_sent(how: str) -> None:
    async with wired(dials=True) as wire:
        calling = await unsent_call(wire)
        draining = None
        match how:
            case "lost":
                await wire.carrier.close()
            case "closed":
                wire.pipe.close(Goaway.TAKEOVER, "taken over")
            case "drained":
                draining = asyncio.ensure_future(wire.pipe.drain(0.01))
            case "refused":
                await wire.send(Envelope(goaway=Goaway(reason=Goaway.SHUTDOWN)))
            case "cancelled":
                wire.run.cancel()
        with pytest.raises(PeerRefusedError) as caught:
            await calling
        assert caught.value.executed == "no"
        if how == "refused":
            wire.pipe.close(Goaway.SHUTDOWN, "enough")
        assert "request" not in await kinds_of_rest(wire)
        if draining:
            await draining
        await asyncio.wait({wire.run})
    with pytest.raises(PeerRefusedError, match="the pipe has ended"):
        await wire.pipe.call(request())


async def test_a_drained_pipe_finishes_what_is_in_flight_and_takes_nothing_new(ends: Any) -> None:
    there, back = Stuck(), Stuck()
    async with joined(there, serve_back=back, ends=ends) as nodes:
        calls = [
            asyncio.ensure_future(nodes.dialling.call(request(b"there"))),
            asyncio.ensure_future(nodes.accepting.call(request(b"back"))),
        ]
        await asyncio.gather(there.begun.wait(), back.begun.wait())
        draining = asyncio.ensure_future(nodes.accepting.drain(TIMEOUT))
        assert await asyncio.shield(nodes.dialling.departing) == "the node is shutting down"
        assert not nodes.dialling.available
        with pytest.raises(PeerRefusedError):
            await nodes.dialling.call(request())
        assert not nodes.accepting.ended.done()
        there.go_on.set()
        back.go_on.set()
        assert [await whole(answer) for answer in await asyncio.gather(*calls)] == [b"there", b"back"]
        await draining
        near, far = await nodes.ends()
        assert (near.reason, near.by_peer) == (Goaway.SHUTDOWN, True)
        assert (far.reason, far.by_peer) == (Goaway.SHUTDOWN, False)


async def test_a_drained_pipe_with_nothing_in_flight_ends_at_once() -> None:
    async with joined() as nodes:
        async with asyncio.timeout(1):
            await nodes.dialling.drain(TIMEOUT)
            await nodes.ends()


async def test_draining_ends_when_its_patience_does() -> None:
    stuck = Stuck()
    async with joined(stuck) as nodes:
        calling = asyncio.ensure_future(nodes.dialling.call(request()))
        await stuck.begun.wait()
        await nodes.accepting.drain(SOON)
        with pytest.raises(PipeLostError):
            await calling
        assert await stuck.ended == "cancelled"
        assert (await nodes.dialling_run).reason == Goaway.SHUTDOWN


async def test_a_pipe_that_is_closed_says_why(ends: Any) -> None:
    stuck = Stuck()
    async with joined(stuck, ends=ends) as nodes:
        calling = asyncio.ensure_future(nodes.dialling.call(request()))
        await stuck.begun.wait()
        nodes.accepting.close(Goaway.TAKEOVER, "client-1 connected again")
        with pytest.raises(PipeLostError, match="client-1 connected again"):
            await calling
        assert await stuck.ended == "cancelled"
        near, far = await nodes.ends()
        assert near == PipeEnd(Goaway.TAKEOVER, "client-1 connected again", by_peer=True)
        assert far == PipeEnd(Goaway.TAKEOVER, "client-1 connected again", by_peer=False)


async def test_a_peer_that_breaks_the_protocol_is_told_and_loses_its_pipe(caplog: pytest.LogCaptureFixture) -> None:
    async with wired(dials=True) as wire:
        calling = asyncio.ensure_future(wire.pipe.call(request()))
        await wire.until("request")
        await wire.send(Envelope(exchange_id=7, response=Response(status=200)))
        goaway = await wire.until("goaway")
        assert goaway.reason == Goaway.PROTOCOL_ERROR
        assert goaway.message == "response of exchange 7: the exchange was never opened"
        with pytest.raises(PipeLostError, match="broke the protocol: response of exchange 7"):
            await calling
        assert await wire.rest() is not None
        assert (await wire.run).reason == Goaway.PROTOCOL_ERROR
        assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("frame", [b"\xff\xff", b"\x0a\x02\x08\x01", bytes(2 * MB)])
async def test_a_frame_that_cannot_be_read_ends_the_pipe_with_a_reason(frame: bytes) -> None:
    async with wired() as wire:
        await wire.carrier.write(frame)
        assert (await wire.until("goaway")).reason == Goaway.PROTOCOL_ERROR
        await wire.rest()


async def test_what_follows_the_peer_s_goodbye_is_not_served() -> None:
    served: list[Incoming] = []

    async def serve(incoming: Incoming) -> None:
        served.append(incoming)

    async with wired(serve) as wire:
        goaway = Goaway(reason=Goaway.TAKEOVER, message="taken over")
        await wire.send(Envelope(goaway=goaway), Envelope(exchange_id=1, request=request()))
        await wire.send(Envelope(exchange_id=3, request=request()))
        await wire.rest()
        assert (await wire.run).message == "taken over"
        assert not served


async def test_an_answer_that_crosses_the_end_of_the_pipe_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with wired(dials=True) as wire:
        calling = asyncio.ensure_future(wire.pipe.call(request()))
        await wire.until("request")
        wire.pipe.close(Goaway.TAKEOVER, "taken over")
        await wire.send(Envelope(exchange_id=1, response=Response(status=200)))
        with pytest.raises(PipeLostError):
            await calling
        await wire.rest()
        await wire.run
        assert not caplog.records


async def test_a_peer_that_keeps_asking_does_not_keep_a_pipe_that_was_closed() -> None:
    async with wired() as wire:
        wire.pipe.close(Goaway.TAKEOVER, "taken over")
        await wire.until("goaway")
        with contextlib.suppress(CarrierLostError):
            while True:
                await wire.send(Envelope(ping=Ping(id=1)))
                await asyncio.sleep(0)
        assert not await wire.rest()
        assert (await wire.run).reason == Goaway.TAKEOVER


# Liveness

QUICK = Limits(heartbeat_interval=0.05, heartbeat_timeout=0.3)


async def test_a_peer_that_says_nothing_is_found_dead() -> None:
    async with wired(dials=True, limits=QUICK) as wire:
        calling = asyncio.ensure_future(wire.pipe.call(request()))
        assert (await wire.until("ping")).id == 1
        with pytest.raises(PipeLostError, match=r"nothing was received for 0\.3 s"):
            await calling
        assert (await wire.until("goaway")).reason == Goaway.HEARTBEAT
        await wire.rest()
        assert (await wire.run).reason == Goaway.HEARTBEAT


async def test_a_peer_that_never_says_hello_is_found_dead() -> None:
    async with memory_ends() as (near, _):
        pipe = make_pipe(near.carrier, dials=True, limits=QUICK)
        assert (await pipe.run()).reason == Goaway.HEARTBEAT


async def test_a_peer_that_answers_pings_lives() -> None:
    async with wired(dials=True, limits=QUICK) as wire:
        for _ in range(12):  # twice the timeout
            ping = await wire.until("ping")
            await wire.send(Envelope(pong=Pong(id=ping.id)))
        assert not wire.pipe.ended.done()
        assert wire.pipe.round_trip is not None
        assert 0 <= wire.pipe.round_trip < PATIENCE


async def test_two_idle_nodes_keep_each_other_alive(ends: Any) -> None:
    async with joined(limits=QUICK, ends=ends) as nodes:
        await asyncio.sleep(3 * QUICK.heartbeat_timeout)  # the passing of time is what is tested
        assert not nodes.dialling.ended.done()
        assert nodes.dialling.round_trip is not None


async def test_a_write_that_never_completes_delays_the_end_for_a_moment_only() -> None:
    async with wired(dials=True, limits=QUICK) as wire:
        calling = await unsent_call(wire)
        async with asyncio.timeout(QUICK.heartbeat_timeout + FLUSH_TIMEOUT + 1):
            assert (await wire.run).reason == Goaway.HEARTBEAT
        with pytest.raises(PeerRefusedError):
            await calling


async def test_a_peer_that_does_not_read_ends_a_pipe_at_once_and_its_call_when_it_is_gone(
    identities: Identities,
) -> None:
    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, body=bytes(32 * MB)))

    async with asyncio.timeout(PATIENCE), grpc_ends(identities) as (near, far):
        pipe = make_pipe(far.carrier, dials=False, serve=serve)
        run = asyncio.ensure_future(pipe.run())
        hello = greeting(initial_window=2**31 - 1)
        head = Envelope(exchange_id=1, request=request())
        await near.carrier.write(Frame(envelopes=[Envelope(hello=hello), head]).SerializeToString())
        await pipe.wait_ready()
        left = 0
        while not left or left != pipe._core._exchanges._by_id[1].buffered:  # until nothing more is taken
            left = pipe._core._exchanges._by_id[1].buffered
            await asyncio.sleep(SOON)
        pipe.close(Goaway.TAKEOVER, "client-1 connected again")
        assert pipe.ended.done()
        # A write that is cancelled would leave the client without the status of the call: it has to wait.
        _, waiting = await asyncio.wait({run}, timeout=1.2 * FLUSH_TIMEOUT)
        assert waiting
        closing = asyncio.ensure_future(near.close())
        await run
        await far.close()
        await closing
        nothing_is_kept(pipe)


# What must not happen


class Failing(MemoryCarrier):
    """A carrier with a bug."""

    def __init__(self, carrier: Any, fails: str) -> None:
        super().__init__(Peer("client-1", "127.0.0.1"), carrier._incoming, carrier._outgoing)
        self.fails = fails
        self.armed = False

    async def read(self) -> bytes | None:
        frame = await super().read()
        if self.armed and self.fails == "read":
            raise ZeroDivisionError("a bug")
        if self.armed and self.fails == "cancel":
            raise asyncio.CancelledError
        return frame

    async def write(self, frame: bytes) -> None:
        if self.armed and self.fails == "write":
            raise ZeroDivisionError("a bug")
        await super().write(frame)


@pytest.mark.parametrize("fails", ["read", "write", "cancel"])
async def test_a_pipe_does_not_outlive_its_reader_and_its_writer(fails: str, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(PATIENCE), memory_ends() as (near, far):
        carrier = Failing(far.carrier, fails)
        accepting = make_pipe(carrier, dials=False)
        dialling = make_pipe(near.carrier, dials=True)
        runs = [asyncio.ensure_future(pipe.run()) for pipe in (accepting, dialling)]
        await asyncio.gather(accepting.wait_ready(), dialling.wait_ready())
        carrier.armed = True
        with pytest.raises(PipeLostError):
            await dialling.call(request())
        assert (await runs[0]).message == "the pipe failed on this side"
        await runs[1]
        bugs = ["the pipe to client-1 failed"] if fails != "cancel" else []
        assert [record.getMessage() for record in caplog.records] == bugs
        nothing_is_kept(accepting)


async def test_a_pipe_whose_run_is_cancelled_is_lost_to_both_sides() -> None:
    stuck = Stuck()
    async with joined(stuck) as nodes:
        calling = asyncio.ensure_future(nodes.dialling.call(request()))
        await stuck.begun.wait()
        nodes.dialling_run.cancel()
        with pytest.raises(PipeLostError, match="the connection was lost"):
            await calling
        await asyncio.wait({nodes.dialling_run})
        assert nodes.dialling_run.cancelled()
        assert (await nodes.accepting_run).lost
        assert await stuck.ended == "cancelled"


async def test_a_handler_that_sends_on_after_the_end_returns() -> None:
    source = Counted()
    sent = asyncio.Event()

    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, more=True))
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await incoming.send_body(source.pieces())
        sent.set()

    async with joined(serve) as nodes:
        await nodes.dialling.call(request())
        await source.begun.wait()
        nodes.accepting.close(Goaway.TAKEOVER, "taken over")
        await sent.wait()


async def test_a_handler_that_gives_up_sending_leaves_nothing_waiting() -> None:
    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, more=True))
        async with asyncio.timeout(SOON):
            await incoming.send_body(Counted().pieces())

    async with joined(serve) as nodes:
        answer = await nodes.dialling.call(request())
        await until(lambda: nodes.accepting.in_flight == 0)
        assert nodes.accepting._sender._waiting == {}
        with pytest.raises(BadAnswerError):
            await whole(answer)


def test_a_loop_that_is_shut_down_ends_its_pipes_without_a_complaint(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with memory_ends() as (near, far):
            runs = [
                asyncio.ensure_future(make_pipe(end.carrier, dials=dials).run())
                for end, dials in ((near, True), (far, False))
            ]
            await asyncio.sleep(0.01)
            assert not any(run.done() for run in runs)
            kept.extend(runs)
            raise KeyboardInterrupt

    kept: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert all(run.done() for run in kept)
    assert not caplog.records


async def test_a_credit_for_an_exchange_that_is_over_is_ignored() -> None:
    async with wired() as wire:
        await wire.send(Envelope(exchange_id=1, request=request(b"one")))
        await wire.until("response")
        await wire.send(Envelope(exchange_id=1, credit=Credit(bytes=5)), Envelope(ping=Ping(id=1)))
        await wire.until("pong")
