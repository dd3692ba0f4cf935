"""grpc.health.v1.Health: whether the server takes new clients."""

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from restpipe.transport.calls import CALL_INTERVAL, Call, Calls, Context


class Health(health_pb2_grpc.HealthServicer):
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

    def drain(self) -> None:
        """Answer NOT_SERVING from now on."""
        self._draining.set()

    async def Check(  # noqa: N802  (its name in the protocol)
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> HealthCheckResponse:
        """Answer once."""
        async with Call(self._calls, context) as call:
            await call.turn(CALL_INTERVAL)
            if request.service not in self._names:
                await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
            return self._status(request.service)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Answer, and again when the server drains, which is the end: it stops once all calls have ended."""
        async with Call(self._calls, context) as call:
            await call.turn(CALL_INTERVAL)
            await context.write(self._status(request.service))
            await self._draining.wait()
            await context.write(self._status(request.service))

    def _status(self, service: str) -> HealthCheckResponse:
        if service not in self._names:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        draining = self._draining.is_set()
        return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING if draining else HealthCheckResponse.SERVING)
