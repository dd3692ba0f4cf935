"""The HTTP service that a node passes requests on to."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from restpipe.config.binds import host_port, parse_host, unix_path

_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """Where an HTTP service listens.

    Attributes:
        scheme: "http", or "https", which wants a certificate that this machine trusts.
        host: host name or IP address; an IPv6 address without its brackets; "localhost" behind a unix socket.
        port: TCP port.
        path: stands before the path of every request; empty, or "/" and more, without "/" at its end.
        socket: the unix socket, None for TCP.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    socket: Path | None = None

    @property
    def authority(self) -> str:
        """Host and port as in `Host`, the port left out where it is that of the scheme."""
        usual = {"http": 80, "https": 443}[self.scheme]
        return host_port(self.host, self.port).removesuffix(f":{usual}")

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else f"{self.scheme}://{self.authority}{self.path}"


def parse_upstream(text: str) -> UpstreamAddress | None:
    """Read `http://host:port/path`, `https://...` or `unix:/path`; an empty text is None: no service.

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip()
    if not text:
        return None
    if text.startswith("unix:"):
        return UpstreamAddress("http", "localhost", 80, socket=unix_path(text.removeprefix("unix:")))
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError("should be a URL such as http://127.0.0.1:9000, or unix:/path") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("should be a URL such as http://127.0.0.1:9000, or unix:/path")
    _refuse_the_rest(url, text)
    host = parse_host(f"[{url.hostname}]" if ":" in url.hostname else url.hostname)
    return UpstreamAddress(url.scheme, host, port or (443 if url.scheme == "https" else 80), url.path.rstrip("/"))


def _refuse_the_rest(url: SplitResult, text: str) -> None:
    if url.username is not None or url.password is not None:
        raise ValueError("should have no user name and no password: callers send their own")
    if url.query or url.fragment or text[-1] in "?#":
        raise ValueError("should end with its path: callers send their own query")
    if not _PATH.fullmatch(url.path) or {".", ".."} & set(url.path.split("/")):
        raise ValueError("should have a path of plain segments, such as /app")
