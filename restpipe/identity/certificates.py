"""What a certificate says: the name of its node, its hosts, its role, and who signed it.

Nothing here touches a file, so the message of an exception has no file name in front; who knows the file adds it.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from restpipe.exceptions import IdentityError
from restpipe.identity.wording import printable

Role = Literal["server", "client"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

ROLE_USAGES: dict[Role, x509.ObjectIdentifier] = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}

# RFC 5280 appendix A.1 bounds a Common Name at 64 characters. The alphabet is safe in a path, a file name and a log.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_RULE = "1 to 64 characters of A-Z a-z 0-9 . _ -, the first a letter or a digit"

# RFC 1123 section 2.1; the last label is never all digits, which would be a mistyped IP address. A wildcard stands for
# exactly the first label (RFC 6125 section 6.4.3).
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")

# An extension that is malformed is found out only when it is looked at.
_MALFORMED = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def parse_certificate(pem: bytes) -> x509.Certificate:
    """Read the first certificate of a PEM text, such as gRPC's `x509_pem_cert`.

    Raises:
        IdentityError: there is no certificate in it, or one that cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise IdentityError(f"not a PEM certificate: {error}") from error


def is_name(name: str) -> bool:
    """Whether a node may have a name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return a name that a node may have.

    Raises:
        IdentityError: it is not one.
    """
    if not is_name(name):
        raise IdentityError(f"{name!r} cannot be the name of a node: {_NAME_RULE}")
    return name


def certificate_name(certificate: x509.Certificate) -> str:
    """Return the name of the node a certificate was issued to: the single Common Name of its subject.

    Raises:
        IdentityError: it has no Common Name, several, or one that cannot be the name of a node.
    """
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise IdentityError(f"its subject cannot be read: {error}") from error
    if len(names) != 1:
        raise IdentityError(
            f"its subject has {len(names) or 'no'} Common Name{'s' if names else ''}, and needs exactly one"
        )
    return check_name(str(names[0].value))


def certificate_hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and IP addresses a certificate was issued for.

    Raises:
        IdentityError: its extensions cannot be read.
    """
    names = extension(certificate, x509.SubjectAlternativeName)
    return tuple(str(name.value) for name in names or () if isinstance(name, x509.DNSName | x509.IPAddress))


def certificate_roles(certificate: x509.Certificate) -> frozenset[Role]:
    """Return the roles that a certificate is for.

    One without extended key usage is for both (RFC 5280 section 4.2.1.12). One for `anyExtendedKeyUsage` alone is for
    neither: gRPC's TLS library refuses it.

    Raises:
        IdentityError: its extensions cannot be read.
    """
    usages = extension(certificate, x509.ExtendedKeyUsage)
    return frozenset(role for role, usage in ROLE_USAGES.items() if usages is None or usage in usages)


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """Return an extension of a certificate, None where it has not got it.

    Raises:
        IdentityError: its extensions cannot be read.
    """
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except _MALFORMED as error:
        raise IdentityError(f"its extensions cannot be read: {printable(str(error))}") from error


def host_name(host: str) -> x509.DNSName | x509.IPAddress:
    """Turn a host into the form it has in a certificate.

    Raises:
        IdentityError: it is neither a DNS name nor an IP address.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(host):
        raise IdentityError(f"{host!r} is neither a DNS name nor an IP address (no port, no scheme, no brackets)")
    return x509.DNSName(host)


def is_authority(certificate: x509.Certificate) -> bool:
    """Say whether a certificate may sign others (RFC 5280 sections 4.2.1.9 and 4.2.1.3).

    Raises:
        IdentityError: its extensions cannot be read.
    """
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def trust_path(chain: Sequence[x509.Certificate], anchors: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificates that lead from the first of a chain to an anchor, both included, each signature verified.

    What TLS in gRPC accepts is accepted: an anchor need not be self-signed, and a certificate may be its own anchor.

    Args:
        chain: the node's own certificate, then the intermediates it brings, in any order.
        anchors: the certificates that are trusted.

    Raises:
        IdentityError: no anchor is reached, or extensions on the way cannot be read.
    """
    # After a renewal with the same key two anchors have signed the certificate: the one that lasts longer counts.
    trusted = sorted(anchors, key=lambda anchor: anchor.not_valid_after_utc, reverse=True)
    path, intermediates = [chain[0]], list(chain[1:])
    while path[-1] not in trusted:
        issuer = next((other for other in (*trusted, *intermediates) if _signed(path[-1], other)), None)
        if issuer is None:
            raise IdentityError(_why_untrusted(path[-1], trusted))
        if issuer in intermediates:
            intermediates.remove(issuer)
        path.append(issuer)
    return path


def public_key_bytes(holder: x509.Certificate | PrivateKey) -> bytes:
    """Return the public key of a certificate or of a private key, to compare.

    Raises:
        IdentityError: it is of a kind that cannot be read.
    """
    try:
        return holder.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"its public key cannot be read: {error}") from error


def authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the extension of what a CA signs that tells by which of its keys.

    Raises:
        IdentityError: the extensions of the CA's certificate cannot be read.
    """
    own = extension(issuer, x509.SubjectKeyIdentifier)
    if own:
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):  # other name, kind of key, or key
        return False
    return is_authority(issuer)


def _why_untrusted(certificate: x509.Certificate, trusted: Sequence[x509.Certificate]) -> str:
    issuer = certificate.issuer
    if any(anchor.subject == issuer and is_authority(anchor) for anchor in trusted):
        return f"was signed by another CA that has the same name, {shown(issuer)}"
    return (
        f"its issuer is {shown(issuer)}, the CA file holds {' and '.join(shown(anchor.subject) for anchor in trusted)}"
    )


def shown(name: x509.Name) -> str:
    """Return a distinguished name in one harmless line."""
    return printable(name.rfc4514_string()) or "(empty name)"
