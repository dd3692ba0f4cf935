"""Certificates that our own CA would never issue, and what it takes to try them."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from restpipe.identity import Authority, Role

CA = x509.BasicConstraints(ca=True, path_length=None)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclass(frozen=True)
class Files:
    """The three files of an identity."""

    key: Path
    certificate: Path
    ca: Path

    @property
    def all(self) -> tuple[Path, Path, Path]:
        return self.key, self.certificate, self.ca


def sign(
    name: str | Sequence[str] = "node",
    issuer: Pair | None = None,
    *extensions: x509.ExtensionType,
    begin: timedelta = timedelta(hours=-1),
    end: timedelta = timedelta(days=90),
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Pair:
    """Make a certificate, valid from `begin` to `end` as seen from now; signed by itself where there is no issuer."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = [name] if isinstance(name, str) else name
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each, _validate=False) for each in names])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Pair(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


def store(directory: Path, pair: Pair, ca_pem: bytes, intermediates: bytes = b"") -> Files:
    """Write a pair and a CA into files as a node has them."""
    files = Files(directory / "node.key.pem", directory / "node.crt.pem", directory / "ca.crt.pem")
    files.key.touch(mode=0o600)
    files.key.write_bytes(pair.key_pem)
    files.certificate.write_bytes(pair.pem + intermediates)
    files.ca.write_bytes(ca_pem)
    return files


def issued(directory: Path, role: Role, name: str = "alpha", *, days: int = 825) -> Files:
    """Issue an identity the way users do, from a CA that is made where there is none."""
    made = (directory / "ca.key.pem").exists()
    authority = Authority.load(directory) if made else Authority.create(directory)
    identity = authority.issue(name, role, days=days)
    return Files(identity.key_path, identity.certificate_path, authority.certificate_path)


def openssl(*arguments: str | Path) -> str:
    """Run OpenSSL, another implementation that must agree with ours."""
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


@contextmanager
def unprivileged() -> Iterator[None]:
    """Act as a user whom permissions bind, even where the tests are run by root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
