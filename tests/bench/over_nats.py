"""The REST surface and the far end of NATS request/reply, in place of RestPipe's server and client.

Mutual TLS with the identities in `BENCH_IDENTITIES`, to the NATS server at `BENCH_NATS`. As an application for uvicorn
it is the server's side, as a program the client's.
"""

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import uvloop
from endpoints import PATH
from fastapi import FastAPI, Response
from nats.aio.client import Client
from nats.aio.msg import Msg


async def connect() -> Client:
    identities = Path(os.environ["BENCH_IDENTITIES"])
    context = ssl.create_default_context(cafile=identities / "ca.crt.pem")
    context.load_cert_chain(identities / "client.crt.pem", identities / "client.key.pem")
    return await nats.connect(os.environ["BENCH_NATS"], tls=context)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.nats = await connect()
    yield
    await app.state.nats.close()


app = FastAPI(lifespan=lifespan)


@app.get(PATH)
async def get_time() -> Response:
    answer = await app.state.nats.request("client.time", timeout=10)
    return Response(answer.data, media_type="application/json")


async def serve() -> None:
    client = await connect()

    async def answer(message: Msg) -> None:
        await message.respond(json.dumps({"time_from_client": time.time()}).encode())

    await client.subscribe("client.time", cb=answer)
    await client.flush()
    print("subscribed", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
