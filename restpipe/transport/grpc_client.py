"""The dialling side: one channel, one call, one carrier."""

import asyncio
import contextlib
import os
from datetime import datetime
from typing import Any

import grpc
import grpc.aio

from restpipe.exceptions import ConnectError
from restpipe.identity.certificates import parse_certificate
from restpipe.identity.files import Identity
from restpipe.identity.revocation import NOTHING_REVOKED, Revocations
from restpipe.identity.wording import moment
from restpipe.protocol.limits import Limits
from restpipe.transport.carrier import CarrierLostError, Peer
from restpipe.transport.channel_options import METHOD, SERVICE, client_options
from restpipe.transport.diagnosis import explain
from restpipe.transport.handshake import shown_certificate

_GOODBYE_TIMEOUT = 1.0
# File descriptors that a channel takes at most, as pairs: its connection, and what it waits with.
_DESCRIPTOR_PAIRS = 4

Call = Any  # grpc.aio.StreamStreamCall, which the stubs of grpc do not type


class _AnotherCertificateError(Exception):
    """The server does not show the certificate that it is expected to."""


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
            # Of a connection that breaks meanwhile gRPC tells by an InternalError.
            with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_TIMEOUT):
                    await call.done_writing()
                    await self._over.wait()
        finally:
            call.cancel()
            # The connection lives as long as anything refers to the call.
            self._call = call = None
            await self._channel.close()


async def dial(
    host: str,
    port: int,
    identity: Identity,
    limits: Limits,
    connect_timeout: float,
    *,
    revocations: Revocations = NOTHING_REVOKED,
    expected: bytes = b"",
) -> GrpcClientCarrier:
    """Connect to a server node over mutual TLS.

    Each attempt has a channel and credentials of its own, so that it sees replaced certificates and changed addresses,
    and inherits no back-off.

    gRPC neither tells a client which certificate the server showed, nor knows revocation lists. So the certificate is
    looked at first, in a handshake of its own, and then is all that gRPC is let trust: another one is not accepted.

    Args:
        host: name or IP address, which the server's certificate must name.
        port: TCP port.
        identity: this node's.
        limits: this node's.
        connect_timeout: seconds for name look-up, connection, handshake and the server's first frame together.
        revocations: what is revoked.
        expected: certificate that the server showed the last time, in PEM: spares the look while it is the same.

    Raises:
        ConnectError: no pipe; the message says why.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + connect_timeout
    too_late = f"no answer within {connect_timeout:g} s; check host and port, and the firewalls in between"
    try:
        async with asyncio.timeout_at(deadline):
            if expected and _revoked(expected, revocations) is None:
                with contextlib.suppress(_AnotherCertificateError):
                    return await _call(host, target, identity, limits, connect_timeout, expected)
            shown = await shown_certificate(host, port, identity)
            date = _revoked(shown, revocations)
            if date is None:
                return await _call(host, target, identity, limits, connect_timeout, shown)
        cause = f"the server's certificate was revoked on {moment(date)}; issue it anew"
    except TimeoutError:
        cause = too_late
    except _AnotherCertificateError:
        cause = "the server showed another certificate than a moment before"
    except ConnectError as error:
        cause = str(error)
    except (OSError, grpc.aio.AioRpcError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error  # both came at once, and grpc.aio tells of the status only
        left = deadline - loop.time()
        # Within what is left of the time: a server that many overwhelm is not to be asked for the reason, too.
        cause = await explain(error, host, port, identity, left) if left > 0 else too_late
    # Raised here: what was caught refers to the call, and the connection lives as long as anything does.
    raise ConnectError(f"{target}: {cause}")


async def _call(
    host: str, target: str, identity: Identity, limits: Limits, connect_timeout: float, certificate: bytes
) -> GrpcClientCarrier:
    """Make the call of a server that shows this very certificate, which was verified before.

    Raises:
        _AnotherCertificateError: it shows another one.
        grpc.aio.AioRpcError: the call failed.
        OSError: there are too few file descriptors.
        ConnectError: the server ended the call.
    """
    _probe_descriptors()
    credentials = grpc.ssl_channel_credentials(certificate, identity.key_pem, identity.certificate_pem)
    options = client_options(limits, connect_timeout)
    async with contextlib.AsyncExitStack() as undo:
        channel = await undo.enter_async_context(grpc.aio.secure_channel(target, credentials, options=options))
        call: Call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
        try:
            # Both sides begin with a frame. Metadata would not do: a server that refuses the call sends that, too.
            first = await call.read()
        except grpc.aio.AioRpcError as error:
            if "CERTIFICATE_VERIFY_FAILED" in (error.details() or ""):
                raise _AnotherCertificateError from None
            raise
        if isinstance(first, bytes):
            undo.pop_all()
            not_after = parse_certificate(certificate).not_valid_after_utc
            return GrpcClientCarrier(channel, call, Peer(host, host, certificate, not_after), first)
    raise ConnectError("the server ended the call before its first frame")


def _probe_descriptors() -> None:
    """See that a channel can be made: for want of file descriptors gRPC would abort the process.

    Raises:
        OSError: it cannot.
    """
    with contextlib.ExitStack() as opened:
        for _ in range(_DESCRIPTOR_PAIRS):
            for descriptor in os.pipe():
                opened.callback(os.close, descriptor)


def _revoked(certificate: bytes, revocations: Revocations) -> datetime | None:
    return revocations.date(parse_certificate(certificate))
