"""`rp_server_set_identity` and `rp_client_set_identity`: check an identity, install it where the node looks for it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from restpipe.exceptions import IdentityError
from restpipe.identity import IdentityPaths, Role, install_identity
from restpipe.identity.wording import current_user

Key = Annotated[Path, typer.Argument(metavar="KEY", help="Private key of the node.", show_default=False)]
Certificate = Annotated[Path, typer.Argument(metavar="CRT", help="Its certificate.", show_default=False)]

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
    except IdentityError as error:
        typer.echo(error, err=True)
        typer.echo("Nothing was installed.", err=True)
        raise typer.Exit(1) from error
    for warning in installed.warnings:
        typer.echo(f"warning: {warning.message}", err=True)
    paths = installed.paths
    typer.echo(f'Installed the identity of the {role} "{installed.identity.name}":')
    typer.echo(f"  {paths.key}  (only {current_user()} can read it: run the node as that user)")
    typer.echo(f"  {paths.certificate}\n  {paths.ca}")
    typer.echo(f"\nNext:\n  restpipe {role}")


def _target(role: Role) -> IdentityPaths:
    """Return where the node looks for its identity."""

    def setting(name: str, default: str) -> str:
        return os.environ.get(name) or default

    directory = Path(setting(f"RP_{role.upper()}_CERT_PATH", "/var/lib/restpipe"))
    return IdentityPaths(
        key=directory / setting(f"RP_{role.upper()}_KEY_FILENAME", f"restpipe.{role}.key.pem"),
        certificate=directory / setting(f"RP_{role.upper()}_CRT_FILENAME", f"restpipe.{role}.crt.pem"),
        ca=directory / setting("RP_CA_CRT_FILENAME", "ca.crt.pem"),
    )
