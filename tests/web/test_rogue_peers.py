"""What a peer that keeps the protocol and nothing else can do to the HTTP answers of a node: nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from memory_pipes import Pipes, memory_pipes

from restpipe.config import TcpBind
from restpipe.nodes.exchanges import Patience
from restpipe.pipe import Incoming, Pipe
from restpipe.web.admission import Admission
from restpipe.web.door import Door
from restpipe.web.gateway import Gateway
from restpipe.web.server import WebServer
from restpipe_pb.v1.pipe_pb2 import Failure, Header, Response

ANYWHERE = TcpBind("127.0.0.1", 0)
Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def pipes(leak_free: None) -> AsyncIterator[Pipes]:
    async with memory_pipes() as made:
        yield made


async def asked(pipes: Pipes, answer: Response, verb: str = "GET", more: list[bytes] | None = None) -> httpx.Response:
    """Have a peer answer over real HTTP."""

    async def serve(incoming: Incoming) -> None:
        incoming.respond(answer)
        if more is not None:
            await incoming.send_body(_pieces(more))

    joint = await pipes.join(object(), serve=serve)

    def route(path: bytes) -> Any:
        async def pipe_to(wait: float) -> Pipe:
            return joint.calling

        return "peer", pipe_to, path

    gateway = Gateway(
        FastAPI(),
        door=Door(ANYWHERE, (), ""),
        prefix=b"/server/",
        route=route,
        patience=Patience(5, 5),
        max_timeout=5,
        max_message=1000,
        admission=Admission(1, shared=False),
    )
    server = WebServer(gateway, ANYWHERE, socket_mode=0, grace=1)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=server.address) as client:
            return await client.request(verb, "/server/value")
    finally:
        await server.stop()


async def _pieces(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


def is_unusable(response: httpx.Response) -> bool:
    return (
        response.status_code == 502
        and response.headers["x-event-return-code"] == "246"
        and response.headers["content-type"] == "application/problem+json"
        and (not response.content or response.json()["instance"].startswith("urn:restpipe:request:"))
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\nset-cookie: evil"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x\r\ny", "a"),
        ("x y", "a"),
        ("x:", "a"),
        ("", "a"),
        ("é", "a"),
        ("x", "\u0411"),
        ("content-length", "1"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("x-event-return-code", "9"),
        ("x-event-attempts", "9"),
    ],
)
async def test_a_header_that_would_break_the_answer_apart_is_502(pipes: Pipes, name: str, value: str) -> None:
    response = await asked(pipes, Response(status=200, headers=[Header(name=name, value=value)], body=b"body"))
    assert is_unusable(response)
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("content_type", ["a\r\nset-cookie: evil", "a\0"])
async def test_a_content_type_that_would_break_the_answer_apart_is_502(pipes: Pipes, content_type: str) -> None:
    assert is_unusable(await asked(pipes, Response(status=200, content_type=content_type, body=b"body")))


@pytest.mark.parametrize(("verb", "status"), [("GET", 204), ("GET", 304), ("HEAD", 200)])
async def test_a_body_where_there_is_none_to_be_does_not_reach_the_connection(
    pipes: Pipes, verb: str, status: int
) -> None:
    response = await asked(pipes, Response(status=status, body=b"HTTP/1.1 200 OK\r\n\r\n"), verb)
    assert (response.status_code, response.content) == (status, b"")
    assert is_unusable(await asked(pipes, Response(status=status, body=b"a", more=True), verb, [b"b"]))


async def test_the_length_of_a_body_that_cannot_be_is_not_told(pipes: Pipes) -> None:
    response = await asked(pipes, Response(status=204, body_length=5))
    assert (response.status_code, response.content) == (204, b"")
    assert "content-length" not in response.headers


async def test_a_body_that_is_longer_than_announced_is_cut(pipes: Pipes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await asked(pipes, Response(status=200, body=b"a", more=True, body_length=2), more=[b"bcd" * 1000])


async def test_a_body_that_is_shorter_than_announced_is_cut(pipes: Pipes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await asked(pipes, Response(status=200, body=b"a", more=True, body_length=9), more=[b"b"])


async def test_the_length_of_a_whole_body_is_counted_not_believed(pipes: Pipes) -> None:
    assert (await asked(pipes, Response(status=200, body=b"abc", body_length=7))).content == b"abc"


async def test_verbs_that_are_none_are_left_out_of_allow(pipes: Pipes) -> None:
    failure = Failure(kind=Failure.WRONG_VERB, message="no", allow=["get", "x\r\nset-cookie: evil"])
    response = await asked(pipes, Response(failure=failure))
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert "set-cookie" not in response.headers


async def test_the_text_of_a_failure_may_be_anything(pipes: Pipes) -> None:
    message = "a\r\n\r\n<script>\0\U0001f40d\u2028"
    response = await asked(
        pipes, Response(failure=Failure(kind=Failure.RAISED, message=message, exception_class=message))
    )
    assert response.status_code == 500
    assert response.json()["exception"] == {"class": message, "message": message, "traceback": ""}


@pytest.mark.parametrize("status", [200, 299, 418, 499, 599])
async def test_any_status_of_the_range_is_passed_on(pipes: Pipes, status: int) -> None:
    assert (await asked(pipes, Response(status=status, body=b"x"))).status_code == status
