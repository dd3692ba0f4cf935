"""CRLs as a node reads them: what they revoke, and which are believed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates_of_others import CA, Pair, sign
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restpipe.exceptions import IdentityError
from restpipe.identity import Authority
from restpipe.identity.revocation import Revocations, read_revocations, staleness

OUR_CA = sign("Our CA", None, CA)
TOMORROW = timedelta(days=1)


def crl(
    issuer: Pair,
    serials: Sequence[int] = (),
    *extensions: tuple[x509.ExtensionType, bool],
    due: timedelta = TOMORROW,
    made: timedelta = timedelta(days=-30),
) -> bytes:
    """Make a CRL the way other CAs do."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now + made)
        .next_update(now + due)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read(path: Path, pem: bytes, *anchors: Pair) -> Revocations:
    path.write_bytes(pem)
    revocations = read_revocations(path, [anchor.certificate for anchor in anchors or (OUR_CA,)])
    assert revocations is not None
    return revocations


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    assert read_revocations(tmp_path / "ca.crl.pem", [OUR_CA.certificate]) is None


def test_what_the_ca_revoked_is_revoked_from_then_on(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    alpha, beta = (authority.issue(name, "client").certificate for name in ("alpha", "beta"))
    (entry,) = authority.revoke([alpha.serial_number])
    revocations = read_revocations(authority.crl_path, [authority.certificate])
    assert revocations is not None
    assert revocations.date(alpha) == entry.revocation_date_utc
    assert revocations.date(beta) is None
    assert len(revocations) == 1
    assert revocations.next_update == authority.certificate.not_valid_after_utc


CERTIFICATES = [sign("node", OUR_CA).certificate for _ in range(6)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_exactly_the_listed_ones_are_revoked_whatever_the_order_and_the_number_of_lists(
    tmp_path: Path, first: set[int], second: set[int]
) -> None:
    lists = [crl(OUR_CA, [CERTIFICATES[index].serial_number for index in chosen]) for chosen in (first, second)]
    revocations = read(tmp_path / "ca.crl.pem", b"".join(lists))
    revoked = {index for index, certificate in enumerate(CERTIFICATES) if revocations.date(certificate)}
    assert revoked == first | second
    assert len(revocations) == len(first | second)


def test_a_serial_number_is_that_of_its_issuer_alone(tmp_path: Path) -> None:
    other_ca = sign("Other CA", None, CA)
    ours = CERTIFICATES[0]
    revocations = read(tmp_path / "ca.crl.pem", crl(other_ca, [ours.serial_number]), OUR_CA, other_ca)
    assert len(revocations) == 1
    assert revocations.date(ours) is None


def test_a_list_that_should_have_been_replaced_still_counts_and_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "ca.crl.pem"
    revocations = read(path, crl(OUR_CA, [CERTIFICATES[0].serial_number], due=-TOMORROW))
    assert revocations.date(CERTIFICATES[0])
    warning = staleness(path, revocations)
    assert warning is not None
    assert warning.startswith(f"{path}: should have been replaced by 20")
    assert staleness(path, read(path, crl(OUR_CA))) is None
    # Of several the one that is due first counts.
    both = read(path, crl(OUR_CA) + crl(OUR_CA, due=-TOMORROW))
    assert staleness(path, both) == warning


def test_an_extension_that_may_be_ignored_is(tmp_path: Path) -> None:
    assert len(read(tmp_path / "ca.crl.pem", crl(OUR_CA, [1], (x509.CRLNumber(5), False)))) == 1


NO_CRL_SIGNER = sign(
    "Signs certificates only", None, CA, x509.KeyUsage(False, False, False, False, False, True, False, False, False)
)
NO_CA = sign("No CA", None, x509.BasicConstraints(ca=False, path_length=None))
IMPOSTOR = sign("Our CA", None, CA)
DELTA = (x509.DeltaCRLIndicator(1), True)


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "is empty; copy the file again"),
        (b"-----BEGIN X509 CRL-----\nMIIB", "is PEM that was cut off; copy the file again"),
        (crl(OUR_CA)[:-60] + b"AAAA\n-----END X509 CRL-----\n", "a CRL in it is damaged; copy the file again"),
        (OUR_CA.pem, "holds a certificate, not a CRL"),
        (crl(IMPOSTOR), "the CRL of CN=Our CA is signed by none of the node's CAs; "),
        (crl(sign("Other", None, CA)), "the CRL of CN=Other is signed by none of the node's CAs; "),
        (crl(OUR_CA) + crl(IMPOSTOR), "the CRL of CN=Our CA is signed by none of the node's CAs; "),
        (crl(NO_CRL_SIGNER), "the CRL of CN=Signs certificates only is signed by none of the node's CAs; "),
        (crl(NO_CA), "the CRL of CN=No CA is signed by none of the node's CAs; "),
        (crl(OUR_CA, [1], DELTA), "the CRL has a rule that is not applied here (2.5.29.27); use a complete CRL"),
    ],
)
def test_a_list_that_cannot_be_believed_or_applied_is_refused_with_the_reason(
    tmp_path: Path, pem: bytes, message: str
) -> None:
    path = tmp_path / "ca.crl.pem"
    with pytest.raises(IdentityError) as refusal:
        read(path, pem, OUR_CA, NO_CRL_SIGNER, NO_CA)
    assert str(refusal.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("numbers", [(3, 5), (5, 3)])
def test_of_several_lists_of_a_ca_the_newest_says_how_old_the_next_may_be(
    tmp_path: Path, numbers: tuple[int, int]
) -> None:
    path = tmp_path / "ca.crl.pem"
    one, other, between = (crl(OUR_CA, [number], (x509.CRLNumber(number), False)) for number in (*numbers, 4))
    held = read(path, one + other)
    path.write_bytes(between)
    with pytest.raises(IdentityError, match="is older than the one in use"):
        read_revocations(path, [OUR_CA.certificate], held)
