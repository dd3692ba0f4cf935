"""A CA, and what it issues, as OpenSSL and gRPC see it."""

import re
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates_of_others import CA, Files, issued, openssl, sign, store
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from restpipe.exceptions import IdentityError
from restpipe.identity import Authority, check_identity
from restpipe.identity.certificates import certificate_hosts
from restpipe.identity.revocation import crl_number


def _text(path: Path) -> str:
    return openssl("x509", "-in", path, "-noout", "-text")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_openssl_verifies_what_the_ca_issues_strictly_and_for_its_role_only(tmp_path: Path) -> None:
    client, server = issued(tmp_path, "client", "client"), issued(tmp_path, "server", "server")
    for files, purpose in ((client, "sslclient"), (server, "sslserver")):
        verify = ("verify", "-x509_strict", "-purpose", purpose, "-CAfile", files.ca)
        assert openssl(*verify, files.certificate).endswith("OK\n")
    for files, purpose in ((client, "sslserver"), (server, "sslclient")):
        with pytest.raises(Exception, match="non-zero exit status"):
            openssl("verify", "-purpose", purpose, "-CAfile", files.ca, files.certificate)


def test_a_server_is_verified_by_each_host_it_was_issued_for_and_no_other(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    certificate = authority.issue("server", "server", ["rp.example.com", "10.0.0.7"]).certificate_path
    verify = ("verify", "-CAfile", authority.certificate_path)
    assert "OK" in openssl(*verify, "-verify_hostname", "rp.example.com", certificate)
    assert "OK" in openssl(*verify, "-verify_ip", "10.0.0.7", certificate)
    with pytest.raises(Exception, match="non-zero exit status"):
        openssl(*verify, "-verify_hostname", "localhost", certificate)


def test_the_certificate_of_the_ca_is_as_rfc_5280_asks(tmp_path: Path) -> None:
    text = _text(Authority.create(tmp_path, name="Our CA").certificate_path)
    assert "CA:TRUE, pathlen:0" in text
    assert re.search(
        r"Basic Constraints: critical.*Key Usage: critical\s+Certificate Sign, CRL Sign\n", text, re.DOTALL
    )
    assert re.search(r"Subject: CN ?= ?Our CA\n", text)  # OpenSSL 3.2 leaves the blanks out
    assert "prime256v1" in text
    assert "Subject Key Identifier" in text


def test_the_certificate_of_a_node_is_as_rfc_5280_asks(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    text = _text(files.certificate)
    assert "CA:FALSE" in text
    assert re.search(r"Key Usage: critical\s+Digital Signature\n", text)
    assert re.search(r"Extended Key Usage: \n\s+TLS Web Client Authentication\n", text)
    identifier = re.search(r"Subject Key Identifier: \n\s+(\S+)", _text(files.ca))
    assert identifier is not None
    assert re.search(rf"Authority Key Identifier: \n\s+{identifier[1]}", text)


@pytest.mark.parametrize(
    ("role", "name", "hosts"),
    [
        ("server", "server", "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:server"),
        ("server", "localhost", "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1"),
        ("server", "my_server", "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1"),
        ("client", "file.server", "DNS:file.server"),
        ("client", "file_server", None),
    ],
)
def test_the_hosts_are_those_that_the_name_can_stand_for(
    tmp_path: Path, role: str, name: str, hosts: str | None
) -> None:
    text = _text(issued(tmp_path, "server" if role == "server" else "client", name).certificate)
    found = re.search(r"Subject Alternative Name: \n\s+(.*)\n", text)
    assert (found and found[1]) == hosts


def test_keys_are_private_and_certificates_are_not(tmp_path: Path) -> None:
    files = issued(tmp_path / "made" / "here", "client")
    assert [_mode(path) for path in files.all] == [0o600, 0o644, 0o644]
    assert _mode(tmp_path / "made" / "here" / "ca.key.pem") == 0o600
    assert _mode(tmp_path / "made" / "here") == 0o700


def test_nothing_but_the_named_files_is_left_in_the_directory(tmp_path: Path) -> None:
    issued(tmp_path, "server", "server")
    issued(tmp_path, "client", "client")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ca.crt.pem",
        "ca.key.pem",
        "client.crt.pem",
        "client.key.pem",
        "issued",
        "server.crt.pem",
        "server.key.pem",
    ]


def test_a_second_ca_never_overwrites_the_first(tmp_path: Path) -> None:
    Authority.create(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(IdentityError, match=r"ca.key.pem: exists already"):
        Authority.create(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_identity_is_replaced_only_when_asked_and_then_with_a_new_key_and_serial(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    first = authority.issue("alpha", "client")
    before = first.key_path.read_bytes()
    with pytest.raises(IdentityError, match=r"alpha.key.pem: exists already.*--force"):
        authority.issue("alpha", "client")
    assert first.key_path.read_bytes() == before
    second = authority.issue("alpha", "client", replace=True)
    assert second.key_path.read_bytes() != before
    assert second.certificate.serial_number != first.certificate.serial_number
    assert check_identity(second.key_path, second.certificate_path, authority.certificate_path, "client") == []


@pytest.mark.parametrize("name", ["ca", "CA", "../evil", "a/b", "", "a b"])
def test_no_name_leads_out_of_the_directory_or_to_the_files_of_the_ca(tmp_path: Path, name: str) -> None:
    authority = Authority.create(tmp_path / "ca")
    with pytest.raises(IdentityError, match="cannot be the name of a node"):
        authority.issue(name, "client", replace=True)
    assert len(list(tmp_path.rglob("*.pem"))) == 2


def test_a_certificate_is_taken_by_a_machine_whose_clock_is_minutes_slow(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    slow = datetime.now(UTC) - timedelta(minutes=5)
    assert authority.certificate.not_valid_before_utc < slow
    assert authority.issue("alpha", "client").certificate.not_valid_before_utc < slow


def test_a_certificate_does_not_outlive_its_ca(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, days=30)
    certificate = authority.issue("alpha", "client", days=825).certificate
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_ca_has_a_name_that_fits_a_certificate(tmp_path: Path, name: str) -> None:
    with pytest.raises(IdentityError, match="cannot be the name of a CA"):
        Authority.create(tmp_path, name=name)
    assert list(tmp_path.iterdir()) == []


def _expose_key(directory: Path) -> None:
    (directory / "ca.key.pem").chmod(0o640)


def _lose_certificate(directory: Path) -> None:
    (directory / "ca.crt.pem").unlink()


def _swap_key(directory: Path) -> None:
    (directory / "ca.key.pem").write_bytes(sign().key_pem)


def _use_a_node(directory: Path) -> None:
    node = sign()
    (directory / "ca.key.pem").write_bytes(node.key_pem)
    (directory / "ca.crt.pem").write_bytes(node.pem)


def _expire(directory: Path) -> None:
    pair = sign("Old CA", None, CA, begin=timedelta(days=-9), end=timedelta(days=-1))
    (directory / "ca.key.pem").write_bytes(pair.key_pem)
    (directory / "ca.crt.pem").write_bytes(pair.pem)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (_expose_key, r"ca.key.pem: .*open to group or others; chmod 600 "),
        (_lose_certificate, r"ca.crt.pem: no such file; make a CA with `restpipe ca init"),
        (_swap_key, r"ca.key.pem: is not the key of .*ca.crt.pem"),
        (_use_a_node, r"ca.crt.pem: is not a CA's certificate"),
        (_expire, r"ca.crt.pem: the CA expired on "),
    ],
)
def test_a_ca_that_would_issue_what_nobody_accepts_is_not_loaded(
    tmp_path: Path, break_it: Callable[[Path], None], said: str
) -> None:
    Authority.create(tmp_path)
    break_it(tmp_path)
    with pytest.raises(IdentityError, match=said):
        Authority.load(tmp_path)


def test_a_ca_that_openssl_made_issues_as_well(tmp_path: Path) -> None:
    key, certificate = tmp_path / "ca.key.pem", tmp_path / "ca.crt.pem"
    openssl("req", "-x509", "-newkey", "rsa:2048", "-noenc", "-keyout", key, "-out", certificate, "-subj", "/CN=Old CA")
    key.chmod(0o600)
    files = issued(tmp_path, "client")
    assert openssl("verify", "-CAfile", certificate, files.certificate).endswith("OK\n")
    assert check_identity(*files.all, "client") == []


def test_a_ca_that_numbers_its_key_in_its_own_way_is_found_by_that_number(tmp_path: Path) -> None:
    pair = sign("Some CA", None, CA, x509.SubjectKeyIdentifier(b"number 1"))
    (tmp_path / "ca.key.pem").touch(mode=0o600)
    (tmp_path / "ca.key.pem").write_bytes(pair.key_pem)
    (tmp_path / "ca.crt.pem").write_bytes(pair.pem)
    files = issued(tmp_path, "client")
    assert openssl("verify", "-CAfile", files.ca, files.certificate).endswith("OK\n")


class _WhoAmI(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def answer(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            return next(iter(context.auth_context()["x509_common_name"]))

        return grpc.unary_unary_rpc_method_handler(answer)


async def _ask(server: Files, client: Files) -> bytes:
    """Return the name that a gRPC server sees when a client dials it with mTLS."""
    node = grpc.aio.server(handlers=[_WhoAmI()])
    pairs = [(server.key.read_bytes(), server.certificate.read_bytes())]
    credentials = grpc.ssl_server_credentials(pairs, server.ca.read_bytes(), True)
    port = node.add_secure_port("127.0.0.1:0", credentials)
    await node.start()
    trust = grpc.ssl_channel_credentials(
        client.ca.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
    )
    try:
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trust) as channel:
            who_am_i: Any = channel.unary_unary("/who/AmI")
            return bytes(await who_am_i(b"", timeout=10))
    finally:
        await node.stop(None)


async def test_grpc_joins_the_nodes_and_sees_the_name(tmp_path: Path) -> None:
    server, client = issued(tmp_path, "server", "server"), issued(tmp_path, "client", "alpha")
    assert await _ask(server, client) == b"alpha"


async def test_grpc_refuses_a_server_certificate_used_as_a_clients(tmp_path: Path) -> None:
    server, other = issued(tmp_path, "server", "server"), issued(tmp_path, "server", "other")
    with pytest.raises(grpc.aio.AioRpcError):
        await _ask(server, other)


@pytest.mark.parametrize(
    ("usages", "good"),
    [
        ([ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], False),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
    ],
)
async def test_what_is_found_good_here_is_what_grpc_accepts(
    tmp_path: Path, usages: list[x509.ObjectIdentifier], good: bool
) -> None:
    root = sign("root", None, CA)
    server = sign("server", root, x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]))
    (tmp_path / "server").mkdir()
    serving = store(tmp_path / "server", server, root.pem)
    dialling = store(tmp_path, sign("alpha", root, x509.ExtendedKeyUsage(usages)), root.pem)
    assert (check_identity(*dialling.all, "client") == []) is good
    try:
        assert await _ask(serving, dialling) == b"alpha"
        assert good
    except grpc.aio.AioRpcError:
        assert not good


# Renewing and revoking


def _refused(verify: Callable[[], str]) -> str:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        verify()
    return str(refusal.value.stdout + refusal.value.stderr)


def _verify(authority: Authority, certificate: Path) -> str:
    files = ("-CAfile", authority.certificate_path, "-CRLfile", authority.crl_path)
    return openssl("verify", "-x509_strict", "-crl_check", *files, certificate)


def test_openssl_refuses_what_was_revoked_and_nothing_else(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    alpha, beta = authority.issue("alpha", "client"), authority.issue("beta", "client")
    authority.revoke([alpha.certificate.serial_number])
    assert "certificate revoked" in _refused(lambda: _verify(authority, alpha.certificate_path))
    assert _verify(authority, beta.certificate_path).endswith("OK\n")
    text = openssl("crl", "-in", authority.crl_path, "-noout", "-text", "-CAfile", authority.certificate_path)
    assert [int(serial, 16) for serial in re.findall(r"Serial Number: (\S+)", text)] == [
        alpha.certificate.serial_number
    ]
    assert re.search(r"X509v3 CRL Number: \n\s+1\n", text)
    assert _mode(authority.crl_path) == 0o644


def test_what_is_revoked_stays_revoked_and_each_list_has_the_next_number(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    first = authority.revoke([7, 8, 7])
    dates = {entry.serial_number: entry.revocation_date_utc for entry in first}
    second = Authority.load(tmp_path).revoke([8, 9])
    assert [crl_number(crl) for crl in (first, second)] == [1, 2]
    assert sorted(entry.serial_number for entry in second) == [7, 8, 9]
    assert {n: d for e in second if (n := e.serial_number) in dates and (d := e.revocation_date_utc)} == dates
    assert authority.crl() == second


def test_two_that_revoke_at_once_both_have_their_way(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda serial: authority.revoke([serial]), range(1, 33)))
    crl = authority.crl()
    assert crl is not None
    assert (crl_number(crl), sorted(entry.serial_number for entry in crl)) == (32, list(range(1, 33)))


def test_two_that_renew_an_identity_at_once_leave_a_key_and_its_own_certificate(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    authority.issue("alpha", "client")
    for _ in range(25):
        with ThreadPoolExecutor(4) as threads:
            (issued, *_) = threads.map(lambda _: authority.renew("alpha"), range(4))
        files = (issued.key_path, issued.certificate_path, authority.certificate_path)
        assert check_identity(*files, "client") == []


def test_a_list_that_is_not_the_ca_s_own_is_never_built_upon(tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other")
    other.revoke([1])
    authority = Authority.create(tmp_path)
    authority.crl_path.write_bytes(other.crl_path.read_bytes())
    with pytest.raises(IdentityError, match=r"ca.crl.pem: is not signed by this CA"):
        authority.revoke([2])
    assert authority.crl_path.read_bytes() == other.crl_path.read_bytes()


def test_the_ca_remembers_every_certificate_that_it_issued_to_a_name(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    issued = [authority.issue("alpha", "client", replace=True).certificate for _ in range(3)]
    other = authority.issue("beta", "client").certificate
    for file in (*tmp_path.glob("alpha.*"), *tmp_path.glob("beta.*")):
        file.unlink()
    assert Authority.load(tmp_path).issued("alpha") == issued
    assert authority.issued() == [*issued, other]
    assert authority.issued("alp") == []


def test_an_identity_that_could_not_be_written_is_not_remembered(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    first = authority.issue("alpha", "client").certificate
    with pytest.raises(IdentityError, match="exists already"):
        authority.issue("alpha", "client")
    assert authority.issued() == [first]


def test_a_renewed_identity_is_the_same_but_for_its_key_its_serial_and_its_time(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    before = authority.issue("server", "server", ["rp.example.com", "10.0.0.7"], days=5)
    old_key = before.key_path.read_bytes()
    after = authority.renew("server", days=90)
    assert (after.key_path, after.certificate_path) == (before.key_path, before.certificate_path)
    assert after.key_path.read_bytes() != old_key
    assert _mode(after.key_path) == 0o600
    assert check_identity(after.key_path, after.certificate_path, authority.certificate_path, "server") == []
    assert after.certificate.serial_number != before.certificate.serial_number
    assert certificate_hosts(after.certificate) == ("rp.example.com", "10.0.0.7")
    assert after.certificate.subject == before.certificate.subject
    assert after.certificate.not_valid_after_utc - before.certificate.not_valid_after_utc > timedelta(days=84)


def test_the_newest_is_renewed_even_where_several_were_issued_within_a_second(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    for host in ("a.example.com", "b.example.com", "c.example.com"):
        authority.issue("server", "server", [host], replace=True)
    assert certificate_hosts(authority.renew("server").certificate) == ("c.example.com",)


def test_a_client_without_a_host_is_renewed_without_one(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    authority.issue("file_server", "client")
    assert certificate_hosts(authority.renew("file_server").certificate) == ()


def test_what_was_never_issued_cannot_be_renewed(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="issued nothing to 'alpha'"):
        Authority.create(tmp_path).renew("alpha")
    assert not list(tmp_path.glob("alpha*"))
