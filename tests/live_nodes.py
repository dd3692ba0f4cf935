"""Real nodes, over mutual TLS on loopback, within the event loop of a test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from restpipe.config import ClientSettings, ServerSettings, TcpBind
from restpipe.exceptions import PeerUnknownError
from restpipe.identity import Authority
from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.web.app import make_app
from restpipe.web.server import WebServer

PATIENCE = 10.0
TOKEN = "the token"


@pytest.fixture(scope="session")
def identity_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the files of a CA, a server and some clients."""
    directory = tmp_path_factory.mktemp("identities")
    authority = Authority.create(directory)
    authority.issue("server", "server")
    for name in ("alpha", "beta"):
        authority.issue(name, "client")
    return directory


def server_settings(identity_files: Path, **changed: Any) -> ServerSettings:
    """Return settings of a server node for tests: any port, short patience."""
    settings: dict[str, Any] = {
        "cert_path": identity_files,
        "key_filename": "server.key.pem",
        "crt_filename": "server.crt.pem",
        "bind_interface": "127.0.0.1",
        "bind_port": 0,
        "web_bind": TcpBind("127.0.0.1", 0),
        "event_handler": "live_handlers.ServerEvents",
        "connection_events": "live_handlers.Told",
        "statsd_host": "",
        "connection_wait_timeout_s": PATIENCE,
    }
    return ServerSettings(**settings | changed)


def client_settings(identity_files: Path, port: int, name: str = "alpha", **changed: Any) -> ClientSettings:
    """Return settings of a client node for tests."""
    settings: dict[str, Any] = {
        "cert_path": identity_files,
        "key_filename": f"{name}.key.pem",
        "crt_filename": f"{name}.crt.pem",
        "target_hostname": "127.0.0.1",
        "target_port": port,
        "web_bind": TcpBind("127.0.0.1", 0),
        "event_handler": "live_handlers.ClientEvents",
        "connection_events": "live_handlers.Told",
        "statsd_host": "",
        "connection_wait_timeout_s": PATIENCE,
        "reconnect_min_s": 0.01,
        "reconnect_max_s": 0.1,
    }
    return ClientSettings(**settings | changed)


@contextlib.asynccontextmanager
async def running_server(identity_files: Path, **changed: Any) -> AsyncIterator[ServerNode]:
    """Run a server node."""
    node = ServerNode(server_settings(identity_files, **changed))
    await node.start()
    try:
        yield node
    finally:
        await node.stop(0)


@contextlib.asynccontextmanager
async def running_client(
    identity_files: Path, port: int, name: str = "alpha", **changed: Any
) -> AsyncIterator[ClientNode]:
    """Run a client node; it may not be connected yet."""
    node = ClientNode(client_settings(identity_files, port, name, **changed))
    await node.start()
    try:
        yield node
    finally:
        await node.stop(0)


@contextlib.asynccontextmanager
async def web_of(node: ServerNode | ClientNode) -> AsyncIterator[httpx.AsyncClient]:
    """Run the web server of a node, and yield what calls it."""
    if node.settings.web_bind is None:
        raise AssertionError("the node has no web server")
    server = WebServer(
        make_app(node), node.settings.web_bind, socket_mode=0o660, grace=1, max_message=node.settings.max_body_bytes
    )
    await server.start()
    try:
        # The server closes idle connections after 5 s.
        limits = httpx.Limits(keepalive_expiry=2)
        async with httpx.AsyncClient(base_url=server.address, timeout=PATIENCE, limits=limits) as client:
            yield client
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def asgi_of(node: ServerNode | ClientNode) -> AsyncIterator[httpx.AsyncClient]:
    """Yield what calls the web application of a node without a web server."""
    transport = httpx.ASGITransport(make_app(node))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=PATIENCE) as client:
        yield client


async def connected(server: ServerNode, client: ClientNode) -> None:
    """Wait until both sides have the pipe."""
    await client.pipe_to_server(PATIENCE)
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(PeerUnknownError):  # it is not known yet, where the server has no grace
                await server.pipe_to(client.identity.name, PATIENCE)
                return
            await asyncio.sleep(0)


def own_tasks() -> list[str]:
    """Return the tasks and timers of this loop beside the current task and those of gRPC, which end a little later."""
    loop: Any = asyncio.get_running_loop()
    tasks = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    timers = [repr(timer) for timer in loop._scheduled if not timer.cancelled()]
    return [each for each in tasks + timers if "grpc" not in each]
