"""Why a connection failed, in one line that names the way out."""

import asyncio
import contextlib
import ssl
import tempfile

import grpc.aio

from restpipe.identity.files import Identity

# Fragments of what gRPC, BoringSSL and the resolver report, and what they mean to a person. The first that fits counts.
_CAUSES = (
    ("Connection refused", "nothing listens there"),
    ("DNS resolution failed", "the host name does not resolve"),
    ("Domain name not found", "the host name does not resolve"),
    ("No route to host", "there is no route to the host"),
    ("Network is unreachable", "the network is unreachable"),
    ("certificate has expired", "the server's certificate has expired (or this machine's clock is ahead)"),
    ("certificate is not yet valid", "the server's certificate is not yet valid (or this machine's clock is behind)"),
    ("unsupported certificate purpose", "the server shows a certificate that is not a server's"),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate was not issued by this node's CA"),
    ("WRONG_VERSION_NUMBER", "what listens there does not speak TLS"),
    (
        "Hostname Verification Check failed",
        "the server's certificate does not name {host!r}: issue one with --host {host}",
    ),
)
# TLS alerts (RFC 8446 section 6) by which a server refuses a client's certificate, as OpenSSL spells them.
_REFUSALS = (
    ("ALERT_UNKNOWN_CA", "the server does not trust the CA of this node's certificate"),
    ("ALERT_CERTIFICATE_EXPIRED", "the server finds this node's certificate expired or not yet valid"),
    ("ALERT_CERTIFICATE_REQUIRED", "the server did not get this node's certificate"),
    ("CERTIFICATE", "the server refuses this node's certificate"),
)


async def explain(error: grpc.aio.AioRpcError, host: str, port: int, identity: Identity, connect_timeout: float) -> str:
    """Say in one line why a call failed.

    A server that refuses a client's certificate merely closes the connection, as far as gRPC tells. Then one more
    handshake, with the ssl module, asks for the TLS alert.

    Args:
        error: the status of the call.
        host: of the server.
        port: of the server.
        identity: this node's.
        connect_timeout: seconds for the further handshake.
    """
    details = error.details() or ""
    for fragment, meaning in _CAUSES:
        if fragment in details:
            return f"{host}:{port}: {meaning.format(host=host)}"
    if "Socket closed" in details or "Connection reset" in details:
        return f"{host}:{port}: {await _refusal(host, port, identity, connect_timeout)}"
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return f"{host}:{port}: what listens there is no RestPipe server"
    return f"{host}:{port}: {details or error.code().name}"


async def _refusal(host: str, port: int, identity: Identity, connect_timeout: float) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=identity.ca_pem.decode())
    with tempfile.NamedTemporaryFile() as file:  # the ssl module reads keys from files alone; this one has mode 0600
        file.write(identity.key_pem + identity.certificate_pem)
        file.flush()
        context.load_cert_chain(file.name)
    try:
        async with asyncio.timeout(connect_timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            with contextlib.closing(writer):
                # TLS 1.3: the alert comes after the client's side of the handshake is complete.
                await reader.read(1)
    except ssl.SSLError as error:
        reason = error.reason or ""
        for fragment, meaning in _REFUSALS:
            if fragment in reason:
                return meaning
        return f"the TLS handshake failed: {reason}"
    except (OSError, TimeoutError):
        pass
    return "the server closed the connection"
