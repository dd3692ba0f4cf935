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
    """A call of `restpipe.v1.Pipe/Connect`, made by `dial`, which has read its first frame."""

    def __init__(self, channel: grpc.aio.Channel, call: Call, peer: Peer, first: bytes) -> None:
        self.peer = peer
        self._channel = channel
        self._call: Call | None = call
        self._first: bytes | None = first
        self._over = asyncio.Event()

    async def read(self) -> bytes | None:
        """Return the next frame, None once the call ended."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._call is None:
            return None
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError:
            frame = grpc.aio.EOF
        except asyncio.CancelledError:
            if self._call is not None:
                raise
            frame = grpc.aio.EOF  # it is the call that was cancelled, by `close`
        if isinstance(frame, bytes):
            return frame
        self._over.set()
        return None

    async def write(self, frame: bytes) -> None:
        """Hand over a frame.

        Raises:
            CarrierLostError: the call ended.
        """
        if self._call is None:
            raise CarrierLostError("the carrier was closed")
        try:
            await self._call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise CarrierLostError("the call ended") from error
        except asyncio.CancelledError:
            if self._call is not None:
                raise
            raise CarrierLostError("the carrier was closed") from None

    async def close(self) -> None:
        """Say that nothing follows, give the server a moment to end the call, and end it."""
        call = self._call
        if call is None:
            return
        try:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_TIMEOUT):
                    await call.done_writing()
                    await self._over.wait()
        finally:
            call.cancel()
            # The connection lives as long as anything refers to the call.
            self._call = call = None
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
        connect_timeout: seconds for name look-up, connection, handshake and the server's first frame together.

    Raises:
        ConnectError: no pipe; the message says why.
    """
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = client_options(limits, connect_timeout)
    async with contextlib.AsyncExitStack() as undo:
        channel = await undo.enter_async_context(grpc.aio.secure_channel(target, credentials, options=options))
        call: Call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
        try:
            # Both sides begin with a frame. Metadata would not do: a server that refuses the call sends that, too.
            async with asyncio.timeout(connect_timeout):
                first = await call.read()
        except TimeoutError:
            cause = f"{target}: no answer within {connect_timeout:g} s"
        except grpc.aio.AioRpcError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error  # both came at once, and grpc.aio tells of the status only
            cause = f"{target}: {await explain(error, host, port, identity, connect_timeout)}"
        else:
            if isinstance(first, bytes):
                undo.pop_all()
                return GrpcClientCarrier(channel, call, Peer(name=host, address=host), first)
            cause = f"{target}: the server ended the call before its first frame"
    # The connection lives as long as the call does, and the traceback of what is raised keeps this frame.
    del channel, call
    raise ConnectError(cause)
