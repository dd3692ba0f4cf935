"""The dialling side: one channel, one call, one carrier."""

import asyncio
import contextlib
from typing import Any

import grpc
import grpc.aio

from restpipe.exceptions import ConnectError
from restpipe.identity.files import Identity
from restpipe.protocol.limits import Limits
from restpipe.transport.carrier import CarrierLostError, Peer
from restpipe.transport.channel_options import METHOD, SERVICE, client_options
from restpipe.transport.diagnosis import explain

_GOODBYE_TIMEOUT = 1.0

Call = Any  # grpc.aio.StreamStreamCall, which the stubs of grpc do not type


class GrpcClientCarrier:
    """A call of `restpipe.v1.Pipe/Connect`, made by `dial`."""

    def __init__(self, channel: grpc.aio.Channel, call: Call, peer: Peer) -> None:
        self.peer = peer
        self._channel = channel
        self._call = call
        self._over = asyncio.Event()

    async def read(self) -> bytes | None:
        """Return the next frame, None once the call ended."""
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError:
            frame = grpc.aio.EOF
        if isinstance(frame, bytes):
            return frame
        self._over.set()
        return None

    async def write(self, frame: bytes) -> None:
        """Hand over a frame.

        Raises:
            CarrierLostError: the call ended.
        """
        try:
            await self._call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise CarrierLostError("the call ended") from error

    async def close(self) -> None:
        """Say that nothing follows, give the server a moment to end the call, and end it."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_TIMEOUT):
                await self._call.done_writing()
                await self._over.wait()
        self._call.cancel()
        await self._channel.close()


async def dial(host: str, port: int, identity: Identity, limits: Limits, connect_timeout: float) -> GrpcClientCarrier:
    """Connect to a server node over mutual TLS.

    Each attempt has a channel and credentials of its own, so that it sees replaced certificates and changed addresses,
    and inherits no back-off.

    Args:
        host: name or IP address, which the server's certificate must name.
        port: TCP port.
        identity: this node's.
        limits: this node's.
        connect_timeout: seconds for name look-up, connection, handshake and the server's acceptance together.

    Raises:
        ConnectError: no pipe; the message says why.
    """
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    channel = grpc.aio.secure_channel(target, credentials, options=client_options(limits, connect_timeout))
    call: Call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
    try:
        async with asyncio.timeout(connect_timeout):
            await call.wait_for_connection()
            await call.initial_metadata()
    except TimeoutError:
        cause = f"no answer from {target} within {connect_timeout:g} s"
    except grpc.aio.AioRpcError as error:
        cause = await explain(error, host, port, identity, connect_timeout)
    else:
        return GrpcClientCarrier(channel, call, Peer(name=host, address=host))
    call.cancel()
    await channel.close()
    raise ConnectError(cause)
