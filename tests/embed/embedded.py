"""Nodes as a program has them, over mutual TLS on loopback, and the handlers that they serve by."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel

import restpipe

PATIENCE = 30.0


class Order(BaseModel):
    item: str
    number: int = 1


class Serves(restpipe.ClientEventHandler):
    """Serves on either side; `name` tells whose object it is."""

    def __init__(self, name: str = "nobody") -> None:
        self.name = name
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.closed = asyncio.Event()

    def get_name(self, ctx: restpipe.EventContext, post_data: Any) -> dict[str, str]:
        return {"name": self.name, "caller": ctx.caller}

    async def post_order(self, ctx: restpipe.EventContext, order: Order) -> restpipe.Reply:
        return restpipe.Reply({"item": order.item, "number": order.number}, code=3, status=201, headers={"X-Mine": "1"})

    async def get_sum(self, ctx: restpipe.EventContext, post_data: Any, x: int, y: int = 0) -> int:
        return x + y

    def get_boom(self, ctx: restpipe.EventContext, post_data: Any) -> None:
        raise LookupError("the shelf is empty")

    async def get_forever(self, ctx: restpipe.EventContext, post_data: Any) -> None:
        self.arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def get_count(self, ctx: restpipe.EventContext, post_data: Any, number: int) -> AsyncIterator[str]:
        return self._count(number)

    async def _count(self, number: int) -> AsyncIterator[str]:
        try:
            for i in range(number):
                yield f"{i},"
        finally:
            self.closed.set()

    async def put_size(self, ctx: restpipe.EventContext, body: AsyncIterator[bytes]) -> dict[str, Any]:
        size = 0
        async for piece in body:
            size += len(piece)
        return {"size": size, "announced": ctx.content_length, "type": ctx.content_type}

    async def post_echo(self, ctx: restpipe.EventContext, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        return body

    def put_file(self, ctx: restpipe.EventContext, body: BinaryIO) -> int:
        return len(body.read())


def server_node(identity_files: Path, **changed: Any) -> restpipe.ServerNode:
    settings: dict[str, Any] = {
        "cert_path": identity_files,
        "key_filename": "server.key.pem",
        "crt_filename": "server.crt.pem",
        "bind_interface": "127.0.0.1",
        "bind_port": 0,
        "statsd_host": "",
        "connection_wait_timeout_s": PATIENCE,
    }
    return restpipe.ServerNode(**settings | changed)


def client_options(identity_files: Path, port: int, name: str = "alpha", **changed: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "cert_path": identity_files,
        "key_filename": f"{name}.key.pem",
        "crt_filename": f"{name}.crt.pem",
        "target_hostname": "127.0.0.1",
        "target_port": port,
        "statsd_host": "",
        "connection_wait_timeout_s": PATIENCE,
        "reconnect_min_s": 0.01,
        "reconnect_max_s": 0.1,
    }
    return settings | changed


@contextlib.asynccontextmanager
async def joined(
    identity_files: Path, *, server: object = None, client: object = None, **changed: Any
) -> AsyncIterator[tuple[restpipe.ServerNode, restpipe.ClientNode]]:
    """Run a server node and the client node "alpha", each with a handler, and wait until they are joined."""
    async with server_node(identity_files, handler=server, **changed) as server_side:
        options = client_options(identity_files, server_side.port, handler=client, **changed)
        async with restpipe.ClientNode(**options) as client_side:
            await client_side.wait_connected()
            await server_side.client("alpha").wait_connected()
            yield server_side, client_side
