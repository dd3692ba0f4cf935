"""Whatever a node that went rogue asks for, the service is told who asks, and where the request ends."""

import pytest

from restpipe.config import UpstreamAddress
from restpipe.exceptions import BadArgumentsError
from restpipe.handlers.upstream_heads import request_head
from restpipe.transport.carrier import Peer
from restpipe_pb.v1.pipe_pb2 import Header, Request

PEER = Peer("mallory", "192.0.2.7")
SERVICE = UpstreamAddress("http", "127.0.0.1", 9000)


def head_of(address: UpstreamAddress = SERVICE, /, *headers: tuple[str, str], **fields: object) -> dict[str, list[str]]:
    """Return what the service is told."""
    request = Request(verb="post", target="/", body=b"body")
    request.MergeFrom(Request(**fields))  # type: ignore[arg-type]
    request.headers.extend(Header(name=name, value=value) for name, value in headers)
    told: dict[str, list[str]] = {}
    for name, value in request_head(request, PEER, address).headers:
        told.setdefault(name.decode(), []).append(value.decode())
    return told


@pytest.mark.parametrize("name", ["x-event-caller", "X-Event-Caller", "x_event_caller", "X_EVENT-CALLER"])
def test_the_caller_is_the_one_of_the_certificate_alone(name: str) -> None:
    told = head_of(SERVICE, (name, "boss"))
    assert told["x-event-caller"] == ["mallory"]
    assert "boss" not in str(told)


@pytest.mark.parametrize(
    "name", ["content-length", "Content-Length", "CONTENT_LENGTH", "transfer-encoding", "Transfer-Encoding"]
)
def test_the_length_of_a_body_is_said_once_and_by_this_node(name: str) -> None:
    told = head_of(SERVICE, (name, "chunked" if "ransfer" in name else "40"))
    assert told["content-length"] == ["4"]
    assert "transfer-encoding" not in told
    assert "content_length" not in told


@pytest.mark.parametrize("name", ["host", "Host"])
def test_there_is_one_host(name: str) -> None:
    assert head_of(SERVICE, ("host", "a.example"), (name, "b.example"))["host"] == ["b.example"]


@pytest.mark.parametrize(
    "target", ["http://evil.example/", "evil.example:80", "*", "", "/a b", "/a\r\nHost: evil", "/é"]
)
def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    request = Request(verb="get", target=target)
    with pytest.raises(BadArgumentsError):
        request_head(request, PEER, SERVICE)


@pytest.mark.parametrize("verb", ["get /evil http/1.1\r\nx: y\r\n\r\nget", "", "g t", "gét"])
def test_a_method_that_is_none_is_refused(verb: str) -> None:
    with pytest.raises(BadArgumentsError):
        request_head(Request(verb=verb, target="/"), PEER, SERVICE)


@pytest.mark.parametrize(
    ("name", "value"), [("x", "a\r\nb: c"), ("x", "a\0"), ("x\r\ny", "a"), ("x y", "a"), ("", "a"), ("x", "Ω")]
)
def test_a_header_that_would_break_the_request_apart_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadArgumentsError):
        head_of(SERVICE, (name, value))
