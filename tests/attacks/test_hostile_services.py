"""A node with `--upstream`, between a rogue peer and its service, and between a hostile service and honest callers."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import PATIENCE, Site
from hostile_peers import hostile_peer
from services import Connection, Service, service

from restpipe_pb.v1.pipe_pb2 import Chunk, Header, Request, Response

# Answers that no service gives that means well, or knows HTTP.
ANSWERS = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab",
    "a length beyond numbers": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nab",
    "a status that is none": b"HTTP/1.1 99 No\r\n\r\n",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    "a space in a name": b"HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n",
    "another transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
    "another protocol unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 20_000,
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 5_000 + b"Content-Length: 0\r\n\r\n",
    "provisional answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000,
    "nothing": b"",
}
# Answers that begin well.
BREAKS = {
    "less than it says": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
}


class Scripted:
    """A service that keeps what it is sent, and answers what it is told."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        self.received: list[bytes] = []

    async def __call__(self, connection: Connection) -> None:
        received = b""
        while not received.endswith(b"\r\n\r\n") and (piece := await connection.reader.read(65536)):
            received += piece
        self.received.append(received)
        with contextlib.suppress(ConnectionError):
            await connection.more(self.answer)
            if self.answer.endswith(b"ok"):  # whatever follows on this connection is kept as well
                self.received.append(await connection.rest())


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[tuple[Scripted, Service]]:
    script = Scripted()
    async with service(script) as made:
        yield script, made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


async def test_no_answer_of_a_service_gets_past_the_node_unless_it_is_one(site: Site) -> None:
    async with scripted() as (script, made):
        server = await asyncio.to_thread(site.server)
        client = await asyncio.to_thread(site.client, server.pipe_port, RP_UPSTREAM=str(made.address))
        url = f"{server.web}/client/client/"
        for name, answer in ANSWERS.items():
            script.answer = answer
            got = await asyncio.to_thread(curl, url, "-X", "POST")
            assert (got.status, got.json["executed"]) in ((502, "unknown"), (502, "yes")), name
        for name, answer in BREAKS.items():
            script.answer = answer
            process = await asyncio.create_subprocess_exec(
                "curl",
                "-sS",
                "--fail",
                "--noproxy",
                "*",
                url,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            await asyncio.wait_for(process.communicate(), PATIENCE)
            assert process.returncode != 0, name
        script.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
        assert (await asyncio.to_thread(curl, url)).text == "good"
        assert "Traceback" not in server.output + client.output
        assert client.output.count("connected to the server at") == 1


ASKED = {
    "a length and chunks": [
        Header(name="Transfer-Encoding", value="chunked"),
        Header(name="Content-Length", value="3"),
    ],
    "another caller": [Header(name="X-Event-Caller", value="boss"), Header(name="x_event_caller", value="boss")],
    "another host": [Header(name="Host", value="evil.example"), Header(name="HOST", value="evil.example")],
    "what ends a connection": [Header(name="Connection", value="close"), Header(name="Upgrade", value="h2c")],
}


async def test_a_rogue_peer_asks_a_service_what_it_may_and_one_thing_at_a_time(site: Site) -> None:
    async with scripted() as (script, made):
        server = await asyncio.to_thread(site.server, RP_UPSTREAM=str(made.address))
        site.identity("client", "mallory")
        async with hostile_peer(site.directory, "mallory", server.pipe_port) as peer:
            await peer.greet()
            number = -1
            smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
            for headers in ASKED.values():
                number += 2
                response = await peer.ask(number, "", "post", target="/", headers=headers, body=smuggled)
                assert response.status == 200 or response.HasField("failure")
            for target in ("http://evil.example/", "//evil.example/x", "*", "/a b", "/a\r\nX: y", ""):
                number += 2
                response = await peer.ask(number, "", target=target)
                assert (response.status == 200) == (target == "//evil.example/x"), target
            for verb in ("get / HTTP/1.1\r\nx:", "connect", "", "trace\0"):
                number += 2
                assert (await peer.ask(number, "", verb, target="/")).HasField("failure"), verb
            # A body that is longer than it said.
            number += 2
            longer = Request(verb="post", target="/", body_length=3, more=True, timeout_ms=60_000)
            await peer.send((number, longer), (number, Chunk(data=smuggled)))
            assert (await peer.wait_for(Response, number)).status != 200
        heads = [received for received in script.received if received]
        assert heads
        for received in heads:
            head, _, body = received.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            assert sum(line.startswith(b"host:") for line in lines) == 1
            assert [line for line in lines if re.match(rb"x.event.caller:", line)] == [b"x-event-caller: mallory"]
            lengths = [line for line in lines if line.startswith((b"content-length:", b"transfer-encoding:"))]
            assert len(lengths) <= 1
            if body:
                assert lengths == [b"content-length: %d" % len(smuggled)]
                assert body == smuggled
            assert b"boss" not in head
            assert b"evil.example" not in head or b"//evil.example/x" in head or b"host: evil.example" in lines
        assert "Traceback" not in server.output
