"""`restpipe check`: find out what would keep a node from starting, without starting it."""

import errno
import os
import re
import socket
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import typer

from restpipe.cli.activation import ignored_bind, inherited_bind
from restpipe.cli.options import settings_options
from restpipe.config import (
    ClientSettings,
    ServerSettings,
    TcpBind,
    UnixBind,
    UpstreamAddress,
    WebBind,
    import_application,
    load_client_settings,
    load_server_settings,
    make_object,
    unknown_settings,
)
from restpipe.exceptions import ConfigError
from restpipe.handlers.events import EventTable
from restpipe.handlers.upstream_connections import CONNECT_TIMEOUT
from restpipe.identity import IdentityPaths
from restpipe.identity.custody import examine_with_crl
from restpipe.identity.wording import moment, span
from restpipe.nodes.handlers import event_handlers

Settings = ServerSettings | ClientSettings

# Where the settings of the nodes of `restpipe install-service` are.
SERVICES = Path("/etc/restpipe")

_HELP = (
    "Find out what would keep a node from starting, without starting it.\n\n"
    "Checks the settings, the identity, the classes that the settings name (each is imported, and an object of it is "
    "made), and whether the node can listen where it should. The options and the variables are those of the node.\n\n"
    "Exits with 0 when the node would start, and with 1 when there is an error."
)

app = typer.Typer(help=_HELP, no_args_is_help=True)


@app.command()
@settings_options(ServerSettings)
def server(options: dict[str, object]) -> None:
    """Check whether a server node would start."""
    _check("server", lambda: load_server_settings(options, inherited_bind()))


@app.command()
@settings_options(ClientSettings)
def client(options: dict[str, object]) -> None:
    """Check whether a client node would start."""
    _check("client", lambda: load_client_settings(options, inherited_bind()))


class _Report:
    """Lines about a node, printed as they are found.

    Attributes:
        warnings: how many of them tell of what is wrong and need not keep the node from starting.
        errors: how many of them tell of an error.
    """

    def __init__(self) -> None:
        self.warnings = 0
        self.errors = 0

    def ok(self, subject: str, text: str) -> None:
        self._line("ok", subject, text)

    def warning(self, subject: str, text: str) -> None:
        self.warnings += 1
        self._line("warning", subject, text)

    def error(self, subject: str, text: str) -> None:
        self.errors += 1
        self._line("error", subject, text)

    def _line(self, severity: str, subject: str, text: str) -> None:
        typer.echo(f"{severity:<8} {subject:<12} {text}")


def _check(node: str, load: Callable[[], Settings]) -> None:
    report = _Report()
    try:
        settings = load()
        _check_settings(report, settings)
    except ConfigError as error:
        for line in str(error).splitlines():
            report.error("settings", line)
        typer.echo("\nThe rest can be checked once the settings are right.")
    else:
        _check_identity(report, settings)
        _check_handler(report, settings)
        _check_classes(report, settings)
        _check_policy(report, settings)
        _check_addresses(report, settings)
    if report.errors:
        typer.echo(f"\nThis {node} node would not start.")
        raise typer.Exit(1)
    typer.echo(f"\nThis {node} node would start{', the warnings aside' if report.warnings else ''}.")


def _check_settings(report: _Report, settings: Settings) -> None:
    for warning in (*unknown_settings(settings), *ignored_bind(settings)):
        report.warning("settings", warning)
    module = f", defaults are from {settings.user_config_module}" if settings.user_config_module else ""
    report.ok("settings", f"every value is usable{module}")
    _check_service(report, settings.node)


def _check_service(report: _Report, node: str) -> None:
    """Warn where this machine has the node as a service, whose settings are not those that are checked."""
    file = SERVICES / f"{node}.env"
    try:
        names = re.findall(r"^\s*(\w+)=", file.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return
    except OSError as error:
        what = error.strerror
    else:
        what = ", ".join(name for name in names if name not in os.environ)
    if what:
        command = f"cd {file.parent}; set -a; . ./{file.name}; restpipe check {node}"
        report.warning("service", f"its settings in {file} are not looked at ({what}); to check it, as root: {command}")


def _check_identity(report: _Report, settings: Settings) -> None:
    paths = IdentityPaths(settings.key_path, settings.crt_path, settings.ca_crt_path)
    identity, revocations, faults = examine_with_crl(paths, settings.crl_path, settings.node)
    for fault in faults:
        tell = report.error if fault.severity == "error" else report.warning
        tell("identity", fault.message)
    if identity is not None:
        left = span(identity.not_after - datetime.now(UTC))
        end = f"expires in {left}, on {moment(identity.not_after)}"
        report.ok("identity", f'"{identity.name}", the identity of a {settings.node}; {end}')
    if revocations is not None:
        report.ok("revocations", f"{settings.crl_path} revokes {len(revocations)}")


def _check_handler(report: _Report, settings: Settings) -> None:
    if settings.upstream is not None:
        _check_upstream(report, settings.upstream)
        return
    if settings.asgi:
        _check_application(report, settings.asgi, settings.variable("asgi"))
        return
    try:
        handlers = event_handlers(settings)
        EventTable(*handlers)
        number = len(EventTable(handlers[0]).manifest)
    except ConfigError as error:
        report.error("handler", str(error))
    else:
        report.ok("handler", f"{settings.event_handler} serves {number} event{'' if number == 1 else 's'}")
        if settings.files:
            report.ok("files", settings.files_shown)


def _check_application(report: _Report, path: str, variable: str) -> None:
    """Report whether the application is one. It is not started up: that may be more than it takes to look."""
    try:
        application = import_application(path, variable)
    except ConfigError as error:
        report.error("asgi", str(error))
    else:
        report.ok("asgi", f"{path} is an ASGI application, of type {type(application).__name__}")


def _check_upstream(report: _Report, upstream: UpstreamAddress) -> None:
    """Report whether the service that requests are passed on to takes connections. It need not run before the node."""
    try:
        _connect(upstream)
    except OSError as error:
        cause = f"{error.strerror or error}; requests get 502 until it does"
        report.warning("upstream", f"{upstream} does not take connections: {cause}")
    else:
        report.ok("upstream", f"{upstream} takes connections")


def _connect(upstream: UpstreamAddress) -> None:
    if upstream.socket is None:
        with socket.create_connection((upstream.host, upstream.port), timeout=CONNECT_TIMEOUT) as probe:
            if upstream.scheme == "https":
                ssl.create_default_context().wrap_socket(probe, server_hostname=upstream.host).close()
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_TIMEOUT)
            probe.connect(str(upstream.socket))


def _check_classes(report: _Report, settings: Settings) -> None:
    if settings.connection_events:
        _check_class(report, "connections", settings.connection_events, settings.variable("connection_events"))
    if isinstance(settings, ServerSettings):
        variable = settings.variable("client_hostname_resolver")
        _check_class(report, "resolver", settings.client_hostname_resolver, variable)


def _check_policy(report: _Report, settings: Settings) -> None:
    """Report whom a server lets in, and whom it lets reach whom: rules that are forgotten are no error, and matter."""
    if isinstance(settings, ServerSettings):
        report.ok("clients", f"those that may connect: {', '.join(settings.allowed_clients)}")
        report.ok("relay", f"who may call whom through it: {', '.join(settings.relay) or 'nobody'}")


def _check_class(report: _Report, subject: str, path: str, variable: str) -> None:
    try:
        make_object(path, variable)
    except ConfigError as error:
        report.error(subject, str(error))
    else:
        report.ok(subject, path)


def _check_addresses(report: _Report, settings: Settings) -> None:
    if isinstance(settings, ServerSettings):
        pipe = TcpBind(settings.bind_interface, settings.bind_port)
        variables = f"{settings.variable('bind_interface')} or {settings.variable('bind_port')}"
        _check_bind(report, "pipe", pipe, f"clients connect to {pipe}", variables)
    else:
        report.ok("pipe", f"connects to {settings.target_address}")
    web = settings.web_bind
    if web is None:
        report.ok("web", "no web server")
    else:
        token = "a token is required" if settings.web_token.get_secret_value() else "no token is required"
        if web.fd is not None:
            report.ok("web", f"the service manager listens on {web}; {token}")
            return
        _check_bind(report, "web", web, f"listens on {web}; {token}", settings.variable("web_bind"))


def _check_bind(report: _Report, subject: str, bind: WebBind, text: str, variables: str) -> None:
    """Report whether a node can listen somewhere. An address that is taken is no error: this very node may run."""
    try:
        if isinstance(bind, UnixBind):
            _probe_unix(bind.path)
        else:
            _probe_tcp(bind)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            own = f"by this node, if it runs already{', or by systemd for it' if subject == 'web' else ''}"
            report.warning(subject, f"{bind} is taken: {own}; otherwise end what listens there, or set {variables}")
        else:
            report.error(subject, f"cannot listen on {bind}: {error.strerror}; set {variables}")
    else:
        report.ok(subject, text)


def _probe_tcp(bind: TcpBind) -> None:
    """Find out whether a node could listen on a TCP address. Nothing listens there meanwhile.

    Raises:
        OSError: it could not; `EADDRINUSE` where another program listens.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # Without it, connections that ended a moment ago count; that a socket listens is found out with it, too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _probe_unix(path: Path) -> None:
    """Find out whether a node could listen on a unix socket. No file is made or removed.

    Raises:
        OSError: it could not; `EADDRINUSE` where another program listens.
    """
    if not stat.S_ISDIR(path.parent.stat().st_mode):
        raise _os_error(errno.ENOTDIR)
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise _os_error(errno.EACCES)
    if not path.exists():
        return
    if not path.is_socket():
        raise _os_error(errno.EEXIST)
    if _is_listening(path):
        raise _os_error(errno.EADDRINUSE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        fault = probe.connect_ex(str(path))
    if fault != errno.ECONNREFUSED:  # refused: a process that is gone left it behind, and the node replaces it
        raise _os_error(errno.EADDRINUSE)


def _is_listening(path: Path) -> bool:
    """Whether Linux says so: a connection would have systemd start the node, where that listens for it."""
    try:
        sockets = Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return False
    # Num, RefCount, Protocol, Flags with __SO_ACCEPTCON, Type, St, Inode, Path
    fields = (line.split(maxsplit=7) for line in sockets)
    return any(each[3] == "00010000" and each[7:] == [str(path)] for each in fields)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
