"""The accepting side: a gRPC server whose calls of `Pipe.Connect` become carriers."""

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from restpipe.exceptions import ConfigError, IdentityError
from restpipe.identity.certificates import certificate_name, parse_certificate
from restpipe.identity.files import Identity
from restpipe.identity.names import EVERYONE
from restpipe.protocol.limits import Limits
from restpipe.transport.calls import PIPE_INTERVAL, Call, Calls, Reflection, Unknown
from restpipe.transport.carrier import CarrierLostError, Peer
from restpipe.transport.channel_options import METHOD, SERVICE, server_options
from restpipe.transport.health import Health
from restpipe_pb.v1 import pipe_pb2  # noqa: F401  (reflection describes what is imported)

log = logging.getLogger(__name__)

NOT_ALLOWED = "{!r} is none of the clients that the server allows; RP_ALLOWED_CLIENTS there says which"

Context = Any  # grpc.aio.ServicerContext, which the stubs of grpc do not type
Accept = Callable[["GrpcServerCarrier"], Awaitable[None]]


class GrpcServerCarrier:
    """A call of `restpipe.v1.Pipe/Connect` that a client made."""

    def __init__(self, context: Context, peer: Peer) -> None:
        self.peer = peer
        self._context = context

    async def read(self) -> bytes | None:
        """Return the next frame, None once the call ended."""
        try:
            frame = await self._context.read()
        except grpc.aio.BaseError:
            return None
        return frame if isinstance(frame, bytes) else None

    async def write(self, frame: bytes) -> None:
        """Hand over a frame.

        Raises:
            CarrierLostError: the call ended.
        """
        try:
            await self._context.write(frame)
        except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            raise CarrierLostError("the call ended") from error

    async def close(self) -> None:
        """Do nothing: the call ends when its handler returns, once all that was written is on its way."""


class PipeListener:
    """A gRPC server for one kind of call, with health and reflection beside it.

    Args:
        identity: of this node.
        limits: of this node.
        accept: runs the pipe over a new carrier; when it returns, the call ends.

    Attributes:
        fault_of: returns what a client is refused for; None where nothing is wrong with it.
        allowed: clients of other names are refused.
    """

    def __init__(self, identity: Identity, limits: Limits, accept: Accept) -> None:
        self._configuration = _configuration(identity)
        self._shown = self._configuration
        self._accept = accept
        self.fault_of: Callable[[Peer], str | None] = lambda _: None
        self.allowed = EVERYONE
        self._calls = Calls()
        self._health = Health(("", SERVICE), self._calls)
        self._server = grpc.aio.server(options=server_options(limits))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._connect)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        self._server.add_generic_rpc_handlers((self._health.handler,))
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]
            Reflection(names, self._calls), self._server
        )
        self._server.add_generic_rpc_handlers((Unknown(self._calls),))

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port, which is chosen where `port` is 0.

        Raises:
            ConfigError: the address cannot be bound.
        """
        credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._take_configuration,  # type: ignore[arg-type]  # the stubs forget that None means: unchanged
            require_client_authentication=True,
        )
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _probe(host, port)
            bound = self._server.add_secure_port(target, credentials)
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"cannot listen on {target} for pipes: {_bind_fault(error)}") from error
        await self._server.start()
        return bound

    def replace(self, identity: Identity) -> None:
        """Show another identity to those who connect from now on, and trust its CAs; pipes go on."""
        self._configuration = _configuration(identity)

    def _take_configuration(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what changed since the last connection. Called by threads of gRPC, one at a time."""
        configuration = self._configuration
        if configuration is self._shown:
            return None
        self._shown = configuration
        return configuration

    async def drain(self) -> None:
        """Let health checks answer NOT_SERVING; pipes go on."""
        self._health.drain()

    async def stop(self, grace: float) -> None:
        """Stop listening at once, and end what still runs after `grace` seconds."""
        await self._server.stop(grace)

    async def _connect(self, _requests: object, context: Context) -> None:
        try:
            async with Call(self._calls, context) as call:
                await call.turn(PIPE_INTERVAL)
                await self._accept(GrpcServerCarrier(context, await self._admitted(context)))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            # By gRPC, for the call is over: a status could not be sent, and gRPC never frees it then (grpc/grpc#43360).
            if task is not None and task.cancelling():
                raise
            # Otherwise the client would wait for ever: no status follows CancelledError (grpc/grpc#28989).

    async def _admitted(self, context: Context) -> Peer:
        """Return who called; a call of who may not have a pipe is aborted."""
        try:
            peer = _peer(context)
        except IdentityError as error:
            log.warning(
                "refused a client at %s: its certificate names no node: %s", peer_address(context.peer()), error
            )
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"the client's certificate names no node: {error}")
        fault = self.fault_of(peer)
        if fault is not None:
            log.warning("refused %s at %s: %s", peer.name, peer.address, fault)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{fault}; get a new one")
        if not self.allowed.include(peer.name):
            log.warning("refused %s at %s: it is none of the allowed clients", peer.name, peer.address)
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                NOT_ALLOWED.format(peer.name),
            )
        return peer


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key_pem, identity.certificate_pem)], identity.ca_pem)


def _peer(context: Context) -> Peer:
    """Copy who called; asking the context once the call is over crashes the process."""
    shown = context.auth_context()
    pem: bytes = shown["x509_pem_cert"][0]
    certificate = parse_certificate(pem)
    return Peer(
        name=certificate_name(certificate),
        address=peer_address(context.peer()),
        certificate=pem,
        intermediates=b"".join(shown.get("x509_pem_cert_chain", ())),
        not_after=certificate.not_valid_after_utc,
    )


def peer_address(peer: str) -> str:
    """Return the IP address in gRPC's name of a peer: "ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000"."""
    _, _, rest = unquote(peer).partition(":")
    host, _, _ = rest.rpartition(":")
    address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    # A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
    return str(getattr(address, "ipv4_mapped", None) or address)


def _probe(host: str, port: int) -> None:
    """Try to bind an address: gRPC does not tell why it cannot, but to standard error, in words of its own.

    Raises:
        OSError: it cannot be bound.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: connections of before may linger
        probe.bind(address)


def _bind_fault(error: OSError | RuntimeError) -> str:
    if isinstance(error, RuntimeError):
        return "gRPC refused it; its own message stands above"
    if error.errno == errno.EADDRINUSE:
        return "the port is taken by another process; end that, or set another"
    return error.strerror or str(error)
