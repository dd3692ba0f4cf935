"""A client that has a certificate and went rogue: it loses its pipe, or its time, and nobody else notices."""

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from e2e_curl import curl
from e2e_processes import Node, Site, site_with_handlers
from hostile_peers import HostilePeer, Message, frame, hello, hostile_peer

from restpipe.protocol.limits import CANCEL_COST, MAX_ENVELOPES, PING_COST, REFUSAL_COST
from restpipe_pb.v1.pipe_pb2 import (
    Cancel,
    Chunk,
    Credit,
    Event,
    Failure,
    Goaway,
    Header,
    Hello,
    Ping,
    Pong,
    Request,
    Response,
)

MOST = 100
GET = Request(verb="get", noun="data", timeout_ms=60_000)
WAIT = Request(verb="get", noun="wait", arguments=["never"], timeout_ms=60_000)
UPLOAD = Request(verb="post", noun="echo", timeout_ms=60_000, more=True)
MIB = 1024 * 1024


class Honest:
    """A server, and a client of it that does no harm."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.server = site.server(RP_MAX_EXCHANGES=str(MOST))
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

    @property
    def memory(self) -> int:
        """Bytes of memory that the server has now."""
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    with site_with_handlers(tmp_path_factory.mktemp("rogue")) as site:
        yield Honest(site)


# What breaks the rules

BREACHES: dict[str, list[tuple[int, Message]]] = {
    "an answer to what was never asked": [(2, Response(status=200))],
    "an answer to its own request": [(1, UPLOAD), (1, Response(status=200))],
    "an id that was used": [(1, GET), (1, GET)],
    "an id that does not rise": [(3, GET), (1, GET)],
    "an id of the wrong parity": [(2, GET)],
    "an id of nothing": [(0, GET)],
    "a chunk after the end": [(1, UPLOAD), (1, Chunk(data=b"a")), (1, Chunk(data=b"b"))],
    "a chunk of nothing": [(1, UPLOAD), (1, Chunk(more=True))],
    "a chunk that belongs to nothing": [(7, Chunk(data=b"a"))],
    "more than its credit": [(1, UPLOAD), (1, Chunk(data=bytes(65537), more=True))],
    "a body before it is asked for": [
        (1, Request(verb="post", noun="echo", more=True, awaits_credit=True)),
        (1, Chunk(data=b"a")),
    ],
    "a credit of nothing": [(1, UPLOAD), (1, Credit())],
    "a credit without end": [(1, UPLOAD), (1, Credit(bytes=2**31)), (1, Credit(bytes=2**31))],
    "a credit for nothing": [(8, Credit(bytes=1))],
    "a cancel of nothing": [(9, Cancel())],
    "a second hello": [(0, hello())],
    "a pong that nobody asked for": [(0, Pong(id=77))],
    "a ping of an exchange": [(1, GET), (1, Ping())],
    "two goodbyes": [(0, Goaway(reason=Goaway.SHUTDOWN)), (0, Goaway(reason=Goaway.SHUTDOWN))],
    "too many envelopes": [(0, Ping(id=1))] * (MAX_ENVELOPES + 1),
}
NESTED = b"\x0b" * 100_000  # a group in a group in a group
MALFORMED = {
    "no protobuf": b"\xff" * 10,
    "an envelope that is cut off": frame((1, GET))[:-3],
    "an envelope of no kind": b"\x0a\x00",
    "an envelope of an unknown kind": b"\x0a\x05\x9a\x06\x02hi",
    "nesting": NESTED,
    "nesting within a request": b"\x0a" + bytes([0xC4, 0x13]) + b"\x1a" + bytes([0xC0, 0x13]) + NESTED[:2496],
    "text that is no UTF-8": b"\x0a\x07\x08\x01\x1a\x03\x0a\x01\xff",
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "a megabyte": bytes(1024 * 1024),
    "a hundred thousand envelopes": b"\x0a\x02\x42\x00" * 65_536,
}


async def goodbye_of(peer: HostilePeer) -> str:
    goodbye = await peer.end()
    assert goodbye is not None
    assert goodbye.reason == Goaway.PROTOCOL_ERROR
    return goodbye.message


@pytest.mark.parametrize("breach", BREACHES)
async def test_who_breaks_a_rule_loses_its_pipe_with_a_reason_and_nobody_else_does(honest: Honest, breach: str) -> None:
    async with honest.attacked() as peer:
        await peer.send(*BREACHES[breach])
        reason = await goodbye_of(peer)
    await asyncio.to_thread(honest.server.wait_for, re.escape(f"mallory broke the protocol: {reason}"))


@pytest.mark.parametrize("malformed", MALFORMED)
async def test_a_frame_that_is_none_costs_its_sender_the_pipe(honest: Honest, malformed: str) -> None:
    async with honest.attacked() as peer:
        await peer.send_raw(MALFORMED[malformed])
        assert await goodbye_of(peer)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ((0, hello(revision=2)), "revision 1.*2"),
        ((0, hello(initial_window=1)), "an initial window of 1"),
        ((0, hello(max_exchanges=0)), "it permits no exchange"),
        ((0, hello(max_frame_bytes=100)), "frames of at most 100"),
        ((0, hello(manifest=[Event()] * 100_000)), "a manifest of more than"),
        ((1, GET), "before the hello"),
        ((0, Ping(id=1)), "before the hello"),
    ],
)
async def test_who_does_not_introduce_itself_gets_no_pipe(
    honest: Honest, first: tuple[int, Hello | Request | Ping], reason: str
) -> None:
    async with hostile_peer(honest.site.directory, "mallory", honest.server.pipe_port) as peer:
        await peer.send(first)
        assert re.search(reason, await goodbye_of(peer))
    await asyncio.to_thread(honest.check)


async def test_more_exchanges_than_permitted_cost_the_pipe(honest: Honest) -> None:
    async with honest.attacked() as peer:
        for first in range(1, 2 * MOST + 3, 50):
            await peer.send(*((each, WAIT) for each in range(first, min(first + 50, 2 * MOST + 3), 2)))
        assert f"more than {MOST} exchanges" in await goodbye_of(peer)


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
        assert "the exchange is over" in await goodbye_of(peer)


@pytest.mark.parametrize(
    "answer",
    [
        Response(status=200, headers=[Header(name="x", value="a\r\nset-cookie: evil")]),
        Response(status=200, headers=[Header(name="Transfer-Encoding", value="chunked")]),
        Response(status=200, headers=[Header(name="content-length", value="1")], body=b"two"),
        Response(status=200, content_type="text/html\r\n\r\n<script>"),
    ],
    ids=["header", "transfer-encoding", "content-length", "content type"],
)
async def test_an_answer_cannot_break_out_of_its_http(honest: Honest, answer: Response) -> None:
    async with honest.attacked() as peer:
        received = await asked(honest, peer, answer)
        assert (received.status, received.code) == (502, 246)
        assert "set-cookie" not in received.headers


async def test_an_answer_without_measure_costs_the_pipe(honest: Honest) -> None:
    async with honest.attacked() as peer:
        bloated = Response.FromString(Response(status=200).SerializeToString() + b"\x1a\x00" * 100_000)
        assert (await asked(honest, peer, bloated)).outcome == (502, 246, "unknown")
        assert "100000 headers" in await goodbye_of(peer)


# Who it is, and what it reaches


async def test_a_client_is_who_its_certificate_says_whatever_it_says(honest: Honest) -> None:
    async with honest.attacked(software="client", remembers="client") as peer:
        lies = [
            Header(name=name, value="client")
            for name in ("x-event-caller", "host", "from", "X-Event-Caller", ":authority")
        ]
        response = await peer.ask(1, "whoami", headers=lies)
        assert b'"caller": "mallory"' in response.body
        assert curl(f"{honest.server.web}/client/client/whoami").json["caller"] == "localhost"


NOUNS = [
    "__init__",
    "_wait",
    "__class__",
    "start_hook",
    "stop_hook",
    "_gates",
    "data.__class__",
    "data/__class__",
    "",
    "/",
    "../data",
    "Data",
    "data\0",
    "data\n",
    "data\u200b",
    "dat\u0430",  # a Cyrillic a
    "\uff44ata",  # a full-width d, which Python would take for d in a source
    "d\u0061\u0301ta",
    "x" * 10_000,
]


async def test_no_name_leads_to_anything_but_an_event(honest: Honest) -> None:
    async with honest.attacked() as peer:
        names = [
            *((verb, noun) for noun in NOUNS for verb in ("get", "")),
            ("start", "hook"),
            ("__init", "_"),
            ("_", "wait"),
        ]
        for number, (verb, noun) in enumerate(names):
            response = await peer.ask(2 * number + 1, noun, verb=verb)
            assert response.failure.kind in (Failure.NOT_FOUND, Failure.WRONG_VERB), (verb, noun)
            assert response.failure.message.isprintable(), response.failure.message


# Floods


class Flood:
    """Sends as fast as it can, and counts what is answered.

    Args:
        peer: whose pipe it is.
        answer: of which kind the answers are.
    """

    def __init__(self, peer: HostilePeer, answer: type[Any]) -> None:
        self.answered = 0
        self._peer = peer
        self._answer = answer
        self._numbers = itertools.count(1, 2)

    def requests(self, size: int, *, cancelled: bool) -> bytes:
        """Return a frame of requests for what there is not."""
        made: list[tuple[int, Message]] = []
        for number in itertools.islice(self._numbers, size):
            made.append((number, Request(verb="get", noun="nowhere", timeout_ms=60_000)))
            if cancelled:
                made.append((number, Cancel()))
        return frame(*made)

    async def read(self, size: int | None = None) -> None:
        """Count so many answers, or all."""
        while size is None or size > 0:
            await self._peer.wait_for(self._answer)
            self.answered += 1
            size = None if size is None else size - 1


async def pings(flood: Flood, peer: HostilePeer) -> None:
    data = frame(*[(0, Ping(id=1))] * MAX_ENVELOPES)
    await asyncio.gather(flood.read(), forever(lambda: peer.send_raw(data)))


async def resets(flood: Flood, peer: HostilePeer) -> None:
    """As in the rapid reset of HTTP/2."""
    size = MAX_ENVELOPES // 2
    await asyncio.gather(flood.read(), forever(lambda: peer.send_raw(flood.requests(size, cancelled=True))))


async def requests_for_nothing(flood: Flood, peer: HostilePeer) -> None:
    while True:
        await peer.send_raw(flood.requests(MOST, cancelled=False))
        await flood.read(MOST)


async def forever(do: Callable[[], Awaitable[None]]) -> None:
    while True:
        await do()


@pytest.mark.parametrize(
    ("pour", "answer", "seconds_each"),
    [(pings, Pong, PING_COST), (resets, Cancel, CANCEL_COST), (requests_for_nothing, Response, REFUSAL_COST)],
)
async def test_a_flood_is_taken_no_faster_than_it_is_worth_and_others_are_served_meanwhile(
    honest: Honest,
    pour: Callable[[Flood, HostilePeer], Awaitable[None]],
    answer: type[Any],
    seconds_each: float,
) -> None:
    loop = asyncio.get_running_loop()
    async with honest.attacked() as peer:
        flood = Flood(peer, answer)
        began = loop.time()
        pouring = asyncio.ensure_future(pour(flood, peer))
        for _ in range(10):
            served = await asyncio.to_thread(curl, f"{honest.server.web}/client/client/sum//20/22")
            assert served.json == {"sum": 42}
            assert not pouring.done()
        pouring.cancel()
        await asyncio.wait({pouring})
        assert 0 < flood.answered <= (loop.time() - began) / seconds_each + 2 * MAX_ENVELOPES


async def test_who_asks_and_never_reads_is_cut_off_and_takes_no_memory(honest: Honest) -> None:
    before = honest.memory
    async with honest.attacked() as peer:
        large = Request(verb="post", noun="echo", body=bytes(16_000), timeout_ms=60_000)

        async def pour() -> None:
            exchange_id = 1
            while True:
                await peer.send((exchange_id, large))
                exchange_id += 2

        flood = asyncio.create_task(pour())
        await asyncio.to_thread(honest.server.wait_for, f"mallory broke the protocol: .* more than {MOST} exchanges")
        await asyncio.to_thread(honest.check)
        assert honest.memory - before < 64 * MIB
        flood.cancel()
        await asyncio.wait({flood})


async def test_requests_of_large_heads_take_a_bounded_memory_and_the_rest_is_refused_unsent(honest: Honest) -> None:
    before = honest.memory
    async with honest.attacked() as peer:
        large = Request(headers=[Header(name="x", value="y" * 200)] * 1000)
        large.MergeFrom(WAIT)
        for exchange_id in range(1, 2 * MOST, 2):
            await peer.send((exchange_id, large))
        refused = await peer.wait_for(Response)
        assert refused.failure.kind == Failure.BUSY
        assert honest.memory - before < 100 * MIB


@pytest.mark.parametrize("field", [b"\x1a\x00", b"\x22\x00", b"\x2a\x00"], ids=["arguments", "query", "headers"])
async def test_a_request_that_is_many_times_larger_in_memory_costs_the_pipe(honest: Honest, field: bytes) -> None:
    async with honest.attacked() as peer:
        await peer.send((1, Request.FromString(WAIT.SerializeToString() + field * 100_000)))
        assert re.search("10000[01] headers, parameters or arguments", await goodbye_of(peer))


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
            await goodbye_of(peer)
    await asyncio.to_thread(honest.check)


def test_the_server_is_sound(honest: Honest) -> None:
    output = honest.server.output
    assert "Traceback" not in output
    assert isinstance(honest.server, Node)
    assert honest.server.running
