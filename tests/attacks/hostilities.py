"""What peers do that have a certificate and no manners, on either side of a pipe.

`own` is the first id of the exchanges of such a peer: 1 of a client, 2 of a server.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from envelopes import Message
from hostile_peers import HostilePeer, frame, hello

from restpipe.protocol.limits import MAX_ENVELOPES
from restpipe_pb.v1.pipe_pb2 import (
    Cancel,
    Chunk,
    Credit,
    Event,
    Failure,
    Goaway,
    Header,
    Ping,
    Pong,
    Request,
    Response,
)

# What breaks the rules

GET = Request(verb="get", noun="data", timeout_ms=60_000)
UPLOAD = Request(verb="post", noun="echo", timeout_ms=60_000, more=True)
WAIT = Request(verb="get", noun="wait", arguments=["never"], timeout_ms=60_000)


def breaches(own: int) -> dict[str, list[tuple[int, Message]]]:
    """Return what breaks the rules, after the Hellos."""
    others = 3 - own
    late = Request(verb="post", noun="echo", more=True, awaits_credit=True)
    return {
        "an answer to what was never asked": [(others, Response(status=200))],
        "an answer to its own request": [(own, UPLOAD), (own, Response(status=200))],
        "an id that was used": [(own, GET), (own, GET)],
        "an id that does not rise": [(own + 2, GET), (own, GET)],
        "an id of the wrong parity": [(others, GET)],
        "an id of nothing": [(0, GET)],
        "a chunk after the end": [(own, UPLOAD), (own, Chunk(data=b"a")), (own, Chunk(data=b"b"))],
        "a chunk of nothing": [(own, UPLOAD), (own, Chunk(more=True))],
        "a chunk that belongs to nothing": [(own + 6, Chunk(data=b"a"))],
        "more than its credit": [(own, UPLOAD), (own, Chunk(data=bytes(65537), more=True))],
        "a body before it is asked for": [(own, late), (own, Chunk(data=b"a"))],
        "a credit of nothing": [(own, UPLOAD), (own, Credit())],
        "a credit without end": [(own, UPLOAD), (own, Credit(bytes=2**31)), (own, Credit(bytes=2**31))],
        "a credit for nothing": [(others + 6, Credit(bytes=1))],
        "a cancel of nothing": [(own + 8, Cancel())],
        "a second hello": [(0, hello())],
        "a pong that nobody asked for": [(0, Pong(id=77))],
        "a ping of an exchange": [(own, GET), (own, Ping())],
        "two goodbyes": [(0, Goaway(reason=Goaway.SHUTDOWN)), (0, Goaway(reason=Goaway.SHUTDOWN))],
        "too many envelopes": [(0, Ping(id=1))] * (MAX_ENVELOPES + 1),
    }


NESTED = b"\x0b" * 100_000  # a group in a group in a group
MALFORMED = {
    "nothing": b"",
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


def introductions(own: int) -> list[tuple[tuple[int, Message], str]]:
    """Return first envelopes that make no pipe, each with a pattern of the reason."""
    return [
        ((0, hello(revision=2)), "revision 1.*2"),
        ((0, hello(initial_window=1)), "an initial window of 1"),
        ((0, hello(max_exchanges=0)), "it permits no exchange"),
        ((0, hello(max_frame_bytes=100)), "frames of at most 100"),
        ((0, hello(manifest=[Event()] * 100_000)), "a manifest of more than"),
        ((own, GET), "before the hello"),
        ((0, Ping(id=1)), "before the hello"),
    ]


async def ask_too_often(peer: HostilePeer, own: int, most: int) -> None:
    """Open one exchange more than are permitted."""
    ids = range(own, own + 2 * most + 2, 2)
    for first in range(0, len(ids), 25):
        await peer.send(*((each, WAIT) for each in ids[first : first + 25]))


# Answers that try to break out of the HTTP that carries them
SMUGGLED = {
    "header": Response(status=200, headers=[Header(name="x", value="a\r\nset-cookie: evil")]),
    "transfer-encoding": Response(status=200, headers=[Header(name="Transfer-Encoding", value="chunked")]),
    "content-length": Response(status=200, headers=[Header(name="content-length", value="1")], body=b"two"),
    "content type": Response(status=200, content_type="text/html\r\n\r\n<script>"),
}

# Names that lead nowhere

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
# All of them under two verbs, and verbs that are none.
NAMES = [
    *((verb, noun) for noun in NOUNS for verb in ("get", "")),
    ("start", "hook"),
    ("__init", "_"),
    ("_", "wait"),
]


async def try_names(peer: HostilePeer, own: int) -> None:
    """Ask for everything that is no event; see that it is not there."""
    for number, (verb, noun) in enumerate(NAMES):
        response = await peer.ask(2 * number + own, noun, verb=verb)
        assert response.failure.kind in (Failure.NOT_FOUND, Failure.WRONG_VERB), (verb, noun)
        assert response.failure.message.isprintable(), response.failure.message


# Floods


class Flood:
    """Sends as fast as it can, and counts what is answered.

    Args:
        peer: whose pipe it is.
        answer: of which kind the answers are.
        own: as above.
        to: name of the client that the flood is for, "" where it is for the node.
    """

    def __init__(self, peer: HostilePeer, answer: type[Any], own: int = 1, to: str = "") -> None:
        self.answered = 0
        self._to = to
        self._peer = peer
        self._answer = answer
        self._numbers = itertools.count(own, 2)

    def requests(self, size: int, *, cancelled: bool) -> bytes:
        """Return a frame of requests for what there is not."""
        made: list[tuple[int, Message]] = []
        for number in itertools.islice(self._numbers, size):
            made.append((number, Request(verb="get", noun="nowhere", to=self._to, timeout_ms=60_000)))
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
        await peer.send_raw(flood.requests(100, cancelled=False))
        await flood.read(100)


Pour = Callable[[Flood, HostilePeer], Awaitable[None]]


async def withstand(
    pour: Pour, peer: HostilePeer, flood: Flood, *, seconds_each: float, serve: Callable[[], object], times: int
) -> None:
    """See that a node serves others during a flood, and takes no more of that than it is worth.

    It lasts until far more is answered than is taken before any rest, so that the rests decide how long that takes.

    Args:
        pour: the flood.
        peer: who sends it.
        flood: counts what is answered.
        seconds_each: for which its sender is left unread, for each that is answered.
        serve: blocks until another one is served.
        times: so many of them, at least.
    """
    before_any_rest = 2 * MAX_ENVELOPES
    loop = asyncio.get_running_loop()
    began = loop.time()
    pouring = asyncio.ensure_future(pour(flood, peer))
    served = 0
    while served < times or flood.answered < 4 * before_any_rest:
        await asyncio.to_thread(serve)
        served += 1
        assert not pouring.done()
    pouring.cancel()
    await asyncio.wait({pouring})
    assert flood.answered <= (loop.time() - began) / seconds_each + before_any_rest


async def ask_and_never_read(peer: HostilePeer, own: int) -> None:
    large = Request(verb="post", noun="echo", body=bytes(16_000), timeout_ms=60_000)
    for exchange_id in itertools.count(own, 2):
        await peer.send((exchange_id, large))


async def forever(do: Callable[[], Awaitable[None]]) -> None:
    while True:
        await do()
