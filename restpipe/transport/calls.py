"""How many calls clients have open, and how often they call."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

log = logging.getLogger(__name__)

# Calls of one client, those included whose pipes ended and which it keeps open: gRPC cannot end a call whose client
# does not read. An honest client has one, and for a moment a few.
MAX_CALLS = 32
# Seconds between two pipes of one client. Honest ones dial again after a while; for each of those who do not, a server
# would write its log, call its hooks, and end the pipe before.
PIPE_INTERVAL = 0.05

Context = Any  # grpc.aio.ServicerContext, which the stubs of grpc do not type


class Calls:
    """The calls that are open, and that would otherwise stay so for as long as their clients like."""

    def __init__(self) -> None:
        # By the digests of certificates, which take less memory.
        self._open: Counter[bytes] = Counter()
        self._told: set[bytes] = set()
        self._turns: dict[str, float] = {}

    @contextlib.asynccontextmanager
    async def another(self, context: Context) -> AsyncIterator[None]:
        """Hold the place of a call; one of a client that has too many is aborted."""
        client = sha256(context.auth_context()["x509_pem_cert"][0]).digest()
        if self._open[client] >= MAX_CALLS:
            if client not in self._told:
                self._told.add(client)
                name = context.auth_context().get("x509_common_name", [b""])[0]
                log.warning("refused %a at %s: it has %d calls open already", name.decode(), context.peer(), MAX_CALLS)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"this node has {MAX_CALLS} calls open already")
        self._open[client] += 1
        try:
            yield
        finally:
            self._told.discard(client)
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]

    async def turn(self, name: str) -> None:
        """Wait until a client may have its next pipe: at once, unless it had another a moment ago."""
        now = asyncio.get_running_loop().time()
        turn = max(now, self._turns.get(name, now))
        self._turns[name] = turn + PIPE_INTERVAL
        if turn > now:
            await asyncio.sleep(turn - now)


class Reflection(reflection.aio.ReflectionServicer):
    """Describes the services of the server.

    Args:
        names: of the services.
        calls: the calls that are open.
    """

    def __init__(self, names: tuple[str, ...], calls: Calls) -> None:
        super().__init__(names)
        self._calls = calls

    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802  (its name in the protocol)
        self, request_iterator: Any, context: Context
    ) -> AsyncIterator[Any]:
        """Answer each request."""
        # The stubs take what is a generator there, too, for a coroutine.
        answers: Any = super().ServerReflectionInfo(request_iterator, context)
        async with self._calls.another(context):
            async for answer in answers:
                yield answer
