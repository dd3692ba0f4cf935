"""Certificate revocation lists (RFC 5280 section 5): made by a CA, read and believed by nodes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from restpipe.exceptions import IdentityError
from restpipe.identity.certificates import (
    PrivateKey,
    authority_identifier,
    extension,
    is_authority,
    public_key_bytes,
    shown,
)
from restpipe.identity.pem import PemFile, is_missing
from restpipe.identity.wording import moment, printable

# When what was revoked, by issuer and serial number.
Dates = Mapping[tuple[bytes, int], datetime]


@dataclass(frozen=True, slots=True, order=True)
class Issue:
    """Which of the CRLs of a CA one is. The later one of two is greater.

    Attributes:
        number: each CRL has a higher one than the one before.
        made: when it was.
        issuer: the CA, as people read it.
    """

    number: int
    made: datetime
    issuer: str = field(compare=False)

    def __str__(self) -> str:
        return f"number {self.number} of {moment(self.made)}"


@dataclass(frozen=True, slots=True)
class Revocations:
    """What the CRLs in a file revoke.

    Attributes:
        next_update: when the first of them should have been replaced by a newer one; None where none says.
        absent: the CAs whose CRL was there before, and is held on to.
        issues: the newest of the CRLs that were read, by the key that signed it: a CA may get another, and count anew.
        of_keys: what is revoked, by the key that signed it.
    """

    _dates: Dates = field(default_factory=dict, repr=False)
    next_update: datetime | None = None
    absent: tuple[str, ...] = field(default=(), compare=False)
    issues: Mapping[bytes, Issue] = field(default_factory=dict, repr=False)
    of_keys: Mapping[bytes, Dates] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self._dates)

    def date(self, certificate: x509.Certificate) -> datetime | None:
        """Return when a certificate was revoked, None where it was not."""
        # Serial numbers are unique for each issuer alone (RFC 5280 section 4.1.2.2).
        return self._dates.get((certificate.issuer.public_bytes(), certificate.serial_number))


NOTHING_REVOKED = Revocations()


def read_revocations(
    path: Path, anchors: Sequence[x509.Certificate], held: Revocations = NOTHING_REVOKED
) -> Revocations | None:
    """Read a file of CRLs; return None where there is no such file.

    A CRL that should have been replaced by now is as good as before: what it revokes stays revoked.

    Args:
        path: the file.
        anchors: the CA certificates that are trusted; each CRL must be signed by one of them.
        held: what was read before. What a CA revoked of which there is no CRL any more stays revoked.

    Raises:
        IdentityError: it cannot be read, a CRL in it is damaged, none of the CAs signed it, it is older than what was
            read before, or it has rules that are not applied here, so that nobody could say what it revokes.
    """
    if is_missing(path):
        return None
    of_keys: dict[bytes, Dates] = {}
    issues: dict[bytes, Issue] = {}
    updates: list[datetime] = []
    for crl in PemFile.read(path, missing="copy it again", regular=True).crls():
        try:
            key = _check(crl, anchors)
            name = crl.issuer.public_bytes()
            revoked = {(name, entry.serial_number): entry.revocation_date_utc for entry in crl}
            of_keys[key] = {**of_keys.get(key, {}), **revoked}
            issue = Issue(crl_number(crl), crl.last_update_utc, shown(crl.issuer))
            issues[key] = max(issue, issues.get(key, issue))
        except IdentityError as error:
            raise IdentityError(f"{path}: {error}") from error
        if crl.next_update_utc is not None:
            updates.append(crl.next_update_utc)
    kept = {key: before for key, before in held.issues.items() if key in map(public_key_bytes, anchors)}
    for key, before in kept.items():
        if issues.setdefault(key, before) < before:
            raise IdentityError(
                f"{path}: the CRL of {before.issuer}, {issues[key]}, is older than the one in use, {before}; "
                "copy the CA's newest CRL"
            )
    absent = tuple(before.issuer for key, before in kept.items() if key not in of_keys)
    of_keys = {key: held.of_keys[key] for key in kept} | of_keys
    dates = {entry: date for revoked in of_keys.values() for entry, date in revoked.items()}
    return Revocations(dates, min(updates, default=None), absent, issues, of_keys)


def staleness(path: Path, revocations: Revocations) -> str | None:
    """Return what is to be said of a file of CRLs that should have been replaced; None where it need not be."""
    due = revocations.next_update
    if due is None or datetime.now(UTC) <= due:
        return None
    return (
        f"{path}: should have been replaced by {moment(due)}; what it revokes stays revoked, but what was revoked "
        "since is not known here: copy the CA's newest CRL"
    )


def next_crl(
    authority: x509.Certificate,
    key: PrivateKey,
    previous: x509.CertificateRevocationList | None,
    serials: Iterable[int],
    skew: timedelta,
) -> x509.CertificateRevocationList:
    """Return a CRL that revokes what the previous one does, and further serial numbers.

    It lasts as long as the CA: a CRL is made when there is something to revoke, not by the clock.

    Args:
        authority: certificate of the CA.
        key: of the CA.
        previous: None for the first.
        serials: to be revoked.
        skew: by how much the clocks of nodes may be behind.
    """
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - skew)
        .next_update(authority.not_valid_after_utc)
        .add_extension(x509.CRLNumber(crl_number(previous) + 1), critical=False)
        .add_extension(authority_identifier(authority), critical=False)
    )
    for entry in previous or ():
        builder = builder.add_revoked_certificate(entry)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key, hashes.SHA256())


def crl_number(crl: x509.CertificateRevocationList | None) -> int:
    """Return the number of a CRL; each has a higher one than the one before. 0 where it has none."""
    if crl is None:
        return 0
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def is_signed_by(crl: x509.CertificateRevocationList, anchor: x509.Certificate) -> bool:
    """Say whether a CA signed a CRL, and may sign any (RFC 5280 section 4.2.1.3)."""
    usage = extension(anchor, x509.KeyUsage)
    if anchor.subject != crl.issuer or not is_authority(anchor) or (usage is not None and not usage.crl_sign):
        return False
    try:
        # The types of public keys that sign nothing are refused with TypeError.
        return crl.is_signature_valid(anchor.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _check(crl: x509.CertificateRevocationList, anchors: Sequence[x509.Certificate]) -> bytes:
    """Find out whether a CRL is to be believed, and can be applied; return the key that signed it.

    Raises:
        IdentityError: it is not.
    """
    signer = next((anchor for anchor in anchors if is_signed_by(crl, anchor)), None)
    if signer is None:
        raise IdentityError(
            f"the CRL of {shown(crl.issuer)} is signed by none of the node's CAs; copy the one of the CA that issued "
            "the certificates, or remove the file"
        )
    try:
        critical = [extension.oid.dotted_string for extension in crl.extensions if extension.critical]
    except ValueError as error:
        raise IdentityError(f"the extensions of the CRL cannot be read: {printable(str(error))}") from error
    if critical:  # such as those of a delta CRL, or of one that is for some certificates only (RFC 5280 section 5.2)
        raise IdentityError(f"the CRL has a rule that is not applied here ({', '.join(critical)}); use a complete CRL")
    return public_key_bytes(signer)
