"""An identity is used only when it is good, and every fault of it is told in one line with the way out."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates_of_others import CA, Files, issued, sign, store, unprivileged
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from restpipe.exceptions import IdentityError
from restpipe.identity import Role, check_identity, load_identity


def _only_fault(files: Files, role: Role = "client") -> str:
    """Return the message of the single error, which is one line, and what `load_identity` says as well."""
    faults = check_identity(*files.all, role)
    assert [fault.severity for fault in faults] == ["error"], faults
    assert "\n" not in faults[0].message
    with pytest.raises(IdentityError) as caught:
        load_identity(*files.all, role)
    assert str(caught.value) == faults[0].message
    return faults[0].message


def test_a_good_identity_is_loaded_with_all_that_a_node_needs(tmp_path: Path) -> None:
    files = issued(tmp_path, "server", "rp.example.com")
    identity = load_identity(*files.all, "server")
    assert identity.name == "rp.example.com"
    assert identity.hosts == ("localhost", "127.0.0.1", "::1", "rp.example.com")
    assert identity.key_pem == files.key.read_bytes()
    assert identity.certificate_pem == files.certificate.read_bytes()
    assert identity.ca_pem == files.ca.read_bytes()
    assert identity.not_before < datetime.now(UTC) < identity.not_after
    assert check_identity(*files.all, "server") == []


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    assert "PRIVATE" not in repr(load_identity(*files.all, "client"))


@pytest.mark.parametrize("which", ["key", "certificate", "ca"])
def test_a_missing_file_is_named_with_the_command_that_installs_one(tmp_path: Path, which: str) -> None:
    files = issued(tmp_path, "client")
    path: Path = getattr(files, which)
    path.unlink()
    assert _only_fault(files) == f"{path}: no such file; install an identity with rp_client_set_identity"


def test_a_file_that_the_node_may_not_read_is_named_with_its_user(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    files.key.chmod(0o000)
    with unprivileged():
        faults = check_identity(*files.all, "client")
    assert f"{files.key}: user " in faults[0].message
    assert "may not read it; run as its owner, or chown it" in faults[0].message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_that_is_open_to_others_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    files = issued(tmp_path, "client")
    files.key.chmod(mode)
    assert _only_fault(files) == (
        f"{files.key}: holds a private key and is open to group or others (mode {mode:04o}); chmod 600 {files.key}"
    )


def test_a_key_that_only_its_owner_can_read_need_not_be_writable(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    files.key.chmod(0o400)
    assert check_identity(*files.all, "client") == []


def test_a_key_that_was_left_in_a_public_certificate_file_is_found(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    assert _only_fault(files).startswith(f"{files.certificate}: holds a private key and is open to group or others")


def test_one_private_file_may_hold_both_and_the_key_does_not_travel_with_the_certificate(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    files.key.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    identity = load_identity(files.key, files.key, files.ca, "client")
    assert b"PRIVATE" in identity.key_pem
    assert b"PRIVATE" not in identity.certificate_pem


def test_a_swapped_key_and_certificate_are_called_swapped(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    faults = check_identity(files.certificate, files.key, files.ca, "client")
    assert [fault.message for fault in faults] == [
        f"{files.certificate}: holds a certificate, not a private key: are key and certificate swapped?",
        f"{files.key}: holds a private key, not a certificate: are key and certificate swapped?",
    ]


def test_a_swapped_certificate_and_ca_are_called_swapped(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    swapped = Files(files.key, files.ca, files.certificate)
    assert _only_fault(swapped) == (
        f"{files.certificate}: holds the certificate of the key: are certificate and CA swapped?"
    )


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    files, other = issued(tmp_path, "client"), issued(tmp_path, "client", "beta")
    assert _only_fault(Files(other.key, files.certificate, files.ca)) == (
        f"{other.key}: is not the key of {files.certificate}; give the two that were issued together"
    )


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    pair, root = sign(), sign("root", None, CA)
    files = store(tmp_path, sign("node", root, key=pair.key), root.pem)
    encryption = serialization.BestAvailableEncryption(b"secret")
    files.key.write_bytes(
        pair.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    assert "the key is encrypted" in _only_fault(files)


def test_an_expired_certificate_is_refused_with_the_date_and_the_clock(tmp_path: Path) -> None:
    root = sign("root", None, CA)
    pair = sign("node", root, begin=timedelta(days=-9), end=timedelta(days=-3, minutes=-1))
    message = _only_fault(store(tmp_path, pair, root.pem))
    assert f"node.crt.pem: expired 3 days ago, on {pair.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC" in message
    assert f"(the clock here says {datetime.now(UTC):%Y-%m-%d}" in message
    assert message.endswith("issue it anew with `restpipe ca renew NAME`")


def test_a_certificate_of_the_future_is_refused_with_how_far_the_clock_would_be_off(tmp_path: Path) -> None:
    root = sign("root", None, CA)
    pair = sign("node", root, begin=timedelta(hours=5, minutes=1))
    message = _only_fault(store(tmp_path, pair, root.pem))
    assert f"node.crt.pem: is not valid before {pair.certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC" in message
    assert "5 hours before that: set it, or wait" in message


def test_an_expired_ca_is_refused_and_named(tmp_path: Path) -> None:
    root = sign("root", None, CA, begin=timedelta(days=-9), end=timedelta(hours=-1, minutes=-1))
    message = _only_fault(store(tmp_path, sign("node", root), root.pem))
    assert "ca.crt.pem: CA CN=root expired 1 hour ago" in message


def test_an_expired_intermediate_is_refused_and_named(tmp_path: Path) -> None:
    root = sign("root", None, CA)
    between = sign("between", root, CA, begin=timedelta(days=-9), end=timedelta(days=-1))
    message = _only_fault(store(tmp_path, sign("node", between), root.pem, between.pem))
    assert "node.crt.pem: CA CN=between expired 1 day ago" in message


@pytest.mark.parametrize(("days", "warned"), [(13, True), (15, False)])
def test_an_identity_that_expires_soon_is_loaded_with_a_warning(tmp_path: Path, days: int, warned: bool) -> None:
    files = issued(tmp_path, "client", days=days)
    faults = check_identity(*files.all, "client")
    assert [fault.severity for fault in faults] == (["warning"] if warned else [])
    if warned:
        assert "alpha.crt.pem: expires in 12 days, on " in faults[0].message
    assert load_identity(*files.all, "client").name == "alpha"


def test_a_certificate_of_another_ca_of_the_same_name_is_refused(tmp_path: Path) -> None:
    files, other = issued(tmp_path / "a", "client"), issued(tmp_path / "b", "client")
    assert _only_fault(Files(files.key, files.certificate, other.ca)) == (
        f"{files.certificate}: not signed by the CA in {other.ca}: was signed by another CA that has the same name,"
        " CN=RestPipe CA; give the CA it was issued by"
    )


def test_a_chain_with_an_intermediate_is_accepted_and_kept_whole(tmp_path: Path) -> None:
    root = sign("root", None, CA)
    between = sign("between", root, CA)
    files = store(tmp_path, sign("node", between), root.pem, between.pem)
    assert load_identity(*files.all, "client").certificate_pem.count(b"BEGIN CERTIFICATE") == 2


def test_a_certificate_that_is_its_own_ca_is_accepted_as_tls_accepts_it(tmp_path: Path) -> None:
    pair = sign()
    assert check_identity(*store(tmp_path, pair, pair.pem).all, "client") == []


def test_two_cas_in_the_file_are_both_trusted(tmp_path: Path) -> None:
    old, new = sign("old", None, CA), sign("new", None, CA)
    identity = load_identity(*store(tmp_path, sign("node", new), old.pem + new.pem).all, "client")
    assert identity.ca_pem == old.pem + new.pem


@pytest.mark.parametrize(
    ("made_for", "used_by", "said"),
    [
        (
            "server",
            "client",
            "is a server's certificate, and this node is a client; make one with `restpipe ca issue NAME`",
        ),
        (
            "client",
            "server",
            "is a client's certificate, and this node is a server; make one with `restpipe ca issue NAME",
        ),
    ],
)
def test_a_certificate_of_the_other_role_is_refused(tmp_path: Path, made_for: Role, used_by: Role, said: str) -> None:
    assert said in _only_fault(issued(tmp_path, made_for), used_by)


def test_a_certificate_that_says_no_role_serves_both(tmp_path: Path) -> None:
    root = sign("root", None, CA)
    pair = sign("node", root, x509.SubjectAlternativeName([x509.DNSName("localhost")]))
    files = store(tmp_path, pair, root.pem)
    assert check_identity(*files.all, "client") == check_identity(*files.all, "server") == []


def test_a_server_without_hosts_is_refused_since_every_client_would_refuse_it(tmp_path: Path) -> None:
    root = sign("root", None, CA)
    files = store(tmp_path, sign("node", root), root.pem)
    assert check_identity(*files.all, "client") == []
    assert "names no host (subjectAltName), so every client refuses it" in _only_fault(files, "server")


def test_a_certificate_that_names_no_node_is_refused(tmp_path: Path) -> None:
    root = sign("root", None, CA)
    assert "'Jane Doe' cannot be the name of a node" in _only_fault(store(tmp_path, sign("Jane Doe", root), root.pem))


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x30\x84\xff"])
def test_extensions_that_cannot_be_read_are_a_fault_and_no_crash(tmp_path: Path, value: bytes) -> None:
    root = sign("root", None, CA)
    usage = x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, value)
    assert "its extensions cannot be read" in _only_fault(store(tmp_path, sign("node", root, usage), root.pem))


def test_the_names_in_a_certificate_cannot_drive_the_terminal_of_who_reads_the_log(tmp_path: Path) -> None:
    root, evil = sign("root", None, CA), sign("\x1b[2J\r\nroot", None, CA)
    message = _only_fault(store(tmp_path, sign("node", evil), root.pem))
    assert message.isprintable()
    assert r"\x1b[2J\r\nroot" in message


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    root = sign("root", None, CA)
    pair = sign("Jane Doe", sign("other", None, CA), begin=timedelta(days=-9), end=timedelta(days=-1))
    files = store(tmp_path, pair, root.pem)
    files.key.write_bytes(sign().key_pem)
    files.key.chmod(0o644)
    with pytest.raises(IdentityError) as caught:
        load_identity(*files.all, "server")
    lines = str(caught.value).splitlines()
    for line, said in zip(
        lines,
        ["open to group", "is not the key of", "name of a node", "names no host", "not signed by the CA", "expired"],
        strict=True,
    ):
        assert said in line
        assert line.startswith(str(tmp_path))


def test_the_permissions_judged_are_those_of_the_file_behind_a_link(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    link = tmp_path / "link"
    link.symlink_to(files.key)
    assert check_identity(link, files.certificate, files.ca, "client") == []
    files.key.chmod(0o644)
    assert "open to group or others" in check_identity(link, files.certificate, files.ca, "client")[0].message


def test_a_key_may_come_from_a_pipe(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    reading, writing = os.pipe()
    os.write(writing, files.key.read_bytes())
    os.close(writing)
    try:
        identity = load_identity(Path(f"/dev/fd/{reading}"), files.certificate, files.ca, "client")
    finally:
        os.close(reading)
    assert identity.name == "alpha"


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restpipe.identity.pem._PIPE_PATIENCE", 0.1)
    files = issued(tmp_path, "client")
    files.key.unlink()
    os.mkfifo(files.key)
    message = _only_fault(files)
    assert message == f"{files.key}: cannot be read: it is no regular file, and nobody wrote all of it within 0.1 s"
    writing = os.open(files.key, os.O_RDWR)  # somebody, who does not end
    os.write(writing, b"-----BEGIN")
    try:
        assert _only_fault(files) == message
    finally:
        os.close(writing)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("not what you think")


@pytest.mark.parametrize("which", ["key", "certificate", "ca"])
@pytest.mark.parametrize(("spoil", "said"), [(_empty, "is empty"), (_text, "is not a PEM file")])
def test_a_file_that_is_not_pem_is_named(tmp_path: Path, which: str, spoil: Callable[[Path], None], said: str) -> None:
    files = issued(tmp_path, "client")
    path: Path = getattr(files, which)
    spoil(path)
    assert f"{path}: {said}" in _only_fault(files)
