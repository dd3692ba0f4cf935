"""The two ends of an exchange: what each may do, and what the other sees."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pipes import TIMEOUT, Joined, echo, joined, request, stream, until, whole, wired

import pytest

from restpipe.exceptions import (
    BadAnswerError,
    BadResultError,
    EventError,
    HandlerError,
    InternalError,
    NoHandlerError,
    PipeLostError,
    WrongVerbError,
)
from restpipe.pipe import Incoming
from restpipe.protocol.limits import SMALLEST_FRAME, Limits
from restpipe_pb.v1.pipe_pb2 import Cancel, Chunk, Envelope, Goaway, Header, Response

pytestmark = pytest.mark.usefixtures("leak_free")


async def test_a_handler_sees_the_request_and_the_caller_the_response() -> None:
    async def serve(incoming: Incoming) -> None:
        assert incoming.request.noun == "time"
        assert incoming.peer.name == "client-1"
        assert 0 < incoming.remaining <= incoming.timeout == TIMEOUT
        incoming.respond(Response(status=203, return_code=-7, content_type="text/x", body=b"noon"))

    async with joined(serve) as nodes:
        answer = await nodes.dialling.call(request(noun="time"))
        assert answer.response.status == 203
        assert answer.response.return_code == -7
        assert answer.response.content_type == "text/x"
        assert answer.body.complete
        assert await whole(answer) == b"noon"


@pytest.mark.parametrize(
    "error",
    [
        NoHandlerError("no get_it"),
        WrongVerbError("not by post", allow=("get", "put")),
        HandlerError("it broke", exception_class="KeyError", traceback="line 1"),
    ],
)
async def test_an_error_of_the_handler_s_side_is_raised_at_the_caller(error: EventError) -> None:
    async def serve(incoming: Incoming) -> None:
        raise error

    async with joined(serve) as nodes:
        with pytest.raises(type(error)) as caught:
            await nodes.dialling.call(request())
    assert str(caught.value) == str(error)
    assert caught.value.exception_class == error.exception_class
    assert caught.value.traceback == error.traceback
    assert getattr(caught.value, "allow", None) == getattr(error, "allow", None)


@pytest.mark.parametrize("text", ["the file caf\udce9.txt", "x" * 100_000, "\N{SNOWMAN}" * 100_000, "\x00"])
async def test_whatever_an_error_says_reaches_the_caller(text: str) -> None:
    async def serve(incoming: Incoming) -> None:
        raise HandlerError(text, exception_class=text, traceback=text)

    async with joined(serve, limits=Limits(max_frame_bytes=SMALLEST_FRAME)) as nodes:
        with pytest.raises(HandlerError) as caught:
            await nodes.dialling.call(request())
    assert str(caught.value)[:10] == text[:10]


async def test_a_bug_of_the_handler_s_side_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(incoming: Incoming) -> None:
        raise ZeroDivisionError("a bug")

    async with joined(serve) as nodes:
        with pytest.raises(InternalError, match="ZeroDivisionError: a bug"):
            await nodes.dialling.call(request())
        assert [record.getMessage() for record in caplog.records] == ["exchange 1 of client-1 failed"]


async def test_a_handler_that_returns_without_an_answer_is_answered_for() -> None:
    async def serve(incoming: Incoming) -> None:
        pass

    async with joined(serve) as nodes:
        with pytest.raises(InternalError, match="did not complete its answer"):
            await nodes.dialling.call(request())


async def test_a_handler_that_cancels_itself_is_answered_for() -> None:
    async def serve(incoming: Incoming) -> None:
        raise asyncio.CancelledError

    async with joined(serve) as nodes:
        with pytest.raises(InternalError, match="was cancelled"):
            await nodes.dialling.call(request())


async def test_a_handler_that_returns_in_the_midst_of_its_body_breaks_it_off() -> None:
    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, body=b"begun", more=True))
        await arrived.wait()

    arrived = asyncio.Event()
    async with joined(serve) as nodes:
        answer = await nodes.dialling.call(request())
        assert await anext(answer.body) == b"begun"
        arrived.set()
        with pytest.raises(BadAnswerError, match="did not complete its answer"):
            await anext(answer.body)
        assert nodes.dialling.in_flight == nodes.accepting.in_flight == 0


async def test_a_body_that_breaks_at_its_source_breaks_at_the_caller() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"one"
        await arrived.wait()
        raise HandlerError("the disk is gone", exception_class="OSError")

    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, more=True))
        await incoming.send_body(source())

    arrived = asyncio.Event()
    async with joined(serve) as nodes:
        answer = await nodes.dialling.call(request())
        assert await anext(answer.body) == b"one"
        arrived.set()
        with pytest.raises(BadAnswerError, match="server-1 broke the answer off: OSError: the disk is gone"):
            await whole(answer)


async def test_what_follows_a_complete_answer_changes_nothing() -> None:
    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, body=b"first"))
        incoming.respond(Response(status=500, body=b"second"))
        raise InternalError("third")

    async with wired(serve) as wire:
        await wire.send(Envelope(exchange_id=1, request=request()))
        assert (await wire.until("response")).body == b"first"
        await wire.send(Envelope(exchange_id=3, request=request()))
        assert (await wire.until("response")).body == b"first"


async def test_a_head_that_is_too_large_is_not_sent_and_can_be_replaced() -> None:
    async def serve(incoming: Incoming) -> None:
        header = Header(name="x", value="y" * 2_000_000)
        with pytest.raises(BadResultError):
            incoming.respond(Response(status=200, headers=[header]))
        incoming.respond(Response(status=200, body=b"smaller"))

    async with joined(serve) as nodes:
        assert await whole(await nodes.dialling.call(request())) == b"smaller"


async def test_closing_an_answer_cancels_its_handler_and_fails_its_readers() -> None:
    cancelled = asyncio.Event()

    async def serve(incoming: Incoming) -> None:
        incoming.respond(Response(status=200, body=b"begun", more=True))
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with joined(serve) as nodes:
        answer = await nodes.dialling.call(request())
        assert await anext(answer.body) == b"begun"
        reading = asyncio.ensure_future(anext(answer.body))
        await asyncio.sleep(0)
        answer.close()
        await cancelled.wait()
        with pytest.raises(BadAnswerError, match="closed"):
            await reading


async def test_closing_an_answer_that_is_complete_does_nothing() -> None:
    async with joined() as nodes:
        answer = await nodes.dialling.call(request(b"all of it"))
        answer.close()
        assert await whole(answer) == b"all of it"


async def test_a_handler_whose_caller_went_away_is_cancelled_and_sends_nothing() -> None:
    abandoned: list[Incoming] = []
    begun, served = asyncio.Event(), asyncio.Event()

    async def serve(incoming: Incoming) -> None:
        if incoming.id == 3:
            return await echo(incoming)
        begun.set()
        try:
            await incoming.body.read(1000)
        except asyncio.CancelledError:
            abandoned.append(incoming)
            with pytest.raises(PipeLostError, match="cancelled by the caller: no more"):
                await anext(incoming.body)
            incoming.respond(Response(status=200))
            incoming.fail(InternalError("too late"))
            await incoming.send_body(stream(1000))
            raise
        finally:
            served.set()
        return None

    async with wired(serve) as wire:
        head = request()
        head.more = True
        await wire.send(Envelope(exchange_id=1, request=head))
        await begun.wait()
        await wire.send(Envelope(exchange_id=1, cancel=Cancel(message="no more")))
        await served.wait()
        await wire.send(Envelope(exchange_id=3, request=request(b"next")))
        kinds = [await wire.next(), await wire.next()]
        assert [(each.exchange_id, each.WhichOneof("kind")) for each in kinds if each] == [
            (1, "cancel"),
            (3, "response"),
        ]
    assert [incoming.abandoned for incoming in abandoned] == [True]


async def test_a_request_that_is_cancelled_as_it_arrives_is_never_served_and_forgotten() -> None:
    served: list[Incoming] = []

    async def serve(incoming: Incoming) -> None:
        served.append(incoming)
        await echo(incoming)

    async with wired(serve) as wire:
        for exchange_id in range(1, 200, 2):
            await wire.send(
                Envelope(exchange_id=exchange_id, request=request()),
                Envelope(exchange_id=exchange_id, cancel=Cancel()),
            )
        await wire.send(Envelope(exchange_id=201, request=request(b"served")))
        assert (await wire.until("response")).body == b"served"
        assert [incoming.id for incoming in served] == [201]
        await until(lambda: not wire.pipe._exchanges.incoming)


async def test_a_body_that_awaits_credit_is_not_begun_before_the_handler_wants_it() -> None:
    begun, entered, wants = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        begun.set()
        yield b"body"

    async def serve(incoming: Incoming) -> None:
        entered.set()
        await wants.wait()
        await echo(incoming)

    async with joined(serve) as pipes:
        asked = request()
        asked.awaits_credit = True
        calling = asyncio.create_task(pipes.dialling.call(asked, body()))
        await entered.wait()
        await echoed(pipes)
        assert not begun.is_set()
        wants.set()
        assert await whole(await calling) == b"body"


@pytest.mark.parametrize("end", ["answer", "cancel", "lost pipe"])
async def test_a_body_that_is_never_wanted_is_never_begun(end: str) -> None:
    begun = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal begun
        begun = True
        yield b"body"

    entered = asyncio.Event()

    async def serve(incoming: Incoming) -> None:
        entered.set()
        if end == "answer":
            incoming.respond(Response(status=401))
        else:
            await asyncio.Event().wait()

    async with joined(serve) as pipes:
        asked = request()
        asked.awaits_credit = True
        calling = asyncio.create_task(pipes.dialling.call(asked, body()))
        await entered.wait()
        if end == "cancel":
            calling.cancel()
        elif end == "lost pipe":
            pipes.accepting.close(Goaway.TAKEOVER, "taken over")
        if end == "answer":
            assert (await calling).response.status == 401
        else:
            with pytest.raises(asyncio.CancelledError if end == "cancel" else PipeLostError):
                await calling
        await until(lambda: pipes.dialling.in_flight == 0 or pipes.dialling.ended.done())
    assert not begun


async def echoed(pipes: Joined) -> None:
    """Let a whole exchange pass the other way, and so all that was under way before it."""
    assert await whole(await pipes.accepting.call(request(b"x"))) == b"x"


async def test_the_bytes_that_a_handler_takes_are_granted_again() -> None:
    taken = asyncio.Event()

    async def serve(incoming: Incoming) -> None:
        await anext(incoming.body)
        await taken.wait()
        await echo(incoming)

    async with wired(serve) as wire:
        head = request(bytes(16384))
        head.more = True
        await wire.send(Envelope(exchange_id=1, request=head))
        await wire.send(Envelope(exchange_id=1, chunk=Chunk(data=bytes(49152), more=True)))
        taken.set()
        assert (await wire.until("credit")).bytes == 16384
        assert (await wire.until("credit")).bytes == 49152
        await wire.send(Envelope(exchange_id=1, chunk=Chunk(data=b"end")))
        received = len((await wire.until("response")).body)
        while received < 49152 + 3:
            received += len((await wire.until("chunk")).data)
        assert received == 49152 + 3


async def test_an_exchange_leaves_nothing_for_the_garbage_collector_to_find() -> None:
    async with joined() as nodes:
        await whole(await nodes.dialling.call(request(b"warm")))
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(10):
                assert await whole(await nodes.dialling.call(request(b"body"))) == b"body"
            gc.collect()
            left = [type(each).__name__ for each in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not left
