"""Whoever reaches a node's web server, with raw sockets: 4xx and a closed connection, and nothing beyond."""

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import PATIENCE, Node, Site, site_with_handlers

HOST = b"Host: localhost\r\n"
GET = b"GET /client/client/data HTTP/1.1\r\n" + HOST
POST = b"POST /client/client/echo HTTP/1.1\r\n" + HOST
# What comes behind the end that one of two readings gives a request.
SMUGGLED = b"GET /client/client/wait//smuggled HTTP/1.1\r\n" + HOST + b"\r\n"

# Where the end of these is, readers disagree.
AMBIGUOUS = {
    "length, then chunked": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunked with a space": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunked behind a tab": b"Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunked of a kind": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked and identity": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 65\r\n\r\n",
    "one length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": b"Content-Length: +3\r\n\r\nabc",
    "a negative length": b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": b"Content-Length: 0x3\r\n\r\nabc",
    "a length beyond numbers": b"Content-Length: 99999999999999999999\r\n\r\n",
    "an empty length": b"Content-Length: \r\n\r\n",
    "a chunk in other figures": b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond numbers": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunks between line feeds": b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "a chunk with a line in quotes": b'Transfer-Encoding: chunked\r\n\r\n3;a="b\r\n"\r\nabc\r\n0\r\n\r\n',
    "a chunk longer than it says": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
    "a header behind a line feed": b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a header behind a carriage return": b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
    "a folded header": b"X: a\r\n Content-Length: 3\r\n\r\n",
    "a length behind a space": b" Content-Length: 3\r\n\r\nabc",
    "a header without a name": b": a\r\n\r\n",
    "a space in a name": b"X Y: a\r\n\r\n",
    "a NUL in a value": b"X: a\0b\r\n\r\n",
}

MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP of the future": b"GET /client/client/data HTTP/9.9\r\n" + HOST + b"\r\n",
    "lines without carriage returns": b"GET /client/client/data HTTP/1.1\nHost: localhost\n\n",
    "a NUL in a path": b"GET /client/client/da\0ta HTTP/1.1\r\n" + HOST + b"\r\n",
    "octets that belong in no path": b"GET /client/client/d\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "no path": b"GET client/client HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT evil.example:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "another site without a path": b"GET http://evil.example HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in small letters": b"get /client/client/data HTTP/1.1\r\n" + HOST + b"\r\n",
}

# A status for each; the connection may go on.
REFUSED = {
    "an encoded NUL": (400, b"GET /client/client/da%00ta HTTP/1.1\r\n" + HOST),
    "what is no UTF-8": (400, b"GET /client/client/d%ff HTTP/1.1\r\n" + HOST),
    "no name of the node": (400, GET.replace(HOST, b"")),
    "two names of the node": (400, GET + b"Host: evil.example\r\n"),
    "two names of the node, the other way round": (400, GET.replace(HOST, b"Host: evil.example\r\n") + HOST),
    "another name": (421, GET.replace(HOST, b"Host: evil.example\r\n")),
    "another name in the target": (421, b"GET http://evil.example/client/client/data HTTP/1.1\r\n" + HOST),
    "another name in the target, and no other": (421, b"GET http://evil.example/client/client/data HTTP/1.1\r\n"),
    "two names and another in the target": (
        400,
        b"GET http://localhost/client/client/data HTTP/1.1\r\nHost: evil.example\r\n" + HOST,
    ),
    "a way out with encoded slashes": (404, b"GET /client/client/..%2f..%2fdocs HTTP/1.1\r\n" + HOST),
    "a host in the path": (404, b"GET //evil.example/client/client/data HTTP/1.1\r\n" + HOST),
    "a compressed transfer": (400, POST + b"Transfer-Encoding: gzip, chunked\r\n"),
    "a form of another site": (403, POST + b"Origin: http://evil.example\r\nContent-Length: 0\r\n"),
    "a form of nowhere": (403, POST + b"Origin: null\r\nContent-Length: 0\r\n"),
    "text of another site": (
        403,
        POST + b"Origin: http://evil.example\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n",
    ),
    "an image of another site": (403, GET + b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: image\r\n"),
    "a question before a request of another site": (
        403,
        b"OPTIONS /client/client/echo HTTP/1.1\r\nOrigin: http://evil.example\r\n" + HOST,
    ),
    "a header section that is too large": (431, GET + b"X: " + b"a" * 17_000 + b"\r\n"),
    "too many headers": (431, GET + b"X: a\r\n" * 4000),
    "too many arguments": (431, b"GET /client/client/deep_noun//" + b"a/" * 5000 + b" HTTP/1.1\r\n" + HOST),
    "a time that is no number": (400, GET + b"X-Event-Timeout: nan\r\n"),
    "a length that nobody has": (400, POST + b"Content-Length: 9999999999999999999\r\n"),
    "no method of events": (405, b"TRACE /client/client/data HTTP/1.1\r\n" + HOST),
}


class Nodes:
    """A server and a client, which serves."""

    def __init__(self, site: Site) -> None:
        self.server, self.client = site.pair(RP_WEB_HEAD_TIMEOUT_S="1")
        self.port = int(self.server.web.rpartition(":")[2])

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as made:
            yield made


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with site_with_handlers(tmp_path_factory.mktemp("callers")) as site:
        yield Nodes(site)


def all_of(connection: socket.socket) -> bytes:
    """Read to the end, which the server makes."""
    read = b""
    with contextlib.suppress(ConnectionResetError):  # what was sent beyond the refusal is not read
        while piece := connection.recv(65536):
            read += piece
    return read


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


def refused(nodes: Nodes, request: bytes) -> bytes:
    with nodes.connection() as connection:
        connection.sendall(request)
        received = all_of(connection)
    assert statuses(received) == [400]
    assert b"application/problem+json" in received
    return received


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=list(AMBIGUOUS))
def test_a_request_whose_end_readers_disagree_on_is_400_and_the_end_of_its_connection(
    nodes: Nodes, request_: bytes
) -> None:
    refused(nodes, POST + request_ + SMUGGLED)
    assert "get_wait begins" not in nodes.client.output


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=list(MALFORMED))
def test_a_request_that_is_none_is_400_and_the_end_of_its_connection(nodes: Nodes, request_: bytes) -> None:
    refused(nodes, request_ + SMUGGLED)
    assert "get_wait begins" not in nodes.client.output


@pytest.mark.parametrize(("status", "request_"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_not_wanted_is_refused_with_a_reason_and_no_invitation(
    nodes: Nodes, status: int, request_: bytes
) -> None:
    with nodes.connection() as connection:
        connection.sendall(request_ + b"Connection: close\r\n\r\n")
        received = all_of(connection)
    assert statuses(received) == [status]
    assert b"application/problem+json" in received
    assert b"access-control-" not in received.lower()


def test_chunks_of_old_http_end_the_connection_with_the_request(nodes: Nodes) -> None:
    with nodes.connection() as connection:
        old = POST.replace(b"HTTP/1.1", b"HTTP/1.0")
        connection.sendall(old + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED)
        assert len(statuses(all_of(connection))) == 1
    assert "get_wait begins" not in nodes.client.output


def test_a_line_break_in_an_argument_is_data(nodes: Nodes) -> None:
    answer = curl(f"{nodes.server.web}/client/client/deep_noun//%0d%0aSet-Cookie:%20evil")
    assert answer.json == ["\r\nSet-Cookie: evil"]
    assert "set-cookie" not in answer.headers


def test_a_head_that_does_not_come_to_its_end_is_408(nodes: Nodes) -> None:
    with nodes.connection() as connection:
        connection.sendall(GET)
        assert statuses(all_of(connection)) == [408]


def test_a_body_that_does_not_come_to_its_end_is_given_up_in_its_time(nodes: Nodes) -> None:
    with nodes.connection() as connection:
        connection.sendall(POST + b"X-Event-Timeout: 1\r\nContent-Length: 10\r\nConnection: close\r\n\r\nabc")
        assert statuses(all_of(connection)) == [408]


def test_callers_who_say_nothing_keep_nobody_waiting(nodes: Nodes) -> None:
    with contextlib.ExitStack() as silent:
        for number in range(200):
            connection = silent.enter_context(nodes.connection())
            connection.sendall(GET[: number % len(GET)])
        assert curl(f"{nodes.server.web}/client/client/sum//20/22").json == {"sum": 42}


def test_nothing_of_all_that_was_a_fault_of_the_nodes(nodes: Nodes) -> None:
    both: list[Node] = [nodes.server, nodes.client]
    assert not any("Traceback" in node.output for node in both)
    assert curl(f"{nodes.server.web}/client/client/sum//20/22").json == {"sum": 42}


def test_a_socket_is_for_its_owner_and_group_alone(tmp_path: Path) -> None:
    with site_with_handlers(tmp_path) as site:
        (tmp_path / "run").mkdir(mode=0o750)
        path = tmp_path / "run" / "server.sock"
        server = site.server(RP_SERVER_WEB_BIND=f"unix:{path}")
        assert (path.stat().st_mode & 0o777) == 0o660
        assert (path.parent.stat().st_mode & 0o777) == 0o750
        assert curl("http://any.name/healthz", "--unix-socket", str(path)).status == 200
        server.end()
        assert not path.exists()
