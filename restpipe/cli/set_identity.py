"""`rp_server_set_identity` and `rp_client_set_identity`: check an identity, install it where the node looks for it."""

from pathlib import Path
from typing import Annotated

import typer

from restpipe.cli.options import USAGE_ERROR
from restpipe.config import ClientSettings, ServerSettings, load_client_settings, load_server_settings
from restpipe.exceptions import ConfigError, IdentityError
from restpipe.identity import IdentityPaths, Role, install_identity
from restpipe.identity.wording import current_user

Key = Annotated[Path, typer.Argument(metavar="KEY", help="Private key of the node.", show_default=False)]
Certificate = Annotated[Path, typer.Argument(metavar="CRT", help="Its certificate.", show_default=False)]

# Where `restpipe install-service` puts units, and the identity of their nodes, which systemd gives to their user.
UNITS = Path("/etc/systemd/system")
STATE = Path("/var/lib/restpipe")
# The settings that say where the files of an identity are.
_RELATED = ("cert_path", "key_filename", "crt_filename", "ca_crt_filename", "user_config_module")

_server = typer.Typer(add_completion=False)
_client = typer.Typer(add_completion=False)


def server_set_identity() -> None:
    """Run the command `rp_server_set_identity`."""
    _server()


def client_set_identity() -> None:
    """Run the command `rp_client_set_identity`."""
    _client()


@_server.command()
def _install_server(
    key: Key,
    crt: Certificate,
    ca: Annotated[Path, typer.Argument(metavar="CA", help="Certificate of the CA.", show_default=False)],
) -> None:
    """Check the identity of the server, and install it in RP_SERVER_CERT_PATH (/var/lib/restpipe)."""
    _install("server", key, crt, ca)


@_client.command()
def _install_client(
    key: Key,
    crt: Certificate,
    ca: Annotated[
        Path | None,
        typer.Argument(metavar="CA", help="Certificate of the CA; without it, the one that is installed already."),
    ] = None,
) -> None:
    """Check the identity of this client, and install it in RP_CLIENT_CERT_PATH (/var/lib/restpipe)."""
    _install("client", key, crt, ca)


def _install(role: Role, key: Path, certificate: Path, ca: Path | None) -> None:
    try:
        installed = install_identity(role, key, certificate, ca, _target(role))
    except (IdentityError, ConfigError) as error:
        typer.echo(error, err=True)
        typer.echo("Nothing was installed.", err=True)
        raise typer.Exit(USAGE_ERROR if isinstance(error, ConfigError) else 1) from error
    for warning in installed.warnings:
        typer.echo(f"warning: {warning.message}", err=True)
    paths = installed.paths
    typer.echo(f'Installed the identity of the {role} "{installed.identity.name}":')
    served = paths.key.parent == STATE and (UNITS / f"restpipe-{role}.service").exists()
    whose = "" if served else f"  (only {current_user()} can read it: run the node as that user)"
    typer.echo(f"  {paths.key}{whose}\n  {paths.certificate}\n  {paths.ca}")
    typer.echo(f"\nNext:\n  {f'systemctl enable --now restpipe-{role}' if served else f'restpipe {role}'}")


def _target(role: Role) -> IdentityPaths:
    """Return where the node looks for its identity.

    Raises:
        ConfigError: one of the settings that say so is wrong, or the user config module cannot be imported.
    """
    node, load = (ServerSettings, load_server_settings) if role == "server" else (ClientSettings, load_client_settings)
    # An option beats everything: whatever else is set, wrongly or not, is no matter of this command.
    unrelated = {field: info.default for field, info in node.model_fields.items() if field not in _RELATED}
    settings = load(unrelated)
    return IdentityPaths(key=settings.key_path, certificate=settings.crt_path, ca=settings.ca_crt_path)
