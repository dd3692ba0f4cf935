"""What a service behind the pipe is told of the caller: `Forwarded` (RFC 7239), and what came before it."""

import ipaddress
from collections.abc import MutableMapping
from typing import Any

from restpipe.handlers.upstream_heads import forwarded_for
from restpipe_pb.v1.pipe_pb2 import Request

# Headers that are made anew, from what is believed of their old values.
_TOLD = frozenset(("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-proto"))
_SCHEME = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def forwarded_headers(request: Request, scope: MutableMapping[str, Any], prefix: str) -> None:
    """Add to the headers of `request` where it came from, and by which name this node was called.

    A caller on this machine may be a proxy of the operator's: the addresses that it tells stay, with its own added, and
    it is believed that its callers came by HTTPS. What any other caller says of this is dropped.

    Args:
        request: with the headers of the caller.
        scope: of the ASGI request.
        prefix: of the route, which the service does not see in its target.
    """
    address = scope["client"][0] if scope["client"] else ""
    told: dict[str, list[str]] = {}
    others = []
    for header in request.headers:
        if header.name in _TOLD:
            told.setdefault(header.name, []).append(header.value)
        else:
            others.append(header)
    if address and not _is_loopback(address):
        told.clear()
    host = next((header.value for header in others if header.name == "host"), "")
    scheme = _SCHEME.get(told.get("x-forwarded-proto", [""])[-1]) or _SCHEME[scope["scheme"]]
    chain = [*told.get("x-forwarded-for", ()), *([address] if address else ())]
    del request.headers[:]
    request.headers.extend(others)
    for name, value in (
        ("forwarded", ", ".join([*told.get("forwarded", ()), _element(address, host, scheme)])),
        ("x-forwarded-for", ", ".join(chain)),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", scheme),
        ("x-forwarded-prefix", prefix),
    ):
        if value:
            request.headers.add(name=name, value=value)


def _element(address: str, host: str, scheme: str) -> str:
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')
    return f'for={forwarded_for(address)};host="{quoted}";proto={scheme}'


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
