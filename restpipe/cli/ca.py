"""`restpipe ca`: make a certificate authority, issue the identities of nodes, and look at what a file holds."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from restpipe.exceptions import IdentityError
from restpipe.identity.authority import CA_DAYS, IDENTITY_DAYS, Authority
from restpipe.identity.certificates import (
    Role,
    certificate_hosts,
    certificate_name,
    certificate_roles,
    is_authority,
    shown,
)
from restpipe.identity.pem import PemFile, key_kind
from restpipe.identity.wording import moment, printable, span

_HELP = """Make a certificate authority (CA), and the identities of nodes with it.

A node proves who it is with a key and a certificate that the CA signed; its name is in the certificate.

Three commands make all that a server and a client need:

\b
restpipe ca init
restpipe ca issue server --server --host rp.example.com
restpipe ca issue client
"""

app = typer.Typer(help=_HELP, no_args_is_help=True)

Directory = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Directory of the CA and of what it issues.")]
_MAX_DAYS = 36500


@app.command()
def init(
    directory: Directory = Path(),
    name: Annotated[str, typer.Option(help="Name of the CA, for people to read.")] = "RestPipe CA",
    days: Annotated[int, typer.Option(min=1, max=_MAX_DAYS, help="How long the CA lasts.")] = CA_DAYS,
) -> None:
    """Make a CA: ca.key.pem, which signs and stays here, and ca.crt.pem, which every node gets.

    A CA that is there already is never overwritten.
    """
    with _errors_in_a_line():
        authority = Authority.create(directory, name=name, days=days)
    typer.echo(f"Made a CA, valid until {moment(authority.certificate.not_valid_after_utc)}.")
    typer.echo(f"  key          {authority.key_path}  (signs identities: keep it secret, give it to no node)")
    typer.echo(f"  certificate  {authority.certificate_path}  (goes to every node)")
    typer.echo("\nNext, with the name or the address that clients will dial as HOST:")
    typer.echo(f"  restpipe ca issue server --server --host HOST{_dir_option(directory)}")


@app.command()
def issue(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the node: letters, digits and . _ - (at most 64).")
    ],
    directory: Directory = Path(),
    server: Annotated[bool, typer.Option("--server", help="For a server; without it, for a client.")] = False,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A DNS name or IP address that clients dial the server by; repeat it for several. "
            "Without it: localhost, 127.0.0.1, ::1 and NAME.",
        ),
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=_MAX_DAYS, help="How long it lasts, at most as long as the CA.")
    ] = IDENTITY_DAYS,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace the files of that name. The old certificate stays valid until it expires."
        ),
    ] = False,
) -> None:
    """Issue the identity of a node: NAME.key.pem and NAME.crt.pem.

    Each client needs a name of its own: the server tells clients apart by it, and `/client/NAME/...` leads to it.
    """
    if host and not server:
        raise typer.BadParameter("is for the certificate of a server; add --server", param_hint="--host")
    role: Role = "server" if server else "client"
    with _errors_in_a_line():
        authority = Authority.load(directory)
        issued = authority.issue(name, role, host or (), days=days, replace=force)
        hosts = certificate_hosts(issued.certificate)
    for_hosts = f", for {', '.join(hosts)}" if server else ""
    end = moment(issued.certificate.not_valid_after_utc)
    typer.echo(f'Issued "{name}", the identity of a {role}{for_hosts}, valid until {end}.')
    typer.echo(f"  key          {issued.key_path}  (keep it secret)")
    typer.echo(f"  certificate  {issued.certificate_path}")
    files = (issued.key_path, issued.certificate_path, authority.certificate_path)
    typer.echo(f"\nNext, copy three files to the machine of the {role}:")
    typer.echo(f"  {shlex.join(str(path) for path in files)}")
    typer.echo("and type there:")
    typer.echo(f"  rp_{role}_set_identity {shlex.join(path.name for path in files)}")


@app.command()
def show(file: Annotated[Path, typer.Argument(metavar="FILE", help="A certificate or a key, in PEM.")]) -> None:
    """Tell what a file holds. Nothing secret is printed."""
    with _errors_in_a_line():
        pem = PemFile.read(file, missing="check the path")
        rows: list[list[tuple[str, str]]] = []
        if pem.has_certificate:
            rows += [_certificate_rows(file, certificate) for certificate in pem.certificates()]
        if pem.has_private_key:
            rows.append(_key_rows(pem))
        if not rows:
            raise IdentityError(f"{file}: holds {pem.described()}, neither a certificate nor a private key")
    typer.echo("\n\n".join("\n".join(f"{label:<12} {text}" for label, text in block) for block in rows))


def _certificate_rows(file: Path, certificate: x509.Certificate) -> list[tuple[str, str]]:
    try:
        role, hosts = _role(certificate), certificate_hosts(certificate)
    except IdentityError as error:
        raise IdentityError(f"{file}: {error}") from error
    own = certificate.subject == certificate.issuer
    return [
        ("Certificate", shown(certificate.subject)),
        ("Name", _name(certificate)),
        ("Role", role),
        ("Hosts", ", ".join(printable(host) for host in hosts) or "none"),
        ("Issuer", "itself" if own else shown(certificate.issuer)),
        ("Serial", f"{certificate.serial_number:x}"),
        ("Valid from", moment(certificate.not_valid_before_utc)),
        ("Valid until", f"{moment(certificate.not_valid_after_utc)} ({_validity(certificate)})"),
        ("SHA-256", certificate.fingerprint(hashes.SHA256()).hex(":").upper()),
        ("Key", key_kind(certificate.public_key())),
    ]


def _key_rows(pem: PemFile) -> list[tuple[str, str]]:
    exposed = f"open to group or others; chmod 600 {pem.path}" if pem.exposed else "private to its owner"
    return [("Private key", key_kind(pem.private_key())), ("Mode", f"{pem.mode:04o} ({exposed})")]


def _name(certificate: x509.Certificate) -> str:
    try:
        return certificate_name(certificate)
    except IdentityError as error:
        return f"none that a node can have ({error})"


def _role(certificate: x509.Certificate) -> str:
    if is_authority(certificate):
        return "CA"
    return " and ".join(sorted(certificate_roles(certificate))) or "neither server nor client"


def _validity(certificate: x509.Certificate) -> str:
    now = datetime.now(UTC)
    if now < certificate.not_valid_before_utc:
        return f"not valid yet: in {span(certificate.not_valid_before_utc - now)}"
    left = certificate.not_valid_after_utc - now
    return f"expired {span(left)} ago" if left.total_seconds() < 0 else f"in {span(left)}"


def _dir_option(directory: Path) -> str:
    return "" if directory == Path() else f" --dir {shlex.quote(str(directory))}"


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    """Tell users what is wrong, without a traceback."""
    try:
        yield
    except IdentityError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
