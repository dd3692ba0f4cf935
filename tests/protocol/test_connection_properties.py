"""Two cores joined by two queues of frames, in every interleaving; and a core whose peer sends anything at all."""

from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from envelopes import Message, envelope, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sides import Side, connection, frame, hello

from restpipe.exceptions import PeerRefusedError, TooManyExchangesError
from restpipe.protocol import events
from restpipe.protocol.connection import Connection
from restpipe.protocol.exchange import Exchange
from restpipe.protocol.limits import Limits
from restpipe_pb.v1.pipe_pb2 import (
    Cancel,
    Chunk,
    Credit,
    Failure,
    Frame,
    Goaway,
    Hello,
    Ping,
    Pong,
    Request,
    Response,
)

EXAMPLES = settings.default.max_examples if settings.default else 0
SIZES = st.sampled_from([0, 1, 1000, 8192, 16384, 16385, 40_000, 150_000])
PICKS = st.integers(0, 1000)
SIDES = st.integers(0, 1)
BYTES = Random(0).randbytes(4_000_000)
LIMITS = st.builds(
    Limits,
    initial_window=st.sampled_from([16384, 20_001, 65536]),
    max_window=st.sampled_from([16384, 50_000, 1_000_000]),
    window_budget=st.sampled_from([0, 10_000, 100_000]),
    max_exchanges=st.sampled_from([1, 2, 3, 10]),
    max_frame_bytes=st.sampled_from([65536, 100_000]),
    frame_bytes=st.sampled_from([4096, 17_000, 65536]),
    heartbeat_interval=st.just(1.0),
    heartbeat_timeout=st.just(1e9),
)


@dataclass
class Half:
    """One direction of an exchange, as the applications at its two ends know it."""

    content: int
    begun: bool = False
    given: int = 0
    ended: bool = False
    received: int = 0
    held: int = 0
    complete: bool = False

    def give(self, size: int, *, more: bool) -> bytes:
        """Make the next `size` bytes of the body."""
        start = self.content + self.given
        self.begun = True
        self.given += size
        self.ended = not more
        return BYTES[start : start + size]

    def receive(self, data: bytes, *, more: bool) -> None:
        """Check that `data` continues the body."""
        start = self.content + self.received
        assert data == BYTES[start : start + len(data)]
        assert not self.complete
        self.received += len(data)
        self.held += len(data)
        assert self.received <= self.given
        if not more:
            assert self.ended
            assert self.received == self.given
            self.complete = True


@dataclass
class Record:
    """One exchange. `over` tells, for each side, that its application must hear no more of it."""

    id: int
    caller: int
    request: Half
    response: Half
    delivered: bool = False
    answered: bool = False
    cancelled: bool = False
    refused: bool = False
    over: list[bool] = field(default_factory=lambda: [False, False])

    @property
    def handler(self) -> int:
        return 1 - self.caller

    def half_of(self, side: int) -> Half:
        """Return the half that a side sends."""
        return self.request if side == self.caller else self.response


class Cargo:
    """The bytes of body, and of credit, that some frames carry for each exchange."""

    def __init__(self, *frames: bytes) -> None:
        self.body: Counter[int] = Counter()
        self.credit: Counter[int] = Counter()
        for exchange_id, message in (opened(each) for data in frames for each in Frame.FromString(data).envelopes):
            match message:
                case Request() | Response():
                    self.body[exchange_id] += len(message.body)
                case Chunk():
                    self.body[exchange_id] += len(message.data)
                case Credit():
                    self.credit[exchange_id] += message.bytes


class TwoSides(RuleBasedStateMachine):
    """Both applications follow the API; frames arrive in order, whenever the rules say."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[Connection] = []
        # Frames on their way, and what they carry, by the side that sent them.
        self.wires: tuple[deque[tuple[bytes, Cargo]], deque[tuple[bytes, Cargo]]] = (deque(), deque())
        self.records: dict[int, Record] = {}
        self.now = 0.0

    @initialize(dialling=LIMITS, accepting=LIMITS, greeted=st.sampled_from([True, True, True, False]))
    def begin(self, dialling: Limits, accepting: Limits, greeted: bool) -> None:
        self.sides = [connection(dials=True, limits=dialling), connection(dials=False, limits=accepting)]
        if greeted:
            self.finish(None)

    # What the applications do

    @rule(side=SIDES, size=SIZES, more=st.booleans())
    def open_an_exchange(self, side: int, size: int, more: bool) -> None:
        core = self.sides[side]
        content = Random(len(self.records)).randrange(1_000_000)
        request, response = Half(content), Half(content + 500_000)
        message = Request(verb="put", noun="blob", body=request.give(size, more=more), more=more)
        try:
            exchange_id = core.open(message)
        except PeerRefusedError:
            assert not core.accepts_requests
        except TooManyExchangesError:
            assert core.peer_hello is not None
            assert len(self.table(side, mine=True)) == core.peer_hello.max_exchanges
        else:
            assert exchange_id not in self.records
            self.records[exchange_id] = Record(exchange_id, side, request, response)

    @precondition(lambda self: self.records)
    @rule(pick=PICKS, size=SIZES, more=st.booleans())
    def respond(self, pick: int, size: int, more: bool) -> None:
        record = self.pick(pick, lambda r: r.delivered and not r.response.begun and not r.over[r.handler])
        if record is not None:
            self.answer(record, size, more=more)

    @precondition(lambda self: self.records)
    @rule(side=SIDES, pick=PICKS, size=SIZES, more=st.booleans())
    def send_more(self, side: int, pick: int, size: int, more: bool) -> None:
        record = self.pick(pick, lambda r: r.half_of(side).begun and self.sides[side].is_open(r.id))
        if record is not None:
            self.send(record, side, size, more=more)

    @precondition(lambda self: self.records)
    @rule(side=SIDES, pick=PICKS, size=st.sampled_from([1, 5000, 12_000, 1_000_000]))
    def consume(self, side: int, pick: int, size: int) -> None:
        record = self.pick(pick, lambda r: r.half_of(1 - side).held)
        if record is not None:
            self.take(record, side, size)

    @precondition(lambda self: self.records)
    @rule(side=SIDES, pick=PICKS)
    def cancel(self, side: int, pick: int) -> None:
        record = self.pick(pick, lambda r: side == r.caller or r.delivered)
        if record is not None:
            record.cancelled = record.over[side] = True
            self.sides[side].cancel(record.id, "no longer wanted")

    @precondition(lambda self: len(self.records) > 2)
    @rule(side=SIDES)
    def leave(self, side: int) -> None:
        self.sides[side].goaway(Goaway.SHUTDOWN, "restarting")

    @rule(side=SIDES, seconds=st.floats(0, 3))
    def tick(self, side: int, seconds: float) -> None:
        self.now += seconds
        assert not self.sides[side].tick(self.now)

    # What the carrier does

    @rule(side=SIDES, times=st.integers(1, 4))
    def write(self, side: int, times: int) -> None:
        for _ in range(times):
            self.write_frame(side)

    @rule(side=SIDES, times=st.integers(1, 4))
    def deliver(self, side: int, times: int) -> None:
        for _ in range(min(times, len(self.wires[1 - side]))):
            self.deliver_frame(side)

    @rule(side=SIDES)
    def write_and_deliver_all(self, side: int) -> None:
        while self.write_frame(side):
            pass
        while self.wires[side]:
            self.deliver_frame(1 - side)

    # What must hold

    @invariant()
    def no_credit_is_made_or_lost(self) -> None:
        flights = [self.in_flight(side) for side in (0, 1)]
        for record in self.records.values():
            for side in (0, 1):
                sender, receiver = self.exchange(side, record), self.exchange(1 - side, record)
                if sender is None or not sender.local_open:
                    continue
                if sender.finishing and sender.head_unsent:
                    continue  # its head may be all of its half: that needs no windows
                assert sender.send_window.available >= 0
                body, credit = flights[side][0][record.id], flights[1 - side][1][record.id]
                if receiver is None:
                    last = self.sides[1 - side]._exchanges.refused_above
                    if not record.over[1 - side] and (last is None or record.id <= last):
                        assert sender.send_window.available + body == self.sides[1 - side].limits.initial_window
                elif receiver.delivers:
                    window = receiver.receive_window
                    assert window.available == sender.send_window.available + body + credit
                    held = record.half_of(side).held
                    assert window.size == window.available + held + window._consumed

    @invariant()
    def the_budget_is_what_the_windows_did_not_take(self) -> None:
        for core in self.sides:
            grown = [e.receive_window.size - core.limits.initial_window for e in core._exchanges.values()]
            assert all(growth >= 0 for growth in grown)
            assert core._growth.available == core.limits.window_budget - sum(grown) >= 0

    @invariant()
    def what_waits_belongs_to_exchanges_in_the_table(self) -> None:
        for side, core in enumerate(self.sides):
            assert core._outbox._heads.keys() <= core._exchanges._by_id.keys()
            assert core._exchanges.mine == len(self.table(side, mine=True))
            if core.peer_hello is not None:
                assert core._exchanges.mine <= core.peer_hello.max_exchanges
            assert len(self.table(side, mine=False)) <= core.limits.max_exchanges

    def teardown(self) -> None:
        """Let all but one exchange finish, then that one too."""
        if not self.sides:
            return
        stalled = next((record for record in self.records.values() if self.in_both_tables(record)), None)
        if stalled is not None:
            for side in self.giving(stalled):
                self.send(stalled, side, 300_000, more=True)
        self.finish(stalled)
        for core in self.sides:
            assert core._exchanges._by_id.keys() <= ({stalled.id} if stalled else set())
        self.finish(None)
        for core in self.sides:
            assert core.in_flight == core._exchanges.mine == 0
            assert core._growth.available == core.limits.window_budget
            assert core.next_frame() is None
        for record in self.records.values():
            assert record.response.complete or record.cancelled or record.refused
            assert not (record.refused and record.delivered)

    # How

    def finish(self, stalled: Record | None) -> None:
        """Let the applications end and consume whatever there is, but for one exchange that nobody touches."""
        moved = True
        while moved:
            for record in self.records.values():
                if record is not stalled:
                    self.complete(record)
            moved = self.write_frame(0) | self.write_frame(1) | any(self.wires)
            for side in (0, 1):
                while self.wires[1 - side]:
                    self.deliver_frame(side)

    def complete(self, record: Record) -> None:
        """Do all that is left to do for an exchange."""
        for side in (0, 1):
            self.take(record, side, record.half_of(1 - side).held)
        if record.delivered and not record.response.begun and not record.over[record.handler]:
            self.answer(record, 10, more=False)
        for side in self.giving(record):
            self.send(record, side, 10, more=False)

    def giving(self, record: Record) -> list[int]:
        """Return the sides that may give more of their body."""
        return [side for side in (0, 1) if record.half_of(side).begun and self.sides[side].is_open(record.id)]

    def pick(self, number: int, fits: Callable[[Record], object]) -> Record | None:
        fitting = [record for record in self.records.values() if fits(record)]
        return fitting[-1 - number % len(fitting)] if fitting else None

    def table(self, side: int, *, mine: bool) -> list[Exchange]:
        return [exchange for exchange in self.sides[side]._exchanges.values() if exchange.mine == mine]

    def exchange(self, side: int, record: Record) -> Exchange | None:
        return self.sides[side]._exchanges.get(record.id)

    def in_both_tables(self, record: Record) -> bool:
        return all(self.exchange(side, record) is not None for side in (0, 1))

    def in_flight(self, side: int) -> tuple[Counter[int], Counter[int]]:
        """Count what left the windows of a side and has not arrived: bytes of body and of credit, by exchange."""
        outbox = self.sides[side]._outbox
        waiting = Cargo(*outbox._control, *(head for _, head, _ in outbox._heads.values()))
        cargoes = [cargo for _, cargo in self.wires[side]]
        return (
            sum((cargo.body for cargo in cargoes), waiting.body),
            sum((cargo.credit for cargo in cargoes), waiting.credit),
        )

    def answer(self, record: Record, size: int, *, more: bool) -> None:
        response = Response(status=200, body=record.response.give(size, more=more), more=more)
        self.sides[record.handler].respond(record.id, response)

    def send(self, record: Record, side: int, size: int, *, more: bool) -> None:
        self.sides[side].send_body(record.id, record.half_of(side).give(size, more=more), more=more)

    def take(self, record: Record, side: int, size: int) -> None:
        half = record.half_of(1 - side)
        size = min(size, half.held)
        half.held -= size
        self.sides[side].consume(record.id, size, self.now)

    def write_frame(self, side: int) -> bool:
        core = self.sides[side]
        data = core.next_frame()
        if data is None:
            return False
        assert len(data) <= (2**20 if core.peer_hello is None else core.peer_hello.max_frame_bytes)
        envelopes = Frame.FromString(data).envelopes
        assert len(data) <= core.limits.frame_bytes or len(envelopes) == 1
        self.wires[side].append((data, Cargo(data)))
        return True

    def deliver_frame(self, side: int) -> None:
        for event in self.sides[side].receive(self.wires[1 - side].popleft()[0], self.now):
            match event:
                case events.PeerReady() | events.PeerLeaving() | events.PongReceived():
                    pass
                case events.RequestReceived(exchange_id, request):
                    record = self.records[exchange_id]
                    assert record.handler == side
                    assert not record.delivered
                    assert not record.refused
                    record.delivered = True
                    record.request.receive(request.body, more=request.more)
                case events.ResponseReceived(exchange_id, response):
                    record = self.records[exchange_id]
                    assert record.caller == side
                    assert not record.answered
                    assert not record.over[side]
                    record.answered = True
                    record.response.receive(response.body, more=response.more)
                case events.BodyReceived(exchange_id, data, more):
                    record = self.records[exchange_id]
                    assert record.answered if side == record.caller else record.delivered
                    assert not record.over[side]
                    record.half_of(1 - side).receive(data, more=more)
                case events.Cancelled(exchange_id, message):
                    record = self.records[exchange_id]
                    assert record.cancelled or message == "answered"
                    assert not record.over[side]
                    record.over[side] = True
                case events.Refused(exchange_id):
                    record = self.records[exchange_id]
                    assert record.caller == side
                    assert not record.delivered
                    assert not record.over[side]
                    record.refused = record.over[side] = True
                case _:
                    raise AssertionError(event)


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(max_examples=max(200, EXAMPLES // 20), stateful_step_count=60)


# A peer that follows no rule

IDS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2**63, 2**64 - 2, 2**64 - 1])
NUMBERS = st.sampled_from([0, 1, 2, 16384, 65536, 2**31 - 1 - 65536, 2**31 - 1, 2**31, 2**32 - 1])
BODIES = st.sampled_from([b"", b"x", bytes(16384), bytes(16385), bytes(65536), bytes(65537)])
TEXTS = st.sampled_from(["", "get", "\x00\x1b\n", "\N{SNOWMAN}", 70_000 * "x"])
HELLOS = st.builds(
    Hello,
    revision=st.sampled_from([0, 1, 1, 1, 1, 2]),
    initial_window=NUMBERS,
    max_exchanges=NUMBERS,
    max_frame_bytes=NUMBERS,
)
MESSAGES: dict[str, st.SearchStrategy[Message]] = {
    "hello": HELLOS,
    "request": st.builds(Request, verb=TEXTS, body=BODIES, more=st.booleans(), timeout_ms=NUMBERS),
    "response": st.builds(Response, status=st.sampled_from([0, 200, 200, 200, 999]), body=BODIES, more=st.booleans()),
    "failure": st.builds(Response, failure=st.builds(Failure, message=TEXTS), more=st.booleans()),
    "chunk": st.builds(Chunk, data=BODIES, more=st.booleans()),
    "credit": st.builds(Credit, bytes=NUMBERS),
    "cancel": st.builds(Cancel, message=TEXTS),
    "ping": st.builds(Ping, id=IDS),
    "pong": st.builds(Pong, id=IDS),
    "goaway": st.builds(Goaway, reason=st.integers(0, 5), message=TEXTS, last_exchange_id=IDS),
}
ENVELOPES = st.builds(envelope, IDS, st.one_of(*MESSAGES.values()))
# Of what belongs to an exchange much is valid, so that hostile envelopes meet exchanges in every state.
LIKELY = st.builds(
    envelope,
    st.integers(1, 6),
    st.one_of(
        st.builds(Request, body=st.sampled_from([b"", b"x"]), more=st.booleans()),
        st.builds(Response, status=st.just(200), body=st.sampled_from([b"", b"x"]), more=st.booleans()),
        st.builds(Chunk, data=st.just(b"x"), more=st.booleans()),
        st.builds(Credit, bytes=st.just(1000)),
        st.builds(Cancel),
    ),
)
FRAMES = st.builds(frame, ENVELOPES | LIKELY) | st.lists(LIKELY, max_size=3).map(lambda sealed: frame(*sealed))
# What this side's application and its driver do meanwhile.
DOINGS = st.tuples(
    st.sampled_from(["open", "respond", "send", "consume", "cancel", "goaway", "tick", "write", "write"]),
    st.integers(1, 6),
    st.sampled_from([0, 10, 20_000]),
    st.booleans(),
)


class Witness:
    """Looks at all that a side reports and sends, whatever its peer does."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.now = 0.0
        self.ended = False
        self.goaways = 0
        self.final = False
        self.begun: set[int] = set()
        self.done: set[int] = set()
        self.heard: set[tuple[type, int]] = set()

    def receive(self, data: bytes) -> None:
        """Let a frame arrive: there are events, and nothing after the end."""
        reported = self.side.core.receive(data, self.now)
        assert not (self.ended and reported)
        for number, event in enumerate(reported, 1):
            if isinstance(event, events.Broken):
                assert number == len(reported)
                self.ended = True
            elif isinstance(event, events.RequestReceived | events.ResponseReceived):
                key = (type(event), event.exchange_id)
                assert key not in self.heard
                self.heard.add(key)
        self.check()

    def do(self, doing: tuple[str, int, int, bool]) -> None:
        """Let this side's application do something."""
        what, exchange_id, size, more = doing
        core = self.side.core
        match what:
            case "open":
                with suppress(PeerRefusedError, TooManyExchangesError):
                    core.open(Request(body=bytes(size), more=more))
            case "respond":
                core.respond(exchange_id, Response(status=200, body=bytes(size), more=more))
            case "send":
                core.send_body(exchange_id, bytes(size), more=more)
            case "consume":
                core.consume(exchange_id, 1, 0.0)
            case "cancel":
                core.cancel(exchange_id, "unwanted")
            case "goaway":
                core.goaway(Goaway.SHUTDOWN if more else Goaway.TAKEOVER, "leaving")
                self.ended = self.ended or not more
            case "tick":
                self.now += size / 1000
                self.ended = bool(core.tick(self.now)) or self.ended
            case _:
                self.write()
        self.check()

    def write(self) -> None:
        """Write all there is: it is what a peer that follows the rules would take."""
        core = self.side.core
        most = 2**20 if core.peer_hello is None else core.peer_hello.max_frame_bytes
        for data in self.side.frames():
            assert len(data) <= most
            for exchange_id, message in map(opened, Frame.FromString(data).envelopes):
                assert not self.final
                match message:
                    case Goaway():
                        self.goaways += 1
                        assert self.goaways == 1
                        self.final = message.reason != Goaway.SHUTDOWN
                    case Request() | Response():
                        assert exchange_id not in self.begun
                        self.begun.add(exchange_id)
                        assert exchange_id not in self.done
                    case Chunk():
                        assert exchange_id in self.begun - self.done
                        assert message.data or not message.more
                    case Cancel():
                        assert exchange_id not in self.done or exchange_id % 2
                if isinstance(message, Cancel) or (
                    isinstance(message, Request | Response | Chunk) and not message.more
                ):
                    self.done.add(exchange_id)
        assert core.next_frame() is None

    def check(self) -> None:
        """Nothing is negative, and nothing grows beyond its bound."""
        core = self.side.core
        table = core._exchanges.values()
        assert all(e.send_window.available >= 0 and e.receive_window.available >= 0 for e in table)
        assert core._exchanges.mine == sum(e.mine for e in table)
        assert len(table) - core._exchanges.mine <= core.limits.max_exchanges
        assert core._growth.available >= 0
        assert core._outbox._heads.keys() <= core._exchanges._by_id.keys()


HOSTILE = settings(max_examples=max(1000, EXAMPLES))


@HOSTILE
@given(dials=st.booleans(), greeted=st.booleans(), frames=st.lists(st.binary(max_size=60), max_size=4))
def test_arbitrary_bytes_make_a_side_report_events_and_raise_nothing(
    dials: bool, greeted: bool, frames: list[bytes]
) -> None:
    witness = Witness(Side(dials=dials, greeting=hello() if greeted else None))
    for data in frames:
        witness.receive(data)
        witness.write()


@HOSTILE
@given(
    dials=st.booleans(),
    greeted=st.sampled_from([True, True, True, False]),
    doings=st.lists(FRAMES | DOINGS, max_size=20),
)
def test_arbitrary_envelopes_make_a_side_report_events_and_break_no_rule_itself(
    dials: bool, greeted: bool, doings: list[bytes | tuple[str, int, int, bool]]
) -> None:
    limits = Limits(max_exchanges=2, window_budget=1000)
    greeting = hello(initial_window=16384, max_exchanges=2, max_frame_bytes=65536) if greeted else None
    witness = Witness(Side(dials=dials, limits=limits, greeting=greeting))
    for doing in doings:
        if isinstance(doing, bytes):
            witness.receive(doing)
        else:
            witness.do(doing)
    witness.write()
