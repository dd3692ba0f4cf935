"""Pipes take turns at a node: who asks for much at once keeps nobody waiting for all of it."""

import asyncio
from pipes import echo, request, wired

import pytest

from restpipe.pipe import Incoming, Turns, turns
from restpipe.pipe.turns import RECENT, SHARED_ENVELOPES
from restpipe.protocol.limits import MAX_ENVELOPES
from restpipe_pb.v1.pipe_pb2 import Envelope, Response

pytestmark = pytest.mark.usefixtures("leak_free")


def test_who_asks_alone_shares_with_nobody() -> None:
    node = Turns()
    for now in range(1, 100):
        node.asked("alpha", float(now))
        assert node.shared(now + RECENT / 2) is (now == 1)


def test_who_asks_while_another_does_shares_until_the_other_has_been_silent_for_a_while() -> None:
    node = Turns()
    node.asked("alpha", 10.0)
    node.asked("", 20.0)
    assert node.shared(20.0)
    node.asked("alpha", 20.01)
    node.asked("alpha", 20.1)
    assert node.shared(20.1)
    assert not node.shared(20.01 + RECENT)


async def order_of_service(asked_before: tuple[str, ...]) -> list[str]:
    """Let `eager` ask as often as a frame permits, then `modest` once; return who was served, in order.

    Args:
        asked_before: who asked for something else before that.
    """
    served: list[str] = []

    async def serve(incoming: Incoming) -> None:
        served.append(incoming.peer.name)
        await echo(incoming)

    node = Turns()
    async with wired(serve, turns=node, client="eager") as eager, wired(serve, turns=node, client="modest") as modest:
        wires = {"eager": eager, "modest": modest}
        for name in asked_before:
            await wires[name].send(Envelope(exchange_id=1, request=request()))
            await wires[name].until("response")
        served.clear()
        await eager.send(*(Envelope(exchange_id=2 * n + 3, request=request()) for n in range(MAX_ENVELOPES)))
        await modest.send(Envelope(exchange_id=3, request=request()))
        await modest.until("response")
        for _ in range(MAX_ENVELOPES):
            await eager.until("response")
    assert sorted(served) == ["eager"] * MAX_ENVELOPES + ["modest"]
    return served


async def test_who_asks_for_much_at_once_gives_way_to_others_after_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "RECENT", 60.0)
    assert (await order_of_service(("modest", "eager"))).index("modest") <= 3 * SHARED_ENVELOPES


async def test_what_is_asked_alone_is_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "RECENT", 0.0)
    assert (await order_of_service(())).index("modest") == MAX_ENVELOPES


class Noted(Turns):
    """Notes who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def asked(self, by: str, now: float) -> None:
        self.names.append(by)


async def test_programs_of_this_machine_are_one_who_asks_and_what_is_passed_on_was_asked_already() -> None:
    noted = Noted()
    async with wired(turns=noted) as wire:
        passed_on = request()
        passed_on.caller.name = "alpha"
        for exchange_id, asked in ((2, request()), (4, passed_on)):
            call = asyncio.ensure_future(wire.pipe.call(asked))
            await wire.until("request")
            await wire.send(Envelope(exchange_id=exchange_id, response=Response(status=200)))
            await call
    assert noted.names == [""]
