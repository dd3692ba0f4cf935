"""Where the web server of a node listens: a TCP address, a unix socket, or nowhere."""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

# `sun_path` of Linux holds 108 bytes, the last of them NUL.
MAX_UNIX_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class TcpBind:
    """A TCP address to listen on.

    Attributes:
        host: host name or IP address; an IPv6 address without its brackets.
        port: 0 means any free port.
        fd: descriptor of the socket that listens there already, which this process was started with.
    """

    host: str
    port: int
    fd: int | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UnixBind:
    """A unix socket to listen on; the file's mode says who may connect.

    Attributes:
        path: of the file.
        fd: descriptor of the socket that listens there already, which this process was started with.
    """

    path: Path
    fd: int | None = None

    @property
    def is_loopback(self) -> bool:
        """Always true: a unix socket cannot be reached from another machine."""
        return True

    def __str__(self) -> str:
        return f"unix:{self.path}"


WebBind = TcpBind | UnixBind


def host_port(host: str, port: int) -> str:
    """Join a host and a port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_host(text: str) -> str:
    """Read a host name or an IP address, in lower case and without the brackets of an IPv6 address.

    Raises:
        ValueError: it is neither; a port or a scheme that was written with it is a common cause.
    """
    host = text.strip().lower()
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare or bare != host:
        try:
            IPv6Address(bare)
        except ValueError:
            raise ValueError("should be a host name or an IP address, without a scheme and without a port") from None
    elif not bare or not all(character.isalnum() or character in "-._" for character in bare):
        raise ValueError("should be a host name or an IP address")
    try:
        bare.encode("idna")  # as `getaddrinfo` does, whose callers expect OSError alone
    except UnicodeError:
        raise ValueError("should be a host name: 1 to 63 characters between two dots") from None
    return bare


def parse_web_bind(text: str) -> WebBind | None:
    """Read `host:port`, `[ipv6]:port` or `unix:/path`; an empty text is None: no web server.

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip()
    if not text:
        return None
    if text.startswith("unix:"):
        return UnixBind(unix_path(text.removeprefix("unix:")))
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError("should be host:port, [ipv6]:port, unix:/path, or empty for no web server")
    if ":" in host and not host.startswith("["):
        raise ValueError("should have its IPv6 address in brackets: [::1]:8080")
    return TcpBind(parse_host(host), int(port))


def unix_path(text: str) -> Path:
    """Read the path of a unix socket.

    Raises:
        ValueError: it is not absolute, or too long.
    """
    path = Path(text)
    if not path.is_absolute():
        raise ValueError("should name an absolute path: unix:/run/restpipe.sock")
    if len(bytes(path)) > MAX_UNIX_PATH_BYTES:
        raise ValueError(
            f"should name a path of at most {MAX_UNIX_PATH_BYTES} bytes, the limit of the operating system"
        )
    return path
