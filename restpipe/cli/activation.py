"""A listening socket that the service manager holds for this process, and passed to it: sd_listen_fds(3).

Callers that come while a node restarts wait in its backlog: no connection is refused.
"""

import os
import socket
from pathlib import Path

from restpipe.config import NodeSettings, TcpBind, UnixBind, WebBind
from restpipe.exceptions import ConfigError

# SD_LISTEN_FDS_START
FIRST = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def inherited_bind() -> WebBind | None:
    """Return where the socket listens that was passed to this process; None where none was.

    It is asked once: the variables are removed from the environment, and no child gets the socket.

    Raises:
        ConfigError: what was passed is not one listening socket.
    """
    pid, number, names, _ = (os.environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or number in ("", "0"):
        return None
    if number != "1":
        told = f", named {names!r}" if names else ""
        raise ConfigError(f"LISTEN_FDS={number!r}{told}: should be 1, the socket of the web server")
    try:
        os.set_inheritable(FIRST, False)
        inherited = socket.socket(fileno=FIRST)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS=1: descriptor {FIRST} should be a socket: {error.strerror}") from None
    try:
        return _bind_of(inherited)
    finally:
        inherited.detach()


def ignored_bind(settings: NodeSettings) -> tuple[str, ...]:
    """Return a sentence where the environment says another address than that of the socket which was passed."""
    bind, variable = settings.web_bind, settings.variable("web_bind")
    said = os.environ.get(variable)
    if bind is None or bind.fd is None or said is None or said.strip() == str(bind):
        return ()
    return (f"{variable}={said!r} is not used: the service manager listens on {bind}, as its .socket unit says",)


def _bind_of(inherited: socket.socket) -> WebBind:
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if (
        inherited.family not in families
        or inherited.type != socket.SOCK_STREAM
        or not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        raise ConfigError(
            f"LISTEN_FDS=1: descriptor {FIRST} should be a TCP or unix socket that listens: ListenStream=, Accept=no"
        )
    name = inherited.getsockname()
    if inherited.family != socket.AF_UNIX:
        return TcpBind(name[0], name[1], fd=FIRST)
    if not isinstance(name, str):  # an abstract one
        raise ConfigError(f"LISTEN_FDS=1: descriptor {FIRST} should have a path, whose mode says who may connect")
    return UnixBind(Path(name), fd=FIRST)
