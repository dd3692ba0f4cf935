"""A client that keeps many requests in flight: `python flooding.py DIRECTORY PORT NOUN [CLIENT]`.

It is no node: it speaks the protocol by gRPC alone, and so spends less on each request than its server does.
"""

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from restpipe_pb.v1.pipe_pb2 import Envelope, Frame, Hello, Pong, Request

NAME = "flooding"
IN_FLIGHT = 2000
# Requests; a frame has room for some pongs beside them.
FRAME = 120


class Flood:
    """A pipe, and what is asked by it.

    Args:
        call: of `Pipe.Connect`.
        request: made over and over.
    """

    def __init__(self, call: Any, request: Request) -> None:
        self._call = call
        self._request = request
        self._numbers = itertools.count(1, 2)
        self._room = IN_FLIGHT
        self._answered = asyncio.Event()
        self._pongs: list[Envelope] = []

    async def run(self) -> None:
        await self._send(
            Envelope(hello=Hello(revision=1, initial_window=65536, max_exchanges=16, max_frame_bytes=2**20))
        )
        await self._call.read()
        await asyncio.gather(self._ask(), self._take())

    async def _ask(self) -> None:
        while True:
            while self._room < FRAME:
                self._answered.clear()
                await self._answered.wait()
            self._room -= FRAME
            numbers = itertools.islice(self._numbers, FRAME)
            pongs, self._pongs = self._pongs, []
            await self._send(*pongs, *(Envelope(exchange_id=number, request=self._request) for number in numbers))

    async def _take(self) -> None:
        began = False
        while True:
            for envelope in Frame.FromString(await self._call.read()).envelopes:
                if envelope.HasField("response"):
                    if envelope.response.status != 200:
                        raise RuntimeError(f"it is no flood of what succeeds: {envelope.response}")
                    self._room += 1
                elif envelope.HasField("ping"):
                    self._pongs.append(Envelope(pong=Pong(id=envelope.ping.id)))
            self._answered.set()
            if not began:
                began = True
                print("flooding", flush=True)

    async def _send(self, *envelopes: Envelope) -> None:
        await self._call.write(Frame(envelopes=envelopes).SerializeToString())


async def main(directory: Path, port: int, noun: str, to: str) -> None:
    key, certificate, ca = (
        (directory / f"{name}.pem").read_bytes() for name in (f"{NAME}.key", f"{NAME}.crt", "ca.crt")
    )
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        call: Any = channel.stream_stream("/restpipe.v1.Pipe/Connect")()
        await Flood(call, Request(verb="get", noun=noun, to=to, timeout_ms=60_000)).run()


if __name__ == "__main__":
    directory, port, noun, *to = sys.argv[1:]
    asyncio.run(main(Path(directory), int(port), noun, "".join(to)))
