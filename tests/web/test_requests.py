"""What the pipe carries of an HTTP request: an event, or all of it for a peer that passes it on."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.exceptions import BadRequestError, NoHandlerError, WrongVerbError
from restpipe.nodes.exchanges import Patience
from restpipe.web.requests import NOT_FORWARDED, Asked
from restpipe_pb.v1.pipe_pb2 import Request

PREFIX = b"/client/box/"


def asked(
    rest: bytes = b"",
    query: bytes = b"",
    *headers: tuple[bytes, bytes],
    method: str = "GET",
    scheme: str = "http",
    **further: str,
) -> Asked:
    scope: dict[str, Any] = {
        **further,
        "type": "websocket" if scheme == "ws" else "http",
        "scheme": scheme,
        "method": method,
        "client": ("127.0.0.1", 1),
        "raw_path": PREFIX + rest,
        "query_string": query,
        "headers": headers,
    }
    return Asked(scope, rest, kept=NOT_FORWARDED, patience=Patience(10, 5), max_timeout=100)


def passed_on(asked: Asked) -> Request:
    """Return what a peer gets that passes requests on."""
    return asked.request_to(SimpleNamespace(forwards=True))  # type: ignore[arg-type]


def event(asked: Asked) -> Request:
    """Return what a peer gets that serves events."""
    return asked.request_to(SimpleNamespace(forwards=False))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "expects"),
    [
        ([], False),
        ([(b"expect", b"100-continue")], True),
        ([(b"expect", b"100-Continue")], True),
        ([(b"expect", b"the best")], False),
    ],
)
def test_who_expects_to_be_asked_for_the_body_waits_for_credit(
    headers: list[tuple[bytes, bytes]], *, expects: bool
) -> None:
    made = asked(b"x", b"", *headers)
    assert made.expects == expects
    assert not event(made).awaits_credit
    waiting = made.request_for_which_body_waits(SimpleNamespace(forwards=False))  # type: ignore[arg-type]
    assert waiting.awaits_credit
    assert "expect" not in [header.name for header in waiting.headers]


@pytest.mark.parametrize(
    ("rest", "query", "target"),
    [
        (b"", b"", "/"),
        (b"a/b", b"", "/a/b"),
        (b"a%2Fb//c/./d/", b"", "/a%2Fb//c/./d/"),
        (b"//a", b"", "///a"),
        (b"%zz", b"", "/%zz"),
        (b"a", b"x=1&x=%zz&=&y+z", "/a?x=1&x=%zz&=&y+z"),
        ("é".encode(), "é".encode(), "/%C3%A9?%C3%A9"),
    ],
)
def test_a_target_is_passed_on_as_it_was_written(rest: bytes, query: bytes, target: str) -> None:
    request = passed_on(asked(rest, query))
    assert (request.target, request.noun, list(request.arguments), list(request.query)) == (target, "", [], [])


@given(st.binary(), st.binary())
def test_any_target_can_be_passed_on(rest: bytes, query: bytes) -> None:
    assert passed_on(asked(rest, query)).target.isascii()


def test_to_a_peer_that_serves_events_no_target_goes() -> None:
    request = event(asked(b"cat//a%2Fb", b"x=1"))
    assert (request.target, request.noun, list(request.arguments)) == ("", "cat", ["a/b"])


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PROPFIND", "M-SEARCH", "PATCH"])
def test_every_method_is_passed_on(method: str) -> None:
    assert passed_on(asked(method=method)).verb == method.lower()


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_what_is_between_the_caller_and_this_node_is_not_passed_on(method: str) -> None:
    with pytest.raises(WrongVerbError):
        passed_on(asked(method=method))


def test_a_web_socket_is_passed_on_as_a_connect() -> None:
    request = passed_on(asked(b"kernel", scheme="ws"))
    assert (request.verb, request.protocol, request.target) == ("connect", "websocket", "/kernel")


def test_events_have_no_web_sockets() -> None:
    with pytest.raises(NoHandlerError):
        event(asked(b"kernel", scheme="ws"))


def test_headers_keep_their_order_and_their_repeats_and_lose_those_of_the_connection() -> None:
    request = event(
        asked(
            b"x", b"",
            (b"cookie", b"a"), (b"connection", b"keep-alive, X-Hop"), (b"x-hop", b"1"), (b"cookie", b"b\xe9"),
            (b"te", b"trailers"), (b"content-type", b"text/plain"), (b"content-length", b"3"), (b"prefer", b"wait=1"),
        )
    )  # fmt: skip
    assert [(header.name, header.value) for header in request.headers] == [
        ("cookie", "a"), ("cookie", "b\xe9"), ("prefer", "wait=1"),
    ]  # fmt: skip
    assert (request.content_type, request.body_length) == ("text/plain", 3)


def test_each_attempt_gets_a_request_of_its_own() -> None:
    once = asked(b"x")
    once.body = b"body"
    first = event(once)
    first.body = b""
    assert event(once).body == b"body"


@pytest.mark.parametrize("value", [b"", b"-1", b"1e3", b"9" * 19])
def test_a_length_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequestError):
        asked(b"x", b"", (b"content-length", value))


def test_a_service_is_told_of_the_application_that_the_node_is_mounted_in() -> None:
    for root, prefix in (("", "/client/box"), ("/a pipe", "/a%20pipe/client/box")):
        headers = {header.name: header.value for header in passed_on(asked(b"x", root_path=root)).headers}
        assert headers["x-forwarded-prefix"] == prefix
