"""Every rule of `pipe.proto`, and every way to break one, on both sides."""

from typing import Any

import pytest
from envelopes import Message, envelope
from sides import Side, connection, frame, hello

from restpipe.exceptions import (
    BadResultError,
    HeadersTooLargeError,
    PeerRefusedError,
    TooManyExchangesError,
)
from restpipe.protocol.events import (
    BodyReceived,
    Broken,
    Cancelled,
    PeerLeaving,
    PeerReady,
    PeerSilent,
    PongReceived,
    Refused,
    RequestReceived,
    ResponseReceived,
)
from restpipe.protocol.limits import (
    CANCEL_COST,
    FIRST_FRAME_BYTES,
    FOR_OTHERS,
    INLINE_BYTES,
    MAX_CONTROL_DEPTH,
    MAX_ENVELOPES,
    MAX_HEADS,
    MAX_MANIFEST,
    MAX_PARTS,
    MESSAGE_CHARACTERS,
    PASSED_ON,
    PING_COST,
    REFUSAL_COST,
    SHARED_FRAMES,
    Limits,
)
from restpipe_pb.v1.pipe_pb2 import (
    Argument,
    Cancel,
    Chunk,
    Credit,
    Envelope,
    Event,
    Failure,
    Frame,
    Goaway,
    Header,
    Hello,
    Parameter,
    Ping,
    Pong,
    Request,
    Response,
)

GET = Request(verb="get", noun="time")
UPLOAD = Request(verb="put", noun="blob", more=True)
OK = Response(status=200)
OK_AND_MORE = Response(status=200, more=True)


def calling(request: Request = GET, *, limits: Limits | None = None, greeting: Hello | None = None) -> Side:
    """Make a side that opened exchange 1, and sent its request."""
    side = Side(limits=limits, greeting=greeting or hello())
    assert side.core.open(_copy(request)) == 1
    side.sent()
    return side


def handling(request: Request = GET, *, limits: Limits | None = None, greeting: Hello | None = None) -> Side:
    """Make a side that received the request of exchange 2."""
    side = Side(limits=limits, greeting=greeting or hello())
    assert side.take(2, request) == [RequestReceived(2, request)]
    return side


def breaks(side: Side, exchange_id: int, message: Message) -> str:
    """Let an envelope arrive that breaks the protocol; return the reason that the peer is told."""
    *_, broken = side.take(exchange_id, message)
    assert isinstance(broken, Broken)
    *_, (none, goaway) = side.sent()
    assert none == 0
    assert isinstance(goaway, Goaway)
    assert goaway.reason == Goaway.PROTOCOL_ERROR
    assert goaway.message == str(broken.error)
    assert side.take(exchange_id, message) == []
    return goaway.message


def _copy(message: Request) -> Request:
    copied = Request()
    copied.CopyFrom(message)
    return copied


# Handshake


def test_the_hello_is_sent_at_once_and_tells_what_the_node_grants() -> None:
    side = Side(limits=Limits(initial_window=20_000, max_exchanges=7, max_frame_bytes=70_000), greeting=None)
    assert side.sent() == [
        (
            0,
            Hello(
                revision=1,
                software="restpipe/1.0",
                initial_window=20_000,
                max_exchanges=7,
                max_frame_bytes=70_000,
            ),
        )
    ]


def test_the_hello_of_the_peer_makes_the_pipe_ready() -> None:
    side = Side(greeting=None)
    accepts = [side.core.accepts_requests]
    assert side.take(0, hello()) == [PeerReady(hello())]
    accepts.append(side.core.accepts_requests)
    assert accepts == [False, True]
    assert side.core.peer_hello == hello()


def test_peers_that_differ_in_what_they_remember_alone_share_their_hello() -> None:
    sides = [Side(greeting=None) for _ in "12"]
    for number, side in enumerate(sides):
        greeting = hello()
        greeting.remembers = str(number)
        side.take(0, greeting)
    assert [side.core.peer_remembers for side in sides] == ["0", "1"]
    assert sides[0].core.peer_hello is sides[1].core.peer_hello


def test_nothing_is_opened_before_the_hello_of_the_peer() -> None:
    side = Side(greeting=None)
    with pytest.raises(PeerRefusedError):
        side.core.open(_copy(GET))


@pytest.mark.parametrize("message", [GET, OK, Chunk(), Credit(bytes=1), Cancel(), Ping(), Pong()])
def test_nothing_but_a_goaway_may_come_before_the_hello(message: Message) -> None:
    assert "before the hello" in breaks(Side(greeting=None), 0, message)


def test_a_goaway_may_come_before_the_hello() -> None:
    side = Side(greeting=None)
    refusal = Goaway(reason=Goaway.PROTOCOL_ERROR, message="revision")
    assert side.take(0, refusal) == [PeerLeaving(Goaway.PROTOCOL_ERROR, "revision", at_once=True)]


def test_a_second_hello_breaks_the_protocol() -> None:
    assert breaks(Side(), 0, hello()) == "hello of exchange 0: a second one"


def test_a_peer_of_another_revision_is_told_both_revisions() -> None:
    reason = breaks(Side(greeting=None), 0, hello(revision=9))
    assert "revision 1 " in reason
    assert reason.endswith(" 9")


def test_a_hello_may_be_as_large_as_a_first_frame_whatever_the_node_accepts_later() -> None:
    small = Limits(max_frame_bytes=65536)
    greeting = hello()
    greeting.manifest.add(doc=FIRST_FRAME_BYTES // 2 * "x")
    side = Side(limits=small, greeting=None)
    assert side.take(0, greeting) == [PeerReady(greeting)]
    assert f"a frame of {len(frame(envelope(0, greeting)))} bytes, 65536 are accepted" in breaks(side, 0, greeting)
    greeting.manifest.add(doc=FIRST_FRAME_BYTES // 2 * "x")
    assert f"{FIRST_FRAME_BYTES} are accepted" in breaks(Side(limits=small, greeting=None), 0, greeting)


def test_the_manifest_travels_in_the_hello() -> None:
    side = connection()
    served = Event(verb="get", noun="time")
    told = type(side)(dials=True, limits=Limits(), hello=Hello(manifest=[served]), now=0.0).next_frame()
    assert told is not None
    assert list(Frame.FromString(told).envelopes[0].hello.manifest) == [served]


# Frames


def test_a_frame_that_does_not_parse_breaks_the_protocol() -> None:
    side = Side()
    (broken,) = side.core.receive(b"\xff\xff\xff", 0.0)
    assert isinstance(broken, Broken)
    assert str(broken.error) == "a frame of 3 bytes does not parse"


def test_a_frame_without_an_envelope_breaks_the_protocol() -> None:
    side = Side()
    (broken,) = side.core.receive(b"", 0.0)
    assert isinstance(broken, Broken)
    assert str(broken.error) == "a frame without an envelope"


def test_a_frame_larger_than_what_is_accepted_breaks_the_protocol() -> None:
    side = Side(limits=Limits(max_frame_bytes=65536))
    (broken,) = side.core.receive(bytes(65537), 0.0)
    assert isinstance(broken, Broken)
    assert str(broken.error) == "a frame of 65537 bytes, 65536 are accepted"


def test_an_envelope_of_unknown_kind_breaks_the_protocol() -> None:
    side = Side()
    (broken,) = side.core.receive(frame(Envelope()), 0.0)
    assert isinstance(broken, Broken)
    assert str(broken.error) == "None of exchange 0: an envelope of unknown kind"


def test_unknown_fields_are_ignored() -> None:
    unknown = b"\xfa\x7f\x01x"
    sealed = envelope(0, Ping(id=3)).SerializeToString() + unknown
    data = b"\x0a" + bytes([len(sealed)]) + sealed + unknown
    side = Side()
    assert side.core.receive(data, 0.0) == []
    assert side.sent() == [(0, Pong(id=3))]


@pytest.mark.parametrize("message", [hello(), Ping(), Pong(), Goaway()])
def test_what_belongs_to_the_pipe_names_no_exchange(message: Message) -> None:
    side = Side(greeting=None if isinstance(message, Hello) else hello())
    assert "it belongs to no exchange" in breaks(side, 2, message)


def test_what_came_before_the_broken_rule_in_a_frame_counts_and_what_came_after_does_not() -> None:
    side = Side()
    first, second, broken = side.core.receive(
        frame(envelope(2, GET), envelope(4, GET), envelope(4, GET), envelope(6, GET)), 0.0
    )
    assert (first, second) == (RequestReceived(2, GET), RequestReceived(4, GET))
    assert isinstance(broken, Broken)
    ((_, goaway),) = side.sent()
    assert isinstance(goaway, Goaway)
    assert goaway.last_exchange_id == 4


def test_a_peer_that_makes_control_wait_without_end_breaks_the_protocol() -> None:
    side = Side()
    flood = frame(*(MAX_ENVELOPES * [envelope(0, Ping())]))
    for _ in range(MAX_CONTROL_DEPTH // MAX_ENVELOPES):
        assert side.core.receive(flood, 0.0) == []
    (broken,) = side.core.receive(flood, 0.0)
    assert isinstance(broken, Broken)
    assert "does not read" in str(broken.error)


# Opening and answering


def test_ids_are_odd_on_the_dialling_side_and_even_on_the_accepting_side() -> None:
    for dials, ids in ((True, [1, 3, 5]), (False, [2, 4, 6])):
        core = Side(dials=dials).core
        assert [core.open(_copy(GET)) for _ in ids] == ids


@pytest.mark.parametrize("dials", [True, False])
def test_a_request_and_its_response_are_an_exchange(dials: bool) -> None:
    side = Side(dials=dials)
    exchange_id = side.core.open(_copy(GET))
    assert side.core.queued == 1
    assert side.sent() == [(exchange_id, GET)]
    assert (side.core.in_flight, side.core.queued) == (1, 0)
    assert side.take(exchange_id, OK) == [ResponseReceived(exchange_id, OK)]
    assert side.core.in_flight == 0

    theirs = 3 - exchange_id
    assert side.take(theirs, GET) == [RequestReceived(theirs, GET)]
    assert side.core.in_flight == 1
    side.core.respond(theirs, Response(status=200))
    assert side.sent() == [(theirs, OK)]
    assert side.core.in_flight == 0


def test_an_exchange_is_in_the_table_until_its_response_has_left() -> None:
    side = handling(limits=Limits(max_exchanges=1))
    side.core.respond(2, Response(status=200))
    assert side.core.in_flight == 1
    # A peer that floods requests and reads no response makes nothing grow.
    assert breaks(side, 4, GET) == "request of exchange 4: more than 1 exchanges"


def test_a_body_that_ends_before_its_head_has_left_ends_with_a_chunk_as_the_head_announced() -> None:
    side = Side()
    side.core.open(_copy(UPLOAD))
    side.core.send_body(1, b"", more=False)
    assert side.sent() == [(1, UPLOAD), (1, Chunk())]


def test_a_request_is_answered_once() -> None:
    side = handling()
    side.core.respond(2, Response(status=200, more=True))
    side.core.respond(2, Response(status=500))
    side.core.send_body(2, b"end", more=False)
    side.core.send_body(2, b"after the end", more=True)
    assert side.sent() == [(2, OK_AND_MORE), (2, Chunk(data=b"end"))]
    side.core.respond(2, Response(status=200))
    assert side.sent() == []


def test_no_body_is_sent_before_its_head() -> None:
    side = handling()
    side.core.send_body(2, b"early", more=False)
    side.core.respond(2, Response(status=200))
    assert side.sent() == [(2, OK)]


def test_a_call_is_not_answered_by_its_caller() -> None:
    side = calling(UPLOAD)
    side.core.respond(1, Response(status=200))
    assert side.sent() == []


def test_exchanges_that_are_over_or_were_never_opened_can_be_spoken_of_without_effect() -> None:
    core = Side().core
    for exchange_id in (1, 2):
        core.respond(exchange_id, Response(status=200))
        core.send_body(exchange_id, b"data", more=False)
        core.consume(exchange_id, 1_000_000, 0.0)
        core.cancel(exchange_id, "")
        assert not core.is_open(exchange_id)
        assert not core.is_unsent(exchange_id)
        assert core.wants_more(exchange_id)
    assert core.next_frame() is None


def test_a_half_is_open_until_its_last_piece_is_given() -> None:
    side = handling()
    assert side.core.is_open(2)
    side.core.respond(2, Response(status=200, more=True))
    assert side.core.is_open(2)
    side.core.send_body(2, b"", more=False)
    assert not side.core.is_open(2)


def test_an_exchange_is_unsent_until_its_head_is_in_a_frame() -> None:
    side = Side()
    side.core.open(_copy(GET))
    assert side.core.is_unsent(1)
    side.sent()
    assert not side.core.is_unsent(1)


def test_a_side_opens_no_more_exchanges_than_the_peer_permits() -> None:
    side = Side(greeting=hello(max_exchanges=2))
    side.core.open(_copy(GET))
    side.core.open(_copy(GET))
    with pytest.raises(TooManyExchangesError, match="2 exchanges are in flight"):
        side.core.open(_copy(GET))
    side.sent()
    side.take(1, OK)
    assert side.core.open(_copy(GET)) == 5


def test_the_exchanges_of_the_peer_do_not_count_against_this_sides_own() -> None:
    side = Side(greeting=hello(max_exchanges=1), limits=Limits(max_exchanges=1))
    side.take(2, GET)
    assert side.core.open(_copy(GET)) == 1


def test_a_peer_that_opens_more_exchanges_than_permitted_breaks_the_protocol() -> None:
    side = Side(limits=Limits(max_exchanges=2))
    side.core.open(_copy(GET))
    side.take(2, GET)
    side.take(4, GET)
    assert breaks(side, 6, GET) == "request of exchange 6: more than 2 exchanges"


@pytest.mark.parametrize(("dials", "wrong"), [(True, 1), (True, 0), (False, 2), (False, 0)])
def test_a_request_with_an_id_that_the_peer_may_not_choose_breaks_the_protocol(dials: bool, wrong: int) -> None:
    assert "an id that the peer may not choose" in breaks(Side(dials=dials), wrong, GET)


@pytest.mark.parametrize("reused", [2, 4])
def test_a_request_with_an_id_that_does_not_rise_breaks_the_protocol(reused: int) -> None:
    side = Side()
    side.take(4, GET)
    assert breaks(side, reused, GET) == f"request of exchange {reused}: an id that is not above 4"


def test_ids_may_leave_gaps_up_to_the_largest() -> None:
    side = Side()
    largest = 2**64 - 2
    assert side.take(1000, GET) == [RequestReceived(1000, GET)]
    assert side.take(largest, GET) == [RequestReceived(largest, GET)]
    side.core.respond(largest, Response(status=200))
    assert side.sent() == [(largest, OK)]


# Heads


def test_a_request_that_does_not_fit_the_peers_frames_is_refused_before_it_counts() -> None:
    side = Side(greeting=hello(max_frame_bytes=65536, max_exchanges=1))
    with pytest.raises(HeadersTooLargeError, match=r"the head of the request takes \d+ bytes, the peer accepts 65536"):
        side.core.open(Request(headers=[Header(name="n", value=65536 * "v")]))
    assert side.core.in_flight == 0
    assert side.core.open(_copy(GET)) == 1


def test_a_response_that_does_not_fit_the_peers_frames_leaves_the_exchange_waiting_for_one() -> None:
    side = handling(greeting=hello(max_frame_bytes=65536))
    with pytest.raises(BadResultError, match="the head of the response"):
        side.core.respond(2, Response(status=200, headers=[Header(name="n", value=65536 * "v")], body=b"lost"))
    assert side.core.is_open(2)
    failure = Response(failure=Failure(kind=Failure.BAD_RESULT))
    side.core.respond(2, failure)
    assert side.sent() == [(2, failure)]


def test_a_head_that_fits_the_peers_frames_leaves_however_small_this_sides_own_are() -> None:
    side = Side(limits=Limits(frame_bytes=4096))
    request = Request(headers=[Header(name="n", value=100_000 * "v")])
    side.core.open(_copy(request))
    assert side.sent() == [(1, request)]


def test_what_is_too_long_to_travel_inline_is_moved_into_chunks() -> None:
    body = bytes(range(256)) * 100
    side = Side()
    side.core.open(Request(verb="put", body=body))
    assert side.core._exchanges._by_id[1].buffered == len(body) - INLINE_BYTES
    assert side.sent() == [
        (1, Request(verb="put", body=body[:INLINE_BYTES], more=True)),
        (1, Chunk(data=body[INLINE_BYTES:])),
    ]
    assert side.core.take_wanting() == []
    side.core.open(Request(verb="put", body=body, more=True))
    *_, last = side.sent()
    assert last == (3, Chunk(data=body[INLINE_BYTES:], more=True))
    assert side.core.take_wanting() == [3]


def test_what_fits_inline_travels_in_one_envelope() -> None:
    side = handling()
    side.core.respond(2, Response(status=200, body=bytes(INLINE_BYTES)))
    assert side.sent() == [(2, Response(status=200, body=bytes(INLINE_BYTES)))]


@pytest.mark.parametrize("status", [0, 199, 600, 2**32 - 1])
def test_a_response_without_a_status_of_http_breaks_the_protocol(status: int) -> None:
    assert breaks(calling(), 1, Response(status=status)) == f"response of exchange 1: status {status}"


@pytest.mark.parametrize("status", [200, 599])
def test_every_status_of_http_is_taken(status: int) -> None:
    assert calling().take(1, Response(status=status)) == [ResponseReceived(1, Response(status=status))]


def test_a_failure_needs_no_status_and_has_no_body() -> None:
    failure = Failure(kind=Failure.RAISED)
    assert calling().take(1, Response(failure=failure)) == [ResponseReceived(1, Response(failure=failure))]
    assert "a failure with a body" in breaks(calling(), 1, Response(failure=failure, body=b"b"))
    assert "a failure with a body" in breaks(calling(), 1, Response(failure=failure, more=True))


def test_a_second_response_breaks_the_protocol() -> None:
    side = calling()
    side.take(1, OK_AND_MORE)
    assert breaks(side, 1, OK) == "response of exchange 1: a second one"


def test_a_response_to_the_peers_own_request_breaks_the_protocol() -> None:
    assert breaks(handling(), 2, OK) == "response of exchange 2: it answers the peer's own request"


# Rule 4: envelopes of exchanges that are over or were never opened


@pytest.mark.parametrize("message", [OK, Chunk(data=b"1")])
def test_body_and_responses_of_an_exchange_that_is_over_break_the_protocol(message: Message) -> None:
    side = calling()
    side.take(1, OK)
    assert breaks(side, 1, message).endswith("of exchange 1: the exchange is over")
    side = handling()
    side.core.respond(2, Response(status=200))
    side.sent()
    assert breaks(side, 2, message).endswith("of exchange 2: the exchange is over")


@pytest.mark.parametrize("message", [Credit(bytes=1), Credit(), Cancel()])
def test_credit_and_cancel_of_an_exchange_that_is_over_are_ignored(message: Message) -> None:
    side = calling()
    side.take(1, OK)
    assert side.take(1, message) == []
    side = handling()
    side.core.respond(2, Response(status=200))
    side.sent()
    assert side.take(2, message) == []
    assert side.sent() == []


@pytest.mark.parametrize("dials", [True, False])
@pytest.mark.parametrize("message", [OK, Chunk(data=b"1"), Credit(bytes=1), Cancel()])
@pytest.mark.parametrize("exchange_id", [0, 1, 2, 7, 8, 2**64 - 1, 2**64 - 2])
def test_envelopes_of_an_exchange_that_was_never_opened_break_the_protocol(
    dials: bool, message: Message, exchange_id: int
) -> None:
    assert breaks(Side(dials=dials), exchange_id, message).endswith("the exchange was never opened")


@pytest.mark.parametrize("message", [OK, Chunk(data=b"1"), Credit(bytes=1), Cancel()])
def test_envelopes_of_a_request_that_has_not_left_break_the_protocol(message: Message) -> None:
    side = Side()
    side.core.open(_copy(UPLOAD))
    assert "the exchange was never opened" in breaks(side, 1, message)


def test_a_chunk_before_its_head_breaks_the_protocol() -> None:
    assert breaks(calling(), 1, Chunk(data=b"1")) == "chunk of exchange 1: before its head"


def test_a_chunk_after_the_end_of_its_half_breaks_the_protocol() -> None:
    assert breaks(handling(), 2, Chunk(data=b"1")) == "chunk of exchange 2: after the end of its half"
    side = handling(UPLOAD)
    side.take(2, Chunk(data=b"1"))
    assert breaks(side, 2, Chunk()) == "chunk of exchange 2: after the end of its half"


def test_a_chunk_that_carries_nothing_breaks_the_protocol() -> None:
    assert breaks(handling(UPLOAD), 2, Chunk(more=True)) == "chunk of exchange 2: it carries nothing"


# Bodies and credit


def test_a_body_arrives_piece_by_piece() -> None:
    side = handling(UPLOAD)
    assert side.take(2, Chunk(data=b"one", more=True)) == [BodyReceived(2, b"one", more=True)]
    assert side.take(2, Chunk(data=b"two")) == [BodyReceived(2, b"two", more=False)]
    side = calling()
    side.take(1, OK_AND_MORE)
    assert side.take(1, Chunk()) == [BodyReceived(1, b"", more=False)]
    assert side.core.in_flight == 0


def test_body_in_a_head_counts_against_the_window_as_in_a_chunk() -> None:
    limits = Limits(initial_window=16384)
    beyond = "bytes of body where the credit was"
    assert beyond in breaks(Side(limits=limits), 2, Request(body=bytes(16385)))
    assert beyond in breaks(calling(limits=limits), 1, Response(status=200, body=bytes(16385)))
    side = handling(Request(body=bytes(16384), more=True), limits=limits)
    assert beyond in breaks(side, 2, Chunk(data=b"1"))
    side = calling(limits=limits)
    side.take(1, Response(status=200, body=bytes(16384), more=True))
    assert beyond in breaks(side, 1, Chunk(data=b"1"))


def test_a_sender_stops_where_its_credit_ends_and_continues_where_it_grows() -> None:
    side = Side(greeting=hello(initial_window=20_000))
    side.core.open(Request(body=bytes(30_000)))
    assert sum(len(m.body) if isinstance(m, Request) else len(m.data) for _, m in _bodies(side)) == 20_000
    assert side.core._exchanges._by_id[1].buffered == 10_000
    assert side.take(1, Credit(bytes=9_999)) == []
    assert side.sent() == [(1, Chunk(data=bytes(9_999), more=True))]
    side.take(1, Credit(bytes=1))
    assert side.sent() == [(1, Chunk(data=bytes(1)))]


def _bodies(side: Side) -> list[tuple[int, Request | Chunk]]:
    return [(i, m) for i, m in side.sent() if isinstance(m, Request | Chunk)]


WAITING = Request(verb="put", noun="blob", more=True, awaits_credit=True)


def test_a_body_that_awaits_credit_leaves_once_the_peer_grants_some() -> None:
    side = calling(WAITING)
    assert side.core.awaits_credit(1)
    side.core.send_body(1, b"body", more=True)
    assert side.sent() == []
    assert side.core.take_wanting() == []
    side.take(1, Credit(bytes=3))
    assert not side.core.awaits_credit(1)
    assert side.core.take_wanting() == [1]
    assert side.sent() == [(1, Chunk(data=b"bod", more=True))]
    side.take(1, Credit(bytes=3))
    assert side.sent() == [(1, Chunk(data=b"y", more=True))]


def test_no_other_body_awaits_credit() -> None:
    assert not calling(UPLOAD).core.awaits_credit(1)
    assert not Side().core.awaits_credit(1)


def test_a_body_that_awaits_credit_is_asked_for_by_the_window() -> None:
    side = handling(WAITING, limits=Limits(initial_window=20_000))
    assert side.sent() == []
    side.core.want_body(2)
    assert side.sent() == [(2, Credit(bytes=20_000))]
    assert side.take(2, Chunk(data=bytes(20_000), more=True)) == [BodyReceived(2, bytes(20_000), True)]
    assert "credit was 0" in breaks(side, 2, Chunk(data=b"x"))


def test_a_body_that_nobody_will_read_is_not_asked_for() -> None:
    side = handling(WAITING)
    side.core.respond(2, OK)
    assert side.sent() == [(2, OK)]
    side.core.want_body(2)
    side.core.want_body(4)
    assert side.sent() == []


@pytest.mark.parametrize("early", [Chunk(data=b"x"), Request(more=True, awaits_credit=True, body=b"x")])
def test_a_body_that_comes_unasked_breaks_the_protocol(early: Chunk | Request) -> None:
    side = handling(WAITING) if isinstance(early, Chunk) else Side()
    assert "1 bytes of body where the credit was 0" in breaks(side, 2, early)


def test_a_slow_reader_stalls_no_other_exchange() -> None:
    side = Side(greeting=hello(initial_window=16384))
    stalled = side.core.open(Request(body=bytes(100_000)))
    flowing = side.core.open(Request(body=bytes(100_000)))
    side.sent()
    for _ in range(10):
        side.take(flowing, Credit(bytes=16384))
    assert {exchange_id for exchange_id, _ in side.sent()} == {flowing}
    assert side.core._exchanges._by_id[flowing].buffered == 0
    assert side.core._exchanges._by_id[stalled].buffered == 100_000 - 16384


def test_credit_of_nothing_or_beyond_the_largest_window_breaks_the_protocol() -> None:
    assert "a credit of 0 bytes" in breaks(calling(UPLOAD), 1, Credit())
    assert "exceed 2147483647" in breaks(calling(UPLOAD), 1, Credit(bytes=2**31 - 65536))
    assert calling(UPLOAD).take(1, Credit(bytes=2**31 - 1 - 65536)) == []


def test_credit_for_a_half_that_has_ended_is_ignored() -> None:
    side = calling()
    assert side.take(1, Credit(bytes=2**32 - 1)) == []
    assert side.sent() == []


def test_credit_is_granted_as_bytes_are_consumed_and_not_as_they_arrive() -> None:
    side = handling(UPLOAD, limits=Limits(initial_window=20_000, max_window=20_000))
    side.take(2, Chunk(data=bytes(20_000), more=True))
    assert side.sent() == []
    side.core.consume(2, 4_999, 0.0)
    assert side.sent() == []
    side.core.consume(2, 1, 0.0)
    assert side.sent() == [(0, Ping(id=1)), (2, Credit(bytes=5_000))]
    side.take(2, Chunk(data=bytes(5_000), more=True))


def test_no_credit_is_granted_once_no_more_can_come() -> None:
    side = handling(UPLOAD)
    side.take(2, Chunk(data=bytes(65536)))
    side.core.consume(2, 65536, 0.0)
    assert side.sent() == []


def test_no_credit_is_granted_for_what_nobody_wants() -> None:
    side = handling(UPLOAD)
    side.take(2, Chunk(data=bytes(65536), more=True))
    side.core.respond(2, Response(status=200))
    side.sent()
    side.core.consume(2, 65536, 0.0)
    assert side.sent() == []


def test_the_first_body_that_earns_credit_asks_for_the_round_trip_and_no_other_does() -> None:
    side = handling(UPLOAD)
    side.take(4, UPLOAD)
    for exchange_id in (2, 4):
        side.take(exchange_id, Chunk(data=bytes(65536), more=True))
    side.core.consume(2, 65536, 1.0)
    assert side.sent() == [(0, Ping(id=1)), (2, Credit(bytes=65536))]
    assert side.take(0, Pong(id=1), 1.25) == [PongReceived(0.25)]
    assert side.core._growth.round_trip == 0.25
    side.core.consume(4, 65536, 2.0)
    assert side.sent() == [(4, Credit(bytes=65536))]


def test_windows_grow_within_the_budget_and_give_it_back() -> None:
    side = Side(limits=Limits(initial_window=16384, window_budget=40_000))
    for exchange_id, growth in ((2, 16384), (4, (40_000 - 16384) // 2)):
        assert _credit_of_a_body(side, exchange_id) == 3 * 16384 + growth
    side.take(2, Cancel())
    side.take(4, Cancel())
    side.sent()
    assert side.core._growth.available == 40_000


def _credit_of_a_body(side: Side, exchange_id: int) -> int:
    """Let three windows of a body be consumed at once; return the credit."""
    side.take(exchange_id, Request(body=bytes(16384), more=True))
    granted = 0
    for _ in range(3):
        side.core.consume(exchange_id, 16384, 0.0)
        for _, message in side.sent():
            if isinstance(message, Credit):
                granted += message.bytes
            else:
                side.take(0, Pong(id=1))
        side.take(exchange_id, Chunk(data=bytes(16384), more=True))
    return granted


def test_a_frame_of_more_envelopes_than_a_turn_is_to_take_breaks_the_protocol() -> None:
    side = Side()
    assert side.core.receive(frame(*(MAX_ENVELOPES * [envelope(0, Ping(id=1))])), 0.0) == []
    assert len(side.sent()) == MAX_ENVELOPES
    *_, broken = side.core.receive(frame(*((MAX_ENVELOPES + 1) * [envelope(0, Ping(id=1))])), 0.0)
    assert isinstance(broken, Broken)
    assert str(broken.error) == f"a frame of {MAX_ENVELOPES + 1} envelopes, {MAX_ENVELOPES} are accepted"


# What the peer costs


def heavy(size: int, **fields: Any) -> Request:
    """Make a request whose head has about so many bytes."""
    return Request(verb="get", noun="time", headers=[Header(name="x", value="y" * size)], **fields)


def held(side: Side) -> int:
    return side.core._holds.held


def test_requests_are_taken_until_the_frames_that_they_came_in_are_too_large_together() -> None:
    side = Side(dials=False)
    size = 200_000
    taken = MAX_HEADS // size
    for exchange_id in range(1, 2 * taken + 1, 2):
        assert side.take(exchange_id, heavy(size)) == [RequestReceived(exchange_id, heavy(size))]
    assert side.take(1001, heavy(size)) == []
    ((exchange_id, refusal),) = side.sent()
    assert isinstance(refusal, Response)
    assert (exchange_id, refusal.failure.kind) == (1001, Failure.BUSY)
    assert side.core.in_flight == taken
    assert side.core.nuisance.owed > 0


def test_what_an_exchange_kept_is_free_again_when_it_is_over() -> None:
    side = Side()
    ids = range(2, 202, 2)
    for exchange_id in ids:
        side.take(exchange_id, heavy(100_000))
    assert held(side) > SHARED_FRAMES
    side.sent()
    for exchange_id in ids:
        side.take(exchange_id, Cancel())
    assert held(side) == 0
    assert side.take(300, heavy(100_000)) == [RequestReceived(300, heavy(100_000))]


def test_a_frame_counts_once_and_until_the_last_of_its_requests_is_over() -> None:
    side = Side()
    data = frame(envelope(2, GET), envelope(4, heavy(100_000)), envelope(4, Cancel()), envelope(6, GET))
    side.core.receive(data, 0.0)
    assert held(side) == len(data)
    side.take(2, Cancel())
    assert held(side) == len(data)
    side.take(6, Cancel())
    assert held(side) == 0


def test_a_frame_whose_requests_are_over_within_it_counts_for_those_that_follow() -> None:
    side = Side()
    data = frame(envelope(2, heavy(100_000)), envelope(2, Cancel()), envelope(4, GET))
    side.core.receive(data, 0.0)
    assert held(side) == len(data)


def test_a_small_request_beside_much_that_is_over_does_not_keep_it_once_that_is_too_much() -> None:
    side = Side()
    last = 0
    for exchange_id in range(2, 402, 4):
        bloat = envelope(exchange_id, heavy(200_000))
        side.core.receive(frame(bloat, envelope(exchange_id, Cancel()), envelope(exchange_id + 2, GET)), 0.0)
        last = exchange_id + 2
    assert held(side) < SHARED_FRAMES + 300_000
    assert side.core.is_open(last)


def test_bodies_that_travel_inline_are_not_counted_for_they_have_credit() -> None:
    side = Side()
    body = bytes(60_000)
    for exchange_id in range(2, 1002, 2):
        assert side.take(exchange_id, Request(verb="put", noun="blob", body=body))[0].request.body == body  # type: ignore[union-attr]
    assert held(side) < SHARED_FRAMES + 100_000


def test_a_request_that_is_refused_for_its_size_may_have_a_body_that_goes_nowhere() -> None:
    side = Side()
    for exchange_id in range(2, 202, 2):
        side.take(exchange_id, heavy(200_000))
    side.sent()
    assert side.take(300, heavy(200_000, more=True)) == []
    side.sent()
    assert side.take(300, Chunk(data=b"a", more=True)) == []
    assert side.take(300, Cancel()) == []
    assert not side.core.is_open(300)


def bloated(kind: type[Any], field: str, number: int) -> Any:
    """Make a head with a field that is there so often."""
    part = {"headers": Header(name="x" * 16), "query": Parameter(name="x" * 16), "arguments": "x" * 16}[field]
    return kind(**{field: [part] * number})


@pytest.mark.parametrize("field", ["headers", "query", "arguments"])
def test_a_request_of_too_many_parts_breaks_the_protocol(field: str) -> None:
    assert isinstance(Side().take(2, bloated(Request, field, MAX_PARTS))[0], RequestReceived)
    assert f"{MAX_PARTS + 1} headers, parameters or arguments" in breaks(
        Side(), 2, bloated(Request, field, MAX_PARTS + 1)
    )


def test_a_response_of_too_many_headers_breaks_the_protocol() -> None:
    answer = bloated(Response, "headers", MAX_PARTS)
    answer.status = 200
    assert isinstance(calling().take(1, answer)[0], ResponseReceived)
    answer.headers.add()
    assert f"{MAX_PARTS + 1} headers" in breaks(calling(), 1, answer)


@pytest.mark.parametrize("field", ["headers", "query", "arguments"])
def test_a_request_of_too_many_parts_is_not_sent(field: str) -> None:
    side = Side()
    with pytest.raises(HeadersTooLargeError, match=f"{MAX_PARTS + 1} headers, parameters or arguments"):
        side.core.open(bloated(Request, field, MAX_PARTS + 1))
    assert side.core.open(bloated(Request, field, MAX_PARTS)) == 1


def test_a_response_of_too_many_headers_is_not_sent() -> None:
    side = handling()
    with pytest.raises(BadResultError, match=f"{MAX_PARTS + 1} headers"):
        side.core.respond(2, bloated(Response, "headers", MAX_PARTS + 1))
    side.core.respond(2, OK)
    assert side.sent() == [(2, OK)]


@pytest.mark.parametrize(
    "manifest",
    [
        [Event()] * (MAX_MANIFEST + 1),
        [Event(arguments=[Argument()] * MAX_MANIFEST)],
        [Event(allow=[""] * MAX_MANIFEST)],
    ],
)
def test_a_manifest_without_measure_breaks_the_protocol(manifest: list[Event]) -> None:
    greeting = hello()
    greeting.manifest.extend(manifest)
    assert "a manifest of more than" in breaks(Side(greeting=None), 0, greeting)


def test_a_manifest_may_be_as_large_as_is_said() -> None:
    greeting = hello()
    greeting.manifest.extend([Event()] * MAX_MANIFEST)
    assert Side(greeting=greeting).core.peer_hello == greeting


def owed(side: Side) -> float:
    """Return what the peer owes since the last time."""
    seconds, side.core.nuisance.owed = side.core.nuisance.owed, 0.0
    return seconds


def test_what_a_client_does_for_nothing_adds_up() -> None:
    side = Side(dials=False)
    side.take(1, GET)
    assert owed(side) == 0
    side.take(0, Ping())
    ping = owed(side)
    assert ping > 0
    side.take(1, Credit(bytes=1))
    assert 0 < owed(side) < ping
    side.take(1, Cancel())
    cancel = owed(side)
    assert cancel > ping
    side.take(1, Cancel())
    side.take(1, Cancel())
    assert owed(side) == pytest.approx(2 * cancel)
    side.core.nuisance.refusal()
    assert owed(side) == REFUSAL_COST


def test_what_a_client_has_passed_on_for_nothing_weighs_more_at_its_server() -> None:
    side = Side(dials=False)
    for exchange_id, to in ((1, ""), (3, "another")):
        side.take(exchange_id, Request(verb="get", to=to, timeout_ms=1000))
        side.take(exchange_id, Cancel())
        assert owed(side) == pytest.approx(CANCEL_COST * (PASSED_ON if to else 1))
    side.core.nuisance.refusal(passed_on=True)
    assert owed(side) == pytest.approx(REFUSAL_COST * PASSED_ON)


def test_a_frame_is_taken_in_as_many_turns_as_its_driver_wants() -> None:
    side = Side(dials=False)
    ids = (1, 3, 5, 7, 9)
    data = frame(*(envelope(each, GET) for each in ids))
    turns = [side.core.receive(data, 0, 2)]
    while side.core.unread:
        turns.append(side.core.receive_rest(0, 2))
    assert [len(turn) for turn in turns] == [2, 2, 1]
    assert [event for turn in turns for event in turn] == [RequestReceived(each, GET) for each in ids]


def test_nothing_of_a_frame_is_taken_after_what_breaks_the_protocol() -> None:
    side = Side(dials=False)
    data = frame(*(envelope(each, GET) for each in (1, 1, 3, 5)))
    arrived = side.core.receive(data, 0, 2)
    assert [type(event) for event in arrived] == [RequestReceived, Broken]
    assert not side.core.unread


def test_what_a_server_asks_for_weighs_less_for_it_may_be_for_others() -> None:
    side = handling()
    side.take(2, Cancel())
    assert owed(side) == pytest.approx(CANCEL_COST * FOR_OTHERS)
    side.core.nuisance.refusal()
    assert owed(side) == pytest.approx(REFUSAL_COST * FOR_OTHERS)
    side.take(0, Ping())
    assert owed(side) == PING_COST


def test_the_cancel_that_confirms_ones_own_is_not_held_against_the_peer() -> None:
    side = Side(dials=False)
    assert side.core.open(_copy(GET)) == 2
    side.sent()
    side.core.cancel(2, "the caller went away")
    side.take(2, Cancel())
    assert owed(side) == 0
    side.take(2, Cancel())
    assert owed(side) > 0


# Rules 1 to 3: cancel


def test_a_caller_that_cancels_hears_no_more_and_stays_until_the_handler_ended() -> None:
    side = calling(UPLOAD, greeting=hello(max_exchanges=1))
    side.core.send_body(1, bytes(100_000), more=True)
    side.core.cancel(1, "gone")
    assert side.sent() == [(1, Cancel(message="gone"))]
    assert side.take(1, OK_AND_MORE) == []
    assert side.take(1, Chunk(data=bytes(65536), more=True)) == []
    side.core.consume(1, 65536, 0.0)
    assert side.sent() == []
    with pytest.raises(TooManyExchangesError):
        side.core.open(_copy(GET))
    assert side.take(1, Chunk()) == []
    assert side.core.in_flight == 0
    assert side.core.open(_copy(GET)) == 3


def test_a_caller_cancels_though_its_half_has_ended() -> None:
    side = calling()
    side.core.cancel(1, "gone")
    side.core.cancel(1, "gone again")
    assert side.sent() == [(1, Cancel(message="gone"))]
    assert side.take(1, Cancel()) == []
    assert side.core.in_flight == 0


def test_what_was_discarded_still_counts_against_the_window() -> None:
    side = calling()
    side.core.cancel(1, "gone")
    side.take(1, OK_AND_MORE)
    assert "bytes of body where the credit was" in breaks(side, 1, Chunk(data=bytes(65537)))


def test_a_request_that_is_cancelled_before_it_left_never_leaves() -> None:
    side = Side(greeting=hello(max_exchanges=1))
    for _ in range(10):
        exchange_id = side.core.open(Request(body=bytes(100_000)))
        side.core.cancel(exchange_id, "gone")
        assert side.core.in_flight == 0
    assert side.sent() == []
    assert not side.core._outbox._heads
    assert side.core.open(_copy(GET)) == 21
    assert side.sent() == [(21, GET)]


def test_a_handler_that_hears_a_cancel_ends_its_half_with_one() -> None:
    side = handling()
    assert side.take(2, Cancel(message="gone")) == [Cancelled(2, "gone")]
    assert side.sent() == [(2, Cancel(message="cancelled by the peer"))]
    assert side.core.in_flight == 0


def test_a_response_that_has_not_left_gives_way_to_the_cancel() -> None:
    side = handling()
    side.core.respond(2, Response(status=200, body=bytes(100_000)))
    assert side.take(2, Cancel()) == [Cancelled(2, "")]
    assert side.sent() == [(2, Cancel(message="cancelled by the peer"))]
    assert not side.core._outbox._heads


def test_a_caller_that_hears_a_cancel_ends_its_open_half_with_one() -> None:
    side = calling(UPLOAD)
    side.core.send_body(1, bytes(100), more=True)
    assert side.take(1, Cancel(message="no")) == [Cancelled(1, "no")]
    assert side.sent() == [(1, Cancel(message="cancelled by the peer"))]
    assert side.core.in_flight == 0


def test_a_caller_that_hears_a_cancel_after_its_half_has_ended_answers_nothing() -> None:
    side = calling()
    assert side.take(1, Cancel(message="no")) == [Cancelled(1, "no")]
    assert side.sent() == []
    assert side.core.in_flight == 0


def test_a_handler_that_cancels_stays_until_the_caller_ended() -> None:
    side = handling(UPLOAD)
    side.core.respond(2, Response(status=200, more=True))
    side.core.send_body(2, b"piece", more=True)
    side.core.cancel(2, "broken")
    assert side.sent() == [(2, Cancel(message="broken"))]
    assert side.take(2, Chunk(data=b"late", more=True)) == []
    assert side.core.in_flight == 1
    assert side.take(2, Cancel()) == []
    assert side.core.in_flight == 0
    assert side.sent() == []


def test_a_handler_that_cancels_after_the_request_has_ended_is_done() -> None:
    side = handling()
    side.core.cancel(2, "broken")
    assert side.core.in_flight == 0
    side.core.respond(2, Response(status=200))
    assert side.sent() == [(2, Cancel(message="broken"))]


def test_a_handler_that_has_answered_has_nothing_to_cancel() -> None:
    side = handling(UPLOAD)
    side.core.respond(2, Response(status=200))
    side.sent()
    side.core.cancel(2, "too late")
    assert side.sent() == []
    assert side.core.in_flight == 1
    assert side.take(2, Cancel()) == []
    assert side.core.in_flight == 0


def test_a_caller_whose_request_is_open_when_it_is_answered_ends_it_with_a_cancel() -> None:
    for last in (OK, Response(failure=Failure())):
        side = calling(UPLOAD)
        side.core.send_body(1, bytes(100), more=True)
        assert side.take(1, last) == [ResponseReceived(1, last)]
        assert side.sent() == [(1, Cancel(message="answered"))]
        assert side.core.in_flight == 0
    side = calling(UPLOAD)
    side.take(1, OK_AND_MORE)
    assert side.sent() == []
    side.take(1, Chunk(data=b"end"))
    assert side.sent() == [(1, Cancel(message="answered"))]


def test_a_handler_that_has_answered_drops_what_still_arrives_of_the_request() -> None:
    side = handling(UPLOAD)
    side.core.respond(2, Response(status=200))
    side.sent()
    assert side.take(2, Chunk(data=b"late", more=True)) == []
    assert side.core.in_flight == 1
    assert side.take(2, Chunk()) == []
    assert side.core.in_flight == 0


def test_a_cancel_that_frees_a_place_leaves_before_the_request_that_takes_it() -> None:
    side = calling(UPLOAD, greeting=hello(max_exchanges=1))
    side.take(1, OK)
    side.core.open(_copy(GET))
    assert side.sent() == [(1, Cancel(message="answered")), (3, GET)]


def test_a_message_is_shortened_so_that_its_envelope_fits_every_frame() -> None:
    side = calling()
    side.core.cancel(1, 1_000_000 * "\N{SNOWMAN}")
    side.core.goaway(Goaway.SHUTDOWN, 1_000_000 * "\N{SNOWMAN}")
    assert [len(message.message) for _, message in side.sent() if isinstance(message, Cancel | Goaway)] == [
        MESSAGE_CHARACTERS,
        MESSAGE_CHARACTERS,
    ]


def test_a_message_that_is_no_text_is_sent_as_far_as_it_is() -> None:
    side = calling()
    side.core.cancel(1, "caf\udce9")
    assert side.sent() == [(1, Cancel(message="caf?"))]


# Liveness


def test_a_ping_is_answered_with_its_id() -> None:
    side = Side()
    assert side.take(0, Ping(id=2**64 - 1)) == []
    assert side.sent() == [(0, Pong(id=2**64 - 1))]


def test_the_answer_to_a_ping_tells_the_round_trip() -> None:
    side = Side()
    assert side.core.tick_due == 5.0
    assert side.core.tick(4.9) == []
    assert side.sent() == []
    assert side.core.tick(5.0) == []
    assert side.sent() == [(0, Ping(id=1))]
    assert side.take(0, Pong(id=1), now=5.25) == [PongReceived(0.25)]


def test_a_ping_that_is_soon_due_leaves_with_the_answer_to_the_peers_and_in_its_stead_none_follows() -> None:
    side = Side()
    side.take(0, Ping(id=7), now=2.4)
    assert side.sent() == [(0, Pong(id=7))]
    side.take(0, Ping(id=8), now=2.5)
    assert side.sent() == [(0, Pong(id=8)), (0, Ping(id=1))]
    assert side.take(0, Pong(id=1), now=3.0) == [PongReceived(0.5)]
    assert side.core.tick(5.0) == []
    assert side.sent() == []
    assert side.core.tick_due == 7.5


def test_an_answer_to_an_older_ping_tells_nothing() -> None:
    side = Side()
    side.core.tick(5.0)
    side.take(0, Ping(), now=6.0)
    side.core.tick(10.0)
    assert side.take(0, Pong(id=1), now=11.0) == []
    assert side.take(0, Pong(id=2), now=12.0) == [PongReceived(2.0)]


@pytest.mark.parametrize("unknown", [0, 2, 2**64 - 1])
def test_an_answer_to_no_ping_breaks_the_protocol(unknown: int) -> None:
    side = Side()
    side.core.tick(5.0)
    assert breaks(side, 0, Pong(id=unknown)) == "pong of exchange 0: it answers no ping"
    assert "it answers no ping" in breaks(Side(), 0, Pong())


def test_no_ping_is_sent_before_the_hello_of_the_peer() -> None:
    side = Side(greeting=None)
    side.sent()
    assert side.core.tick(5.0) == []
    assert side.sent() == []


def test_a_silent_peer_is_given_up_with_a_reason() -> None:
    side = calling(limits=Limits(heartbeat_interval=5, heartbeat_timeout=7))
    side.take(2, GET)
    side.core.tick(5.0)
    side.sent()
    assert side.core.tick(7.0) == [PeerSilent(7)]
    reason = "nothing was received for 7 s"
    assert side.sent() == [(0, Goaway(reason=Goaway.HEARTBEAT, message=reason, last_exchange_id=2))]
    assert not side.core.accepts_requests


def test_nothing_is_heard_and_no_ping_sent_after_the_end() -> None:
    side = Side()
    breaks(side, 0, hello())
    for now in range(5, 30, 5):
        assert side.core.tick(float(now)) == []
    assert side.take(0, Ping()) == []
    assert side.sent() == []
    assert not side.core.accepts_requests


def test_whatever_arrives_is_a_sign_of_life() -> None:
    side = Side()
    for now in range(5, 100, 5):
        assert side.take(0, Ping(), float(now)) == []
        assert side.core.tick(float(now)) == []


# Goaway


def test_a_goaway_names_the_last_exchange_that_was_accepted_and_is_sent_once() -> None:
    side = Side()
    side.take(2, GET)
    side.take(8, GET)
    side.core.goaway(Goaway.SHUTDOWN, "restarting")
    side.core.goaway(Goaway.SHUTDOWN, "again")
    assert side.sent() == [(0, Goaway(reason=Goaway.SHUTDOWN, message="restarting", last_exchange_id=8))]
    *_, broken = side.take(0, hello())
    assert isinstance(broken, Broken)
    assert side.sent() == []


def test_a_side_that_leaves_ignores_new_exchanges_and_all_that_comes_for_them() -> None:
    side = Side()
    side.take(2, GET)
    side.core.goaway(Goaway.SHUTDOWN, "restarting")
    side.sent()
    for message in (UPLOAD, Chunk(data=b"1", more=True), Credit(bytes=1), OK, Cancel(), Chunk()):
        assert side.take(4, message) == []
    assert side.core.in_flight == 1
    assert side.sent() == []
    *_, broken = side.take(5, GET)
    assert isinstance(broken, Broken)


def test_a_side_that_leaves_finishes_what_it_accepted_and_what_it_opened() -> None:
    side = calling()
    side.take(2, GET)
    side.core.goaway(Goaway.SHUTDOWN, "restarting")
    side.core.respond(2, Response(status=200))
    assert [exchange_id for exchange_id, _ in side.sent()] == [0, 2]
    assert side.take(1, OK) == [ResponseReceived(1, OK)]
    assert side.core.in_flight == 0


@pytest.mark.parametrize(
    ("reason", "at_once"), [(Goaway.SHUTDOWN, False), (Goaway.TAKEOVER, True), (Goaway.HEARTBEAT, True), (99, True)]
)
def test_only_after_a_shutdown_does_the_peer_let_exchanges_finish(
    reason: Goaway.Reason.ValueType, at_once: bool
) -> None:
    side = Side()
    assert side.take(0, Goaway(reason=reason, message="m")) == [PeerLeaving(reason, "m", at_once=at_once)]
    assert not side.core.accepts_requests
    with pytest.raises(PeerRefusedError):
        side.core.open(_copy(GET))


def test_exchanges_that_a_leaving_peer_never_began_are_refused_and_the_others_finish() -> None:
    side = Side()
    accepted, refused, unwanted = (side.core.open(_copy(UPLOAD)) for _ in range(3))
    side.sent()
    side.core.cancel(unwanted, "gone")
    unsent = side.core.open(_copy(UPLOAD))
    leaving = Goaway(reason=Goaway.SHUTDOWN, message="restarting", last_exchange_id=accepted)
    assert side.take(0, leaving) == [
        Refused(refused, "restarting"),
        Refused(unsent, "restarting"),
        PeerLeaving(Goaway.SHUTDOWN, "restarting", at_once=False),
    ]
    assert side.core.in_flight == 1
    assert side.sent() == [(unwanted, Cancel(message="gone"))]
    assert side.take(accepted, OK) == [ResponseReceived(accepted, OK)]
    assert side.take(4, GET) == [RequestReceived(4, GET)]


def test_a_request_that_has_not_left_is_refused_whatever_the_peer_says_it_accepted() -> None:
    side = Side()
    side.core.open(_copy(GET))
    refused, _ = side.take(0, Goaway(reason=Goaway.SHUTDOWN, last_exchange_id=2**64 - 1))
    assert refused == Refused(1, "")
    assert side.sent() == []


def test_an_exchange_that_was_answered_cannot_be_refused() -> None:
    side = calling()
    side.take(1, OK_AND_MORE)
    assert "exchange 1 was answered and cannot be refused" in breaks(side, 0, Goaway(reason=Goaway.SHUTDOWN))


def test_a_second_goaway_breaks_the_protocol() -> None:
    side = Side()
    side.take(0, Goaway(reason=Goaway.SHUTDOWN))
    assert breaks(side, 0, Goaway(reason=Goaway.SHUTDOWN)) == "goaway of exchange 0: a second one"


@pytest.mark.parametrize("reason", [Goaway.TAKEOVER, Goaway.HEARTBEAT, Goaway.PROTOCOL_ERROR])
def test_a_side_that_ends_the_call_sends_nothing_after_its_goaway(reason: Goaway.Reason.ValueType) -> None:
    side = calling()
    side.take(2, UPLOAD)
    side.take(4, UPLOAD)
    side.core.respond(2, Response(status=200, body=bytes(100_000)))
    assert side.core.open(_copy(GET)) == 3
    side.core.goaway(reason, "the end")
    side.core.respond(4, Response(status=200))
    side.core.cancel(1, "no longer wanted")
    with pytest.raises(PeerRefusedError):
        side.core.open(_copy(GET))
    assert side.sent() == [(0, Goaway(reason=reason, message="the end", last_exchange_id=4))]
    # So the caller may be told that it was never sent.
    assert side.core.is_unsent(3)
    side.core.cancel(3, "")
    assert side.take(6, GET) == []


def test_a_side_that_leaves_in_peace_can_still_end_the_call_at_once() -> None:
    side = Side()
    side.core.goaway(Goaway.SHUTDOWN, "restarting")
    side.core.open(_copy(GET))
    side.core.goaway(Goaway.TAKEOVER, "replaced")
    assert side.sent() == [(0, Goaway(reason=Goaway.SHUTDOWN, message="restarting"))]
    assert side.core.is_unsent(1)


# Frames that leave


def test_frames_fit_what_both_sides_want() -> None:
    for limits, greeting, most in (
        (Limits(frame_bytes=10_000), hello(initial_window=1_000_000), 10_000),
        (Limits(frame_bytes=500_000), hello(initial_window=1_000_000, max_frame_bytes=65536), 65536),
    ):
        side = Side(limits=limits, greeting=greeting)
        side.core.open(Request())
        side.sent()
        side.take(2, GET)
        side.core.respond(2, Response(status=200, body=bytes(500_000)))
        frames = side.frames()
        assert len(frames) >= 500_000 / most
        # The head alone may be larger than what this side aims at.
        assert max(map(len, frames[1:])) <= most
        head, *chunks = (each for data in frames for each in Frame.FromString(data).envelopes)
        assert len(head.response.body) + sum(len(each.chunk.data) for each in chunks) == 500_000


def test_everything_that_became_ready_leaves_in_one_frame() -> None:
    side = Side()
    for exchange_id in range(2, 80, 2):
        side.take(exchange_id, GET)
        side.core.respond(exchange_id, Response(status=200))
        side.take(0, Ping())
        side.core.open(_copy(GET))
    assert len(side.frames()) == 1
