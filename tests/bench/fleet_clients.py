"""Many client nodes in one process: `python fleet_clients.py DIRECTORY PORT FIRST LAST`, the last excluded."""

import asyncio
import sys
from pathlib import Path

import uvloop

from restpipe.cli.process import raise_file_limit, spare_the_garbage_collector
from restpipe.config import ClientSettings
from restpipe.nodes.client import ClientNode

# Seconds; reached only where something is wrong.
PATIENCE = 120.0


def name_of(number: int) -> str:
    return f"c{number:04}"


async def main(directory: Path, port: int, first: int, last: int) -> None:
    nodes = [
        ClientNode(
            ClientSettings(
                cert_path=directory, key_filename=f"{name}.key.pem", crt_filename=f"{name}.crt.pem",
                target_hostname="127.0.0.1", target_port=port, web_bind=None, statsd_host="",
            )
        )
        for name in map(name_of, range(first, last))
    ]  # fmt: skip
    print("dialling", flush=True)
    # A few at a time: these nodes share the processors that a real fleet would have of its own.
    gate = asyncio.Semaphore(20)

    async def connect(node: ClientNode) -> None:
        async with gate:
            await node.start()
            await node.pipe_to_server(PATIENCE)

    await asyncio.gather(*map(connect, nodes))
    spare_the_garbage_collector()
    await asyncio.Event().wait()


if __name__ == "__main__":
    raise_file_limit()
    uvloop.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
