"""`restpipe ca`, as it is typed."""

import re
import shlex
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from restpipe.cli.ca import app
from restpipe.identity import check_identity


def _run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def _error(*arguments: str | Path) -> str:
    """Return the one line that a command which fails has to say."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.removesuffix("\n")


def test_the_three_commands_of_the_help_make_identities_that_nodes_accept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    help_text = re.sub(r"\x1b\[[0-9;]*m", "", _run("--help"))  # some CI systems have colours even without a terminal
    commands = re.findall(r"restpipe ca ((?:init|issue).*?) *\n", help_text)
    assert len(commands) == 3
    for command in commands:
        _run(*shlex.split(command))
    ca = Path("ca.crt.pem")
    assert check_identity(Path("server.key.pem"), Path("server.crt.pem"), ca, "server") == []
    assert check_identity(Path("client.key.pem"), Path("client.crt.pem"), ca, "client") == []


def test_each_command_names_the_next_one_to_type(tmp_path: Path) -> None:
    directory = tmp_path / "my identities"
    after_init = _run("init", "--dir", directory)
    assert f"restpipe ca issue server --server --host HOST --dir '{directory}'\n" in after_init
    after_issue = _run("issue", "server", "--server", "--host", "rp.example.com", "--dir", directory)
    assert "rp_server_set_identity server.key.pem server.crt.pem ca.crt.pem\n" in after_issue
    after_issue = _run("issue", "client", "--dir", directory)
    assert "rp_client_set_identity client.key.pem client.crt.pem ca.crt.pem\n" in after_issue
    files = next(line for line in after_issue.splitlines() if line.count(".pem") == 3)
    assert all(Path(path).is_file() for path in shlex.split(files))


def test_no_output_shows_a_key_and_the_keys_are_private(tmp_path: Path) -> None:
    output = _run("init", "--dir", tmp_path) + _run("issue", "alpha", "--dir", tmp_path)
    for key in (tmp_path / "ca.key.pem", tmp_path / "alpha.key.pem"):
        output += _run("show", key)
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert key.read_text().splitlines()[1] not in output
    assert "PRIVATE KEY" not in output


def test_what_exists_is_kept_and_the_way_out_is_said(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    assert re.search(r"ca.key.pem: exists already, and was left as it is; ", _error("init", "--dir", tmp_path))
    _run("issue", "alpha", "--dir", tmp_path)
    assert _error("issue", "alpha", "--dir", tmp_path).endswith("left as it is; --force replaces the identity")
    _run("issue", "alpha", "--dir", tmp_path, "--force")


def test_issuing_without_a_ca_says_how_to_make_one(tmp_path: Path) -> None:
    assert _error("issue", "alpha", "--dir", tmp_path) == (
        f"{tmp_path}/ca.key.pem: no such file; make a CA with `restpipe ca init --dir {tmp_path}`"
    )


def test_a_host_or_a_name_that_cannot_be_one_is_said_in_a_line(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    assert "'http://a' is neither a DNS name nor" in _error(
        "issue", "server", "--server", "--host", "http://a", "--dir", tmp_path
    )
    assert "'a b' cannot be the name of a node" in _error("issue", "a b", "--dir", tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["issue"],
        ["issue", "alpha", "--host", "rp.example.com"],
        ["issue", "alpha", "--days", "0"],
        ["init", "--days", "many"],
        ["renew"],
        ["revoke"],
        ["revoke", "alpha", "--serial", "1f"],
        ["revoke", "--serial", "alpha"],
        ["revoke", "--serial", "0"],
        ["revive"],
    ],
)
def test_a_command_that_cannot_be_meant_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_show_tells_all_about_a_certificate(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path, "--name", "Our CA")
    _run("issue", "server", "--server", "--host", "rp.example.com", "--host", "::1", "--days", "30", "--dir", tmp_path)
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.crt.pem").read_bytes())
    text = _run("show", tmp_path / "server.crt.pem")
    for label, value in {
        "Certificate": "CN=server",
        "Name": "server",
        "Role": "server",
        "Hosts": "rp.example.com, ::1",
        "Issuer": "CN=Our CA",
        "Serial": f"{certificate.serial_number:x}",
        "Valid until": rf"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC (in 29 days)",
        "SHA-256": certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        "Key": "EC P-256",
    }.items():
        assert f"{label:<12} {value}\n" in text


def test_show_tells_a_ca_from_a_node(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    text = _run("show", tmp_path / "ca.crt.pem")
    assert re.search(r"^Role +CA$", text, re.MULTILINE)
    assert re.search(r"^Issuer +itself$", text, re.MULTILINE)


def test_show_tells_what_a_key_is_and_whether_others_can_read_it(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    key = tmp_path / "ca.key.pem"
    assert _run("show", key) == "Private key  EC P-256\nMode         0600 (private to its owner)\n"
    key.chmod(0o644)
    assert f"0644 (open to group or others; chmod 600 {key})" in _run("show", key)


def test_show_tells_that_it_does_not_know_a_kind_of_key(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    ec_key = bytes.fromhex("2a8648ce3d0201")  # its OID (RFC 5480 section 2.1.1)
    file = tmp_path / "ca.crt.pem"
    file.write_text(
        ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(file.read_text()).replace(ec_key, b"*" * len(ec_key)))
    )
    assert "Key          none that can be read (Unknown key type: 1.2.42." in _run("show", file)


def test_show_tells_each_certificate_of_a_bundle(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    _run("issue", "alpha", "--dir", tmp_path)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"".join((tmp_path / name).read_bytes() for name in ("alpha.crt.pem", "ca.crt.pem")))
    assert re.findall(r"^Certificate +(.*)$", _run("show", bundle), re.MULTILINE) == ["CN=alpha", "CN=RestPipe CA"]


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [(-9, -3, "expired 3 days ago"), (2, 9, "not valid yet: in 1 day"), (-9, 9, "in 8 days")],
)
def test_show_tells_how_long_a_certificate_lasts(tmp_path: Path, begin: int, end: int, said: str) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "\x1b[2Jevil")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + timedelta(days=begin))
        .not_valid_after(now + timedelta(days=end))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "a.crt.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    text = _run("show", path)
    assert f"({said})" in text
    assert "\x1b" not in text
    assert "none that a node can have" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello", "is not a PEM file"),
        (
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "holds a public key, neither a certificate nor a private key nor a CRL",
        ),
    ],
)
def test_show_says_what_else_a_file_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert f"{path}: {said}" in _error("show", path)


def _serial(path: Path) -> str:
    return f"{x509.load_pem_x509_certificate(path.read_bytes()).serial_number:x}"


def test_revoking_a_name_revokes_every_certificate_that_bears_it(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    _run("issue", "alpha", "--dir", tmp_path)
    _run("issue", "beta", "--dir", tmp_path)
    first = _serial(tmp_path / "alpha.crt.pem")
    _run("renew", "alpha", "--dir", tmp_path)
    second = _serial(tmp_path / "alpha.crt.pem")
    said = _run("revoke", "alpha", "--dir", tmp_path)
    assert re.findall(r"^Revoked: (\S+)$", said, re.MULTILINE) == [first, second]
    assert f"{tmp_path}/ca.crl.pem  (number 1, 2 revoked)" in said
    assert f"{tmp_path}/ca.crl.pem  ->  /var/lib/restpipe/ca.crl.pem" in said
    listed = _run("show", "--dir", tmp_path)
    assert re.search(rf"^alpha +client +\S+ \S+ UTC +{first} +revoked on ", listed, re.MULTILINE)
    assert re.search(rf"^alpha +client +\S+ \S+ UTC +{second} +revoked on ", listed, re.MULTILINE)
    assert re.search(rf"^beta +client +\S+ \S+ UTC +{_serial(tmp_path / 'beta.crt.pem')}$", listed, re.MULTILINE)


def test_a_certificate_is_revoked_by_its_file_and_by_its_serial_as_show_and_openssl_tell_it(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    serials = []
    for name in ("alpha", "beta", "gamma"):
        _run("issue", name, "--dir", tmp_path)
        serials.append(_serial(tmp_path / f"{name}.crt.pem"))
    _run("revoke", tmp_path / "alpha.crt.pem", "--dir", tmp_path)
    _run("revoke", "--serial", serials[1], "--dir", tmp_path)
    _run("revoke", "--serial", bytes.fromhex(serials[2].zfill(40)).hex(":").upper(), "--dir", tmp_path)
    shown = _run("show", tmp_path / "ca.crl.pem")
    assert re.findall(r"^Revoked +(\S+) on \S+ \S+ UTC$", shown, re.MULTILINE) == serials
    assert shown.startswith("CRL          number 3\nIssuer       CN=RestPipe CA\n")
    assert _run("revoke", "alpha", "--dir", tmp_path).startswith(f"Was revoked before: {serials[0]}\n")


def test_what_cannot_be_revoked_is_said_and_no_list_is_made(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path / "other")
    _run("issue", "alpha", "--dir", tmp_path / "other")
    _run("init", "--dir", tmp_path)
    foreign = tmp_path / "other" / "alpha.crt.pem"
    assert _error("revoke", "alpha", "--dir", tmp_path).startswith("'alpha': nothing of that name was issued in ")
    assert "was not issued by the CA in" in _error("revoke", foreign, "--dir", tmp_path)
    assert "not a certificate" in _error("revoke", tmp_path / "ca.key.pem", "--dir", tmp_path)
    assert not (tmp_path / "ca.crl.pem").exists()


def test_renewing_says_how_the_old_certificate_is_ended(tmp_path: Path) -> None:
    _run("init", "--dir", tmp_path)
    _run("issue", "server", "--server", "--host", "rp.example.com", "--dir", tmp_path)
    old = _serial(tmp_path / "server.crt.pem")
    said = _run("renew", "server", "--days", "30", "--dir", tmp_path)
    assert said.startswith('Renewed "server", the identity of a server, valid until ')
    assert "rp_server_set_identity server.key.pem server.crt.pem ca.crt.pem\n" in said
    (command,) = re.findall(r"restpipe ca (revoke --serial .*)\n", said)
    assert old in _run(*shlex.split(command))
    assert "Hosts        rp.example.com\n" in _run("show", tmp_path / "server.crt.pem")
    assert re.search(rf"{old} +revoked on", _run("show", "--dir", tmp_path))
    assert _error("renew", "alpha", "--dir", tmp_path).startswith(f"{tmp_path}: issued nothing to 'alpha'; ")
    _run("revoke", "server", "--dir", tmp_path)
    assert "revoke" not in _run("renew", "server", "--dir", tmp_path)


@pytest.mark.parametrize(("days", "state"), [(10, "expires in 9 days"), (20, "")])
def test_what_expires_soon_is_marked_among_what_was_issued(tmp_path: Path, days: int, state: str) -> None:
    _run("init", "--dir", tmp_path)
    _run("issue", "alpha", "--days", str(days), "--dir", tmp_path)
    *_, last = _run("show", "--dir", tmp_path).splitlines()
    assert last == f"{last[: last.index(' UTC')]} UTC  {_serial(tmp_path / 'alpha.crt.pem')}  {state}".rstrip()


def test_show_without_a_file_and_without_a_ca_says_how_to_make_one(tmp_path: Path) -> None:
    assert "make a CA with `restpipe ca init" in _error("show", "--dir", tmp_path)
