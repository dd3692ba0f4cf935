"""The event routes of both kinds of node, over real HTTP and real pipes: what every outcome looks like."""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import pytest_asyncio
from live_handlers import Events
from live_nodes import PATIENCE, connected, running_client, running_server, web_of

from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.web.http import HttpProtocol

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_BODY = 100_000


@dataclass
class Side:
    """A node that is asked over HTTP.

    Attributes:
        http: calls its web server.
        prefix: of the events of its peer.
        peer: the handler of its peer.
    """

    http: httpx.AsyncClient
    prefix: str
    peer: Events

    async def ask(self, verb: str, path: str, **options: Any) -> httpx.Response:
        return await self.http.request(verb, self.prefix + path, **options)

    @property
    def port(self) -> int:
        port = self.http.base_url.port
        if port is None:
            raise AssertionError("no port")
        return port

    @contextlib.asynccontextmanager
    async def raw(
        self, *lines: str, body: bytes = b""
    ) -> "AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]":
        """Open a connection and send a request, the lines of its head and what is there of its body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(PATIENCE):
                head = "".join(f"{line}\r\n" for line in lines)
                writer.write(f"{head}\r\n".encode("latin-1") + body)
                yield reader, writer
        finally:
            writer.close()


Sides = dict[str, Side]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sides(identity_files: Path) -> AsyncIterator[Sides]:
    """Return both nodes, joined, and a client that the server lets reach the other one."""
    options: dict[str, Any] = {"max_body_bytes": MAX_BODY, "max_request_timeout_s": 100.0}
    async with (
        running_server(identity_files, relay=("beta>alpha",), **options) as server,
        running_client(identity_files, server.port, **options) as client,
        running_client(identity_files, server.port, "beta", **options) as other,
        web_of(server) as server_http,
        web_of(client) as client_http,
        web_of(other) as other_http,
    ):
        await connected(server, client)
        await connected(server, other)
        yield {
            "server node": Side(server_http, "/client/alpha/", client.handler),
            "client node": Side(client_http, "/server/", server.handler),
            "another client": Side(other_http, "/client/alpha/", client.handler),
        }


@pytest_asyncio.fixture(params=["server node", "client node", "another client"], loop_scope="module")
async def side(request: pytest.FixtureRequest, sides: Sides) -> Side:
    """Return one of the nodes, its peer's handler as if new."""
    side = sides[request.param]
    side.peer.__init__()  # type: ignore[misc]
    return side


async def entered(handler: Events) -> None:
    async with asyncio.timeout(PATIENCE):
        await handler.entered.wait()


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """Return the document of a failure, once it has all that a failure's has."""
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "executed", "retryable", "exception"} <= document.keys()
    assert document["status"] == response.status_code
    assert document["type"].startswith("urn:restpipe:")
    assert set(document["exception"]) == {"class", "message", "traceback"}
    assert document["exception"]["message"] == document["detail"]
    return document


# Section 1: what a handler answers.


@dataclass
class Good:
    verb: str
    path: str
    status: int = 200
    code: str = "0"
    body: bytes = b""
    mime_type: str | None = "application/json"


@pytest.mark.parametrize(
    "row",
    [
        Good("GET", "value", body=b'{"value": 1}'),
        Good("HEAD", "value"),
        Good("GET", "nothing", mime_type=None),
        Good("GET", "code", code="7", body=b"seven", mime_type="text/plain; charset=utf-8"),
        Good("GET", "reply", status=201, code="3", body=b'{"made": true}'),
        Good("GET", "reply//404", status=404, code="3", body=b'{"made": true}'),
        Good("GET", "reply?status=204", status=204, code="3", mime_type=None),
        Good("GET", "pieces", body=b"0 1 2 ", mime_type="application/octet-stream"),
        Good("HEAD", "pieces", mime_type="application/octet-stream"),
        Good("GET", "cat//a%2Fb/", body=b'["a/b", ""]'),
        Good("GET", "cat//", body=b'[""]'),
        Good("GET", "cat", body=b"[]"),
        Good("GET", "cat//%e2%82%ac/+", body='["€", "+"]'.encode()),
        Good(
            "GET",
            "typed//7/2020-02-02?colour=blue",
            body=b'{"number": 7, "day": "2020-02-02", "colour": "blue", "line": null}',
        ),
        Good("POST", "echo", mime_type="application/octet-stream"),
    ],
    ids=lambda row: f"{row.verb} {row.path}",
)
async def test_a_handlers_answer_arrives_as_it_was_given(side: Side, row: Good) -> None:
    response = await side.ask(row.verb, row.path)
    assert response.status_code == row.status
    assert response.headers["x-event-return-code"] == row.code
    assert response.content == row.body
    assert response.headers.get("content-type") == row.mime_type
    assert "x-event-attempts" not in response.headers


async def test_headers_of_a_reply_arrive(side: Side) -> None:
    assert (await side.ask("GET", "reply")).headers["x-made"] == "yes"


async def test_head_tells_the_length_that_get_would_have(side: Side) -> None:
    get, head = await side.ask("GET", "value"), await side.ask("HEAD", "value")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


async def test_the_caller_is_named_by_its_certificate_whatever_headers_say(sides: Sides) -> None:
    caller = (await sides["client node"].ask("GET", "caller", headers={"X-Caller": "beta"})).json()
    assert caller["caller"] == "alpha"
    assert caller["headers"]["x-caller"] == "beta"


async def test_hop_by_hop_headers_and_those_meant_for_the_node_do_not_travel(side: Side) -> None:
    sent = {
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "a",
        "TE": "x",
        "Prefer": "wait=1",
        "X-Event-Timeout": "5",
        "X-End": "b",
    }
    headers = (await side.ask("GET", "caller", headers=sent)).json()["headers"]
    assert headers["x-end"] == "b"
    assert not {"connection", "x-hop", "te", "x-event-timeout", "content-length"} & headers.keys()


# Section 1: failures.


@dataclass
class Bad:
    verb: str
    path: str
    status: int
    code: str
    kind: str
    executed: str
    detail: str
    retryable: bool = False
    headers: dict[str, str] | None = None
    body: bytes = b""
    answer: dict[str, str] | None = None


JSON = {"Content-Type": "application/json"}

BAD = [
    Bad("GET", "raise", 500, "251", "LookupError", "yes", "there is none"),
    Bad("GET", "unusable", 500, "251", "BadResultError", "yes", "cannot be encoded"),
    Bad("GET", "nonesuch/noun", 404, "255", "NoHandlerError", "no", "get_nonesuch_noun"),
    Bad("GET", "", 404, "255", "NoHandlerError", "no", "the path names no event"),
    Bad("GET", "_wait", 404, "255", "NoHandlerError", "no", "get__wait"),
    Bad("GET", "%2e%2e/value", 404, "255", "NoHandlerError", "no", "get_.._value"),
    Bad("POST", "value", 405, "255", "WrongVerbError", "no", "post_value", answer={"Allow": "GET, HEAD"}),
    Bad("GET", "echo", 405, "255", "WrongVerbError", "no", "get_echo", answer={"Allow": "POST"}),
    Bad(
        "OPTIONS",
        "value",
        405,
        "255",
        "WrongVerbError",
        "no",
        "OPTIONS",
        answer={"Allow": "GET, POST, PUT, DELETE, PATCH, HEAD"},
    ),
    Bad("GET", "typed", 400, "252", "BadArgumentsError", "no", "'number'"),
    Bad("GET", "typed//seven", 400, "252", "BadArgumentsError", "no", "'number'"),
    Bad("GET", "typed?number=1&colour=green", 400, "252", "BadArgumentsError", "no", "'colour'"),
    Bad("GET", "value?what=1", 400, "252", "BadArgumentsError", "no", "'what'"),
    Bad("GET", "value//1", 400, "252", "BadArgumentsError", "no", "get_value"),
    Bad("POST", "echo", 400, "252", "BadBodyError", "no", "line 1 column 1", headers=JSON, body=b"{"),
    Bad("POST", "point", 400, "252", "BadBodyError", "no", "x", headers=JSON, body=b"{}"),
    Bad("POST", "echo", 413, "249", "BodyTooLargeError", "no", str(MAX_BODY), body=bytes(MAX_BODY + 1)),
    Bad("GET", "cat//%zz", 400, "252", "BadRequestError", "no", "%zz"),
    Bad("GET", "cat//%ff", 400, "252", "BadRequestError", "no", "UTF-8"),
    Bad("GET", "value?x=%ff", 400, "252", "BadRequestError", "no", "UTF-8"),
    Bad("GET", "cat//%00", 400, "252", "BadRequestError", "no", "NUL"),
    Bad("GET", "value", 400, "252", "BadRequestError", "no", "'soon'", headers={"X-Event-Timeout": "soon"}),
    Bad("GET", "value", 421, "253", "MisdirectedError", "no", "evil.example", headers={"Host": "evil.example"}),
    Bad("GET", "value", 403, "253", "ForbiddenError", "no", "another site", headers={"Origin": "http://evil.example"}),
    Bad("POST", "echo", 403, "253", "ForbiddenError", "no", "another site", headers={"Sec-Fetch-Site": "cross-site"}),
    Bad("GET", "wait", 504, "247", "DeadlineError", "unknown", "no answer from", headers={"X-Event-Timeout": "0.05"}),
]


@pytest.mark.parametrize("row", BAD, ids=lambda row: f"{row.status} {row.verb} {row.path} {row.detail}")
async def test_a_failure_tells_what_happened_and_whether_it_was_executed(side: Side, row: Bad) -> None:
    response = await side.ask(row.verb, row.path, headers=row.headers, content=row.body)
    assert response.status_code == row.status
    assert response.headers["x-event-return-code"] == row.code
    document = problem_of(response)
    assert document["exception"]["class"] == row.kind
    assert row.detail in document["detail"]
    assert (document["executed"], document["retryable"]) == (row.executed, row.retryable)
    for name in ("allow", "retry-after", "www-authenticate"):
        assert response.headers.get(name) == (row.answer or {}).get(name.title())
    assert not {name for name in response.headers if name.startswith("access-control-")}


async def test_every_failure_of_head_has_the_headers_and_no_body(side: Side) -> None:
    response = await side.ask("HEAD", "nonesuch")
    assert (response.status_code, response.headers["x-event-return-code"]) == (404, "255")
    assert response.content == b""


async def test_what_a_handler_raised_carries_its_traceback_and_the_exchange(side: Side) -> None:
    document = problem_of(await side.ask("GET", "raise"))
    assert "in get_raise" in document["exception"]["traceback"]
    assert document["instance"].startswith("urn:restpipe:request:")


async def test_a_bug_of_the_node_is_told_with_the_request_that_met_it(
    side: Side, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("restpipe.web.gateway.Place", Mock(side_effect=RuntimeError("a bug")))
    response = await side.ask("GET", "value", headers={"X-Request-Id": "order-17"})
    assert (response.status_code, response.headers["x-event-return-code"]) == (500, "250")
    document = problem_of(response)
    assert (document["instance"], document["detail"]) == ("urn:restpipe:request:order-17", "RuntimeError: a bug")
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert vars(logged)["request_id"] == "order-17"


async def test_a_failure_is_not_an_end_of_the_connection(side: Side) -> None:
    async with side.raw(
        f"GET {side.prefix}nonesuch HTTP/1.1",
        "Host: localhost",
        "",
        f"GET {side.prefix}value HTTP/1.1",
        "Host: localhost",
        "Connection: close",
    ) as (reader, _):
        answers = await reader.read()
    assert answers.startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/1.1 200 OK" in answers


# Waiting and time.


async def test_a_name_that_leads_to_no_client_is_404_at_once_or_503_while_clients_may_be_on_their_way(
    identity_files: Path,
) -> None:
    async with running_server(identity_files, connection_wait_timeout_s=0.0) as server, web_of(server) as http:
        response = await http.get("/client/nobody.invalid/value")
        assert (response.status_code, response.headers["x-event-return-code"]) == (404, "254")
        assert problem_of(response)["exception"]["class"] == "PeerUnknownError"
        for path in ("/client/", "/client//value"):
            assert (await http.get(path)).headers["x-event-return-code"] == "255"


async def test_several_clients_of_one_address_are_409_with_their_names(identity_files: Path) -> None:
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port, "alpha") as alpha,
        running_client(identity_files, server.port, "beta") as beta,
        web_of(server) as http,
    ):
        await connected(server, alpha)
        await connected(server, beta)
        for name in ("127.0.0.1", "localhost"):
            response = await http.get(f"/client/{name}/value")
            assert (response.status_code, response.headers["x-event-return-code"]) == (409, "254")
            document = problem_of(response)
            assert "alpha, beta" in document["detail"]
            assert document["executed"] == "no"
        assert (await http.get("/client/beta/value")).json() == {"value": 1}
        await alpha.stop(0)
        assert (await http.get("/client/localhost/value")).json() == {"value": 1}


@contextlib.asynccontextmanager
async def lonely(identity_files: Path, kind: str, **options: Any) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """Run a node whose peer is away; yield what calls it, and the route of an event of the peer."""
    if kind == "server node":
        async with running_server(identity_files, **options) as server, web_of(server) as http:
            async with running_client(identity_files, server.port) as client:
                await connected(server, client)
            await server._events.until("connection_removed")
            yield http, "/client/alpha/value"
    else:
        async with running_client(identity_files, 1, **options) as node, web_of(node) as http:
            yield http, "/server/value"


kinds = pytest.mark.parametrize("kind", ["server node", "client node"])


@kinds
@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("prefer", ["wait=0", "respond-async, wait=0", 'wait="0"', "Wait = 0; x"])
async def test_an_absent_peer_is_503_never_sent_and_worth_a_retry(
    identity_files: Path, kind: str, verb: str, prefer: str
) -> None:
    async with asyncio.timeout(PATIENCE / 2), lonely(identity_files, kind) as (http, path):
        response = await http.request(verb, path, headers={"Prefer": prefer})
    assert (response.status_code, response.headers["x-event-return-code"]) == (503, "245")
    assert response.headers["retry-after"] == "1"
    document = problem_of(response)
    assert (document["executed"], document["retryable"]) == ("no", True)


@kinds
async def test_the_setting_says_how_long_an_absent_peer_is_waited_for(identity_files: Path, kind: str) -> None:
    async with lonely(identity_files, kind, connection_wait_timeout_s=0.05) as (http, path):
        response = await http.get(path)
        assert (response.status_code, "within 0.05 s" in response.json()["detail"]) == (503, True)
        # A preference that cannot be read is none (RFC 7240 section 2).
        response = await http.get(path, headers={"Prefer": "wait=soon, await=9, wait=-1"})
        assert (response.status_code, "within 0.05 s" in response.json()["detail"]) == (503, True)


@kinds
async def test_the_deadline_bounds_the_wait_and_says_that_nothing_was_sent(identity_files: Path, kind: str) -> None:
    async with lonely(identity_files, kind) as (http, path):
        response = await http.get(path, headers={"X-Event-Timeout": "0.05"})
    assert (response.status_code, response.headers["x-event-return-code"]) == (504, "247")
    document = problem_of(response)
    assert (document["executed"], document["retryable"]) == ("no", True)


async def test_a_request_waits_for_a_client_that_comes_back(identity_files: Path) -> None:
    async with running_server(identity_files, connection_wait_timeout_s=0.0) as server, web_of(server) as http:
        async with running_client(identity_files, server.port) as client:
            await connected(server, client)
        await server._events.until("connection_removed")
        asking = asyncio.create_task(http.post("/client/alpha/echo", content=b"x", headers={"Prefer": "wait=9"}))
        async with running_client(identity_files, server.port):
            assert (await asking).content == b"x"


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "", "1s", "1e999", "\xff"])
async def test_a_timeout_that_is_none_is_400_and_shown(side: Side, value: str) -> None:
    response = await side.ask("GET", "value", headers=[(b"X-Event-Timeout", value.encode("latin-1"))])
    assert (response.status_code, response.headers["x-event-return-code"]) == (400, "252")
    assert "X-Event-Timeout" in problem_of(response)["detail"]


@pytest.mark.parametrize(("asked", "least", "most"), [(None, 50, 60), ("7.5", 6, 7.5), ("1e9", 90, 100)])
async def test_the_deadline_travels_bounded_by_the_maximum(
    side: Side, asked: str | None, least: float, most: float
) -> None:
    side.peer.release.set()
    await side.ask("GET", "wait", headers={"X-Event-Timeout": asked} if asked else {})
    assert least < side.peer.remaining <= most


async def test_at_the_deadline_the_handler_is_cancelled(side: Side) -> None:
    await side.ask("POST", "wait", headers={"X-Event-Timeout": "0.05"})
    async with asyncio.timeout(PATIENCE):
        await side.peer.cancelled.wait()


# Callers that leave, and that are slow.


@pytest.mark.parametrize("noun", ["wait", "endless"])
async def test_a_caller_that_hangs_up_cancels_the_handler_and_is_no_error(
    side: Side, noun: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with side.raw(f"GET {side.prefix}{noun} HTTP/1.1", "Host: localhost"):
        await entered(side.peer)
    async with asyncio.timeout(1):
        await side.peer.cancelled.wait()
    assert (await side.ask("GET", "value")).status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_caller_that_hangs_up_in_the_midst_of_its_body_leaves_nothing(side: Side) -> None:
    for sent in (0, 10, 90_000):
        async with side.raw(
            f"POST {side.prefix}echo HTTP/1.1", "Host: localhost", "Content-Length: 95000", body=bytes(sent)
        ) as (_, writer):
            await writer.drain()
    assert (await side.ask("POST", "echo", content=b"x")).content == b"x"
    assert side.peer.runs["post echo"] == 1


@pytest.mark.parametrize("framing", ["Content-Length: 90000", "Transfer-Encoding: chunked"])
async def test_a_caller_that_hangs_up_once_its_long_body_is_sent_cancels_the_handler(side: Side, framing: str) -> None:
    body = bytes(90_000)
    if "chunked" in framing:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with side.raw(f"POST {side.prefix}wait HTTP/1.1", "Host: localhost", framing, body=body):
        await entered(side.peer)
    async with asyncio.timeout(PATIENCE):
        await side.peer.cancelled.wait()


async def test_a_slow_reader_delays_nobody_else_and_gets_all(side: Side) -> None:
    async with side.raw(f"GET {side.prefix}endless HTTP/1.1", "Host: localhost") as (reader, _):
        await entered(side.peer)
        for _ in range(20):
            assert (await side.ask("GET", "value")).json() == {"value": 1}
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1 << 20)
        assert not side.peer.cancelled.is_set()


async def test_an_answer_that_breaks_is_cut_so_that_the_caller_sees_it(side: Side) -> None:
    async with side.http.stream("GET", side.prefix + "broken") as response:
        assert response.status_code == 200
        side.peer.release.set()
        with pytest.raises(httpx.RemoteProtocolError):
            await response.aread()


# Bodies.


@pytest.mark.parametrize("size", [0, 1, 20_000, 65_536, 65_537, MAX_BODY])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_any_size_arrives_whole(side: Side, size: int, chunked: bool) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 10_000):
            yield body[start : start + 10_000]

    response = await side.ask("POST", "echo", content=pieces() if chunked else body)
    assert response.status_code == 200
    assert response.content == body


@pytest.mark.parametrize("sent", [0, 5])
async def test_a_body_that_does_not_arrive_in_time_is_408_and_the_end_of_the_connection(side: Side, sent: int) -> None:
    async with side.raw(
        f"POST {side.prefix}echo HTTP/1.1", "Host: localhost", "Content-Length: 9", "X-Event-Timeout: 0.05",
        body=bytes(sent),
    ) as (reader, _):  # fmt: skip
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"x-event-return-code: 249" in answer
    assert b"within 0.05 s" in answer
    assert side.peer.runs.total() == 0


async def test_a_chunked_body_over_the_limit_is_413_before_it_is_read_on(side: Side) -> None:
    async with side.raw(
        f"POST {side.prefix}echo HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked",
        body=b"1e000\r\n" + bytes(0x1E000) + b"\r\n",
    ) as (reader, _):  # fmt: skip
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")


async def test_a_length_over_the_limit_is_413_before_the_body_is_asked_for(side: Side) -> None:
    async with side.raw(
        f"POST {side.prefix}echo HTTP/1.1", "Host: localhost", f"Content-Length: {10**12}", body=bytes(70_000)
    ) as (reader, _):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")


async def test_who_expects_100_continue_is_told_to_continue_where_the_body_is_wanted(side: Side) -> None:
    head = [f"POST {side.prefix}echo HTTP/1.1", "Host: localhost", "Content-Length: 4", "Expect: 100-continue"]
    async with side.raw(*head) as (reader, writer):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        assert b"body" in await reader.read(1000)


async def test_who_expects_100_continue_and_is_refused_at_the_door_sends_no_body(side: Side) -> None:
    head = [f"POST {side.prefix}echo HTTP/1.1", "Host: evil.example", "Content-Length: 4", "Expect: 100-continue"]
    async with side.raw(*head) as (reader, _):
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 421 ")
        assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize(
    ("noun", "framing", "status"),
    [
        ("nowhere", "Content-Length: 5000000", b"404"),
        ("nowhere", "Transfer-Encoding: chunked", b"404"),
        ("echo//1", "Transfer-Encoding: chunked", b"400"),
        ("echo", "Content-Length: 5000000", b"413"),
    ],
)
async def test_who_expects_100_continue_and_is_refused_by_the_handlers_side_sends_no_body(
    side: Side, noun: str, framing: str, status: bytes
) -> None:
    head = [f"POST {side.prefix}{noun} HTTP/1.1", "Host: localhost", framing, "Expect: 100-continue"]
    async with side.raw(*head) as (reader, _):
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 %b " % status)
        assert b"\r\nconnection: close\r\n" in answer


async def test_two_host_headers_are_400(side: Side) -> None:
    async with side.raw(f"GET {side.prefix}value HTTP/1.1", "Host: localhost", "Host: evil.example") as (reader, _):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")


async def test_pipelined_requests_are_answered_in_order(side: Side) -> None:
    lines = []
    for i in range(5):
        lines += [
            f"GET {side.prefix}cat//{i} HTTP/1.1",
            "Host: localhost",
            *(["Connection: close"] if i == 4 else []),
            "",
        ]
    async with side.raw(*lines[:-1]) as (reader, _):
        answers = await reader.read()
    positions = [answers.index(f'["{i}"]'.encode()) for i in range(5)]
    assert positions == sorted(positions)
    assert answers.count(b"HTTP/1.1 200 OK") == 5


# Section 2: repeats, as HTTP shows them.


@kinds
@pytest.mark.parametrize(("count", "status"), [(3, 200), (9, 502)])
async def test_a_body_whose_length_is_not_told_is_repeated_while_it_is_short(
    identity_files: Path, kind: str, count: int, status: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(10_000)

    async with two_pipes(identity_files, kind) as (side, cut):
        asking = asyncio.create_task(side.ask("PUT", "wait", content=pieces()))
        await entered(side.peer)
        await cut()
        side.peer.release.set()
        assert (await asking).status_code == status


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE"])
@kinds
async def test_a_repeat_is_visible(identity_files: Path, kind: str, verb: str) -> None:
    async with two_pipes(identity_files, kind) as (side, cut):
        asking = asyncio.create_task(side.ask(verb, "wait"))
        await entered(side.peer)
        side.peer.entered.clear()
        await cut()
        await entered(side.peer)
        side.peer.release.set()
        response = await asking
    assert (response.status_code, response.headers["x-event-attempts"]) == (200, "2")


@kinds
async def test_a_repeat_that_fails_is_as_visible(identity_files: Path, kind: str) -> None:
    async with two_pipes(identity_files, kind) as (side, cut):
        asking = asyncio.create_task(side.ask("GET", "wait", headers={"X-Event-Timeout": "2"}))
        await entered(side.peer)
        side.peer.entered.clear()
        await cut()
        await entered(side.peer)
        response = await asking
    assert (response.status_code, response.headers["x-event-attempts"]) == (504, "2")


@pytest.mark.parametrize(("verb", "noun"), [("POST", "wait"), ("PATCH", "wait"), ("GET", "once"), ("HEAD", "once")])
@kinds
async def test_what_must_not_be_repeated_is_502_outcome_unknown(
    identity_files: Path, kind: str, verb: str, noun: str
) -> None:
    async with two_pipes(identity_files, kind) as (side, cut):
        asking = asyncio.create_task(side.ask(verb, noun))
        await entered(side.peer)
        await cut()
        async with asyncio.timeout(0.5):
            response = await asking
        assert (response.status_code, response.headers["x-event-return-code"]) == (502, "246")
        assert not {"retry-after", "x-event-attempts"} & response.headers.keys()
        if verb != "HEAD":
            document = problem_of(response)
            assert (document["executed"], document["retryable"]) == ("unknown", False)
        assert side.peer.runs.total() == 1


@contextlib.asynccontextmanager
async def two_pipes(
    identity_files: Path, kind: str, **settings: dict[str, Any]
) -> AsyncIterator[tuple[Side, Callable[[], Any]]]:
    """Run both nodes; yield one of them, and what cuts the connection."""
    async with (
        running_server(identity_files, **settings.get("server", {})) as server,
        running_client(identity_files, server.port, **settings.get("client", {})) as client,
    ):
        await connected(server, client)
        asked: ServerNode | ClientNode = server if kind == "server node" else client

        async def cut() -> None:
            (pipe,) = client.pipes
            await pipe._carrier.close()
            await asyncio.wait({pipe.ended})

        async with web_of(asked) as http:
            if kind == "server node":
                yield Side(http, "/client/alpha/", client.handler), cut
            else:
                yield Side(http, "/server/", server.handler), cut


async def test_too_many_exchanges_are_503_never_sent(identity_files: Path) -> None:
    async with (
        running_server(identity_files, max_exchanges=1) as server,
        running_client(identity_files, server.port) as client,
        web_of(client) as http,
    ):
        await connected(server, client)
        first = asyncio.create_task(http.get("/server/wait"))
        await entered(server.handler)
        response = await http.get("/server/value")
        assert (response.status_code, response.headers["x-event-return-code"]) == (503, "249")
        assert response.headers["retry-after"] == "1"
        assert problem_of(response)["executed"] == "no"
        server.handler.release.set()
        assert (await first).status_code == 200


async def test_what_gets_no_thread_is_503_never_run_and_who_asks_again_at_once_is_read_later(
    identity_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause, released = 1.0, threading.Event()
    monkeypatch.setattr(HttpProtocol, "_pause", pause)
    async with (
        running_server(identity_files, handler_threads=1, files=tmp_path) as server,
        running_client(identity_files, server.port) as client,
        web_of(client) as http,
    ):
        await connected(server, client)
        blocking = asyncio.create_task(server.threads.run(partial(released.wait, PATIENCE)))
        began = asyncio.get_running_loop().time()
        for _ in range(2):
            response = await http.get("/server/files//", headers={"X-Event-Timeout": "0.05"})
            assert (response.status_code, response.headers["x-event-return-code"]) == (503, "245")
            assert response.headers["retry-after"] == "1"
            assert problem_of(response)["executed"] == "no"
        assert asyncio.get_running_loop().time() - began >= 0.9 * pause
        released.set()
        await blocking
        assert (await http.get("/server/files//")).json() == []


@kinds
async def test_what_is_more_than_may_wait_is_503_before_its_body_and_the_rest_is_served(
    identity_files: Path, kind: str
) -> None:
    async with two_pipes(identity_files, kind, server={"web_max_requests": 4}, client={"web_max_requests": 2}) as (
        side,
        _,
    ):
        waiting = [asyncio.create_task(side.ask("GET", "wait")) for _ in range(2)]
        async with asyncio.timeout(PATIENCE):
            while side.peer.runs["get wait"] < 2:
                assert (await side.http.get("/healthz")).status_code == 200
        response = await side.ask("GET", "value")
        assert (response.status_code, response.headers["x-event-return-code"]) == (503, "249")
        assert response.headers["retry-after"] == "1"
        assert problem_of(response)["executed"] == "no"
        runs = side.peer.runs.total()
        for more in (
            ("Expect: 100-continue", "Content-Length: 9"),
            ("Content-Length: 1000000",),
            (
                "Upgrade: websocket",
                "Connection: upgrade",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: " + "a" * 22 + "==",
            ),
        ):
            verb = "GET" if "Upgrade" in more[0] else "POST"
            async with side.raw(f"{verb} {side.prefix}echo HTTP/1.1", "Host: localhost", *more) as (reader, _):
                assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
        if kind == "server node":  # there are places for the others
            assert (await side.http.get("/client/nobody/value", headers={"Prefer": "wait=0"})).status_code == 404
        assert side.peer.runs.total() == runs
        side.peer.release.set()
        assert [(await each).status_code for each in waiting] == [200, 200]
        assert (await side.ask("GET", "value")).status_code == 200


@kinds
async def test_a_node_that_stops_answers_who_waits_for_its_peer(identity_files: Path, kind: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        node: ServerNode | ClientNode
        if kind == "server node":
            node = await stack.enter_async_context(running_server(identity_files))
            path = "/client/nobody/value"
        else:
            node = await stack.enter_async_context(running_client(identity_files, 1))
            path = "/server/value"
        http = await stack.enter_async_context(web_of(node))
        asking = asyncio.create_task(http.get(path))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.shield(asking)
        await node.stop(PATIENCE)
        async with asyncio.timeout(PATIENCE / 2):
            response = await asking
        assert (response.status_code, response.headers["x-event-return-code"]) == (503, "245")


async def test_the_token_is_asked_for_and_stays_with_the_node(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", "s3cret")
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port) as client,
        web_of(client) as http,
    ):
        await connected(server, client)
        for path in ("/server/value", "/docs", "/openapi.json", "/nowhere"):
            response = await http.get(path)
            assert (response.status_code, response.headers["x-event-return-code"]) == (401, "253")
            assert "Bearer" in response.headers["www-authenticate"]
            assert problem_of(response)["executed"] == "no"
        for authorization in ({"headers": {"Authorization": "Bearer s3cret"}}, {"auth": ("anyone", "s3cret")}):
            response = await http.get("/server/caller", **authorization)
            assert response.status_code == 200
            assert "authorization" not in response.json()["headers"]


async def test_without_a_token_authorization_is_the_handlers(side: Side) -> None:
    response = await side.ask("GET", "caller", headers={"Authorization": "Bearer somebody's"})
    assert response.json()["headers"]["authorization"] == "Bearer somebody's"


async def test_documents_are_json_whatever_the_path_had(side: Side) -> None:
    response = await side.ask("GET", "%F0%9F%90%8D%22%0d%0a")
    assert json.loads(response.content)["status"] == 404
