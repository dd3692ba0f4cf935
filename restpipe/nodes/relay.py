"""Client to client: a server passes requests of one client on to another, where its operator permits that."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from secrets import token_hex

from restpipe.exceptions import (
    BadRequestError,
    ForbiddenError,
    NoHandlerError,
    PeerAbsentError,
    PeerRefusedError,
    PeerTooOldError,
    PeerUnknownError,
    PipeLostError,
    TooManyExchangesError,
    WrongVerbError,
)
from restpipe.handlers.events import VERBS
from restpipe.handlers.paths import parse_event_path, parse_query, target_of
from restpipe.identity.certificates import is_name
from restpipe.identity.names import RelayRules
from restpipe.nodes.exchanges import Exchange, Patience, is_repeatable
from restpipe.nodes.held_bodies import HeldBody
from restpipe.nodes.registry import Registry
from restpipe.pipe import Answer, Body, Incoming, Pipe
from restpipe.pipe.request_ids import REQUEST_ID, request_id
from restpipe.transport.carrier import Peer
from restpipe_pb.v1.pipe_pb2 import Parameter, Request

# Of a request's time, what may be spent on waiting for the client that it is for. The rest is for telling that it did
# not come: when the caller's own clock runs out, the outcome is unknown.
WAITING_SHARE = 0.9
# An IP address, or what stands for one where nodes are joined in memory.
_ADDRESS = re.compile(r"[A-Za-z0-9.:%_-]{0,64}")
# Of the exchanges that a client accepts, and of the keys that it remembers, one caller may have one in so many: the
# rest is for all others.
PLACES_SHARE = 2


def take_caller(incoming: Incoming) -> None:
    """Let a request that the server passed on be its first caller's.

    The caller is who the server says: only a client node may do this.

    Raises:
        ForbiddenError: the name is none, or that which the server itself goes by, here; or name or address are what no
            node has, and could not be told to logs and services as they are.
    """
    caller = incoming.request.caller
    if caller.name in ("", incoming.peer.name):
        raise ForbiddenError(
            f"a client named {caller.name!r} could not be told from the server, which goes by that name here"
        )
    if not (is_name(caller.name) and _ADDRESS.fullmatch(caller.address)):
        raise ForbiddenError(f"no node has the name {caller.name[:64]!a} and the address {caller.address[:64]!a}")
    incoming.peer = Peer(caller.name, caller.address)


class Relay:
    """Passes requests on.

    Args:
        registry: of the clients that are connected.
        rules: who may reach whom.
        exchange: has a request answered.
        most_keys: Idempotency-Keys that a client is expected to remember.

    Attributes:
        rules: as given. Where they change, `enforce` sees to what is under way.
        name: of what is remembered of keys.
    """

    def __init__(self, registry: Registry, rules: RelayRules, *, exchange: Exchange, most_keys: int) -> None:
        self.rules = rules
        self.name = token_hex(8)
        self._registry = registry
        self._exchange = exchange
        self._most_keys = max(1, most_keys // PLACES_SHARE)
        self._keys: dict[str, PassedKeys] = {}
        self._under_way: dict[Incoming, str] = {}
        # By caller and called.
        self._places: Counter[tuple[str, str]] = Counter()

    async def serve(self, incoming: Incoming) -> None:
        """Have a client answer a request of another one.

        Raises:
            EventError: it failed, and that is the answer.

        Cancelling cancels it there, too.
        """
        request = incoming.request
        remaining = incoming.remaining
        patience = Patience(remaining, min(request.wait_ms / 1000, WAITING_SHARE * remaining))
        body = _Passing(incoming.body) if request.more else None
        repeatable = False

        def request_to(pipe: Pipe) -> Request:
            nonlocal repeatable
            repeatable = False
            passed, repeatable = self._request_to(incoming, pipe)
            return passed

        try:
            answer, _ = await self._exchange(partial(self._pipe_to, incoming), request_to, body, patience)
            try:
                await _pass_back(incoming, answer)
            finally:
                answer.close()
        except PipeLostError as error:
            error.repeatable = repeatable
            raise
        finally:
            self._give_place_back(incoming)

    def enforce(self) -> None:
        """Cut what is under way and not permitted any longer."""
        for incoming, called in list(self._under_way.items()):
            if not self.rules.permit(incoming.peer.name, called):
                message = f"the server does not permit {incoming.peer.name!r} to reach {called!r} any longer"
                incoming.cut(PipeLostError(message))

    async def _pipe_to(self, incoming: Incoming, wait: float) -> Pipe:
        caller, to = incoming.peer.name, incoming.request.to
        permits: Callable[[str], bool] = partial(self.rules.permit, caller)
        named = permits(to)
        # Who may not reach a client does not learn whether there is one of that name.
        if not named and (self._registry.knows(to) or not self.rules.permit_any(caller)):
            raise self._forbidden(caller, to)
        try:
            pipe = await self._registry.permitted_pipe_to(to, wait if named else 0, permits)
        except (PeerUnknownError, PeerAbsentError):
            if self._registry.closed:
                # After the goodbye, so that the caller's node waits for the next server, and asks that.
                await asyncio.shield(incoming.pipe.departing)
                raise PeerRefusedError("the server is stopping") from None
            if named:
                raise
            raise self._forbidden(caller, to) from None
        if not pipe.knows_callers:
            raise PeerTooOldError(
                f"the software of {pipe.peer.name!r} ({pipe.ready.result().software}) is too old to be called by other "
                "clients: update it"
            )
        self._take_place(incoming, pipe)
        return pipe

    def _take_place(self, incoming: Incoming, pipe: Pipe) -> None:
        self._give_place_back(incoming)  # it may have had one on a pipe that was lost
        caller, called = incoming.peer.name, pipe.peer.name
        most = max(1, pipe.ready.result().max_exchanges // PLACES_SHARE)
        if self._places[caller, called] >= most:
            raise TooManyExchangesError(f"{most} exchanges of {caller!r} with {called!r} are in flight, its share")
        self._under_way[incoming] = called
        self._places[caller, called] += 1

    def _give_place_back(self, incoming: Incoming) -> None:
        called = self._under_way.pop(incoming, None)
        if called is None:
            return
        pair = incoming.peer.name, called
        self._places[pair] -= 1
        if not self._places[pair]:
            del self._places[pair]

    def _request_to(self, incoming: Incoming, pipe: Pipe) -> tuple[Request, bool]:
        """Return the request for the pipe of the client that it is for, and whether it may be sent there again.

        Raises:
            PipeLostError: it was sent before, and may not be repeated.
            PeerRefusedError: there is no room to remember its key.
            EventError: that client serves no such thing.
        """
        asked = incoming.request
        request = Request()
        request.CopyFrom(asked)
        for field in ("to", "wait_ms", "repeated"):
            request.ClearField(field)
        if asked.more:
            request.ClearField("body")  # it is the beginning of `incoming.body`
        request.caller.name = incoming.peer.name
        request.caller.address = incoming.peer.address
        named = request_id(asked, incoming.label)
        if named == incoming.label:  # the same in the logs of all three nodes
            request.headers.add(name=REQUEST_ID, value=named)
        (_address_service if pipe.forwards else _name_event)(request)
        key = asked.idempotency_key
        keys = self._keys.setdefault(incoming.peer.name, PassedKeys(self._most_keys)) if key else None
        repeatable = is_repeatable(pipe, request) if keys is None else keys.passed_to_none_but(key, pipe.remembers)
        if asked.repeated and not repeatable:
            raise PipeLostError(
                f"the pipe was lost after the request was sent, and {pipe.peer.name!r} may not get it again"
            )
        if keys is not None:
            now = incoming.loop.time()
            keys.note(key, pipe.remembers, now, now + incoming.timeout)
            repeatable = keys.passed_to_none_but(key, pipe.remembers)
            if not pipe.remembers:
                request.headers.add(name="idempotency-key", value=key)
                request.ClearField("idempotency_key")
        return request, repeatable

    def _forbidden(self, caller: str, to: str) -> ForbiddenError:
        if not self.rules.rules:
            return ForbiddenError(
                "the server passes no requests from client to client; RP_RELAY there says who may reach whom, such as "
                f"{caller}>{to}"
            )
        return ForbiddenError(
            f"the server does not permit {caller!r} to reach {to!r}; RP_RELAY there says who may reach whom"
        )


class PassedKeys:
    """To whom a client's requests with an Idempotency-Key were passed on: as long as they may be repeated.

    Args:
        most: keys that are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._passed: dict[str, tuple[str, float]] = {}
        # One for each key, not later than its end: who uses a key again makes that later.
        self._ends: list[tuple[float, str]] = []

    def passed_to_none_but(self, key: str, memory: str) -> bool:
        """Whether requests with a key, if any, were passed on to nobody but what has this memory of answers."""
        known = self._passed.get(key)
        return known is None or known[0] == memory != ""

    def note(self, key: str, memory: str, now: float, until: float) -> None:
        """Note that a request is passed on.

        Args:
            key: its Idempotency-Key.
            memory: name of the memory of answers that it is passed on to, "" for none.
            now: monotonic time in seconds.
            until: when it will not be repeated any more.

        Raises:
            PeerRefusedError: there is no room.
        """
        known = self._passed.get(key)
        if known is not None:
            self._passed[key] = (memory if known[0] == memory else "", max(known[1], until))
            return
        while self._ends and self._ends[0][0] <= now:
            _, old = heappop(self._ends)
            end = self._passed[old][1]
            if end > now:
                heappush(self._ends, (end, old))
            else:
                del self._passed[old]
        if len(self._passed) >= self._most:
            raise PeerRefusedError(f"{self._most} requests with an Idempotency-Key are under way")
        self._passed[key] = (memory, until)
        heappush(self._ends, (until, key))


class _Passing(HeldBody):
    """The body of a request on its way from pipe to pipe."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body

    async def _take(self) -> bytes:
        piece = await anext(self._body, b"")
        self.complete = not piece
        return piece


async def _pass_back(incoming: Incoming, answer: Answer) -> None:
    response = answer.response
    if incoming.request.protocol:
        answer.stop_clock()
    complete = answer.body.complete
    response.body = answer.body.take_now() if complete else b""
    response.more = not complete
    incoming.respond(response)
    if not complete:
        await incoming.send_body(answer.body)


def _name_event(request: Request) -> None:
    """Say what is asked for by noun and arguments.

    Raises:
        BadRequestError: the target cannot be read.
        EventError: it is none of events.
    """
    if request.protocol:
        raise NoHandlerError("the peer serves events, and no web sockets")
    if request.verb not in VERBS:
        raise WrongVerbError(f"{request.verb[:16].upper()!a} is no verb of events", allow=VERBS)
    if not request.target:
        return
    try:
        path, _, query = request.target.encode("ascii").partition(b"?")
    except UnicodeEncodeError:
        raise BadRequestError("the target of a request is no ASCII") from None
    event = parse_event_path(path.removeprefix(b"/"))
    request.noun = event.noun
    request.ClearField("arguments")
    request.arguments.extend(event.arguments)
    request.ClearField("query")
    request.query.extend(Parameter(name=name, value=value) for name, value in parse_query(query))
    request.ClearField("target")


def _address_service(request: Request) -> None:
    """Say what is asked for by the target."""
    if not request.target:
        query = [(parameter.name, parameter.value) for parameter in request.query]
        request.target = target_of(request.noun, request.arguments, query)
    for field in ("noun", "arguments", "query"):
        request.ClearField(field)
