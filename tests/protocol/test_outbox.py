"""What leaves first, what fits a frame, and what is not kept."""

from collections.abc import Iterator
from itertools import count

import pytest
from envelopes import Message, opened

from restpipe.protocol.encoding import encode
from restpipe.protocol.exchange import HIGH_WATER, LOW_WATER, Exchange
from restpipe.protocol.limits import MAX_ENVELOPES
from restpipe.protocol.outbox import SMALLEST_REST, SMALLEST_TURN, Outbox
from restpipe.protocol.windows import FlowControl, Growth
from restpipe_pb.v1.pipe_pb2 import Cancel, Chunk, Frame, Ping, Request

LIMIT = 65536


class Sender:
    """An outbox, its exchanges, and those whose local half has left."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.outbox = Outbox(lambda exchange: self.ended.append(exchange.id))
        self._ids: Iterator[int] = count(1, 2)

    def exchange(self, *, window: int = 1_000_000) -> Exchange:
        """Make an exchange whose head has left."""
        flow = FlowControl(send_initial=window, receive_initial=1, limit=1, growth=Growth(0))
        return Exchange(next(self._ids), mine=True, flow=flow)

    def head(self, size: int = 0, *, more: bool = False) -> Exchange:
        """Queue a head of at least `size` bytes."""
        exchange = self.exchange()
        self.outbox.put_head(exchange, encode(exchange.id, "request", Request(noun=size * "n")), more=more)
        return exchange

    def ping(self, size: int = 0) -> None:
        """Queue control."""
        self.outbox.put_control(encode(1, "cancel", Cancel(message=size * "c")) if size else encode(0, "ping", Ping()))

    def frame(self, limit: int = LIMIT) -> list[tuple[int, Message]]:
        """Write a frame."""
        data = self.outbox.next_frame(limit)
        assert data is not None
        return [opened(each) for each in Frame.FromString(data).envelopes]


@pytest.fixture
def sender() -> Sender:
    return Sender()


def _kinds(envelopes: list[tuple[int, Message]]) -> list[str]:
    return [type(message).__name__ for _, message in envelopes]


def test_there_is_no_frame_where_nothing_waits(sender: Sender) -> None:
    assert sender.outbox.next_frame(LIMIT) is None


def test_control_leaves_before_heads_and_heads_before_bodies(sender: Sender) -> None:
    sender.outbox.put_body(sender.exchange(), b"body", more=False)
    sender.head()
    sender.ping()
    assert (sender.outbox.control_depth, sender.outbox.depth) == (1, 3)
    assert _kinds(sender.frame()) == ["Ping", "Request", "Chunk"]
    assert (sender.outbox.control_depth, sender.outbox.depth) == (0, 0)


def test_what_does_not_fit_waits_for_the_next_frame_in_order(sender: Sender) -> None:
    for _ in range(3):
        sender.ping(30_000)
    sender.head(30_000)
    assert _kinds(sender.frame()) == ["Cancel", "Cancel"]
    assert _kinds(sender.frame()) == ["Cancel", "Request"]


def test_an_envelope_larger_than_the_limit_travels_alone(sender: Sender) -> None:
    sender.ping(2 * LIMIT)
    sender.head(2 * LIMIT)
    sender.head()
    sender.outbox.put_body(sender.exchange(), b"body", more=False)
    assert _kinds(sender.frame()) == ["Cancel"]
    assert _kinds(sender.frame()) == ["Request"]
    assert _kinds(sender.frame()) == ["Request", "Chunk"]


def test_no_head_overtakes_control_that_waited_before_it(sender: Sender) -> None:
    # A Cancel frees the place in the peer's table that the request takes.
    sender.ping(LIMIT - 100)
    sender.ping(200)
    sender.head()
    assert _kinds(sender.frame()) == ["Cancel"]
    assert _kinds(sender.frame()) == ["Cancel", "Request"]


def test_a_large_head_is_not_held_up_by_control_that_keeps_coming(sender: Sender) -> None:
    sender.ping(200)
    sender.head(LIMIT - 100)
    sender.head()
    assert _kinds(sender.frame()) == ["Cancel"]
    sender.ping()
    sender.ping(200)
    assert _kinds(sender.frame()) == ["Request", "Ping"]
    assert _kinds(sender.frame()) == ["Cancel", "Request"]


def test_the_place_of_a_large_head_that_was_abandoned_is_nobodys(sender: Sender) -> None:
    sender.ping()
    passed_over = sender.head(LIMIT)
    sender.head()
    sender.frame()
    sender.outbox.abandon(passed_over)
    sender.ping()
    assert _kinds(sender.frame()) == ["Ping", "Request"]


def test_a_head_that_nothing_follows_ends_the_half_when_it_leaves_and_not_before(sender: Sender) -> None:
    exchange = sender.head()
    assert (exchange.local_begun, exchange.head_unsent, exchange.local_open) == (True, True, True)
    assert sender.ended == []
    sender.frame()
    assert (exchange.local_begun, exchange.head_unsent, exchange.local_open) == (True, False, False)
    assert sender.ended == [exchange.id]


def test_a_body_follows_its_head_and_its_last_piece_ends_the_half(sender: Sender) -> None:
    exchange = sender.head(more=True)
    sender.outbox.put_body(exchange, b"one", more=True)
    sender.outbox.put_body(exchange, b"two", more=False)
    assert exchange.buffered == 6
    _, *chunks = sender.frame()
    assert [message for _, message in chunks] == [Chunk(data=b"onetwo")]
    assert exchange.buffered == 0
    assert sender.ended == [exchange.id]


def test_an_end_without_data_leaves_alone(sender: Sender) -> None:
    exchange = sender.head(more=True)
    sender.outbox.put_body(exchange, b"", more=True)
    assert _kinds(sender.frame()) == ["Request"]
    sender.outbox.put_body(exchange, b"", more=False)
    assert sender.frame() == [(exchange.id, Chunk())]


def test_bodies_take_turns(sender: Sender) -> None:
    for _ in range(4):
        sender.outbox.put_body(sender.exchange(), bytes(10 * LIMIT), more=False)
    turns = [exchange_id for _ in range(3) for exchange_id, _ in sender.frame()]
    assert len(turns) >= 12
    assert turns == (len(turns) * [1, 3, 5, 7])[: len(turns)]


def test_of_many_bodies_each_gets_a_turn_that_is_worth_its_envelope(sender: Sender) -> None:
    for _ in range(100):
        sender.outbox.put_body(sender.exchange(), bytes(LIMIT), more=False)
    turns: list[int] = []
    while len(turns) < 100:
        *whole, rest = sender.frame()
        turns += [exchange_id for exchange_id, _ in (*whole, rest)]
        assert all(isinstance(chunk, Chunk) and len(chunk.data) == SMALLEST_TURN for _, chunk in whole)
    assert turns[:100] == list(range(1, 201, 2))


def test_a_frame_of_bodies_fills_its_limit_and_never_exceeds_it(sender: Sender) -> None:
    for size in range(1, 60):
        sender.outbox.put_body(sender.exchange(), bytes(size * 997), more=False)
    sizes = []
    while (data := sender.outbox.next_frame(LIMIT)) is not None:
        sizes.append(len(data))
    assert max(sizes) <= LIMIT
    assert min(sizes[:-1]) > LIMIT - SMALLEST_REST - 100


def test_the_rest_of_a_frame_is_left_empty_where_a_piece_would_be_tiny(sender: Sender) -> None:
    sender.ping(LIMIT - SMALLEST_REST)
    sender.outbox.put_body(sender.exchange(), b"body", more=False)
    assert _kinds(sender.frame()) == ["Cancel"]
    assert _kinds(sender.frame()) == ["Chunk"]


def test_a_body_without_credit_stops_and_holds_up_no_other(sender: Sender) -> None:
    stalled, flowing = sender.exchange(window=5), sender.exchange()
    sender.outbox.put_body(stalled, b"123456789", more=False)
    sender.outbox.put_body(flowing, b"flows", more=False)
    assert sender.frame() == [
        (stalled.id, Chunk(data=b"12345", more=True)),
        (flowing.id, Chunk(data=b"flows")),
    ]
    assert sender.outbox.next_frame(LIMIT) is None
    assert stalled.send_window.available == 0
    stalled.send_window.grant(2)
    sender.outbox.schedule(stalled)
    assert sender.frame() == [(stalled.id, Chunk(data=b"67", more=True))]
    stalled.send_window.grant(100)
    sender.outbox.schedule(stalled)
    assert sender.frame() == [(stalled.id, Chunk(data=b"89"))]
    assert stalled.send_window.available == 98


def test_a_body_of_which_a_frame_has_left_is_wanted_more_of_until_its_end(sender: Sender) -> None:
    exchange = sender.exchange()
    sender.outbox.put_body(exchange, bytes(HIGH_WATER), more=True)
    wanted = [exchange.wants_more]
    assert sender.outbox.take_wanting() == []
    sender.frame()
    wanted.append(exchange.wants_more)
    assert wanted == [False, True]
    assert sender.outbox.take_wanting() == [exchange.id]
    assert sender.outbox.take_wanting() == []
    sender.outbox.put_body(exchange, b"the end", more=False)
    sender.frame(2 * HIGH_WATER)
    assert sender.outbox.take_wanting() == []


def test_a_body_is_not_wanted_more_of_than_may_leave_soon(sender: Sender) -> None:
    stalled = sender.exchange(window=1000)
    sender.outbox.put_body(stalled, bytes(LOW_WATER + 1000), more=True)
    sender.frame()
    wanted = [stalled.wants_more]
    assert sender.outbox.take_wanting() == []
    stalled.send_window.grant(1)
    sender.outbox.schedule(stalled)
    sender.frame()
    wanted.append(stalled.wants_more)
    assert wanted == [False, True]
    assert sender.outbox.take_wanting() == [stalled.id]


def test_small_pieces_of_a_body_leave_as_one_chunk(sender: Sender) -> None:
    exchange = sender.exchange(window=1500)
    for letter in (b"a", b"b", b"c"):
        sender.outbox.put_body(exchange, 500 * letter, more=True)
    sender.outbox.put_body(exchange, b"beyond the credit", more=True)
    assert sender.frame() == [(exchange.id, Chunk(data=500 * b"a" + 500 * b"b" + 500 * b"c", more=True))]
    assert exchange.buffered == len(b"beyond the credit")


def test_no_frame_has_more_envelopes_than_a_turn_is_to_take(sender: Sender) -> None:
    exchanges = [sender.head(more=True) for _ in range(2 * MAX_ENVELOPES)]
    for exchange in exchanges:
        sender.ping()
        sender.outbox.put_body(exchange, b"b", more=False)
    counts = []
    while (data := sender.outbox.next_frame(LIMIT)) is not None:
        counts.append(len(Frame.FromString(data).envelopes))
    assert max(counts) == MAX_ENVELOPES
    assert sum(counts) == 6 * MAX_ENVELOPES


def test_a_body_of_tiny_pieces_takes_no_longer_than_a_turn_is_to_take(sender: Sender) -> None:
    exchange = sender.exchange()
    for _ in range(3 * MAX_ENVELOPES):
        sender.outbox.put_body(exchange, b"b", more=True)
    sender.frame()
    assert 2 * MAX_ENVELOPES <= exchange.buffered < 3 * MAX_ENVELOPES


def test_nothing_leaves_of_a_half_that_was_abandoned(sender: Sender) -> None:
    headless, bodiless = sender.head(more=True), sender.exchange()
    sender.outbox.put_body(headless, b"body", more=False)
    sender.outbox.put_body(bodiless, b"body", more=False)
    sender.outbox.abandon(headless)
    sender.outbox.abandon(bodiless)
    assert sender.outbox.next_frame(LIMIT) is None
    assert sender.ended == []


def test_nothing_leaves_a_closed_outbox_but_the_control_that_waited(sender: Sender) -> None:
    sender.ping(LIMIT - 100)
    passed_over = sender.head(LIMIT)
    sender.frame()
    sender.outbox.put_body(sender.exchange(), b"body", more=False)
    sender.ping()
    sender.outbox.close()
    sender.head()
    sender.ping()
    assert _kinds(sender.frame()) == ["Ping"]
    assert sender.outbox.next_frame(LIMIT) is None
    assert passed_over.head_unsent


def test_nothing_is_kept_of_heads_that_were_abandoned(sender: Sender) -> None:
    waiting = sender.head()
    for _ in range(100):
        abandoned = sender.head(more=True)
        sender.outbox.put_body(abandoned, bytes(1000), more=False)
        sender.outbox.abandon(abandoned)
    assert list(sender.outbox._heads) == [waiting.id]
    assert not sender.outbox._round
