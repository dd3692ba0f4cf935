"""Pipes without nodes: a program that accepts pipes and echoes bodies, and the dialling side for a benchmark.

`python echo_pipe.py DIRECTORY [frames]`, where the identities are; with `frames` it sends back whatever arrives,
without a pipe.
"""

import asyncio
import sys
from pathlib import Path

import uvloop

from restpipe.cli.process import spare_the_garbage_collector
from restpipe.identity import Identity, load_identity
from restpipe.identity.certificates import Role
from restpipe.pipe import Incoming, Pipe, PipeEnd
from restpipe.protocol.limits import Limits
from restpipe.stats import NullStats
from restpipe.transport.carrier import Carrier
from restpipe.transport.grpc_client import dial
from restpipe.transport.grpc_server import PipeListener
from restpipe_pb.v1.pipe_pb2 import Hello, Response


def identity(directory: Path, role: Role) -> Identity:
    return load_identity(
        directory / f"{role}.key.pem", directory / f"{role}.crt.pem", directory / "ca.crt.pem", role
    )  # fmt: skip


def pipe_over(carrier: Carrier, *, dials: bool) -> Pipe:
    return Pipe(carrier, dials=dials, limits=Limits(), hello=Hello(), serve=echo, stats=NullStats())


async def echo(incoming: Incoming) -> None:
    incoming.respond(Response(status=200, body=incoming.request.body))


async def connect(directory: Path, port: int) -> tuple[Pipe, asyncio.Task[PipeEnd]]:
    """Return a pipe to the program, and the task that runs it until it is closed."""
    carrier = await dial("127.0.0.1", port, identity(directory, "client"), Limits(), connect_timeout=10)
    pipe = pipe_over(carrier, dials=True)
    life = asyncio.create_task(pipe.run())
    await pipe.wait_ready()
    return pipe, life


async def listen(directory: Path, *, frames: bool) -> None:
    async def accept(carrier: Carrier) -> None:
        if not frames:
            await pipe_over(carrier, dials=False).run()
            return
        frame: bytes | None = b"a Hello, for which the other side waits"
        while frame is not None:
            await carrier.write(frame)
            frame = await carrier.read()

    listener = PipeListener(identity(directory, "server"), Limits(), accept)
    port = await listener.start("127.0.0.1", 0)
    spare_the_garbage_collector()
    print(f"listening on {port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(listen(Path(sys.argv[1]), frames="frames" in sys.argv[2:]))
