"""What a node holds while its files are replaced: never a half of something, never less than it had."""

import os
import re
import shutil
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from certificates_of_others import CA, Pair, sign, store
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from test_revocation import TOMORROW, crl

from restpipe.exceptions import IdentityError
from restpipe.identity import Authority, Custody, IdentityPaths

# The OID of an EC public key, as DER has it (RFC 5480 section 2.1.1).
EC_KEY = bytes.fromhex("2a8648ce3d0201")


@dataclass
class Held:
    """The files of a node, and its custody of them."""

    authority: Authority
    directory: Path

    def __post_init__(self) -> None:
        self.paths = IdentityPaths(*(self.directory / name for name in ("key.pem", "crt.pem", "ca.crt.pem")))
        self.crl_path = self.directory / "ca.crl.pem"
        shutil.copy(self.authority.certificate_path, self.paths.ca)
        self.install()
        self.custody = Custody(self.paths, self.crl_path, "client")

    def install(self) -> None:
        """Put an identity that was issued a moment ago in the place of the one before."""
        issued = self.authority.issue("alpha", "client", replace=True)
        shutil.copy(issued.key_path, self.paths.key)
        shutil.copy(issued.certificate_path, self.paths.certificate)

    def revoke(self, *serials: int) -> None:
        self.authority.revoke(serials)
        shutil.copy(self.authority.crl_path, self.crl_path)


@pytest.fixture
def held(tmp_path: Path) -> Held:
    (tmp_path / "node").mkdir()
    return Held(Authority.create(tmp_path / "authority"), tmp_path / "node")


def test_whom_tls_let_in_is_trusted_until_a_ca_is_taken_out_of_the_file(tmp_path: Path) -> None:
    kept, withdrawn = sign("kept", None, CA), sign("withdrawn", None, CA)
    between = sign("between", kept, CA)
    peers = {
        "direct": (sign("a", kept), b""),
        "far": (sign("b", between), between.pem),
        "gone": (sign("c", withdrawn), b""),
    }
    files = store(tmp_path, sign("node", kept), kept.pem + withdrawn.pem)
    custody = Custody(IdentityPaths(*files.all), tmp_path / "ca.crl.pem", "client")

    def trusted() -> list[str]:
        return [name for name, (peer, intermediates) in peers.items() if custody.trusts(peer.pem, intermediates)]

    assert trusted() == ["direct", "far", "gone"]
    files.ca.write_bytes(withdrawn.pem + kept.pem + sign("added", None, CA).pem)
    custody.look()
    assert trusted() == ["direct", "far", "gone"]
    files.ca.write_bytes(kept.pem)
    custody.look()
    assert trusted() == ["direct", "far"]
    # What a peer brings along may be anything that TLS overlooked.
    no_key = ssl.DER_cert_to_PEM_cert(
        ssl.PEM_cert_to_DER_cert(between.pem.decode()).replace(EC_KEY, b"\x2a" * len(EC_KEY))
    )
    for odd in (no_key.encode(), b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        peers = {"odd": (sign("d", between), odd)}
        assert trusted() == []


def test_while_no_file_changes_nothing_is_news(held: Held) -> None:
    assert held.custody.look() is None
    held.paths.certificate.touch()
    assert held.custody.look() is None


def test_a_replaced_pair_is_taken_once(held: Held) -> None:
    before = held.custody.identity
    held.install()
    news = held.custody.look()
    assert news is not None
    assert (news.identity, news.revocations, news.faults) == (True, False, ())
    assert held.custody.identity.certificate_pem == held.paths.certificate.read_bytes() != before.certificate_pem
    assert held.custody.look() is None


def test_a_replacement_of_the_same_size_and_time_is_noticed(held: Held) -> None:
    held.revoke(1)
    held.custody.look()
    before = held.crl_path.stat()
    content = held.crl_path.read_bytes()
    held.crl_path.write_bytes(content[:-40] + b"B" * 8 + content[-32:])

    os.utime(held.crl_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert held.crl_path.stat().st_size == before.st_size
    news = held.custody.look()
    assert news is not None
    assert news.faults


@pytest.mark.parametrize("first", ["key", "certificate"])
def test_half_a_replacement_changes_nothing_and_the_other_half_completes_it(held: Held, first: str) -> None:
    before = held.custody.identity
    old = {name: getattr(held.paths, name).read_bytes() for name in ("key", "certificate")}
    held.install()
    second = "certificate" if first == "key" else "key"
    last = getattr(held.paths, second)
    new, _ = last.read_bytes(), last.write_bytes(old[second])

    news = held.custody.look()
    assert news is not None
    assert (news.identity, held.custody.identity) == (False, before)
    (fault,) = news.faults
    assert fault.severity == "error"
    assert "is not the key of" in fault.message
    assert held.custody.look() is None

    last.write_bytes(new)
    news = held.custody.look()
    assert news is not None
    assert (news.identity, news.faults) == (True, ())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("break_file", [_cut, _empty, Path.unlink, piped])
@pytest.mark.parametrize("name", ["key", "certificate", "ca"])
def test_a_file_that_cannot_be_used_leaves_what_was_held(
    held: Held, name: str, break_file: Callable[[Path], None]
) -> None:
    before = held.custody.identity
    path = getattr(held.paths, name)
    content = path.read_bytes()
    break_file(path)
    news = held.custody.look()
    assert news is not None
    assert [fault.severity for fault in news.faults] == ["error"]
    assert str(path) in news.faults[0].message
    assert held.custody.identity == before
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    news = held.custody.look()
    assert news is not None
    assert (news.identity, news.faults) == (False, ())


def test_a_key_that_others_could_read_is_taken_once_it_is_private(held: Held) -> None:
    held.install()
    held.paths.key.chmod(0o640)
    news = held.custody.look()
    assert news is not None
    assert (news.identity, "chmod 600" in news.faults[0].message) == (False, True)
    held.paths.key.chmod(0o600)
    news = held.custody.look()
    assert news is not None
    assert (news.identity, news.faults) == (True, ())


def test_a_list_of_revocations_may_come_grow_and_be_another(held: Held) -> None:
    other = held.authority.issue("beta", "client").certificate
    for count, serial in enumerate([1, other.serial_number, 2], start=1):
        held.revoke(serial)
        news = held.custody.look()
        assert news is not None
        assert (news.identity, news.revocations, news.faults) == (False, True, ())
        assert len(held.custody.revocations) == count
    assert held.custody.revocations.date(other)


@pytest.mark.parametrize(
    ("spoil", "severity", "said"),
    [
        (_cut, "error", "is PEM that was cut off"),
        (_empty, "error", "is empty"),
        (Path.unlink, "warning", "is gone; what it revoked stays revoked until this node is started again"),
        (lambda path: path.write_bytes(crl(sign("X", None, CA))), "error", "is signed by none of the node's CAs"),
        (lambda path: path.write_bytes(os.urandom(10_000)), "error", "is not a PEM file"),
        (lambda path: path.write_bytes(path.read_bytes() + path.read_bytes()[:200]), "error", "was cut off"),
        (lambda path: path.chmod(0), "error", "may not read it"),
        (lambda path: (path.unlink(), path.mkdir()), "error", "cannot be read: Is a directory"),
        (lambda path: piped(path), "error", "cannot be read: it is no regular file"),
        (lambda path: linked(path, "/dev/zero"), "error", "cannot be read: it is no regular file"),
        (lambda path: linked(path, path), "error", "cannot be read: Too many levels of symbolic links"),
        (lambda path: linked(path, "nowhere"), "warning", "is gone; what it revoked stays revoked"),
        (lambda path: linked(path, path.parent / "crt.pem"), "error", "holds a certificate, not a CRL"),
    ],
    ids=[
        "cut", "empty", "gone", "of another CA", "garbage", "half of another list", "unreadable", "a directory",
        "a named pipe", "a link to what never ends", "a link to itself", "a link to nothing", "a link to another file",
    ],
)  # fmt: skip
def test_what_was_revoked_stays_revoked_whatever_becomes_of_the_list(
    held: Held, spoil: Callable[[Path], object], severity: str, said: str
) -> None:
    other = held.authority.issue("beta", "client").certificate
    held.revoke(other.serial_number)
    held.custody.look()
    if said == "may not read it" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    spoil(held.crl_path)
    news = held.custody.look()
    assert news is not None
    assert (news.identity, news.revocations) == (False, False)
    (fault,) = news.faults
    assert (fault.severity, said in fault.message) == (severity, True)
    assert held.custody.revocations.date(other)


def linked(path: Path, target: Path | str) -> None:
    path.unlink()
    path.symlink_to(target)


def test_an_older_list_reinstates_nothing_and_the_next_one_is_taken(held: Held) -> None:
    first, second = (held.authority.issue(name, "client").certificate for name in ("beta", "gamma"))
    held.revoke(first.serial_number)
    older = held.crl_path.read_bytes()
    held.revoke(second.serial_number)
    held.custody.look()
    held.crl_path.write_bytes(older)
    news = held.custody.look()
    assert news is not None
    (fault,) = news.faults
    assert (news.revocations, fault.severity) == (False, "error")
    assert re.search(
        r"the CRL of CN=.*, number 1 of 20.* UTC, is older than the one in use, number 2 of 20", fault.message
    )
    assert held.custody.revocations.date(second)
    held.revoke(1)
    news = held.custody.look()
    assert news is not None
    assert (news.revocations, news.faults, len(held.custody.revocations)) == (True, (), 3)


@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        ((5, 1), (5, 1), False),  # the very same
        ((5, 1), (4, 0), False),
        ((5, 1), (5, 2), False),
        ((5, 1), (None, 0), False),
        ((None, 1), (None, 2), False),
        ((None, 1), (None, 0), True),
        ((5, 1), (5, 0), True),
        ((5, 1), (6, 2), True),
        ((None, 1), (1, 2), True),
    ],
)
def test_of_two_lists_the_one_with_the_higher_number_is_newer_and_of_equal_ones_the_one_that_was_made_later(
    tmp_path: Path, before: tuple[int | None, int], after: tuple[int | None, int], taken: bool
) -> None:
    ca = sign("CA", None, CA)
    files = store(tmp_path, sign("alpha", ca), ca.pem)
    path = tmp_path / "ca.crl.pem"
    path.write_bytes(issued_by(ca, *before, 7))
    custody = Custody(IdentityPaths(*files.all), path, "client")
    assert len(custody.revocations) == 1
    path.write_bytes(issued_by(ca, *after, *(() if after != before else (7,))))
    custody.look()
    assert len(custody.revocations) == (0 if taken else 1)


def issued_by(ca: Pair, number: int | None, days_old: int, *serials: int) -> bytes:
    extensions = [] if number is None else [(x509.CRLNumber(number), False)]
    return crl(ca, serials, *extensions, made=timedelta(days=-days_old))


def test_the_list_of_one_ca_does_not_take_the_place_of_that_of_another(tmp_path: Path) -> None:
    ours, theirs = sign("Ours", None, CA), sign("Theirs", None, CA)
    files = store(tmp_path, sign("alpha", ours), ours.pem + theirs.pem)
    path = tmp_path / "ca.crl.pem"
    path.write_bytes(crl(ours, [1]) + crl(theirs, [2, 3]))
    custody = Custody(IdentityPaths(*files.all), path, "client")
    path.write_bytes(crl(theirs, [2, 3, 4]))
    for _ in range(2):  # and that is not forgotten with the next look
        news = custody.examine()
        (fault,) = news.faults
        assert (fault.severity, len(custody.revocations)) == ("warning", 4)
        assert "holds no CRL of CN=Ours any more; what it revoked stays revoked" in fault.message
    # A CA that is trusted no longer revokes nothing any more.
    files.ca.write_bytes(ours.pem)
    path.write_bytes(crl(ours, [1, 5]))
    news = custody.examine()
    assert (news.faults, len(custody.revocations)) == ((), 2)


def test_a_ca_of_the_same_name_with_another_key_begins_to_count_anew(held: Held, tmp_path: Path) -> None:
    for serial in (1, 2, 3):
        held.revoke(serial)
    held.custody.look()
    new = Authority.create(tmp_path / "new")
    issued = new.issue("alpha", "client")
    new.revoke([9])
    for source, target in (
        (issued.key_path, held.paths.key),
        (issued.certificate_path, held.paths.certificate),
        (new.certificate_path, held.paths.ca),
        (new.crl_path, held.crl_path),
    ):
        shutil.copy(source, target)
    news = held.custody.look()
    assert news is not None
    assert (news.revocations, news.faults, len(held.custody.revocations)) == (True, (), 1)


def test_a_bad_list_does_not_keep_a_new_identity_away(held: Held) -> None:
    held.crl_path.write_bytes(b"nonsense")
    held.install()
    news = held.custody.look()
    assert news is not None
    assert (news.identity, len(news.faults)) == (True, 1)


def test_a_node_whose_own_certificate_is_revoked_is_told_and_takes_no_other_that_is(held: Held) -> None:
    before = held.custody.identity
    held.revoke(before.certificate.serial_number)
    news = held.custody.look()
    assert news is not None
    (fault,) = news.faults
    assert fault.severity == "error"
    assert f"{held.paths.certificate}: was revoked on 20" in fault.message
    assert "restpipe ca renew alpha" in fault.message
    held.install()
    held.revoke(held.authority.issued("alpha")[-1].serial_number)
    news = held.custody.look()
    assert news is not None
    assert (news.identity, held.custody.identity) == (False, before)
    held.install()
    assert held.custody.look() is not None
    taken = held.custody.identity
    assert (taken != before, held.custody.faults) == (True, ())


def test_a_node_does_not_start_with_a_revoked_certificate_or_a_list_that_cannot_be_believed(held: Held) -> None:
    held.crl_path.write_bytes(b"nonsense")
    with pytest.raises(IdentityError, match=r"ca\.crl\.pem: is not a PEM file"):
        Custody(held.paths, held.crl_path, "client")
    held.revoke(held.custody.identity.certificate.serial_number)
    with pytest.raises(IdentityError, match=r"crt\.pem: was revoked on "):
        Custody(held.paths, held.crl_path, "client")


def test_a_node_starts_with_a_list_that_is_due_to_be_replaced_and_warns(tmp_path: Path) -> None:
    ca = sign("CA", None, CA)
    pair = sign("alpha", ca)
    files = store(tmp_path, pair, ca.pem)
    path = tmp_path / "ca.crl.pem"
    path.write_bytes(crl(ca, [5], due=-TOMORROW))
    custody = Custody(IdentityPaths(*files.all), path, "client")
    assert len(custody.revocations) == 1
    (fault,) = custody.faults
    assert fault.severity == "warning"
    assert "should have been replaced" in fault.message


def test_the_list_of_a_new_ca_is_believed_with_it(held: Held, tmp_path: Path) -> None:
    new = Authority.create(tmp_path / "new")
    issued = new.issue("alpha", "client")
    new.revoke([9])
    both = (held.authority.certificate, new.certificate)
    held.paths.ca.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in both))
    shutil.copy(issued.key_path, held.paths.key)
    shutil.copy(issued.certificate_path, held.paths.certificate)
    shutil.copy(new.crl_path, held.crl_path)
    news = held.custody.look()
    assert news is not None
    assert (news.identity, news.revocations, news.faults) == (True, True, ())
    assert held.custody.identity.ca_not_after == new.certificate.not_valid_after_utc
