"""Files written whole or not at all, and read with every fault named."""

import os
import stat
from pathlib import Path

import pytest
from certificates_of_others import sign, unprivileged
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from restpipe.exceptions import IdentityError
from restpipe.identity import Authority
from restpipe.identity.pem import NewFile, PemFile, write_files


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_mode_of_a_file_is_the_one_asked_for_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_files([NewFile(tmp_path / "k", b"", 0o600), NewFile(tmp_path / "c", b"", 0o644)], replace=False)
    finally:
        os.umask(before)
    assert (_mode(tmp_path / "k"), _mode(tmp_path / "c")) == (0o600, 0o644)


def test_a_file_that_exists_is_left_as_it_is_and_its_companions_are_not_made(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"precious")
    with pytest.raises(IdentityError, match=r"/b: exists already, and was left as it is; use it"):
        write_files(
            [NewFile(tmp_path / "a", b"new", 0o600), NewFile(tmp_path / "b", b"new", 0o600)],
            replace=False,
            occupied="use it",
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"precious"}


def test_a_dangling_link_is_not_followed_to_write_a_key_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError, match="exists already"):
        write_files([NewFile(tmp_path / "a", b"secret", 0o600)], replace=False)
    assert not (tmp_path / "elsewhere").exists()


def test_replacing_makes_a_new_file_so_that_a_reader_of_the_old_one_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with path.open("rb") as reader:
        write_files([NewFile(path, b"new", 0o600)], replace=True)
        assert reader.read() == b"old"
    assert (path.read_bytes(), _mode(path)) == (b"new", 0o600)


def test_when_the_second_file_cannot_be_written_the_first_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(IdentityError, match=r"missing/b: cannot be written: No such file or directory"):
        write_files([NewFile(path, b"new", 0o600), NewFile(tmp_path / "missing" / "b", b"", 0o600)], replace=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_a_directory_that_may_not_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with unprivileged(), pytest.raises(IdentityError, match="/a: cannot be written: Permission denied"):
        write_files([NewFile(tmp_path / "a", b"", 0o600)], replace=False)


def _read(path: Path, content: bytes) -> PemFile:
    path.write_bytes(content)
    return PemFile.read(path, missing="make one")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello", "is not a PEM file"),
        (b"\xff\x00" * 100, "is not a PEM file"),
        (sign().pem[:-30], "was cut off"),
    ],
)
def test_what_is_not_pem_is_named_for_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(IdentityError, match=said):
        _read(tmp_path / "a", content)


def test_der_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    pair = sign()
    key = pair.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(IdentityError, match=r"a private key in DER.*openssl pkey -inform der"):
        _read(tmp_path / "a", key)
    with pytest.raises(IdentityError, match=r"a certificate in DER.*openssl x509 -inform der"):
        _read(tmp_path / "a", pair.certificate.public_bytes(serialization.Encoding.DER))
    crl = Authority.create(tmp_path).revoke([1])
    with pytest.raises(IdentityError, match=r"a CRL in DER.*openssl crl -inform der"):
        _read(tmp_path / "a", crl.public_bytes(serialization.Encoding.DER))


def test_a_file_that_is_missing_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"/a: no such file; make one"):
        PemFile.read(tmp_path / "a", missing="make one")


def test_a_directory_in_place_of_a_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="cannot be read: Is a directory"):
        PemFile.read(tmp_path, missing="")


def test_a_file_that_may_not_be_read_is_said_with_the_user(tmp_path: Path) -> None:
    (tmp_path / "a").touch(mode=0o000)
    with unprivileged(), pytest.raises(IdentityError, match=r"/a: user \S+ may not read it"):
        PemFile.read(tmp_path / "a", missing="")


def test_an_endless_file_does_not_fill_the_memory() -> None:
    with pytest.raises(IdentityError, match="is not a PEM file"):
        PemFile.read(Path("/dev/zero"), missing="")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "RSA"],
)
@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_keys_that_grpc_takes_are_read_in_either_form(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: serialization.PrivateFormat
) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    assert _read(tmp_path / "k", pem).private_key().private_numbers() == key.private_numbers()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (ec.generate_private_key(ec.SECP521R1()), "EC secp521r1"),
    ],
)
def test_keys_that_grpc_does_not_take_are_refused_here_and_not_in_a_handshake(
    tmp_path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, kind: str
) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(IdentityError, match=f"cannot use a key that is {kind}; make one"):
        _read(tmp_path / "k", pem).private_key()


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_with_the_command_that_decrypts_it(
    tmp_path: Path, form: serialization.PrivateFormat
) -> None:
    pem = sign().key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret"))
    with pytest.raises(IdentityError, match=r"encrypted.*openssl pkey -in .*/k -out NEW"):
        _read(tmp_path / "k", pem).private_key()


def test_damaged_content_is_named(tmp_path: Path) -> None:
    damaged = b"-----BEGIN %s-----\nAAAA\n-----END %s-----\n"
    with pytest.raises(IdentityError, match="/k: the private key in it is damaged"):
        _read(tmp_path / "k", damaged % (b"PRIVATE KEY", b"PRIVATE KEY")).private_key()
    with pytest.raises(IdentityError, match="/c: a certificate in it is damaged"):
        _read(tmp_path / "c", damaged % (b"CERTIFICATE", b"CERTIFICATE")).certificates()


def test_two_keys_in_a_file_are_refused_since_nobody_knows_which_is_meant(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="holds 2 private keys"):
        _read(tmp_path / "k", sign().key_pem + sign().key_pem).private_key()


def test_a_request_for_a_certificate_is_called_by_its_name(tmp_path: Path) -> None:
    request = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(IdentityError, match=r"holds a certificate request, not a certificate$"):
        _read(tmp_path / "c", request).certificates()
