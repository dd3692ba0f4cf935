"""How many calls clients have open, and how often they call."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any, Self

import grpc
from grpc_reflection.v1alpha import reflection

log = logging.getLogger(__name__)

# Calls of one client, those included whose pipes ended and which it keeps open: gRPC cannot end a call whose client
# does not read. An honest client has one, and for a moment a few.
MAX_CALLS = 32
# Seconds that a call too many waits to be refused: it takes one of the places that its connection has for calls.
REFUSAL_DELAY = 1.0
# Seconds between two calls of one client. A hundred in a second cost little, and are more than health checks need.
CALL_INTERVAL = 0.01
# Seconds between a pipe and the next call. Honest clients dial again after a while; for each of those who do not, a
# server would write its log, call its hooks, and end the pipe before.
PIPE_INTERVAL = 0.05
# Seconds between two looks for clients that have not called for a while.
_SWEEP_INTERVAL = 1.0

Context = Any  # grpc.aio.ServicerContext, which the stubs of grpc do not type


class Calls:
    """The calls that are open, and that would otherwise stay so, and be as many, as their clients like."""

    def __init__(self) -> None:
        # By the digests of certificates, which take less memory.
        self.open: Counter[bytes] = Counter()
        self.told: set[bytes] = set()
        self._turns: dict[bytes, float] = {}
        self._swept = 0.0

    def turn(self, client: bytes, interval: float) -> float:
        """Return how many seconds a client has to wait for its turn, which is taken with that."""
        now = asyncio.get_running_loop().time()
        if now > self._swept + _SWEEP_INTERVAL:
            self._swept = now
            self._turns = {client: turn for client, turn in self._turns.items() if turn > now}
        # At most so many are open; the turns of those that were cancelled may be given away.
        turn = min(max(now, self._turns.get(client, now)), now + MAX_CALLS * interval)
        self._turns[client] = turn + interval
        return turn - now


class Call:
    """A call, open while it is entered; one of a client that has too many is aborted.

    Args:
        calls: all of them.
        context: of this one.
    """

    __slots__ = ("_calls", "_client", "_context")

    def __init__(self, calls: Calls, context: Context) -> None:
        self._calls = calls
        self._context = context
        self._client = sha256(context.auth_context()["x509_pem_cert"][0]).digest()

    async def __aenter__(self) -> Self:
        if self._calls.open[self._client] >= MAX_CALLS:
            await self._refuse()
        self._calls.open[self._client] += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._calls.told.discard(self._client)
        self._calls.open[self._client] -= 1
        if not self._calls.open[self._client]:
            del self._calls.open[self._client]

    async def turn(self, interval: float) -> None:
        """Wait until it is the client's turn; the next is `interval` seconds later.

        To be called before anything is read: gRPC never frees what a read takes whose call is reset meanwhile
        (grpc/grpc#43360), and whoever resets call after call would fill the memory.
        """
        wait = self._calls.turn(self._client, interval)
        if wait:
            await asyncio.sleep(wait)

    async def _refuse(self) -> None:
        if self._client not in self._calls.told:
            self._calls.told.add(self._client)
            name = self._context.auth_context().get("x509_common_name", [b""])[0].decode()
            log.warning("refused %a at %s: it has %d calls open already", name, self._context.peer(), MAX_CALLS)
        await asyncio.sleep(REFUSAL_DELAY)
        await self._context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"this node has {MAX_CALLS} calls open already")


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
        async with Call(self._calls, context) as call:

            async def in_turn() -> AsyncIterator[Any]:
                await call.turn(CALL_INTERVAL)  # before the first is read: see `turn`
                async for request in request_iterator:
                    yield request
                    await call.turn(CALL_INTERVAL)

            # The stubs take what is a generator there, too, for a coroutine.
            answers: Any = super().ServerReflectionInfo(in_turn(), context)
            async for answer in answers:
                yield answer


class Unknown(grpc.GenericRpcHandler):
    """Refuses calls of what there is not, each in its turn.

    Args:
        calls: the calls that are open.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":  # noqa: ARG002
        """Take whatever nobody else took."""
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, _requests: object, context: Context) -> None:
        async with Call(self._calls, context) as call:
            await call.turn(CALL_INTERVAL)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
