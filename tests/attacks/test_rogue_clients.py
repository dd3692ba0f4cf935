"""A client that has a certificate and went rogue: it loses its pipe, or its time, and nobody else notices."""

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from e2e_curl import curl
from e2e_processes import Node, Site, site_with_handlers
from hostile_peers import HostilePeer, frame, hostile_peer
from hostilities import (
    MALFORMED,
    SMUGGLED,
    UPLOAD,
    WAIT,
    Flood,
    Pour,
    ask_and_never_read,
    ask_too_often,
    breaches,
    introductions,
    pings,
    requests_for_nothing,
    resets,
    try_names,
    withstand,
)

from restpipe.protocol.limits import CANCEL_COST, PING_COST, REFUSAL_COST, REST_EACH
from restpipe_pb.v1.pipe_pb2 import (
    Caller,
    Cancel,
    Chunk,
    Failure,
    Header,
    Hello,
    Ping,
    Pong,
    Request,
    Response,
)

MOST = 100
MIB = 1024 * 1024


class Honest:
    """A server, and a client of it that does no harm."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.server = site.server(RP_MAX_EXCHANGES=str(MOST), RP_RELAY="mallory>client")
        self.client = site.client(self.server.pipe_port)
        site.identity("client", "mallory")

    @contextlib.asynccontextmanager
    async def attacked(self, **greeting: Any) -> AsyncIterator[HostilePeer]:
        """Let mallory in; see that the others are as well as before once it is gone."""
        async with hostile_peer(self.site.directory, "mallory", self.server.pipe_port) as peer:
            await peer.greet(**greeting)
            yield peer
        await asyncio.to_thread(self.check)

    def check(self) -> None:
        """See that both directions work, over the first pipe."""
        assert curl(f"{self.server.web}/client/client/sum//20/22").json == {"sum": 42}
        assert curl(f"{self.client.web}/server/whoami").json["caller"] == "client"
        assert self.server.output.count("client client connected from") == 1
        assert self.client.output.count("connected to the server at") == 1


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    with site_with_handlers(tmp_path_factory.mktemp("rogue")) as site:
        yield Honest(site)


# What breaks the rules

BREACHES = breaches(1)


@pytest.mark.parametrize("breach", BREACHES)
async def test_who_breaks_a_rule_loses_its_pipe_with_a_reason_and_nobody_else_does(honest: Honest, breach: str) -> None:
    async with honest.attacked() as peer:
        await peer.send(*BREACHES[breach])
        reason = await peer.goodbye()
    await asyncio.to_thread(honest.server.wait_for, re.escape(f"mallory broke the protocol: {reason}"))


@pytest.mark.parametrize("malformed", MALFORMED)
async def test_a_frame_that_is_none_costs_its_sender_the_pipe(honest: Honest, malformed: str) -> None:
    async with honest.attacked() as peer:
        await peer.send_raw(MALFORMED[malformed])
        assert await peer.goodbye()


@pytest.mark.parametrize(("first", "reason"), introductions(1))
async def test_who_does_not_introduce_itself_gets_no_pipe(
    honest: Honest, first: tuple[int, Hello | Request | Ping], reason: str
) -> None:
    async with hostile_peer(honest.site.directory, "mallory", honest.server.pipe_port) as peer:
        await peer.send(first)
        assert re.search(reason, await peer.goodbye())
    await asyncio.to_thread(honest.check)


async def test_more_exchanges_than_permitted_cost_the_pipe(honest: Honest) -> None:
    async with honest.attacked() as peer:
        await ask_too_often(peer, 1, MOST)
        assert f"more than {MOST} exchanges" in await peer.goodbye()


# What it answers


async def asked(honest: Honest, peer: HostilePeer, *answers: Response, noun: str = "it") -> Any:
    """Have a caller of the server ask mallory, which answers; return what the caller gets."""
    url = f"{honest.server.web}/client/mallory/{noun}"
    caller = asyncio.create_task(asyncio.to_thread(curl, url, "-X", "POST"))
    request = await peer.receive()
    while request is not None and not isinstance(request[1], Request):
        request = await peer.receive()
    assert request is not None
    await peer.send(*((request[0], answer) for answer in answers))
    return await caller


async def test_an_answer_that_is_given_twice_costs_the_pipe(honest: Honest) -> None:
    async with honest.attacked() as peer:
        answer = await asked(honest, peer, Response(status=200, body=b"1"), Response(status=200, body=b"2"))
        assert (answer.status, answer.text) == (200, "1")
        assert "the exchange is over" in await peer.goodbye()


@pytest.mark.parametrize("answer", SMUGGLED.values(), ids=SMUGGLED)
async def test_an_answer_cannot_break_out_of_its_http(honest: Honest, answer: Response) -> None:
    async with honest.attacked() as peer:
        received = await asked(honest, peer, answer)
        assert (received.status, received.code) == (502, 246)
        assert "set-cookie" not in received.headers


async def test_an_answer_without_measure_costs_the_pipe(honest: Honest) -> None:
    async with honest.attacked() as peer:
        bloated = Response.FromString(Response(status=200).SerializeToString() + b"\x1a\x00" * 100_000)
        assert (await asked(honest, peer, bloated)).outcome == (502, 246, "unknown")
        assert "100000 headers" in await peer.goodbye()


# Who it is, and what it reaches


async def test_a_client_is_who_its_certificate_says_whatever_it_says(honest: Honest) -> None:
    async with honest.attacked(software="client", remembers="client") as peer:
        lies = [
            Header(name=name, value="client")
            for name in ("x-event-caller", "host", "from", "X-Event-Caller", ":authority")
        ]
        response = await peer.ask(1, "whoami", headers=lies, caller=Caller(name="client", address="127.0.0.1"))
        assert b'"caller": "mallory"' in response.body
        assert curl(f"{honest.server.web}/client/client/whoami").json["caller"] == "localhost"


async def test_no_name_leads_to_anything_but_an_event(honest: Honest) -> None:
    async with honest.attacked() as peer:
        await try_names(peer, 1)


# Floods


@pytest.mark.parametrize(
    ("pour", "answer", "to", "seconds_each"),
    [
        (pings, Pong, "", PING_COST),
        (resets, Cancel, "", CANCEL_COST),
        (resets, Cancel, "client", REST_EACH),
        (requests_for_nothing, Response, "", REFUSAL_COST),
        (requests_for_nothing, Response, "client", REST_EACH),
    ],
)
async def test_a_flood_is_taken_no_faster_than_it_is_worth_and_others_are_served_meanwhile(
    honest: Honest, pour: Pour, answer: type[Any], to: str, seconds_each: float
) -> None:
    def serve() -> None:
        assert curl(f"{honest.server.web}/client/client/sum//20/22").json == {"sum": 42}

    async with honest.attacked() as peer:
        flood = Flood(peer, answer, to=to)
        await withstand(pour, peer, flood, seconds_each=seconds_each, serve=serve, times=10)


async def test_a_client_that_asks_for_more_than_the_threads_carry_has_no_other_refused(tmp_path: Path) -> None:
    # So that a queue stands after a second, and an event waits for 0.4 s then: a slow machine is not taken for one.
    patient = {"RP_HANDLER_THREADS": "4", "RP_HANDLER_WAIT_S": "10"}
    refused = asyncio.Event()
    nap = Request(verb="get", noun="nap", arguments=["0.05"], timeout_ms=60_000)
    with site_with_handlers(tmp_path, **patient) as site:
        server = site.server()
        client = site.client(server.pipe_port)
        site.identity("client", "mallory")

        async def flood(peer: HostilePeer) -> None:
            numbers = itertools.count(1, 2)
            await peer.send(*((number, nap) for number in itertools.islice(numbers, MOST)))
            while True:
                answer = await peer.wait_for(Response)
                if answer.failure.kind == Failure.BUSY:
                    refused.set()
                await peer.send((next(numbers), nap))

        async with hostile_peer(site.directory, "mallory", server.pipe_port) as peer:
            await peer.greet()
            flooding = asyncio.create_task(flood(peer))
            await asyncio.wait({flooding, asyncio.create_task(refused.wait())}, return_when=asyncio.FIRST_COMPLETED)
            for _ in range(10):
                assert (await asyncio.to_thread(curl, f"{client.web}/server/nap//0.05")).status == 200
            assert not flooding.done()
            flooding.cancel()
            await asyncio.wait({flooding})


async def test_who_asks_and_never_reads_is_cut_off_and_takes_no_memory(honest: Honest) -> None:
    before = honest.server.memory
    async with honest.attacked() as peer:
        flood = asyncio.create_task(ask_and_never_read(peer, 1))
        await asyncio.to_thread(honest.server.wait_for, f"mallory broke the protocol: .* more than {MOST} exchanges")
        await asyncio.to_thread(honest.check)
        assert honest.server.memory - before < 64 * MIB
        flood.cancel()
        await asyncio.wait({flood})


async def test_requests_of_large_heads_take_a_bounded_memory_and_the_rest_is_refused_unsent(honest: Honest) -> None:
    before = honest.server.memory
    async with honest.attacked() as peer:
        large = Request(headers=[Header(name="x", value="y" * 200)] * 1000)
        large.MergeFrom(WAIT)
        for exchange_id in range(1, 2 * MOST, 2):
            await peer.send((exchange_id, large))
        refused = await peer.wait_for(Response)
        assert refused.failure.kind == Failure.BUSY
        assert honest.server.memory - before < 100 * MIB


@pytest.mark.parametrize("field", [b"\x1a\x00", b"\x22\x00", b"\x2a\x00"], ids=["arguments", "query", "headers"])
async def test_a_request_that_is_many_times_larger_in_memory_costs_the_pipe(honest: Honest, field: bytes) -> None:
    async with honest.attacked() as peer:
        await peer.send((1, Request.FromString(WAIT.SerializeToString() + field * 100_000)))
        assert re.search("10000[01] headers, parameters or arguments", await peer.goodbye())


async def test_frames_at_random_cost_the_pipe_and_nothing_else(honest: Honest) -> None:
    chance = random.Random(7)
    for _ in range(10):
        async with hostile_peer(honest.site.directory, "mallory", honest.server.pipe_port) as peer:
            await peer.greet()
            data = bytearray(frame((1, UPLOAD), (1, Chunk(data=bytes(50)))))
            for _ in range(5):
                data[chance.randrange(len(data))] = chance.randrange(256)
            await peer.send_raw(bytes(data))
            try:
                await peer.send_raw(b"\xff")
            except grpc.aio.AioRpcError:
                continue  # the first has ended the call already, and what was said cannot be read any more
            await peer.goodbye()
    await asyncio.to_thread(honest.check)


def test_the_server_is_sound(honest: Honest) -> None:
    output = honest.server.output
    assert "Traceback" not in output
    assert isinstance(honest.server, Node)
    assert honest.server.running
