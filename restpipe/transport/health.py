"""grpc.health.v1.Health: whether the server takes new clients."""

import asyncio

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from restpipe.transport.calls import CALL_INTERVAL, Call, Calls, Context


class Health:
    """Answers health checks: SERVING, and NOT_SERVING once the server drains.

    The one of grpcio-health-checking holds a lock while it tells who watches. One that does not read would keep all
    others from hearing that the server drains, and the server from stopping.

    Args:
        names: of the services that can be asked for; "" is the whole server.
        calls: the calls that are open.
    """

    def __init__(self, names: tuple[str, ...], calls: Calls) -> None:
        self._names = names
        self._calls = calls
        self._draining = asyncio.Event()

    @property
    def handler(self) -> grpc.GenericRpcHandler:
        """The methods, for a server: streams on this side, so that they are read in their turn."""
        methods = {"Check": self._check, "Watch": self._watch}
        return grpc.method_handlers_generic_handler(
            health.SERVICE_NAME,
            {
                name: grpc.stream_stream_rpc_method_handler(
                    method, response_serializer=HealthCheckResponse.SerializeToString
                )
                for name, method in methods.items()
            },
        )

    def drain(self) -> None:
        """Answer NOT_SERVING from now on."""
        self._draining.set()

    async def _check(self, _requests: object, context: Context) -> None:
        """Answer once."""
        async with Call(self._calls, context) as call:
            service = await self._service(call, context)
            if service not in self._names:
                await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
            await context.write(self._status(service))

    async def _watch(self, _requests: object, context: Context) -> None:
        """Answer, and again when the server drains, which is the end: it stops once all calls have ended."""
        async with Call(self._calls, context) as call:
            service = await self._service(call, context)
            await context.write(self._status(service))
            await self._draining.wait()
            await context.write(self._status(service))

    async def _service(self, call: Call, context: Context) -> str:
        """Return what is asked for, once it is the client's turn."""
        await call.turn(CALL_INTERVAL)
        request = await context.read()
        try:
            return HealthCheckRequest.FromString(b"" if request is grpc.aio.EOF else request).service
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be read")
            raise

    def _status(self, service: str) -> HealthCheckResponse:
        if service not in self._names:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        draining = self._draining.is_set()
        return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING if draining else HealthCheckResponse.SERVING)
