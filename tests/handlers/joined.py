"""Two nodes joined in memory: one serves, the other calls and sees what comes back."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, NamedTuple

from restpipe.handlers.dispatch import Dispatcher
from restpipe.handlers.threads import HandlerThreads
from restpipe.pipe import Answer, Incoming, Pipe, Serve
from restpipe.protocol.limits import Limits
from restpipe.stats import NullStats
from restpipe.transport.carrier import Carrier, Peer
from restpipe.transport.memory import memory_pair
from restpipe_pb.v1.pipe_pb2 import Goaway, Header, Hello, Parameter, Request

CLIENT = Peer("client", "192.0.2.1", b"a certificate")
SERVER = Peer("server", "192.0.2.2")
PATIENCE = 10.0


class Figures(NullStats):
    """Statistics that are kept."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.timings: Counter[str] = Counter()

    def count(self, name: str, n: int = 1) -> None:
        self.counts[name] += n

    def timing(self, name: str, seconds: float) -> None:
        assert seconds >= 0
        self.timings[name] += 1


class Whole(NamedTuple):
    """An answer that was read whole."""

    status: int
    code: int
    mime_type: str
    headers: dict[str, str]
    body: bytes
    length: int | None

    @property
    def data(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)


class Joined:
    """A client node that calls, and the server node that serves `handler`."""

    def __init__(self, calling: Pipe, serving: Pipe, served: "Watched", threads: HandlerThreads) -> None:
        self.calling = calling
        self.serving = serving
        self.threads = threads
        self._served = served

    async def begin(
        self,
        verb: str,
        noun: str,
        *arguments: str,
        query: list[tuple[str, str]] | None = None,
        headers: list[tuple[str, str]] | None = None,
        content_type: str = "",
        body: bytes = b"",
        pieces: AsyncIterable[bytes] | None = None,
        timeout: float = PATIENCE,  # noqa: ASYNC109
    ) -> Answer:
        """Call, and return the answer once its head is here."""
        request = Request(
            verb=verb,
            noun=noun,
            arguments=arguments,
            query=[Parameter(name=name, value=value) for name, value in query or ()],
            headers=[Header(name=name, value=value) for name, value in headers or ()],
            content_type=content_type,
            body=body,
            timeout_ms=int(1000 * timeout),
        )
        return await self.calling.call(request, pieces)

    async def call(self, verb: str, noun: str, *arguments: str, **options: Any) -> Whole:
        """Call, and return the whole answer."""
        answer = await self.begin(verb, noun, *arguments, **options)
        head = answer.response
        return Whole(
            status=head.status,
            code=head.return_code,
            mime_type=head.content_type,
            headers={header.name: header.value for header in head.headers},
            body=await answer.body.read(1 << 24),
            length=head.body_length if head.HasField("body_length") else None,
        )

    async def get(self, noun: str, *arguments: str, **options: Any) -> Whole:
        """Call GET."""
        return await self.call("get", noun, *arguments, **options)

    async def idle(self) -> None:
        """Wait until every handler has ended."""
        async with asyncio.timeout(PATIENCE):
            await self._served.none.wait()


class Watched:
    """Serves events, and knows when none is being served."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._under_way = 0
        self.none = asyncio.Event()
        self.none.set()

    async def serve(self, incoming: Incoming) -> None:
        self._under_way += 1
        self.none.clear()
        try:
            await self._dispatcher.serve(incoming)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self.none.set()


@contextlib.asynccontextmanager
async def joined(
    handler: object,
    *,
    calling_handler: object = None,
    threads: int = 4,
    max_body: int = 1 << 20,
    send_tracebacks: bool = True,
    stats: NullStats | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Joined]:
    """Join two nodes for as long as the context lasts."""
    carriers = memory_pair(CLIENT, SERVER)
    pools = HandlerThreads(threads, PATIENCE), HandlerThreads(threads, PATIENCE)  # however slow the machine is
    watched = [
        Watched(
            Dispatcher(
                each,
                threads=pool,
                max_body=max_body,
                send_tracebacks=send_tracebacks,
                stats=stats or NullStats(),
            )
        )
        for each, pool in zip((calling_handler or object(), handler), pools, strict=True)
    ]

    def pipe(carrier: Carrier, serve: Serve, *, dials: bool) -> Pipe:
        return Pipe(
            carrier, dials=dials, limits=limits or Limits(), hello=Hello(), serve=serve, stats=stats or NullStats()
        )

    calling = pipe(carriers[0], watched[0].serve, dials=True)
    serving = pipe(carriers[1], watched[1].serve, dials=False)
    running = asyncio.gather(calling.run(), serving.run())
    try:
        await calling.wait_ready()
        yield Joined(calling, serving, watched[1], pools[1])
    finally:
        calling.close(Goaway.SHUTDOWN, "the test is over")
        serving.close(Goaway.SHUTDOWN, "the test is over")
        await running
