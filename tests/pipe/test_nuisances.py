"""What a peer does for nothing is paid for by its own pipe, and not by the others of the node."""

import asyncio
from pipes import request, wired

import pytest

from restpipe.exceptions import HandlerError, NoHandlerError
from restpipe.pipe import Incoming
from restpipe.protocol.limits import MAX_ENVELOPES, PING_COST, RAISED_COST, REFUSAL_COST, REST_EACH
from restpipe_pb.v1.pipe_pb2 import Cancel, Envelope, Ping

pytestmark = pytest.mark.usefixtures("leak_free")


async def nothing_such(incoming: Incoming) -> None:
    raise NoHandlerError("there is no such event")


async def test_a_flood_of_pings_is_read_no_faster_than_it_is_worth() -> None:
    loop = asyncio.get_running_loop()
    async with wired() as wire:
        began = loop.time()
        flood = [Envelope(ping=Ping(id=number)) for number in range(1, MAX_ENVELOPES + 1)]
        for _ in range(20):
            await wire.send(*flood)
        for _ in range(20 * MAX_ENVELOPES):
            await wire.until("pong")
        assert loop.time() - began >= 19 * MAX_ENVELOPES * PING_COST * 0.9


@pytest.mark.parametrize(("to", "each_costs"), [("", REFUSAL_COST), ("alpha", REST_EACH)], ids=["here", "passed on"])
async def test_a_flood_of_requests_for_what_there_is_not_is_read_no_faster_than_it_is_worth(
    to: str, each_costs: float
) -> None:
    loop = asyncio.get_running_loop()
    asked = request()
    asked.to = to
    async with wired(nothing_such) as wire:
        began = loop.time()
        for first in range(1, 2001, 200):
            await wire.send(*(Envelope(exchange_id=each, request=asked) for each in range(first, first + 200, 2)))
            for _ in range(100):
                assert (await wire.until("response")).HasField("failure")
        assert loop.time() - began >= 900 * each_costs * 0.9


async def test_a_flood_of_requests_that_make_a_handler_raise_is_read_no_faster_than_it_is_worth() -> None:
    async def fail(incoming: Incoming) -> None:
        raise HandlerError("why", exception_class="ValueError")

    loop = asyncio.get_running_loop()
    async with wired(fail) as wire:
        began = loop.time()
        for first in range(1, 801, 200):
            await wire.send(*(Envelope(exchange_id=each, request=request()) for each in range(first, first + 200, 2)))
            for _ in range(100):
                assert (await wire.until("response")).failure.exception_class == "ValueError"
        assert loop.time() - began >= 290 * RAISED_COST * 0.9


async def test_requests_that_are_cancelled_at_once_are_read_no_faster_than_they_are_worth() -> None:
    loop = asyncio.get_running_loop()
    async with wired() as wire:
        began = loop.time()
        pairs: list[Envelope] = []
        for first in range(1, 2001, 100):
            for each in range(first, first + 100, 2):
                pairs += [Envelope(exchange_id=each, request=request()), Envelope(exchange_id=each, cancel=Cancel())]
            await wire.send(*pairs)
            pairs.clear()
        for _ in range(1000):
            await wire.until("cancel")
        assert loop.time() - began >= 900 * PING_COST * 0.9


async def test_useful_work_is_not_slowed() -> None:
    async with wired() as wire:
        for first in range(1, 1001, 100):
            await wire.send(*(Envelope(exchange_id=i, request=request(b"x")) for i in range(first, first + 100, 2)))
            for _ in range(50):
                assert (await wire.until("response")).body == b"x"
        assert wire.pipe._core.nuisance.owed == 0
