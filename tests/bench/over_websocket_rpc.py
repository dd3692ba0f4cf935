"""The REST surface and the far end of fastapi_websocket_rpc, in place of RestPipe's server and client.

Mutual TLS with the identities in `BENCH_IDENTITIES`. `server WEB_PORT PIPE_PORT` and `client PIPE_PORT`.
"""

import asyncio
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from endpoints import PATH
from fastapi import FastAPI
from fastapi_websocket_rpc import RpcChannel, RpcMethodsBase, WebSocketRpcClient, WebsocketRPCEndpoint

IDENTITIES = Path(os.environ["BENCH_IDENTITIES"])

web, pipe = FastAPI(), FastAPI()
clients: list[RpcChannel] = []


@web.get(PATH)
async def get_time() -> Any:
    answer = await clients[0].other.get_time()
    return answer.result


async def connected(channel: RpcChannel) -> None:
    clients.append(channel)
    print("connected", flush=True)


async def serve(web_port: int, pipe_port: int) -> None:
    WebsocketRPCEndpoint(RpcMethodsBase(), on_connect=[connected]).register_route(pipe)
    tls = {
        "ssl_keyfile": IDENTITIES / "server.key.pem",
        "ssl_certfile": IDENTITIES / "server.crt.pem",
        "ssl_ca_certs": IDENTITIES / "ca.crt.pem",
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
    }
    servers = (
        uvicorn.Server(uvicorn.Config(web, port=web_port, access_log=False)),
        uvicorn.Server(uvicorn.Config(pipe, port=pipe_port, **tls)),  # type: ignore[arg-type]
    )
    await asyncio.gather(*(server.serve() for server in servers))


class Methods(RpcMethodsBase):  # type: ignore[misc]
    async def get_time(self) -> dict[str, float]:
        return {"time_from_client": time.time()}


async def dial(pipe_port: int) -> None:
    context = ssl.create_default_context(cafile=IDENTITIES / "ca.crt.pem")
    context.load_cert_chain(IDENTITIES / "client.crt.pem", IDENTITIES / "client.key.pem")
    async with WebSocketRpcClient(f"wss://localhost:{pipe_port}/ws", Methods(), ssl=context):
        print("dialled", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    role, *ports = sys.argv[1:]
    uvloop.run(serve(*map(int, ports)) if role == "server" else dial(*map(int, ports)))
