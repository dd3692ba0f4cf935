"""From an HTTP request to the request that the pipe carries."""

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

from restpipe.exceptions import BadRequestError, NoHandlerError, SlashMissingError, WrongVerbError
from restpipe.handlers.answers import KEYED, MAX_KEY
from restpipe.handlers.events import VERBS
from restpipe.handlers.paths import as_target, in_ascii, parse_event_path, parse_query
from restpipe.nodes.exchanges import Patience, memory_of
from restpipe.pipe import Pipe
from restpipe.web.forwarded import forwarded_headers
from restpipe_pb.v1.pipe_pb2 import Parameter, Request

Scope = MutableMapping[str, Any]

# RFC 9110 section 7.6.1, and what travels in fields of its own.
NOT_FORWARDED = frozenset(
    b"connection content-length content-type expect keep-alive proxy-authorization proxy-connection te trailer"
    b" idempotency-key transfer-encoding upgrade x-event-timeout".split()
)
_VERB = {verb.upper(): verb for verb in VERBS}
# Methods that a proxy does not pass on: it would answer TRACE with what belongs to it, and CONNECT asks for a tunnel.
_NEVER = frozenset(("TRACE", "CONNECT"))
_USUAL_CONNECTION = frozenset((b"keep-alive", b"close"))
# Of a handshake, what is agreed on between the caller and this node (RFC 6455 section 4.1).
_HANDSHAKE = frozenset(("sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"))
_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)


class Asked:
    """What a caller asks for, before it is known by which pipe it goes.

    Args:
        scope: of the ASGI request.
        rest: the path after the prefix of the route.
        kept: names of headers that stay on this node.
        patience: how long it may take unless its headers say otherwise.
        max_timeout: seconds that the headers may ask for.

    Raises:
        BadRequestError: a header is not what it should be.

    Attributes:
        has_body: a body follows the head.
        expects: the caller waits to be asked for the body (RFC 9110 section 10.1.1).
        length: bytes of the body; None where it is not told.
        body: the bytes of it that go with the head, for the holder to set.
        patience: how long all may take.
    """

    __slots__ = ("_kept", "_rest", "_scope", "body", "expects", "has_body", "length", "patience")

    def __init__(
        self, scope: Scope, rest: bytes, *, kept: frozenset[bytes], patience: Patience, max_timeout: float
    ) -> None:
        self._scope = scope
        self._rest = rest
        self._kept = kept
        self.length: int | None = None
        self.has_body = False
        self.expects = False
        self.body = b""
        for name, value in scope["headers"]:
            if name == b"content-length":
                self.length = _number(value, "Content-Length")
                self.has_body = self.length > 0
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":  # RFC 9112 section 6.1; nobody would know that the body is compressed
                    raise BadRequestError(f"Transfer-Encoding: {value.decode('latin-1')!a} is not understood")
                self.has_body = True
            elif name == b"expect":
                self.expects = value.lower() == b"100-continue"
            elif name == b"x-event-timeout":
                patience = Patience(min(_seconds(value), max_timeout), patience.connection)
            elif name == b"prefer" and (wait := _WAIT.search(value)):
                patience = Patience(patience.deadline, float(wait[1]))
        self.patience = patience

    def request_to(self, pipe: Pipe) -> Request:
        """Return the request for a pipe, without `timeout_ms`; a new one each time.

        Raises:
            BadRequestError: what is asked cannot be read.
            NoHandlerError: the peer serves events, and this is none.
        """
        scope = self._scope
        # Attribute by attribute: the constructor of a message takes three times as long.
        request = Request()
        forwards = self._address(request, pipe)
        kept, headers = self._kept, request.headers
        nominated: set[str] = set(_HANDSHAKE) if request.protocol else set()
        for name, value in scope["headers"]:
            if name not in kept:
                header = headers.add()
                header.name = name.decode("latin-1")
                header.value = value.decode("latin-1")
            elif name == b"content-type":
                request.content_type = value.decode("latin-1")
            elif name == b"idempotency-key":
                _take_key(request, pipe, value.decode("latin-1"))
            elif name == b"connection" and value.lower() not in _USUAL_CONNECTION:
                nominated |= _tokens(value)
        if nominated:
            _drop(request, nominated)
        if forwards:
            prefix = scope["raw_path"][: len(scope["raw_path"]) - len(self._rest)]
            forwarded_headers(request, scope, quote(scope.get("root_path", "")) + in_ascii(prefix.rstrip(b"/")))
        if self.length is not None:
            request.body_length = self.length
        if self.body:
            request.body = self.body
        return request

    def _address(self, request: Request, pipe: Pipe) -> bool:
        """Say what is asked for, as the peer wants it; return whether it is, or may be, to be passed on."""
        if pipe.forwards:
            self._forward(request)
        else:
            self._name_event(request)
        return pipe.forwards

    def request_for_which_body_waits(self, pipe: Pipe) -> Request:
        """Return what `request_to` does, for a body that is sent once the peer wants it."""
        request = self.request_to(pipe)
        request.awaits_credit = True
        return request

    def _name_event(self, request: Request) -> None:
        scope = self._scope
        if scope["type"] == "websocket":
            raise NoHandlerError("the peer serves events, and no web sockets")
        verb = _VERB.get(scope["method"])
        if verb is None:
            raise WrongVerbError(f"{scope['method']} is no verb of events", allow=VERBS)
        path = parse_event_path(self._rest)
        request.verb = verb
        request.noun = path.noun
        if path.arguments:
            request.arguments.extend(path.arguments)
        if scope["query_string"]:
            request.query.extend(Parameter(name=n, value=v) for n, v in parse_query(scope["query_string"]))

    def _forward(self, request: Request) -> None:
        scope = self._scope
        if scope["type"] == "websocket":
            request.verb = "connect"
            request.protocol = "websocket"
        elif scope["method"] in _NEVER:
            raise WrongVerbError(f"{scope['method']} is not passed on", allow=VERBS)
        elif not scope["raw_path"].endswith(b"/") and not self._rest:
            raise _slash_missing(scope["raw_path"], scope["query_string"])
        else:
            request.verb = scope["method"].lower()
        request.target = as_target(self._rest, scope["query_string"])


def _slash_missing(path: bytes, query: bytes) -> SlashMissingError:
    """Send a browser to where the links of the service's pages lead from: relative, for proxies change paths."""
    name = path.rpartition(b"/")[2]
    location = in_ascii(b"./%b/?%b" % (name, query) if query else b"./%b/" % name)
    return SlashMissingError(f"the service is at {location.removeprefix('./')!a}, with a slash", location=location)


def _tokens(value: bytes) -> set[str]:
    return {token.strip() for token in value.decode("latin-1").lower().split(",")}


def _drop(request: Request, names: set[str]) -> None:
    travelling = [header for header in request.headers if header.name not in names]
    del request.headers[:]
    request.headers.extend(travelling)


def _take_key(request: Request, pipe: Pipe, key: str) -> None:
    if not memory_of(pipe, request) or request.verb not in KEYED:
        request.headers.add(name="idempotency-key", value=key)
    elif not key or len(key) > MAX_KEY or request.idempotency_key:
        raise BadRequestError(f"Idempotency-Key is empty, or has more than {MAX_KEY} characters, or there are two")
    else:
        request.idempotency_key = key


def _number(value: bytes, name: str) -> int:
    if not value.isdigit() or len(value) > 18:
        raise BadRequestError(f"{name} is not a number")
    return int(value)


def _seconds(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise BadRequestError(f"X-Event-Timeout: {value.decode('latin-1')!a} is not a number of seconds above 0")
    return seconds
