"""`restpipe ca`: make a CA; issue, renew and revoke the identities of nodes; look at what is there."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from restpipe.exceptions import IdentityError
from restpipe.identity.authority import CA_DAYS, IDENTITY_DAYS, Authority, IssuedIdentity
from restpipe.identity.certificates import (
    Role,
    certificate_hosts,
    certificate_name,
    certificate_roles,
    is_authority,
    shown,
)
from restpipe.identity.files import EXPIRY_WARNING
from restpipe.identity.pem import PemFile, is_missing, key_kind
from restpipe.identity.revocation import crl_number
from restpipe.identity.wording import moment, printable, span

_HELP = """Make a certificate authority (CA), and the identities of nodes with it.

A node proves who it is with a key and a certificate that the CA signed; its name is in the certificate.

Three commands make all that a server and a client need:

\b
restpipe ca init
restpipe ca issue server --server --host rp.example.com
restpipe ca issue client

Later, `renew` gives a node a new certificate, `revoke` takes one back, and `show` lists what was issued.
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
            "--force",
            help="Replace the files of that name. The old certificate stays valid until it expires or is revoked.",
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
    _tell_next(issued, authority, role)


@app.command()
def renew(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a node that was issued an identity.")],
    directory: Directory = Path(),
    days: Annotated[
        int, typer.Option(min=1, max=_MAX_DAYS, help="How long it lasts, at most as long as the CA.")
    ] = IDENTITY_DAYS,
) -> None:
    """Issue an identity anew: another key, and a certificate for the same name and hosts, in the files of the old ones.

    A node that runs takes the new files without a restart and without a failed request. The old certificate stays valid
    until it expires, or until `restpipe ca revoke --serial` revokes it.
    """
    with _errors_in_a_line():
        authority = Authority.load(directory)
        before, revoked = authority.issued(name), {entry.serial_number for entry in authority.crl() or ()}
        issued = authority.renew(name, days=days)
        (role,) = certificate_roles(issued.certificate)
    old = before[-1]
    end = moment(issued.certificate.not_valid_after_utc)
    typer.echo(f'Renewed "{name}", the identity of a {role}, valid until {end}.')
    if old.serial_number not in revoked:
        valid = f"valid until {moment(old.not_valid_after_utc)}"
        typer.echo(f"The certificate of before is {valid}. To end it once no node uses it:")
        typer.echo(f"  restpipe ca revoke --serial {old.serial_number:x}{_dir_option(directory)}")
    typer.echo()
    _tell_next(issued, authority, role)


@app.command()
def revoke(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]", help="Name of a node, all of whose certificates are meant; or a certificate."
        ),
    ] = None,
    directory: Directory = Path(),
    serial: Annotated[
        str | None, typer.Option(metavar="HEX", help="The serial number of one certificate, as `show` tells it.")
    ] = None,
) -> None:
    """Revoke certificates, for good: ca.crl.pem lists them, for every node to have.

    A node that runs cuts the pipe of a revoked peer within seconds of getting the list, and refuses it from then on.
    """
    if (subject is None) == (serial is None):
        raise typer.BadParameter(
            "give either a NAME, or the FILE of a certificate, or --serial", param_hint="NAME|FILE"
        )
    with _errors_in_a_line():
        serials = [_serial(serial)] if serial is not None else []
        authority = Authority.load(directory)
        serials = serials or _serials(authority, subject or "")
        before = {entry.serial_number for entry in authority.crl() or ()}
        crl = authority.revoke(serials)
    for number in serials:
        typer.echo(f"{'Was revoked before' if number in before else 'Revoked'}: {number:x}")
    typer.echo(f"  list  {authority.crl_path}  (number {crl_number(crl)}, {len(crl)} revoked)")
    typer.echo(
        "\nNext, copy the list to every node, beside its CA certificate (a running node takes it within seconds):"
    )
    typer.echo(f"  {shlex.quote(str(authority.crl_path))}  ->  /var/lib/restpipe/{authority.crl_path.name}")


@app.command()
def show(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="A certificate, a key or a CRL, in PEM; without it, all that the CA issued."
        ),
    ] = None,
    directory: Directory = Path(),
) -> None:
    """Tell what a file holds, or what the CA issued and what has become of it. Nothing secret is printed."""
    with _errors_in_a_line():
        text = _issued_table(Authority.load(directory)) if file is None else _file_blocks(file)
    typer.echo(text)


def _tell_next(issued: IssuedIdentity, authority: Authority, role: Role) -> None:
    typer.echo(f"  key          {issued.key_path}  (keep it secret)")
    typer.echo(f"  certificate  {issued.certificate_path}")
    files = (issued.key_path, issued.certificate_path, authority.certificate_path)
    typer.echo(f"\nNext, copy three files to the machine of the {role}:")
    typer.echo(f"  {shlex.join(str(path) for path in files)}")
    typer.echo("and type there:")
    typer.echo(f"  rp_{role}_set_identity {shlex.join(path.name for path in files)}")


def _serial(text: str) -> int:
    try:
        number = int(text.replace(":", ""), 16)  # with the colons that OpenSSL puts between the bytes
    except ValueError:
        number = 0
    if not 0 < number < 1 << 160:  # RFC 5280 section 4.1.2.2
        raise typer.BadParameter(f"{text!r} is no serial number in hexadecimal", param_hint="--serial")
    return number


def _serials(authority: Authority, subject: str) -> list[int]:
    """Return the serial numbers of what is to be revoked: of all that has a name, or of the certificate in a file."""
    named = authority.issued(subject)
    if named:
        return [certificate.serial_number for certificate in named]
    file = Path(subject)
    if is_missing(file):
        raise IdentityError(
            f"{subject!r}: nothing of that name was issued in {authority.directory}, and it is no file; "
            "`restpipe ca show` lists what was issued"
        )
    certificate = PemFile.read(file, missing="check the path").certificates()[0]
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError(f"{file}: was not issued by the CA in {authority.directory}; only its own can") from error
    return [certificate.serial_number]


def _issued_table(authority: Authority) -> str:
    revoked = {entry.serial_number: entry.revocation_date_utc for entry in authority.crl() or ()}
    rows = [("Name", "Role", "Valid until", "Serial", "")]
    rows += [
        (
            certificate_name(certificate),
            _role(certificate),
            moment(certificate.not_valid_after_utc),
            f"{certificate.serial_number:x}",
            _state(certificate, revoked.get(certificate.serial_number)),
        )
        for certificate in authority.issued()
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _state(certificate: x509.Certificate, revoked: datetime | None) -> str:
    if revoked is not None:
        return f"revoked on {moment(revoked)}"
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left.total_seconds() < 0:
        return "expired"
    return f"expires in {span(left)}" if left < EXPIRY_WARNING else ""


def _file_blocks(file: Path) -> str:
    pem = PemFile.read(file, missing="check the path")
    blocks: list[list[tuple[str, str]]] = []
    if pem.has_certificate:
        blocks += [_certificate_rows(file, certificate) for certificate in pem.certificates()]
    if pem.has_private_key:
        blocks.append(_key_rows(pem))
    if pem.has_crl:
        blocks += [_crl_rows(crl) for crl in pem.crls()]
    if not blocks:
        raise IdentityError(f"{file}: holds {pem.described()}, neither a certificate nor a private key nor a CRL")
    return "\n\n".join("\n".join(f"{label:<12} {text}" for label, text in block) for block in blocks)


def _crl_rows(crl: x509.CertificateRevocationList) -> list[tuple[str, str]]:
    due = crl.next_update_utc
    return [
        ("CRL", f"number {crl_number(crl)}"),
        ("Issuer", shown(crl.issuer)),
        ("Made", moment(crl.last_update_utc)),
        ("Next", moment(due) if due else "not said"),
        *(("Revoked", f"{entry.serial_number:x} on {moment(entry.revocation_date_utc)}") for entry in crl),
    ]


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
        ("Key", _key(certificate)),
    ]


def _key_rows(pem: PemFile) -> list[tuple[str, str]]:
    exposed = f"open to group or others; chmod 600 {pem.path}" if pem.exposed else "private to its owner"
    return [("Private key", key_kind(pem.private_key())), ("Mode", f"{pem.mode:04o} ({exposed})")]


def _name(certificate: x509.Certificate) -> str:
    try:
        return certificate_name(certificate)
    except IdentityError as error:
        return f"none that a node can have ({error})"


def _key(certificate: x509.Certificate) -> str:
    try:
        return key_kind(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"none that can be read ({printable(str(error))})"


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
