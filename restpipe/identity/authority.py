"""A certificate authority in a directory, and the identities that it issues: what `restpipe ca` does."""

import fcntl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from restpipe.exceptions import IdentityError
from restpipe.identity.certificates import (
    ROLE_USAGES,
    PrivateKey,
    Role,
    authority_identifier,
    certificate_hosts,
    certificate_name,
    certificate_roles,
    check_name,
    host_name,
    is_authority,
    public_key_bytes,
)
from restpipe.identity.pem import (
    CERTIFICATE_MODE,
    KEY_MODE,
    NewFile,
    PemFile,
    certificates_pem,
    is_missing,
    key_pem,
    write_files,
)
from restpipe.identity.revocation import is_signed_by, next_crl
from restpipe.identity.wording import moment

CA_KEY_FILENAME = "ca.key.pem"
CA_CERTIFICATE_FILENAME = "ca.crt.pem"
CRL_FILENAME = "ca.crl.pem"
# What was issued, a file for each certificate, by serial number: revoking a name has to find all that bear it.
ISSUED_DIRECTORY = "issued"
CA_DAYS = 3650
IDENTITY_DAYS = 825

# A node whose clock is a little slow takes a new certificate at once.
_CLOCK_SKEW = timedelta(minutes=10)

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """An identity that was issued.

    Attributes:
        key_path: file of its private key.
        certificate_path: file of its certificate.
        certificate: the certificate.
    """

    key_path: Path
    certificate_path: Path
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA.

    Attributes:
        directory: where its files and those of the identities are.
        certificate: its own certificate.
    """

    directory: Path
    certificate: x509.Certificate
    _key: PrivateKey = field(repr=False)

    @property
    def certificate_path(self) -> Path:
        """File of the CA's certificate, which every node needs."""
        return self.directory / CA_CERTIFICATE_FILENAME

    @property
    def key_path(self) -> Path:
        """File of the CA's private key, which no node needs."""
        return self.directory / CA_KEY_FILENAME

    @property
    def crl_path(self) -> Path:
        """File of the CA's CRL, which every node needs once there is one."""
        return self.directory / CRL_FILENAME

    @classmethod
    def create(cls, directory: Path, *, name: str = "RestPipe CA", days: int = CA_DAYS) -> "Authority":
        """Make a CA and write its two files into a directory, which is made where there is none.

        Args:
            directory: where.
            name: Common Name of the CA, for people to read.
            days: how long it lasts.

        Raises:
            IdentityError: there is a CA already, the name is too long or empty, or the files cannot be written.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        except ValueError as error:
            raise IdentityError(f"{name!r} cannot be the name of a CA: 1 to 64 characters (RFC 5280)") from error
        certificate = (
            _builder(subject, subject, key.public_key(), days)
            # Path length 0: it signs the nodes' certificates, and no other CA's.
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        authority = cls(directory, certificate, key)
        _make_directory(directory)
        write_files(
            [
                NewFile(authority.key_path, key_pem(key), KEY_MODE),
                NewFile(authority.certificate_path, certificates_pem([certificate]), CERTIFICATE_MODE),
            ],
            replace=False,
            occupied="issue identities with the CA that is there, or choose another directory",
        )
        return authority

    @classmethod
    def load(cls, directory: Path) -> "Authority":
        """Read the CA of a directory.

        Raises:
            IdentityError: there is none, its key can be read by others, the two files do not belong together, or its
                certificate is not a CA's, or has expired.
        """
        missing = f"make a CA with `restpipe ca init --dir {directory}`"
        key_file = PemFile.read(directory / CA_KEY_FILENAME, missing=missing)
        certificate_file = PemFile.read(directory / CA_CERTIFICATE_FILENAME, missing=missing)
        authority = cls(directory, certificate_file.certificates()[0], key_file.private_key())
        if key_file.exposed:
            raise IdentityError(f"{key_file.path}: the CA's key is open to group or others; chmod 600 {key_file.path}")
        if public_key_bytes(authority._key) != public_key_bytes(authority.certificate):
            raise IdentityError(f"{key_file.path}: is not the key of {certificate_file.path}; restore the pair")
        if not is_authority(authority.certificate):
            raise IdentityError(f"{certificate_file.path}: is not a CA's certificate; restore the CA's")
        end = authority.certificate.not_valid_after_utc
        if end < datetime.now(UTC):
            raise IdentityError(f"{certificate_file.path}: the CA expired on {moment(end)}; make a new one elsewhere")
        return authority

    def issue(
        self, name: str, role: Role, hosts: Sequence[str] = (), *, days: int = IDENTITY_DAYS, replace: bool = False
    ) -> IssuedIdentity:
        """Make a key and a certificate, and write them beside the CA's.

        Args:
            name: name of the node.
            role: what the node is.
            hosts: DNS names and IP addresses for the certificate. Where there are none, its own name as far as it can
                be a host's, and for a server the names of this machine to itself.
            days: how long the certificate lasts; never longer than the CA's.
            replace: whether files of that name that exist are replaced.

        Raises:
            IdentityError: the name or a host cannot be one, files of that name exist, or cannot be written.
        """
        if check_name(name).casefold() == "ca":
            raise IdentityError(f"{name!r} cannot be the name of a node: its files would be those of the CA")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, role, hosts or _default_hosts(name, role), key.public_key(), days)
        issued = IssuedIdentity(self.directory / f"{name}.key.pem", self.directory / f"{name}.crt.pem", certificate)
        pem = certificates_pem([certificate])
        _make_directory(self.directory / ISSUED_DIRECTORY)
        record = self.directory / ISSUED_DIRECTORY / f"{certificate.serial_number:x}.crt.pem"
        with self._alone():
            write_files(
                [
                    NewFile(record, pem, CERTIFICATE_MODE),  # the first: no certificate is given out and not remembered
                    NewFile(issued.key_path, key_pem(key), KEY_MODE),
                    NewFile(issued.certificate_path, pem, CERTIFICATE_MODE),
                ],
                replace=replace,
                occupied="--force replaces the identity",
            )
        return issued

    def renew(self, name: str, *, days: int = IDENTITY_DAYS) -> IssuedIdentity:
        """Issue an identity anew: another key, and a certificate for the same name, role and hosts as the newest one.

        The files of that name are replaced, each whole. The certificate of before is good until it expires or is
        revoked.

        Raises:
            IdentityError: nothing of that name was issued here, or the files cannot be written.
        """
        before = self.issued(name)
        if not before:
            raise IdentityError(f"{self.directory}: issued nothing to {name!r}; `restpipe ca issue` does")
        (role,) = certificate_roles(before[-1])
        return self.issue(name, role, certificate_hosts(before[-1]), days=days, replace=True)

    def issued(self, name: str | None = None) -> list[x509.Certificate]:
        """Return the certificates that were issued, to `name` or to all, the oldest first.

        Raises:
            IdentityError: the record cannot be read.
        """
        paths = (self.directory / ISSUED_DIRECTORY).glob("*.crt.pem")
        # A certificate tells its time to the second; the file is as old as the certificate.
        by_age = sorted(paths, key=lambda path: path.stat().st_mtime_ns)
        certificates = [PemFile.read(path, missing="restore it").certificates()[0] for path in by_age]
        found = [one for one in certificates if name is None or certificate_name(one) == name]
        return sorted(found, key=lambda one: one.not_valid_before_utc)

    def crl(self) -> x509.CertificateRevocationList | None:
        """Return the CRL of this CA, None where there is none yet.

        Raises:
            IdentityError: it cannot be read, or is not this CA's.
        """
        if is_missing(self.crl_path):
            return None
        crl = PemFile.read(self.crl_path, missing="restore it").crls()[0]
        if not is_signed_by(crl, self.certificate):
            raise IdentityError(f"{self.crl_path}: is not signed by this CA; restore the CA's own")
        return crl

    def revoke(self, serials: Iterable[int]) -> x509.CertificateRevocationList:
        """Revoke serial numbers, for good, and write the CRL; those that are revoked already stay as they are.

        Raises:
            IdentityError: the CRL that is there cannot be read, or the new one cannot be written.
        """
        with self._alone():
            previous = self.crl()
            known = {entry.serial_number for entry in previous or ()}
            added = [serial for serial in dict.fromkeys(serials) if serial not in known]
            crl = next_crl(self.certificate, self._key, previous, added, _CLOCK_SKEW)
            pem = crl.public_bytes(serialization.Encoding.PEM)
            write_files([NewFile(self.crl_path, pem, CERTIFICATE_MODE)], replace=True)
        return crl

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from writing meanwhile: the revocations of one would be lost, two pairs be mixed."""
        with self.key_path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sign(
        self, name: str, role: Role, hosts: Sequence[str], key: ec.EllipticCurvePublicKey, days: int
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        latest = self.certificate.not_valid_after_utc
        builder = (
            _builder(subject, self.certificate.subject, key, days, latest)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ROLE_USAGES[role]]), critical=False)
            .add_extension(authority_identifier(self.certificate), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName(dict.fromkeys(host_name(host) for host in hosts))
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, latest: datetime | None = None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(min(end, latest) if latest else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    """A CA signs certificates and revocation lists, a node signs TLS handshakes (RFC 8446 section 4.4.2.2)."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _default_hosts(name: str, role: Role) -> list[str]:
    hosts = list(_LOCAL_HOSTS) if role == "server" else []
    try:
        host_name(name)
    except IdentityError:  # a good name of a node that no host could have, such as `file_server`
        return hosts
    return [*hosts, name]


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"{directory}: cannot be made: {error.strerror}; choose another directory") from error
