"""Handshakes by the ssl module, for what gRPC does not tell: which certificate a server shows, why it refuses ours."""

import asyncio
import contextlib
import os
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator

from restpipe.identity.files import Identity


async def shown_certificate(host: str, port: int, identity: Identity) -> bytes:
    """Return the certificate that a server shows, in PEM, once it is verified as TLS does: CA, dates, purpose, host.

    Raises:
        OSError: there is no connection, or the server shows none that is good (`ssl.SSLError`).
    """
    async with _connected(host, port, identity) as (_, writer):
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return ssl.DER_cert_to_PEM_cert(certificate).encode()


@contextlib.asynccontextmanager
async def open_tls(
    host: str, port: int, identity: Identity, connect_timeout: float
) -> AsyncIterator[asyncio.StreamReader]:
    """Connect, for `connect_timeout` seconds at most, and yield what the server sends.

    Raises:
        OSError: there is no connection, or the server shows no good certificate (`ssl.SSLError`).
        TimeoutError: the time ran out.
    """
    async with asyncio.timeout(connect_timeout), _connected(host, port, identity) as (reader, _):
        yield reader


@contextlib.asynccontextmanager
async def _connected(
    host: str, port: int, identity: Identity
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port, ssl=_context(identity))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def _context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an anchor need not be self-signed, nor does gRPC ask it
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=identity.ca_pem.decode())
    with _as_file(identity.key_pem + identity.certificate_pem) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Have a file for the ssl module, which reads keys from files alone: in memory, for a disk may be full."""
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("identity"), "wb", buffering=0) as memory:
            memory.write(data)
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(buffering=0) as file:  # mode 0600
            file.write(data)
            yield file.name
