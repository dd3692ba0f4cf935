"""The identity of a node, read from its three files, with every fault named before anything is dialled or bound.

A server that refuses a client's certificate only closes the connection: the client cannot tell that from a server that
is going down. So a node finds the faults of its own identity itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

from cryptography import x509

from restpipe.exceptions import IdentityError
from restpipe.identity.certificates import (
    PrivateKey,
    Role,
    certificate_hosts,
    certificate_name,
    certificate_roles,
    parse_certificate,
    public_key_bytes,
    shown,
    trust_path,
)
from restpipe.identity.pem import PemFile, certificates_pem, key_pem
from restpipe.identity.wording import moment, span

EXPIRY_WARNING = timedelta(days=14)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with an identity.

    Attributes:
        severity: an "error" keeps the node from working, a "warning" will.
        message: one line that names the file and the way out.
    """

    severity: Literal["error", "warning"]
    message: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's key and certificates, found to be good.

    Attributes:
        name: name of the node.
        key_pem: its private key, PKCS#8.
        certificate_pem: its certificate and the intermediates after it.
        ca_pem: the CA certificates that it trusts.
        not_before: when its certificate becomes valid.
        not_after: when its certificate expires.
        hosts: DNS names and IP addresses that its certificate is for.
    """

    name: str
    key_pem: bytes = field(repr=False)
    certificate_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    hosts: tuple[str, ...]

    @property
    def certificate(self) -> x509.Certificate:
        """Its certificate, parsed anew."""
        return parse_certificate(self.certificate_pem)

    @property
    def anchors(self) -> list[x509.Certificate]:
        """The CA certificates that it trusts, parsed anew."""
        return x509.load_pem_x509_certificates(self.ca_pem)

    @property
    def ca_not_after(self) -> datetime:
        """When the first of the certificates that lead from its own to the CA expires, its own aside."""
        chain = x509.load_pem_x509_certificates(self.certificate_pem)
        path = trust_path(chain, self.anchors)
        return min(one.not_valid_after_utc for one in path[1:] or path)


def load_identity(key_path: Path, certificate_path: Path, ca_path: Path, role: Role) -> Identity:
    """Read the identity of a node.

    Raises:
        IdentityError: it cannot be used; a line for each error that `check_identity` finds.
    """
    identity, faults = examine(key_path, certificate_path, ca_path, role)
    if identity is None:
        raise IdentityError(error_lines(faults))
    return identity


def check_identity(key_path: Path, certificate_path: Path, ca_path: Path, role: Role) -> list[Fault]:
    """Return everything that is wrong with the identity of a node, warnings included; nothing when it is good."""
    return examine(key_path, certificate_path, ca_path, role)[1]


def error_lines(faults: Sequence[Fault]) -> str:
    """Return the messages of the errors among faults, a line for each."""
    return "\n".join(fault.message for fault in faults if fault.severity == "error")


def examine(
    key_path: Path,
    certificate_path: Path,
    ca_path: Path,
    role: Role,
    *,
    installing: bool = False,
    regular: bool = False,
) -> tuple[Identity | None, list[Fault]]:
    """Read an identity and find its faults.

    Args:
        key_path: file of the private key.
        certificate_path: file of the certificate, with intermediates where it has any.
        ca_path: file of the CA certificates.
        role: what the node is.
        installing: whether the files are about to be copied. A key that others can read is then a warning: the copy
            will be private, and some file systems know no permissions.
        regular: whether they must be regular files: who reads them again and again would wait for ever for a pipe
            that nobody writes to.

    Returns:
        The identity, None where there is an error, and the faults.
    """
    faults: list[Fault] = []
    missing = "check the path" if installing else f"install an identity with rp_{role}_set_identity"

    def read(path: Path) -> PemFile | None:
        return _attempt(faults, lambda: PemFile.read(path, missing=missing, regular=regular))

    key_file, certificate_file, ca_file = read(key_path), read(certificate_path), read(ca_path)
    key = _attempt(faults, key_file.private_key) if key_file else None
    chain = _attempt(faults, certificate_file.certificates) if certificate_file else None
    anchors = _attempt(faults, ca_file.certificates) if ca_file else None
    for file in (key_file, certificate_file):
        faults += _exposure_faults(file, installing=installing)
    if chain and anchors and key and _belongs(key, anchors[0]) and not _belongs(key, chain[0]):
        # Every other fault would be told about the wrong file.
        faults.append(Fault("error", f"{ca_path}: holds the certificate of the key: are certificate and CA swapped?"))
        return None, faults
    if key and chain and not _belongs(key, chain[0]):
        message = f"{key_path}: is not the key of {certificate_path}; give the two that were issued together"
        faults.append(Fault("error", message))
    if chain:
        faults += _leaf_faults(certificate_path, chain[0], role)
        faults += _trust_faults(certificate_path, chain, ca_path, anchors)
    if not (key and chain and anchors) or error_lines(faults):
        return None, faults
    return _identity(key, chain, anchors), faults


def _identity(key: PrivateKey, chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]) -> Identity:
    leaf = chain[0]
    return Identity(
        name=certificate_name(leaf),
        key_pem=key_pem(key),
        certificate_pem=certificates_pem(chain),
        ca_pem=certificates_pem(anchors),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        hosts=certificate_hosts(leaf),
    )


def _attempt(faults: list[Fault], read: Callable[[], _T]) -> _T | None:
    """Return what is read; what cannot be becomes a fault and None."""
    try:
        return read()
    except IdentityError as error:
        faults.append(Fault("error", str(error)))
        return None


def _belongs(key: PrivateKey, certificate: x509.Certificate) -> bool:
    try:
        return public_key_bytes(key) == public_key_bytes(certificate)
    except IdentityError:  # a public key of a kind that no private key of ours has
        return False


def _exposure_faults(file: PemFile | None, *, installing: bool) -> Iterator[Fault]:
    if file is None or not (file.has_private_key and file.exposed):
        return
    message = f"{file.path}: holds a private key and is open to group or others (mode {file.mode:04o}); "
    if installing:
        yield Fault("warning", f"{message}the installed copy is not, delete this one")
    else:
        yield Fault("error", f"{message}chmod 600 {file.path}")


def _leaf_faults(path: Path, leaf: x509.Certificate, role: Role) -> Iterator[Fault]:
    """Find out whether a certificate is one for this role, whoever signed it."""
    issue = "restpipe ca issue NAME --server --host HOST" if role == "server" else "restpipe ca issue NAME"
    try:
        certificate_name(leaf)
    except IdentityError as error:
        yield Fault("error", f"{path}: {error}; make one with `{issue}`")
    try:
        roles, hosts = certificate_roles(leaf), certificate_hosts(leaf)
    except IdentityError as error:
        yield Fault("error", f"{path}: {error}; make one with `{issue}`")
        return
    if role not in roles:
        made_for = f"a {'/'.join(roles)}'s certificate" if roles else "a certificate for neither servers nor clients"
        yield Fault("error", f"{path}: is {made_for}, and this node is a {role}; make one with `{issue}`")
    elif role == "server" and not hosts:
        # RFC 6125 section 6.4.4: the Common Name is no host name any more.
        yield Fault(
            "error", f"{path}: names no host (subjectAltName), so every client refuses it; make one with `{issue}`"
        )


def _trust_faults(
    path: Path, chain: Sequence[x509.Certificate], ca_path: Path, anchors: Sequence[x509.Certificate] | None
) -> Iterator[Fault]:
    """Find out whether the CA signed a certificate, and whether all on the way from one to the other are valid now."""
    trusted = [chain[0]]
    if anchors:
        try:
            trusted = trust_path(chain, anchors)
        except IdentityError as error:
            yield Fault("error", f"{path}: not signed by the CA in {ca_path}: {error}; give the CA it was issued by")
    yield from _validity_faults(path, "", trusted[0], "issue it anew with `restpipe ca renew NAME`")
    for certificate in trusted[1:]:
        holder = ca_path if anchors and certificate in anchors else path
        yield from _validity_faults(holder, f"CA {shown(certificate.subject)} ", certificate, "a new CA is needed")


def _validity_faults(path: Path, what: str, certificate: x509.Certificate, renew: str) -> Iterator[Fault]:
    now = datetime.now(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        clock = f"the clock here says {moment(now)}, {span(begin - now)} before that: set it, or wait"
        yield Fault("error", f"{path}: {what}is not valid before {moment(begin)}; {clock}")
    elif now > end:
        clock = f"(the clock here says {moment(now)})"
        yield Fault("error", f"{path}: {what}expired {span(now - end)} ago, on {moment(end)} {clock}; {renew}")
    elif end - now < EXPIRY_WARNING:
        yield Fault("warning", f"{path}: {what}expires in {span(end - now)}, on {moment(end)}; {renew}")
