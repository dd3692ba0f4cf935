"""One side of a pipe: the rules of `pipe.proto`, as a state machine."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from restpipe.exceptions import PeerRefusedError, ProtocolError, TooManyExchangesError
from restpipe.protocol.decoding import decode, shared_hello
from restpipe.protocol.encoding import Message, encode
from restpipe.protocol.events import (
    BodyReceived,
    Broken,
    Cancelled,
    Event,
    PeerLeaving,
    PeerReady,
    PeerSilent,
    PongReceived,
    Refused,
    RequestReceived,
    ResponseReceived,
)
from restpipe.protocol.exchange import Exchange
from restpipe.protocol.exchange_table import ExchangeTable
from restpipe.protocol.failures import to_failure
from restpipe.protocol.heads import check_outcome, check_parts, encode_head, split_body
from restpipe.protocol.heartbeat import Beat, Heartbeat
from restpipe.protocol.holds import Holds
from restpipe.protocol.limits import (
    FIRST_FRAME_BYTES,
    MAX_CONTROL_DEPTH,
    MAX_ENVELOPES,
    MAX_HEADS,
    MESSAGE_CHARACTERS,
    REVISION,
    Limits,
    check_hello,
)
from restpipe.protocol.nuisance import Nuisance
from restpipe.protocol.outbox import Outbox
from restpipe.protocol.windows import FlowControl, Growth
from restpipe_pb.v1.pipe_pb2 import (
    Cancel,
    Chunk,
    Credit,
    Envelope,
    Goaway,
    Hello,
    Ping,
    Pong,
    Request,
    Response,
)


def shorten(message: str) -> str:
    """Make a message one that always fits an envelope: of bounded length, and encodable."""
    return message[:MESSAGE_CHARACTERS].encode(errors="replace").decode()


class Connection:
    """One side of a pipe.

    None of its methods blocks. After `receive`, and after every method that wants something sent, the driver writes
    what `next_frame` returns. Only `receive` is fed by the peer; it reports whatever the peer does wrong as `Broken`.

    Args:
        dials: this side made the call.
        limits: this side's bounds.
        hello: what this side says of itself, but for its revision and its limits. The connection keeps the message.
        now: monotonic time in seconds.

    Attributes:
        peer_remembers: name of the peer's memory of answers, "" for none.
        peer_pipe: name that the peer gave the pipe, "" where it gave none.
        nuisance: of the peer's, for the driver to take little of it at once, and rest.
    """

    def __init__(
        self,
        *,
        dials: bool,
        limits: Limits,
        hello: Hello,
        now: float,
    ) -> None:
        self.limits = limits
        self.peer_hello: Hello | None = None
        self.peer_remembers = ""
        self.peer_pipe = ""
        self.nuisance = Nuisance(by_server=dials)
        self._exchanges = ExchangeTable(dials=dials)
        self._outbox = Outbox(self._half_sent)
        self._growth = Growth(limits.window_budget)
        self._flow: FlowControl | None = None
        self._heartbeat = Heartbeat(limits.heartbeat_interval, limits.heartbeat_timeout, now)
        self._frame_limit = FIRST_FRAME_BYTES
        self._peer_leaving = False
        self._ended = False
        self._holds = Holds()
        self._unread: Sequence[Envelope] = ()
        hello.revision = REVISION
        hello.initial_window = limits.initial_window
        hello.max_exchanges = limits.max_exchanges
        hello.max_frame_bytes = limits.max_frame_bytes
        self._control(0, "hello", hello)

    # What this side wants

    @property
    def queued(self) -> int:
        """Envelopes that wait to leave, and bodies that could go on."""
        return self._outbox.depth

    @property
    def in_flight(self) -> int:
        """Exchanges in the table, of both sides."""
        return len(self._exchanges)

    @property
    def accepts_requests(self) -> bool:
        """Whether `open` can succeed, apart from the number of exchanges."""
        return self.peer_hello is not None and not self._peer_leaving and not self._ended

    def is_open(self, exchange_id: int) -> bool:
        """Whether something can be added to this side's half: the response, or more of the body."""
        exchange = self._exchanges.get(exchange_id)
        return exchange is not None and exchange.local_open and not exchange.finishing

    def is_unsent(self, exchange_id: int) -> bool:
        """Whether the head of an exchange has not left in any frame."""
        exchange = self._exchanges.get(exchange_id)
        return exchange is not None and exchange.head_unsent

    def awaits_credit(self, exchange_id: int) -> bool:
        """Whether the body is to wait for the peer to want it; `take_wanting` tells when it does."""
        exchange = self._exchanges.get(exchange_id)
        return exchange is not None and exchange.awaits_credit

    def wants_more(self, exchange_id: int) -> bool:
        """Whether the body of this side's half should be added to: little enough of it waits to be sent."""
        exchange = self._exchanges.get(exchange_id)
        return exchange is None or exchange.wants_more

    def open(self, request: Request) -> int:
        """Open an exchange; return its id.

        A body beyond what travels inline is moved out of `request` into chunks. Where `request.more`, `send_body`
        continues; where `request.awaits_credit`, all of the body is left to that.

        Raises:
            PeerRefusedError: the peer leaves, or the handshake is not over.
            TooManyExchangesError: the peer permits no more exchanges.
            HeadersTooLargeError: the head does not fit the peer's frames.
        """
        hello = self.peer_hello
        if hello is None or not self.accepts_requests:
            raise PeerRefusedError("the pipe accepts no new requests")
        exchanges = self._exchanges
        if exchanges.mine >= hello.max_exchanges:
            raise TooManyExchangesError(
                f"{exchanges.mine} exchanges are in flight on the pipe, the peer permits no more"
            )
        exchange = self._new_exchange(exchanges.next_id, mine=True)
        if request.more and request.awaits_credit:
            exchange.hold_back()
        self._send_head(exchange, "request", request)
        exchanges.add_mine(exchange)
        return exchange.id

    def respond(self, exchange_id: int, response: Response) -> None:
        """Answer an exchange of the peer's; without effect where it is over or was answered before.

        As in `open`, what is too long to travel inline is moved into chunks, and `send_body` continues where
        `response.more`.

        Raises:
            BadResultError: the head does not fit the peer's frames. The exchange still waits for its response.
        """
        exchange = self._exchanges.get(exchange_id)
        if exchange is not None and exchange.local_open and not exchange.local_begun:
            self._send_head(exchange, "response", response)

    def send_body(self, exchange_id: int, data: bytes, *, more: bool) -> None:
        """Queue a piece of body, the last where `more` is unset; without effect before the head and after the last."""
        exchange = self._exchanges.get(exchange_id)
        if exchange is not None and exchange.local_begun and exchange.local_open and not exchange.finishing:
            self._outbox.put_body(exchange, data, more=more)

    def want_body(self, exchange_id: int) -> None:
        """Tell the peer, once, to begin with a body of which it sends nothing before that: `Request.awaits_credit`."""
        exchange = self._exchanges.get(exchange_id)
        if exchange is not None and exchange.remote_open and exchange.delivers:
            self._control(exchange_id, "credit", Credit(bytes=exchange.receive_window.permit()))

    def consume(self, exchange_id: int, size: int, now: float) -> None:
        """Tell that the application took `size` bytes that `BodyReceived` or an inline body brought."""
        exchange = self._exchanges.get(exchange_id)
        if exchange is None or not exchange.remote_open or not exchange.delivers:
            return
        credit = exchange.receive_window.consume(size, now)
        if credit:
            if self._heartbeat.last_ping == 0:
                self._ping(now)  # the window grows once the round trip is known
            self._control(exchange_id, "credit", Credit(bytes=credit))

    def cancel(self, exchange_id: int, message: str) -> None:
        """End this side's half, and from a caller its interest; without effect where the exchange is over."""
        exchange = self._exchanges.get(exchange_id)
        if exchange is None or not exchange.wanted:
            return
        if exchange.mine and exchange.head_unsent:
            self._outbox.abandon(exchange)
            self._exchanges.remove(exchange)
            return
        exchange.wanted = False
        if exchange.mine or exchange.local_open:
            self._outbox.abandon(exchange)
            self._control(exchange_id, "cancel", Cancel(message=shorten(message)))
        if not exchange.remote_open:
            self._exchanges.remove(exchange)

    def goaway(self, reason: Goaway.Reason.ValueType, message: str) -> None:
        """Accept no new exchange from now on; it is said once, with the first reason.

        After any reason but SHUTDOWN this side ends the call at once: nothing follows the Goaway, and nothing more is
        heard. A request that has not left then never leaves.
        """
        exchanges = self._exchanges
        if exchanges.refused_above is None:
            exchanges.refused_above = exchanges.last_of_peer
            goaway = Goaway(reason=reason, message=shorten(message), last_exchange_id=exchanges.last_of_peer)
            self._control(0, "goaway", goaway)
        if reason != Goaway.SHUTDOWN:
            self._ended = True
            self._outbox.close()

    # What leaves

    def next_frame(self) -> bytes | None:
        """Return the next frame to write, None where there is none now."""
        return self._outbox.next_frame(self._frame_limit)

    def take_wanting(self) -> list[int]:
        """Return the exchanges whose body has left, since the last call, so far that `send_body` may continue."""
        return self._outbox.take_wanting()

    # Time

    @property
    def tick_due(self) -> float:
        """When `tick` is to be called."""
        return self._heartbeat.due

    def tick(self, now: float) -> list[Event]:
        """Ping where it is time; report a peer that is silent for too long."""
        if self._ended:
            return []
        beat = self._heartbeat.tick(now)
        if beat is Beat.PING and self.peer_hello is not None:
            self._ping(now)
        elif beat is Beat.DEAD:
            timeout = self.limits.heartbeat_timeout
            self.goaway(Goaway.HEARTBEAT, f"nothing was received for {timeout:g} s")
            return [PeerSilent(timeout)]
        return []

    def _ping(self, now: float) -> None:
        self._control(0, "ping", Ping(id=self._heartbeat.ping(now)))

    # What arrives

    def receive(self, data: bytes, now: float, most: int = MAX_ENVELOPES) -> list[Event]:
        """Take a frame from the peer; return what it means, in order.

        Nothing is raised: a peer that breaks the protocol yields `Broken` as the last event, and after that nothing.

        Args:
            data: the frame. The one before must have been taken whole.
            now: monotonic time in seconds.
            most: envelopes to take. Where that leaves some `unread`, `receive_rest` goes on.
        """
        if self._ended:
            return []
        self._heartbeat.heard(now)
        self._holds.begin_frame(len(data))
        # Before the peer's Hello it may not have had this side's.
        largest = self.limits.max_frame_bytes
        try:
            self._unread = decode(data, largest if self.peer_hello is not None else max(largest, FIRST_FRAME_BYTES))
        except ProtocolError as error:
            return [self._break(str(error))]
        return self.receive_rest(now, most)

    def receive_rest(self, now: float, most: int) -> list[Event]:
        """Take more of the frame at hand, as `receive` does."""
        events: list[Event] = []
        envelopes = self._unread
        self._unread = envelopes[most:] if len(envelopes) > most else ()
        self.nuisance.taken = min(most, len(envelopes))
        envelope: Envelope | None = None
        try:
            for envelope in envelopes[:most] if self._unread else envelopes:
                self._take(envelope, events, now)
            if self._outbox.control_depth > MAX_CONTROL_DEPTH:
                raise ProtocolError("the peer does not read what it asks for")
        except ProtocolError as error:
            where = "" if envelope is None else f"{envelope.WhichOneof('kind')} of exchange {envelope.exchange_id}: "
            events.append(self._break(f"{where}{error}"))
        return events

    def _break(self, message: str) -> Broken:
        self.goaway(Goaway.PROTOCOL_ERROR, message)
        return Broken(ProtocolError(message))

    @property
    def unread(self) -> bool:
        """Whether envelopes of the frame at hand wait to be taken."""
        return not self._ended and len(self._unread) > 0

    def _take(self, envelope: Envelope, events: list[Event], now: float) -> None:
        kind = envelope.WhichOneof("kind")
        if kind is None:
            raise ProtocolError("an envelope of unknown kind")
        if self.peer_hello is None and kind not in {"hello", "goaway"}:
            raise ProtocolError("before the hello")
        take = self._TAKE_FROM_EXCHANGE.get(kind)
        if take is not None:
            take(self, envelope.exchange_id, getattr(envelope, kind), events)
        elif envelope.exchange_id:
            raise ProtocolError("it belongs to no exchange")
        else:
            self._TAKE_FROM_PIPE[kind](self, getattr(envelope, kind), events, now)

    def _take_hello(self, hello: Hello, events: list[Event], _now: float) -> None:
        if self.peer_hello is not None:
            raise ProtocolError("a second one")
        check_hello(hello)
        # Of each process, or pipe, its own: Hellos that differ in nothing else are shared.
        self.peer_remembers = hello.remembers
        self.peer_pipe = hello.pipe
        hello.ClearField("remembers")
        hello.ClearField("pipe")
        self.peer_hello = hello = shared_hello(hello.SerializeToString())
        limits = self.limits
        self._flow = FlowControl(
            send_initial=hello.initial_window,
            receive_initial=limits.initial_window,
            limit=limits.max_window,
            growth=self._growth,
        )
        self._frame_limit = min(limits.frame_bytes, hello.max_frame_bytes)
        events.append(PeerReady(hello))

    def _take_request(self, exchange_id: int, request: Request, events: list[Event]) -> None:
        exchanges = self._exchanges
        exchanges.check_new(exchange_id)
        if self._holds.large:
            check_parts(request)
        if exchanges.refused_above is not None:
            return
        if exchanges.theirs >= self.limits.max_exchanges:
            raise ProtocolError(f"more than {self.limits.max_exchanges} exchanges")
        exchange = self._new_exchange(exchange_id, mine=False)
        if request.more and request.awaits_credit:
            exchange.receive_window.withhold()
        self._account_for_body(exchange, request)
        exchange.remote_open = request.more
        exchange.passes_on = bool(request.to)
        exchanges.add_theirs(exchange)
        request, exchange.hold = self._holds.take(request)
        if exchange.hold is None:
            self._refuse(exchange)
        else:
            events.append(RequestReceived(exchange_id, request))

    def _refuse(self, exchange: Exchange) -> None:
        error = PeerRefusedError(f"the requests in flight have heads of more than {MAX_HEADS} bytes")
        self.respond(exchange.id, Response(failure=to_failure(error), return_code=error.return_code))
        self.nuisance.refusal()

    def _take_response(self, exchange_id: int, response: Response, events: list[Event]) -> None:
        exchange = self._exchanges.find(exchange_id)
        if exchange is None:
            return
        if exchange.remote_begun:
            raise ProtocolError("a second one" if exchange.mine else "it answers the peer's own request")
        check_outcome(response)
        if self._holds.large:
            check_parts(response)
        exchange.remote_begun = True
        self._account_for_body(exchange, response)
        if exchange.wanted:
            events.append(ResponseReceived(exchange_id, response))
        if not response.more:
            self._remote_half_ended(exchange)

    def _account_for_body(self, exchange: Exchange, head: Request | Response) -> None:
        size = len(head.body)
        if size > self.limits.initial_window or (size and head.more):
            exchange.receive_window.receive(size)

    def _take_chunk(self, exchange_id: int, chunk: Chunk, events: list[Event]) -> None:
        exchange = self._exchanges.find(exchange_id)
        if exchange is None:
            return
        if not exchange.remote_begun or not exchange.remote_open:
            raise ProtocolError("after the end of its half" if exchange.remote_begun else "before its head")
        if not chunk.data and chunk.more:
            raise ProtocolError("it carries nothing")
        exchange.receive_window.receive(len(chunk.data))
        if exchange.delivers:
            events.append(BodyReceived(exchange_id, chunk.data, chunk.more))
        if not chunk.more:
            self._remote_half_ended(exchange)

    def _take_credit(self, exchange_id: int, credit: Credit, _events: list[Event]) -> None:
        exchange = self._exchanges.find(exchange_id, over_is_fine=True)
        self.nuisance.credit()
        if exchange is not None and exchange.local_open:
            exchange.send_window.grant(credit.bytes)
            self._outbox.schedule(exchange)
            if exchange.awaits_credit:
                exchange.awaits_credit = False
                self._outbox.want(exchange)

    def _take_cancel(self, exchange_id: int, cancel: Cancel, events: list[Event]) -> None:
        exchange = self._exchanges.find(exchange_id, over_is_fine=True)
        if exchange is None or not exchange.mine:
            self.nuisance.cancel(passed_on=exchange is not None and exchange.passes_on)
        if exchange is None:
            return
        if exchange.delivers:
            events.append(Cancelled(exchange_id, cancel.message))
        if exchange.local_open:
            self._outbox.abandon(exchange)
            self._control(exchange_id, "cancel", Cancel(message="cancelled by the peer"))
        self._exchanges.remove(exchange)

    def _take_ping(self, ping: Ping, _events: list[Event], now: float) -> None:
        self.nuisance.ping()
        self._control(0, "pong", Pong(id=ping.id))
        if self._heartbeat.join(now):
            self._ping(now)

    def _take_pong(self, pong: Pong, events: list[Event], now: float) -> None:
        round_trip = self._heartbeat.pong(pong.id, now)
        if round_trip is not None:
            self._growth.measured(round_trip)
            events.append(PongReceived(round_trip))

    def _take_goaway(self, goaway: Goaway, events: list[Event], _now: float) -> None:
        if self._peer_leaving:
            raise ProtocolError("a second one")
        self._peer_leaving = True
        for exchange in self._exchanges.refused_by_peer(goaway.last_exchange_id):
            if exchange.remote_begun:
                raise ProtocolError(f"exchange {exchange.id} was answered and cannot be refused")
            if exchange.wanted:
                events.append(Refused(exchange.id, goaway.message))
            self._outbox.abandon(exchange)
            self._exchanges.remove(exchange)
        events.append(PeerLeaving(goaway.reason, goaway.message, at_once=goaway.reason != Goaway.SHUTDOWN))

    _TAKE_FROM_EXCHANGE: ClassVar[dict[str, Callable[["Connection", int, Any, list[Event]], None]]] = {
        "request": _take_request,
        "response": _take_response,
        "chunk": _take_chunk,
        "credit": _take_credit,
        "cancel": _take_cancel,
    }
    _TAKE_FROM_PIPE: ClassVar[dict[str, Callable[["Connection", Any, list[Event], float], None]]] = {
        "hello": _take_hello,
        "ping": _take_ping,
        "pong": _take_pong,
        "goaway": _take_goaway,
    }

    # Exchanges

    def _new_exchange(self, exchange_id: int, *, mine: bool) -> Exchange:
        if self._flow is None:
            raise AssertionError("no exchange before the handshake")
        return Exchange(exchange_id, mine=mine, flow=self._flow)

    def _send_head(self, exchange: Exchange, kind: str, message: Request | Response) -> None:
        if self.peer_hello is None:
            raise AssertionError("no head before the handshake")
        more = message.more
        rest = split_body(message)
        envelope = encode_head(exchange.id, kind, message, self.peer_hello.max_frame_bytes)
        if message.more:
            exchange.send_window.spend(len(message.body))
        self._outbox.put_head(exchange, envelope, more=message.more)
        if rest:
            self._outbox.put_body(exchange, rest, more=more)

    def _half_sent(self, exchange: Exchange) -> None:
        if not exchange.remote_open:
            self._exchanges.remove(exchange)

    def _remote_half_ended(self, exchange: Exchange) -> None:
        exchange.remote_open = False
        if exchange.mine and exchange.local_open:
            self._outbox.abandon(exchange)
            self._control(exchange.id, "cancel", Cancel(message="answered"))
        if not exchange.local_open:
            self._exchanges.remove(exchange)

    def _control(self, exchange_id: int, kind: str, message: Message) -> None:
        self._outbox.put_control(encode(exchange_id, kind, message))
