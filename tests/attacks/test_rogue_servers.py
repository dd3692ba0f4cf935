"""A server that has a certificate and went rogue: a client ends its pipe, tries again, and stays well meanwhile."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from e2e_curl import curl
from e2e_processes import Node, Site, site_with_handlers
from envelopes import Message
from hostile_peers import HostilePeer, HostileServer, hello
from hostilities import (
    MALFORMED,
    SMUGGLED,
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

from restpipe.protocol.limits import CANCEL_COST, FOR_OTHERS, PING_COST, REFUSAL_COST
from restpipe_pb.v1.pipe_pb2 import (
    Caller,
    Cancel,
    Chunk,
    Event,
    Failure,
    Header,
    Pong,
    Request,
    Response,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST = 100
MIB = 1024 * 1024


class Victim:
    """A client of a hostile server."""

    def __init__(self, server: HostileServer, node: Node) -> None:
        self.server = server
        self.node = node

    @contextlib.asynccontextmanager
    async def attacked(self, **greeting: Any) -> AsyncIterator[HostilePeer]:
        """Wait until the client dials, as it does after whatever was done to it before, and greet it."""
        async with self.server.met() as peer:
            await peer.greet(**greeting)
            yield peer
        await asyncio.to_thread(self.check)

    def check(self) -> None:
        """See that its own web server is as well as before."""
        assert curl(f"{self.node.web}/healthz").status == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def victim(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Victim]:
    with site_with_handlers(tmp_path_factory.mktemp("rogue_server")) as site:
        site.identity("server", "server")
        async with HostileServer(site.directory) as server:
            node = await asyncio.to_thread(start, site, server.port)
            yield Victim(server, node)


def start(site: Site, port: int) -> Node:
    pauses = {"RP_CLIENT_RECONNECT_MIN_S": "0.02", "RP_CLIENT_RECONNECT_MAX_S": "0.05"}
    return site.client(port, connected=False, RP_MAX_EXCHANGES=str(MOST), **pauses)


async def peers_request(peer: HostilePeer) -> int:
    """Return the id of the next request of the client."""
    while (received := await peer.receive()) is not None:
        if isinstance(received[1], Request):
            return received[0]
    raise AssertionError("the call ended before any request")


# What breaks the rules

BREACHES = breaches(2)


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_server_that_breaks_a_rule_is_left_with_a_reason_and_dialled_anew(victim: Victim, breach: str) -> None:
    async with victim.attacked() as peer:
        await peer.send(*BREACHES[breach])
        reason = await peer.goodbye()
    logged = re.escape(f"broke the protocol: {reason}")
    await asyncio.to_thread(victim.node.wait_for, logged)


@pytest.mark.parametrize("malformed", MALFORMED)
async def test_a_frame_that_is_none_ends_the_pipe(victim: Victim, malformed: str) -> None:
    async with victim.attacked() as peer:
        await peer.send_raw(MALFORMED[malformed])
        assert await peer.goodbye()


@pytest.mark.parametrize(("first", "reason"), introductions(2))
async def test_a_server_that_does_not_introduce_itself_has_no_pipe(
    victim: Victim, first: tuple[int, Message], reason: str
) -> None:
    async with victim.server.met() as peer:
        await peer.send(first)
        assert re.search(reason, await peer.goodbye())
    await asyncio.to_thread(victim.node.wait_for, f"cannot connect to the server: .*{reason}")
    victim.check()


async def test_a_hello_without_measure_ends_the_call(victim: Victim) -> None:
    before = victim.node.memory
    for large in (hello(software="x" * 16 * MIB), hello(manifest=[Event(noun="n", doc="d" * 16 * MIB)])):
        async with victim.server.met() as peer:
            with contextlib.suppress(Exception):  # the client ends the call before all of it is sent
                await peer.send((0, large))
            await peer.end()
    assert victim.node.memory - before < 32 * MIB
    victim.check()


async def test_more_exchanges_than_permitted_end_the_pipe(victim: Victim) -> None:
    async with victim.attacked() as peer:
        await ask_too_often(peer, 2, MOST)
        assert f"more than {MOST} exchanges" in await peer.goodbye()


# What it answers


async def asked(victim: Victim, peer: HostilePeer, *answers: Message) -> Any:
    """Have a caller of the client ask the server, which answers; return what the caller gets."""
    caller = asyncio.create_task(asyncio.to_thread(curl, f"{victim.node.web}/server/it", "-X", "POST"))
    exchange_id = await peers_request(peer)
    await peer.send(*((exchange_id, answer) for answer in answers))
    return await caller


async def test_an_answer_that_is_given_twice_ends_the_pipe(victim: Victim) -> None:
    async with victim.attacked() as peer:
        answer = await asked(victim, peer, Response(status=200, body=b"1"), Response(status=200, body=b"2"))
        assert (answer.status, answer.text) == (200, "1")
        assert "the exchange is over" in await peer.goodbye()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([Chunk(data=b"a")], "before"),
        ([Response()], "status"),
        ([Response(status=99)], "status"),
        ([Response.FromString(Response(status=200).SerializeToString() + b"\x1a\x00" * 100_000)], "100000 headers"),
    ],
    ids=["a body before its head", "no status", "a status that is none", "headers"],
)
async def test_an_answer_that_is_none_ends_the_pipe_and_its_caller_hears_of_it(
    victim: Victim, answers: list[Message], reason: str
) -> None:
    async with victim.attacked() as peer:
        answer = await asked(victim, peer, *answers)
        assert answer.outcome == (502, 246, "unknown")
        assert reason in await peer.goodbye()


async def test_more_of_an_answer_than_its_credit_ends_the_pipe_and_cuts_the_answer(victim: Victim) -> None:
    async with victim.attacked() as peer:
        # curl's word for a body that breaks off.
        with pytest.raises(AssertionError, match="transfer closed with outstanding read data"):
            await asked(victim, peer, Response(status=200, more=True), Chunk(data=bytes(65537)))
        assert "65537 bytes of body where the credit was 65536" in await peer.goodbye()


@pytest.mark.parametrize("answer", SMUGGLED.values(), ids=SMUGGLED)
async def test_an_answer_cannot_break_out_of_its_http(victim: Victim, answer: Response) -> None:
    async with victim.attacked() as peer:
        received = await asked(victim, peer, answer)
        assert (received.status, received.code) == (502, 246)
        assert "set-cookie" not in received.headers


# Who it is, and what it reaches


async def test_no_name_leads_a_server_to_anything_but_an_event(victim: Victim) -> None:
    async with victim.attacked() as peer:
        await try_names(peer, 2)


async def test_a_server_is_the_host_that_was_dialled_whatever_it_says(victim: Victim) -> None:
    async with victim.attacked(software="boss", remembers="boss", relays="boss", pipe="boss") as peer:
        lies = [Header(name=name, value="boss") for name in ("x-event-caller", "host", "from", ":authority")]
        assert b'"caller": "localhost"' in (await peer.ask(2, "whoami", headers=lies)).body


CALLERS = [
    Caller(name="localhost", address="192.0.2.1"),
    Caller(name="", address="192.0.2.1"),
    Caller(name="a\r\nX-Event-Caller: boss", address="192.0.2.1"),
    Caller(name="a\x1b[2J", address="192.0.2.1"),
    Caller(name="b\u043ess", address="192.0.2.1"),
    Caller(name="a" * 10_000, address="192.0.2.1"),
    Caller(name="a", address="192.0.2.1, 127.0.0.1\r\nX: y"),
    Caller(name="a", address="1" * 10_000),
]


async def test_who_a_server_says_is_calling_has_a_name_that_a_node_may_have(victim: Victim) -> None:
    async with victim.attacked() as peer:
        for number, caller in enumerate(CALLERS):
            response = await peer.ask(2 * number + 2, "whoami", caller=caller)
            assert response.failure.kind == Failure.FORBIDDEN, caller
            assert response.failure.message.isprintable()
            assert len(response.failure.message) < 300
        honest = await peer.ask(100, "whoami", caller=Caller(name="till-1", address="192.0.2.1"))
        assert b'"caller": "till-1"' in honest.body
        # A client passes nothing on.
        passed = await peer.ask(102, "whoami", to="boss")
        assert b'"caller": "localhost"' in passed.body


# Floods


@pytest.mark.parametrize(
    ("pour", "answer", "seconds_each"),
    [
        (pings, Pong, PING_COST),
        (resets, Cancel, CANCEL_COST * FOR_OTHERS),
        (requests_for_nothing, Response, REFUSAL_COST * FOR_OTHERS),
    ],
)
async def test_a_flood_is_taken_no_faster_than_it_is_worth_and_local_callers_are_served_meanwhile(
    victim: Victim, pour: Pour, answer: type[Any], seconds_each: float
) -> None:
    before = victim.node.memory
    async with victim.attacked() as peer:
        flood = Flood(peer, answer, 2)
        await withstand(pour, peer, flood, seconds_each=seconds_each, serve=victim.check, times=5)
        assert victim.node.memory - before < 64 * MIB


async def test_a_server_that_asks_and_never_reads_is_left_and_takes_no_memory(victim: Victim) -> None:
    before, times = victim.node.memory, victim.node.output.count(f"more than {MOST} exchanges")
    async with victim.attacked() as peer:
        flood = asyncio.create_task(ask_and_never_read(peer, 2))
        await asyncio.to_thread(victim.node.wait_for, f"more than {MOST} exchanges", times=times + 1)
        await asyncio.to_thread(victim.check)
        assert victim.node.memory - before < 64 * MIB
        flood.cancel()
        await asyncio.wait({flood})


async def test_the_client_is_sound_and_takes_the_first_server_that_keeps_the_rules(victim: Victim) -> None:
    async with victim.attacked() as peer:
        assert (await asked(victim, peer, Response(status=200, body=b"at last"))).text == "at last"
    assert "Traceback" not in victim.node.output
    assert victim.node.running
