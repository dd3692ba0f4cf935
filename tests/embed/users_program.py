"""A user's module, for the type checker: what is public is typed, and asks a strict user for no cast and no comment."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, assert_type

from fastapi import FastAPI
from pydantic import BaseModel

import restpipe


class Order(BaseModel):
    item: str


class Shop(restpipe.ServerEventHandler):
    async def get_price(self, ctx: restpipe.EventContext, post_data: Any, item: str) -> restpipe.Reply:
        stock = await ctx.call("get", "stock", item)
        return restpipe.Reply({"price": 3, "stock": stock.data}, headers={"X-For": ctx.caller})


node = restpipe.ServerNode(handler=Shop(), bind_port=0)
app = FastAPI(lifespan=node.lifespan)
app.mount("/pipe", node.app)


@app.get("/boxes/{name}/time")
async def time_of(name: str) -> dict[str, float]:
    result = await node.client(name).call("get", "time")
    assert_type(result, restpipe.Result)
    return result.parsed(dict[str, float])


async def in_asyncio(pieces: AsyncIterator[bytes]) -> Order:
    async with restpipe.ClientNode(target_hostname="pipe.example.org", cert_path=Path("certs")) as client:
        assert_type(client, restpipe.ClientNode)
        async with client.stream("put", "backup", data=pieces, wait=5) as stream:
            assert_type(stream, restpipe.Stream)
            size = 0
            async for piece in stream:
                size += len(assert_type(piece, bytes))
        try:
            return (await client.call("get", "order", 7, timeout=1.5, expand=True)).parsed(Order)
        except restpipe.EventError as error:
            assert_type(error.status, int)
            raise


def in_a_script() -> None:
    with restpipe.connect(target_hostname="pipe.example.org", target_port="1234") as client:
        assert_type(client, restpipe.BlockingClientNode)
        print(client.call("get", "time").data)
        with client.stream("get", "log") as stream:
            for piece in stream:
                print(len(assert_type(piece, bytes)))
