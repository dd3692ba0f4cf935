"""The web server of the node on this machine: where it listens, and how it is asked."""

import http.client
import os
import re
import socket
from contextlib import closing, suppress
from pathlib import Path

from restpipe.config import NodeSettings, TcpBind, UnixBind, WebBind
from restpipe.config.binds import parse_web_bind
from restpipe.exceptions import ConfigError

CONNECT_TIMEOUT = 5.0
# Where the sockets of `restpipe install-service` are.
SERVICES = Path("/run")
# As the settings of a node have it.
_TOKEN = re.compile(r"[!-~]*")


class Connection(http.client.HTTPConnection):
    """A connection to a node's web server, by TCP or by a unix socket; no proxy of the environment is asked."""

    def __init__(self, address: WebBind) -> None:
        tcp = address if isinstance(address, TcpBind) else TcpBind("localhost", 80)
        super().__init__(tcp.host, tcp.port, timeout=CONNECT_TIMEOUT)
        self._path = address.path if isinstance(address, UnixBind) else None

    def connect(self) -> None:
        """Connect."""
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def shut_down(self) -> None:
        """Have whoever sends or receives on it see its end."""
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def node_at(url: str) -> tuple[WebBind, str]:
    """Return where the node listens that --node names, and its token.

    Raises:
        ConfigError: that is no URL of a node, or the token is none.
    """
    try:
        bind = parse_web_bind(url.removeprefix("http://").rstrip("/"))
    except ValueError:
        bind = None
    if bind is None:
        raise ConfigError(f"--node {url!r} should be http://HOST:PORT or unix:/PATH")
    token = os.environ.get("RP_WEB_TOKEN", "").strip()
    if _TOKEN.fullmatch(token) is None:
        raise ConfigError("RP_WEB_TOKEN: should consist of printable ASCII characters without blanks")
    return _reachable(bind, "--node"), token


def node_of(settings: NodeSettings) -> tuple[WebBind, str]:
    """Return where the node of some settings listens, and its token.

    Where nothing was set, and nothing listens at the default, it is the service that this machine may have.

    Raises:
        ConfigError: it has no web server, or it is not told where.
    """
    address = _reachable(settings.web_bind, settings.variable("web_bind"))
    service = SERVICES / f"restpipe-{settings.node}" / "web.sock"
    if "web_bind" not in settings.model_fields_set and service.is_socket() and not _accepts(address):
        address = UnixBind(service)
    return address, settings.web_token.get_secret_value()


def listens(settings: NodeSettings) -> bool:
    """Whether anything takes connections where the node of some settings would."""
    try:
        return _accepts(node_of(settings)[0])
    except ConfigError:
        return False


def refusal(address: WebBind, error: OSError) -> str:
    """Return why a node could not be asked."""
    denied = ": ask as root, or as one of the socket's group" if isinstance(error, PermissionError) else ""
    return f"no node answers at {shown(address)}: {error.strerror or error}{denied}"


def shown(address: WebBind) -> str:
    """Return an address as users write it."""
    return str(address) if isinstance(address, UnixBind) else f"http://{address}"


def _accepts(address: WebBind) -> bool:
    try:
        with closing(Connection(address)) as connection:
            connection.connect()
    except OSError:
        return False
    return True


def _reachable(bind: WebBind | None, origin: str) -> WebBind:
    """Return an address to connect to, of one to listen on."""
    if isinstance(bind, UnixBind):
        return bind
    if bind is None or not bind.port:
        raise ConfigError(f"{origin} tells no address to connect to; --node does")
    return TcpBind({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind.host, bind.host), bind.port)  # noqa: S104
