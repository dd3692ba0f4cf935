"""A node within a FastAPI application: its life is the application's, its REST surface is below a path of it."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from embedded import PATIENCE, Serves, client_options, server_node
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import restpipe
from restpipe.config import TcpBind
from restpipe.embed.mounting import path_within
from restpipe.handlers.context import Result
from restpipe.web.server import WebServer


def application(node: restpipe.ServerNode) -> FastAPI:
    app = FastAPI(lifespan=node.lifespan)

    @app.get("/boxes/{name}")
    async def box(name: str) -> Any:
        try:
            result: Result = await node.client(name).call("get", "name")
        except restpipe.EventError as error:
            return {"failed": error.title}
        return result.data

    app.mount("/pipe", node.app)
    return app


@pytest.fixture
def node(identity_files: Path) -> restpipe.ServerNode:
    return server_node(identity_files, handler=Serves("server"))


async def test_routes_of_an_application_call_clients_and_its_callers_have_the_rest_surface(
    identity_files: Path, node: restpipe.ServerNode
) -> None:
    app = application(node)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        restpipe.ClientNode(**client_options(identity_files, node.port, handler=Serves("box"))),
        httpx.AsyncClient(transport=transport, base_url="http://shop.example", timeout=PATIENCE) as http,
    ):
        await node.client("alpha").wait_connected()
        assert (await http.get("/boxes/alpha")).json()["name"] == "box"
        answer = await http.get("/pipe/client/alpha/sum//2?y=3")
        assert (answer.json(), answer.headers["x-event-return-code"]) == (5, "0")
        assert (await http.get("/pipe/client/alpha/sum//a%2Fb")).json()["title"] == "Arguments do not fit"
        assert (await http.get("/pipe/readyz")).json() == {"status": "ready"}
        assert 'src="status.js"' in (await http.get("/pipe/")).text
        assert (await http.get("/pipe/status.js")).status_code == 200
        (peer,) = (await http.get("/pipe/status")).json()["peers"]["list"]
        assert peer["name"] == "alpha"
        assert "/pipe/docs/clients.json" in (await http.get("/pipe/docs")).text
        (listed,) = (await http.get("/pipe/docs/clients.json")).json()["clients"]
        assert listed["document"] in (await http.get(listed["docs"])).text
        assert (await http.get(listed["document"])).json()["servers"] == [{"url": "/pipe/client/alpha"}]
        assert (await http.get("/client/alpha/name")).json() == {"detail": "Not Found"}


async def test_a_node_lives_as_long_as_its_application(node: restpipe.ServerNode) -> None:
    app = application(node)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example") as http:
        for _ in range(2):
            async with app.router.lifespan_context(app):
                assert (await http.get("/pipe/readyz")).status_code == 200
            refused = await http.get("/pipe/readyz")
            assert (refused.status_code, refused.json()["executed"]) == (503, "no")


async def test_what_is_no_request_is_refused_while_the_node_does_not_run(node: restpipe.ServerNode) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is to be received")

    await node.app({"type": "websocket", "path": "/client/alpha/"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    with pytest.raises(RuntimeError, match="async with"):
        await node.app({"type": "lifespan"}, receive, send)


async def test_pages_of_other_sites_and_those_without_the_token_stay_out(identity_files: Path) -> None:
    async with server_node(identity_files, web_token="secret") as node:
        transport = httpx.ASGITransport(node.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://anything.example") as http:
            assert (await http.get("/docs")).status_code == 401
            http.headers["Authorization"] = "Bearer secret"
            assert (await http.get("/docs")).status_code == 200
            assert (await http.get("/docs", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403


async def test_web_sockets_pass_a_mounted_node(identity_files: Path, node: restpipe.ServerNode) -> None:
    box = FastAPI()

    @box.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(f"{await socket.receive_text()} at {socket.scope['root_path']}")

    app = application(node)
    web = WebServer(app, TcpBind("127.0.0.1", 0), socket_mode=0o660, grace=1)
    async with (
        app.router.lifespan_context(app),
        restpipe.ClientNode(asgi=box, **client_options(identity_files, node.port)),
    ):
        await node.client("alpha").wait_connected()
        await web.start()
        try:
            address = web.address.replace("http:", "ws:")
            async with connect(f"{address}/pipe/client/alpha/echo", proxy=None) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello at /pipe/client/alpha"
            with pytest.raises(InvalidStatus, match="403"):
                await connect(f"{address}/pipe/client/alpha/none", proxy=None)
        finally:
            await web.stop()


async def test_a_server_that_cannot_answer_web_sockets_by_http_closes_them(node: restpipe.ServerNode) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async with node:
        headers = [(b"host", b"x"), (b"prefer", b"wait=0")]
        scope = {"type": "websocket", "path": "/client/none.invalid/", "headers": headers}
        offered: list[dict[str, Any]] = [{}, {"websocket.http.response": {}}]
        for extensions in offered:
            more = {"query_string": b"", "scheme": "ws", "client": None, "extensions": extensions}
            await node.app(scope | more, receive, send)
    assert [message["type"] for message in sent] == [
        "websocket.close", "websocket.http.response.start", "websocket.http.response.body",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("root", "raw", "within"),
    [
        ("", b"/client/a/b//c%2Fd", b"/client/a/b//c%2Fd"),
        ("/pipe", b"/pipe/client/a//", b"/client/a//"),
        ("/pipe", b"/%70ipe/client/a", b"/client/a"),
        ("/a/b", b"/a/b/server/time", b"/server/time"),
        ("/a b", b"/a%20b/server/time", b"/server/time"),
        ("/pipe", b"/pipe", b"/"),
        ("/pipe/", b"/pipe/docs", b"/docs"),
        ("/pipe", b"/client/a", b"/client/a"),
        ("/pipe", b"/pipe%2Fclient/a", b"/pipe%2Fclient/a"),
    ],
)
def test_what_is_above_the_application_is_taken_off_the_raw_path(root: str, raw: bytes, within: bytes) -> None:
    assert path_within({"root_path": root, "raw_path": raw}) == within


def test_a_server_that_tells_no_raw_path_gets_one_of_the_path() -> None:
    assert path_within({"root_path": "/pipe", "path": "/pipe/server/a b"}) == b"/server/a%20b"
