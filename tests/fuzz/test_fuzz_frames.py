"""Any frames at all, to a pipe that serves a real handler: the documented end, or none.

2,000 inputs by default. The long search, of 100,000:
`pytest tests/fuzz --hypothesis-profile nightly --timeout 0 -o faulthandler_timeout=0`.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restpipe.handlers.base import ServerEventHandler
from restpipe.handlers.dispatch import Dispatcher
from restpipe.handlers.threads import HandlerThreads
from restpipe.pipe import Pipe
from restpipe.protocol.limits import Limits
from restpipe.stats import NullStats
from restpipe.transport.carrier import Peer
from restpipe.transport.memory import memory_pair
from restpipe_pb.v1 import pipe_pb2
from restpipe_pb.v1.pipe_pb2 import Envelope, Frame, Goaway, Hello

# Of each of the two tests. The nightly profile asks for more; that of `ci` for all tests for less.
EXAMPLES = max(2000, settings.default.max_examples if settings.default else 0) // 2
PATIENCE = 30.0
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
GREETING = Hello(revision=1, software="fuzz", initial_window=65536, max_exchanges=10, max_frame_bytes=65536)

# Numbers that mean something to the protocol, and others.
IDS = st.sampled_from([0, 1, 1, 2, 3, 3, 5, 7, 2**64 - 1]) | st.integers(0, 2**64 - 1)
UINT32 = st.sampled_from([0, 1, 1, 1000, 16384, 65536, 2**31 - 1, 2**32 - 1]) | st.integers(0, 2**32 - 1)
TEXTS = st.sampled_from(["", "get", "post", "head", "connect", "echo", "parts", "lines", "__init__", "x"]) | st.text(
    max_size=9
)
BYTES = st.binary(max_size=40) | st.sampled_from([bytes(16385), bytes(65536), b'{"a": 1}', b"[", b"\xff"])


@functools.cache
def messages(kind: str) -> st.SearchStrategy[Any]:
    """Make messages of a kind, most of their fields there."""
    made = getattr(pipe_pb2, kind)
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in made.DESCRIPTOR.fields:
        each: st.SearchStrategy[Any]
        if field.message_type is not None:
            each = messages(field.message_type.name)
        elif field.enum_type is not None:
            each = st.integers(0, 20)
        else:
            each = {
                field.TYPE_BOOL: st.booleans(),
                field.TYPE_BYTES: BYTES,
                field.TYPE_STRING: TEXTS,
                field.TYPE_UINT32: UINT32,
                field.TYPE_UINT64: IDS,
                field.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
            }[field.type]
        fields[field.name] = st.lists(each, max_size=2) if field.is_repeated else each
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: made(**given))


def envelopes(kind: str) -> st.SearchStrategy[Envelope]:
    ids = IDS if kind in ("request", "chunk", "credit", "cancel", "response") else st.just(0)
    return st.builds(
        lambda exchange_id, message: Envelope(exchange_id=exchange_id, **{kind: message}),
        ids,
        messages(kind.capitalize()),
    )


KINDS = ("request", "request", "request", "chunk", "chunk", "credit", "cancel", "response", "ping", "goaway", "hello")
WELL_FORMED = st.lists(st.one_of(*map(envelopes, KINDS)), max_size=4).map(
    lambda each: Frame(envelopes=each).SerializeToString()
)
CHANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.binary(max_size=2)), min_size=1, max_size=3)


def damage(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Change some bytes of a frame, or its length."""
    damaged = bytearray(data)
    for at, size, by in changes:
        start = at % (len(data) + 1)
        damaged[start : start + size] = by
    return bytes(damaged)


FRAMES = st.one_of(WELL_FORMED, WELL_FORMED, st.builds(damage, WELL_FORMED, CHANGES), st.binary(max_size=100))


REQUESTS = st.builds(
    lambda event, body, more, known, arguments: pipe_pb2.Request(
        verb=event[0], noun=event[1], body=body, more=more, timeout_ms=60_000, arguments=arguments,
        **({"body_length": len(body) + known} if known else {}),
    ),
    st.sampled_from([("post", "echo"), ("get", "lines"), ("get", "parts"), ("head", "parts")]),
    BYTES, st.sampled_from([True, True, False]), st.integers(0, 1), st.lists(TEXTS, max_size=2),
)  # fmt: skip
# What a peer may say of its exchange that it opened a moment ago.
SEQUELS = st.one_of(
    st.builds(pipe_pb2.Chunk, data=BYTES, more=st.sampled_from([True, True, True, False])),
    st.builds(pipe_pb2.Credit, bytes=UINT32),
    messages("Cancel"),
    messages("Response"),
)
EXCHANGES = st.lists(st.tuples(REQUESTS, st.lists(SEQUELS, max_size=4)), min_size=1, max_size=3)


def plausible(exchanges: list[tuple[Any, list[Any]]], *, odd: bool) -> list[bytes]:
    """Make frames of exchanges that begin well."""
    frames = []
    for number, (request, sequels) in enumerate(exchanges):
        exchange_id = 2 * number + (1 if odd else 2)
        frames.append(Frame(envelopes=[Envelope(exchange_id=exchange_id, request=request)]).SerializeToString())
        for sequel in sequels:
            kind = type(sequel).__name__.lower()
            sealed = Envelope(exchange_id=exchange_id, **{kind: sequel})
            frames.append(Frame(envelopes=[sealed]).SerializeToString())
    return frames


class Handler(ServerEventHandler):
    async def post_echo(self, ctx: Any, post_data: Any) -> Any:
        return post_data[1]

    async def get_parts(self, ctx: Any, post_data: Any, first: int, *rest: str, **named: str) -> Any:
        return [first, *rest, named]

    async def get_lines(self, ctx: Any, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in body:
            yield piece


class Complaints(logging.Handler):
    """Keeps what the project logs of faults of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not ("broke the protocol" in message or "Handler." in message):
            self.records.append(message)


async def served(frames: list[bytes], *, dials: bool) -> None:
    """Let frames arrive at a pipe; see that it lives, or ends as documented, and leaves nothing behind."""
    near, far = memory_pair(Peer("fuzz", "192.0.2.1"), Peer("node", "192.0.2.2"))
    near, far = (near, far) if dials else (far, near)
    threads = HandlerThreads(1)
    dispatcher = Dispatcher(Handler(), threads=threads, max_body=50_000, send_tracebacks=True, stats=NullStats())
    pipe = Pipe(
        near,
        dials=dials,
        limits=Limits(max_exchanges=10),
        hello=Hello(remembers="fuzz"),
        serve=dispatcher.serve,
        stats=NullStats(),
    )
    run = asyncio.ensure_future(pipe.run())

    async def talk() -> None:
        with contextlib.suppress(Exception):  # the node may have closed it
            for frame in frames:
                await far.write(frame)
            await far.write(Frame(envelopes=[Envelope(ping=pipe_pb2.Ping(id=2**64 - 1))]).SerializeToString())

    said: list[Envelope] = []

    async def listen() -> None:
        while (frame := await far.read()) is not None:
            said.extend(Frame.FromString(frame).envelopes)
            if said[-1].WhichOneof("kind") == "goaway" or any(e.pong.id == 2**64 - 1 for e in said):
                break

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(talk(), listen())
        kinds = [envelope.WhichOneof("kind") for envelope in said]
        assert kinds[0] == "hello"
        assert None not in kinds
        if "goaway" in kinds:
            assert said[kinds.index("goaway")].goaway.reason in (Goaway.PROTOCOL_ERROR, Goaway.SHUTDOWN)
        await far.close()
        await run
    dispatcher.close()
    assert pipe.in_flight == len(pipe._core._exchanges)
    assert pipe._exchanges.incoming == {}
    assert pipe._exchanges.calls == {}


def check(frames: list[bytes], *, dials: bool) -> None:
    complaints = Complaints()
    log = logging.getLogger("restpipe")
    log.addHandler(complaints)
    try:
        RUNNER.run(served(frames, dials=dials))
    finally:
        log.removeHandler(complaints)
    assert not complaints.records


RUNNER = asyncio.Runner()


HELLO = Frame(envelopes=[Envelope(hello=GREETING)]).SerializeToString()


@FUZZ
@given(frames=st.lists(FRAMES, max_size=3), dials=st.booleans(), greeted=st.sampled_from([True, True, True, False]))
def test_any_frames_lead_to_answers_or_to_the_documented_end(frames: list[bytes], dials: bool, greeted: bool) -> None:
    check([HELLO, *frames] if greeted else frames, dials=dials)


@FUZZ
@given(exchanges=EXCHANGES, frames=st.lists(FRAMES, max_size=1), dials=st.booleans())
def test_exchanges_that_begin_well_lead_to_answers_or_to_the_documented_end(
    exchanges: list[tuple[Any, list[Any]]], frames: list[bytes], dials: bool
) -> None:
    check([HELLO, *plausible(exchanges, odd=not dials), *frames], dials=dials)
