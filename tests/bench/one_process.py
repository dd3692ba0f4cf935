"""Both nodes in one process, joined in memory: all of a request but gRPC, TLS and the way between two processes.

`python one_process.py PORT`, which is the server node's.
"""

import asyncio
import sys

import uvloop

from restpipe.cli.process import spare_the_garbage_collector
from restpipe.handlers.examples import ClientExamples
from restpipe.testing import join


async def main(port: int) -> None:
    async with join(server={"web_bind": f"127.0.0.1:{port}"}, clients={"client": ClientExamples}):
        spare_the_garbage_collector()
        print(f"listening on {port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
