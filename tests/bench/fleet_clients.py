"""Many client nodes in one process: `python fleet_clients.py DIRECTORY PORT FIRST LAST`, the last excluded."""

import asyncio
import sys
from pathlib import Path

import uvloop

from restpipe.cli.run import raise_file_limit, spare_the_garbage_collector
from restpipe.config import ClientSettings
from restpipe.nodes.client import ClientNode


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
    for node in nodes:
        await node.start()
    spare_the_garbage_collector()
    await asyncio.Event().wait()


if __name__ == "__main__":
    raise_file_limit()
    uvloop.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
