"""What a service is told of its caller: all that this node knows, and of what the caller said only what may be true."""

from typing import Any

import pytest

from restpipe.web.forwarded import forwarded_headers
from restpipe_pb.v1.pipe_pb2 import Header, Request

LIES = (
    ("forwarded", "for=198.51.100.7;proto=https"),
    ("x-forwarded-for", "198.51.100.7"),
    ("x-forwarded-for", "198.51.100.8"),
    ("x-forwarded-host", "lies.example"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-prefix", "/lies"),
)


def told(address: str | None, *headers: tuple[str, str], scheme: str = "http") -> list[tuple[str, str]]:
    """Return the headers of a request of a caller at `address`, None for one on a unix socket."""
    request = Request(headers=[Header(name=name, value=value) for name, value in headers])
    scope: dict[str, Any] = {"client": (address, 1) if address else None, "scheme": scheme}
    forwarded_headers(request, scope, "/client/box")
    return [(header.name, header.value) for header in request.headers]


def test_a_service_is_told_who_asked_whom_and_how() -> None:
    assert told("192.0.2.1", ("host", "pipe.example:8080"), ("accept", "*/*")) == [
        ("host", "pipe.example:8080"),
        ("accept", "*/*"),
        ("forwarded", 'for=192.0.2.1;host="pipe.example:8080";proto=http'),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "pipe.example:8080"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-prefix", "/client/box"),
    ]


def test_what_a_caller_from_elsewhere_says_of_itself_is_dropped() -> None:
    assert told("192.0.2.1", ("host", "a"), *LIES) == told("192.0.2.1", ("host", "a"))


@pytest.mark.parametrize(("address", "own"), [(None, ()), ("127.0.0.1", ("127.0.0.1",)), ("::1", ("::1",))])
def test_a_proxy_on_this_machine_is_believed_what_only_it_can_know(address: str | None, own: tuple[str, ...]) -> None:
    headers = dict(told(address, ("host", "a"), *LIES))
    assert headers["x-forwarded-for"] == ", ".join(("198.51.100.7", "198.51.100.8", *own))
    assert headers["x-forwarded-proto"] == "https"
    assert headers["forwarded"].startswith("for=198.51.100.7;proto=https, for=")
    assert headers["forwarded"].endswith(';host="a";proto=https')


def test_even_a_proxy_on_this_machine_cannot_name_another_host_or_another_place() -> None:
    headers = dict(told(None, ("host", "a"), *LIES))
    assert (headers["x-forwarded-host"], headers["x-forwarded-prefix"]) == ("a", "/client/box")


@pytest.mark.parametrize(("scheme", "seen"), [("https", "https"), ("wss", "https"), ("ws", "http")])
def test_the_scheme_is_that_of_http(scheme: str, seen: str) -> None:
    assert dict(told(None, scheme=scheme))["x-forwarded-proto"] == seen


def test_a_scheme_that_is_none_is_not_believed() -> None:
    assert dict(told(None, ("x-forwarded-proto", "gopher")))["x-forwarded-proto"] == "http"


@pytest.mark.parametrize(
    ("address", "element"),
    [(None, "for=unknown"), ("192.0.2.1", "for=192.0.2.1"), ("2001:db8::1", 'for="[2001:db8::1]"')],
)
def test_addresses_are_written_as_the_header_wants_them(address: str | None, element: str) -> None:
    assert dict(told(address))["forwarded"].split(";")[0] == element


def test_a_host_cannot_break_out_of_its_quotes() -> None:
    assert 'host="a\\";proto=https;\\\\"' in dict(told("192.0.2.1", ("host", 'a";proto=https;\\')))["forwarded"]
