"""Why a connection failed, in one line that names the way out."""

import os
import re
import socket
import ssl
from datetime import UTC, datetime

import grpc.aio

from restpipe.identity.certificates import certificate_roles
from restpipe.identity.files import Identity
from restpipe.identity.wording import moment, printable
from restpipe.transport.handshake import open_tls

_OTHER_CA_HERE = "the server's certificate is not from this node's CA; give both nodes the certificate of the same CA"
_OTHER_CA_THERE = "the server trusts another CA than this node's; give both nodes the certificate of the same CA"
_OTHER_HOST = "the server's certificate does not name {host!r}; {issue}"
_NO_TLS = "what listens there does not speak TLS; check host and port"
_UNUSABLE = "this node's key, certificate and CA cannot be used; install them anew"
# Fragments of what gRPC, its TLS library, the ssl module and the resolver report, and what they mean to a person. The
# first that fits counts.
_CAUSES = (
    ("Connection refused", "nothing listens there; start the server node, or check its host and port"),
    ("Connection timed out", "no answer; check host and port, and the firewalls in between"),
    ("DNS resolution failed", "the host name does not resolve; check the name"),
    ("Domain name not found", "the host name does not resolve; check the name"),
    ("Too many open files", "this node has no file descriptors left; raise its limit: `ulimit -n`, LimitNOFILE"),
    ("No route to host", "there is no route to the host; check the network"),
    ("Network is unreachable", "the network is unreachable; check the network"),
    (
        "certificate has expired",
        "the server's certificate has expired, or this machine's clock is ahead; issue it anew, or set the clock",
    ),
    (
        "certificate is not yet valid",
        "the server's certificate is not yet valid, or this machine's clock is behind; set the clock",
    ),
    (
        "unsupported certificate purpose",
        "the server shows a certificate that is not a server's; {issue}",
    ),
    (
        "unsuitable certificate purpose",
        "the server shows a certificate that is not a server's; {issue}",
    ),
    ("Hostname Verification Check failed", _OTHER_HOST),
    ("Hostname mismatch", _OTHER_HOST),
    ("IP address mismatch", _OTHER_HOST),
    ("CERTIFICATE_VERIFY_FAILED", _OTHER_CA_HERE),
    # An issuer of the same name, with another key.
    ("certificate signature failure", _OTHER_CA_HERE),
    ("WRONG_VERSION_NUMBER", _NO_TLS),
    ("record layer failure", _NO_TLS),
    ("missing selected ALPN property", "what listens there is no RestPipe server; check host and port"),
    ("Failed parsing HTTP/2", "what listens there is no RestPipe server; check host and port"),
    ("Failed to create security handshaker", _UNUSABLE),
    ("KEY_VALUES_MISMATCH", _UNUSABLE),
    ("Endpoint closing", "what listens there does not answer; check host and port"),
)
_ISSUE = "issue one with `restpipe ca issue NAME --server --host {host}`"
# A server that refuses this node's certificate: gRPC's closes the connection, others send an alert first.
_CUTS = (
    "Socket closed", "Connection reset", "Unwrap failed", "_ALERT_",  # gRPC
    "EOF occurred", "UNEXPECTED_EOF", "Connection lost", "Broken pipe", "ConnectionResetError",  # the ssl module
)  # fmt: skip
# TLS alerts (RFC 8446 section 6) as OpenSSL and BoringSSL spell them.
_REFUSALS = (
    ("ALERT_UNKNOWN_CA", _OTHER_CA_THERE),
    ("ALERT_DECRYPT_ERROR", _OTHER_CA_THERE),
    ("ALERT_CERTIFICATE_EXPIRED", "the server finds this node's certificate expired; set the server's clock"),
    ("CERTIFICATE", "the server refuses this node's certificate; its log says why"),
)


async def explain(
    error: grpc.aio.AioRpcError | OSError, host: str, port: int, identity: Identity, connect_timeout: float
) -> str:
    """Say in one line why a connection failed.

    A server that refuses a client's certificate merely closes the connection, as far as gRPC tells. Then a look at this
    node's certificate, and one more handshake with the ssl module, tell what the server has against it.

    Args:
        error: the status of the call, or what the ssl module or the network says (`ssl.SSLError` is an `OSError`).
        host: of the server.
        port: of the server.
        identity: this node's.
        connect_timeout: seconds for the further handshake.
    """
    details = _details(error)
    for fragment, meaning in _CAUSES:
        if fragment in details:
            return meaning.format(host=host, issue=_ISSUE.format(host=host))
    if any(cut in details for cut in _CUTS):
        return _own_fault(identity) or _alert(details) or await _refusal(host, port, identity, connect_timeout)
    if isinstance(error, grpc.aio.AioRpcError):
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return "what listens there is no RestPipe server; check host and port"
        return printable(details) or error.code().name
    return printable(details)


def _details(error: grpc.aio.AioRpcError | OSError) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or ""
    if isinstance(error, socket.gaierror):
        return "DNS resolution failed"
    # asyncio says "[Errno 111] Connect call failed", once for each address.
    number = re.search(r"\[Errno (\d+)\]", str(error))
    return f"{os.strerror(int(number[1]))}: {error}" if number else str(error) or type(error).__name__


def _own_fault(identity: Identity) -> str | None:
    """Find what every server holds against a certificate. It was good when it was loaded, but that may be long ago."""
    now = datetime.now(UTC)
    if now > identity.not_after:
        return f"this node's certificate expired on {moment(identity.not_after)}; issue it anew"
    if now < identity.not_before:
        return f"this node's certificate is not valid before {moment(identity.not_before)}; set the clock, or wait"
    if "client" not in certificate_roles(identity.certificate):
        return "this node's certificate is not a client's; issue one with `restpipe ca issue NAME`"
    return None


async def _refusal(host: str, port: int, identity: Identity, connect_timeout: float) -> str:
    try:
        async with open_tls(host, port, identity, connect_timeout) as reader:
            # TLS 1.3: the server sees the certificate once the client's side of the handshake is complete.
            accepted = await reader.read(1)
    except ssl.SSLError as error:
        return _alert(str(error)) or f"the TLS handshake failed: {error}"
    except (OSError, TimeoutError):
        accepted = b"unknown"
    if not accepted:
        # gRPC's own servers send no alert, they close.
        return (
            "the server closed the connection when it saw this node's certificate; "
            "it trusts another CA, or its clock is wrong: its log says which"
        )
    return "the server closed the connection; it may be starting or stopping"


def _alert(report: str) -> str | None:
    return next((meaning for fragment, meaning in _REFUSALS if fragment in report), None)
