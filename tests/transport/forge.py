"""Identities that `load_identity` would not let pass."""

import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from restpipe.identity import Identity, Role
from restpipe.identity.certificates import ROLE_USAGES

# Of validity, as seen from now.
PAST = timedelta(days=-9), timedelta(days=-1)
NOW = timedelta(hours=-1), timedelta(days=1)
FUTURE = timedelta(days=1), timedelta(days=9)


@dataclass(frozen=True)
class Forge:
    """A CA that signs anything."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, common_name: str, issuer: "Forge | None" = None) -> "Forge":
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(
                issuer.certificate.subject if issuer else name, name, key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer.key if issuer else key, hashes.SHA256())
        )
        return cls(key, certificate)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def make(
        self,
        role: Role,
        *,
        name: str = "node",
        hosts: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
        valid: tuple[timedelta, timedelta] = NOW,
        trusts: "Forge | None" = None,
    ) -> Identity:
        """Make an identity."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(
                self.certificate.subject, _name(name), key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(now + valid[0])
            .not_valid_after(now + valid[1])
            .add_extension(x509.ExtendedKeyUsage([ROLE_USAGES[role]]), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return Identity(
            name=name,
            key_pem=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
            ca_pem=(trusts or self).pem,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            hosts=tuple(hosts),
        )


@functools.cache
def ca() -> Forge:
    """Return the CA that both nodes trust."""
    return Forge.new("CA")


@functools.cache
def other_ca(common_name: str = "Other CA") -> Forge:
    """Return another."""
    return Forge.new(common_name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name, _validate=False)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
