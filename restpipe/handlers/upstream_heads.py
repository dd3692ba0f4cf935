"""Heads of HTTP messages, as the pipe has them and as the service behind a node has them."""

import re

import h11

from restpipe.config import UpstreamAddress
from restpipe.exceptions import BadArgumentsError, ServiceUnansweredError, WrongVerbError
from restpipe.handlers.events import VERBS
from restpipe.protocol.limits import MAX_PARTS
from restpipe.transport.carrier import Peer
from restpipe_pb.v1.pipe_pb2 import Request, Response

Fields = list[tuple[bytes, bytes]]

# RFC 9110 section 7.6.1.
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"} | {
    "te", "trailer", "transfer-encoding", "upgrade"
}  # fmt: skip
# What is written anew for the service. An expectation was met where the body was asked for (section 10.1.1).
# `Proxy` is no header: CGI takes it for a setting (https://httpoxy.org).
_WRITTEN_ANEW = _HOP_BY_HOP | {
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "proxy",
    "x-event-caller",
}
# What nodes say. CGI and WSGI do not tell an underscore from a hyphen, and would take `X_Event_Caller` for it.
_SAID_BY_NODES = _WRITTEN_ANEW | {f"x-forwarded-{name}" for name in ("for", "host", "prefix", "proto")}
# Of the handshake of a web socket, what concerns the two ends of the connection (RFC 6455 section 4.1).
_HANDSHAKE = frozenset(("sec-websocket-accept", "sec-websocket-key", "sec-websocket-version"))
# What the pipe's messages have fields for. The node that answers the caller has a date of its own, and counts.
_ELSEWHERE = (
    _HOP_BY_HOP | _HANDSHAKE | {"content-length", "content-type", "date", "x-event-attempts", "x-event-return-code"}
)
# Methods whose requests have a body, be it of length 0 (RFC 9110 section 8.6).
_WITH_BODY = frozenset(("post", "put", "patch"))
_BODILESS = frozenset((204, 205, 304))
# A segment that leads upwards, percent-encoded or not, in the path of a target.
_UPWARDS = re.compile(r"[/\\](?:\.|%2e){2}(?:[/\\?]|%2f|%5c|$)", re.IGNORECASE)
_MAX_CODE = 2**31


def check_passed_on(request: Request) -> None:
    """Refuse what is no request of HTTP.

    Raises:
        WrongVerbError: it is none.
    """
    if request.protocol not in ("", "websocket") or (request.verb == "connect") != bool(request.protocol):
        raise WrongVerbError(f"{request.verb} {request.protocol} is not passed on", allow=VERBS)


def request_head(request: Request, peer: Peer, address: UpstreamAddress) -> h11.Request:
    """Return the head of the request to the service.

    Raises:
        BadArgumentsError: it cannot be asked of a service.
    """
    target = request.target
    if not target.startswith("/"):
        raise BadArgumentsError("the target of a request begins with a slash")
    if address.path and _UPWARDS.search(target.partition("?")[0]):
        raise BadArgumentsError(f"the path leads out of {address}")
    try:
        return h11.Request(
            method="GET" if request.protocol else request.verb.upper(),
            target=address.path + target,
            headers=_request_fields(request, peer, address),
        )
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise BadArgumentsError(f"the request cannot be passed on: {error}") from error


def _request_fields(request: Request, peer: Peer, address: UpstreamAddress) -> Fields:
    host = forwarded = addresses = ""
    fields: list[tuple[str, str]] = []
    for header in request.headers:
        match header.name.lower():
            case "host":
                host = header.value
            case "forwarded":
                forwarded = f"{header.value}, "
            case "x-forwarded-for":
                addresses = f"{header.value}, "
            case name if _is_passed_on(name, request):
                fields.append((name, header.value))
    # The service sees the name that its caller used: it compares `Origin` with that, and makes links of it. One that is
    # reached by TLS goes by the name that its certificate bears.
    fields.insert(0, ("host", host if host and address.scheme == "http" else address.authority))
    fields.append(("forwarded", f"{forwarded}for={forwarded_for(peer.address)}"))
    fields.append(("x-forwarded-for", f"{addresses}{peer.address}"))
    fields.append(("x-event-caller", peer.name))
    if request.content_type:
        fields.append(("content-type", request.content_type))
    if not request.protocol:
        fields.extend(_framing(request))
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def _is_passed_on(name: str, request: Request) -> bool:
    if "_" in name and name.replace("_", "-") in _SAID_BY_NODES:
        return False
    return name not in _WRITTEN_ANEW and not (request.protocol and name in _HANDSHAKE)


def _framing(request: Request) -> list[tuple[str, str]]:
    """Say how long the body is (RFC 9112 section 6)."""
    if request.HasField("body_length"):
        return [("content-length", str(request.body_length))]
    if request.more:
        return [("transfer-encoding", "chunked")]
    if request.body or request.verb in _WITH_BODY:
        return [("content-length", str(len(request.body)))]
    return []


def forwarded_for(address: str) -> str:
    """Write an address as `for` of `Forwarded` has it (RFC 7239 section 6); of none, "unknown"."""
    if ":" in address:
        return f'"[{address}]"'
    return address or "unknown"


def response_head(head: h11.Response | h11.InformationalResponse, verb: str) -> tuple[Response, bool]:
    """Return the head of the answer, and whether a body belongs to it; of 101, the 200 that opens a web socket.

    Args:
        head: the service's.
        verb: of the request.

    Raises:
        ServiceUnansweredError: its status is none, or its length is, or it has too many headers.
    """
    response = Response(status=200 if head.status_code == 101 else head.status_code)
    if not 200 <= response.status <= 599:
        raise ServiceUnansweredError(f"the service answered with status {head.status_code}")
    if len(head.headers) > MAX_PARTS:
        raise ServiceUnansweredError(f"the service's answer has {len(head.headers)} headers, {MAX_PARTS} are accepted")
    fields = [(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers]
    single = dict(fields)
    nominated = {token.strip() for name, value in fields if name == "connection" for token in value.lower().split(",")}
    for name, value in fields:
        if name not in _ELSEWHERE and name not in nominated:
            response.headers.add(name=name, value=value)
    response.content_type = single.get("content-type", "")
    response.return_code = _code(single.get("x-event-return-code", ""))
    has_body = verb != "head" and head.status_code not in _BODILESS
    if "content-length" in single and "transfer-encoding" not in single and (has_body or verb == "head"):
        try:
            response.body_length = int(single["content-length"])
        except ValueError:
            raise ServiceUnansweredError("the service's answer has a Content-Length beyond 2^64") from None
    return response, has_body


def _code(value: str) -> int:
    """Read the return code of a service that is a node itself; 0 where it is none."""
    try:
        code = int(value)
    except ValueError:
        return 0
    return code if -_MAX_CODE <= code < _MAX_CODE else 0
