"""Certificates of nodes that run: renewed, revoked, expired, by the commands that operators type."""

import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from e2e_curl import curl
from e2e_processes import PATIENCE, Node, Site, site_with_handlers

# From the making of a certificate to its end: time enough to take it.
LEFT = timedelta(seconds=10)
# Seconds from a revocation, or an expiry, to the end of the pipe, with the settings as they are by default.
BOUND = 10.0


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path) as site:
        yield site


def serial(site: Site, name: str) -> str:
    command = ("openssl", "x509", "-in", site.directory / f"{name}.crt.pem", "-noout", "-serial")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().removeprefix("serial=")


def shown_serial(server: Node, site: Site) -> str:
    """Return the serial number of the certificate that a server shows to OpenSSL."""
    files = ("-CAfile", "ca.crt.pem", "-cert", "client.crt.pem", "-key", "client.key.pem", "-alpn", "h2")
    done = subprocess.run(
        ("openssl", "s_client", "-connect", f"127.0.0.1:{server.pipe_port}", *files),
        cwd=site.directory, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    shown = subprocess.run(
        ("openssl", "x509", "-noout", "-serial"), input=done.stdout, capture_output=True, check=True
    ).stdout
    return shown.decode().strip().removeprefix("serial=")


class Load(threading.Thread):
    """Requests at a steady rate, one after the other whether or not the ones before have been answered."""

    def __init__(self, url: str, rate: float = 100.0) -> None:
        super().__init__()
        self.outcomes: Counter[str] = Counter()
        self._url = url
        self._rate = rate
        self._over = threading.Event()

    def run(self) -> None:
        with httpx.Client(timeout=PATIENCE, trust_env=False) as http:
            begun, sent = time.monotonic(), 0
            while not self._over.wait(max(0.0, begun + sent / self._rate - time.monotonic())):
                sent += 1
                try:
                    answer = http.post(self._url, json={"number": sent})
                    self.outcomes["done" if answer.json() == {"number": sent} else answer.text] += 1
                except httpx.HTTPError as error:
                    self.outcomes[repr(error)] += 1

    def end(self) -> Counter[str]:
        self._over.set()
        self.join()
        return self.outcomes


@contextmanager
def load(*urls: str) -> Iterator[list[Load]]:
    loads = [Load(url) for url in urls]
    for one in loads:
        one.start()
    try:
        yield loads
    finally:
        for one in loads:
            one.end()


@needs_openssl
def test_both_nodes_are_renewed_three_times_under_load_and_no_request_fails(site: Site) -> None:
    server, client = site.pair(RP_IDENTITY_INTERVAL_S="0.2")
    with load(f"{client.web}/server/echo", f"{server.web}/client/client/echo") as loads:
        for times in range(1, 4):
            for name, node in (("client", client), ("server", server)):
                site.run("restpipe", "ca", "renew", name).wait()
                node.wait_for(f"took a new identity: {name}, valid until", times=times)
            client.wait_for("connected to the server anew", times=times)
            server.wait_for("client client disconnected: another pipe, with newer certificates", times=times)
        assert shown_serial(server, site) == serial(site, "server")
        outcomes = [one.end() for one in loads]
    for outcome in outcomes:
        assert outcome.keys() == {"done"}, outcome
        assert outcome["done"] > 100
    assert "took over" not in server.output


def test_the_ca_is_replaced_under_load_and_no_request_fails(site: Site) -> None:
    server, client = site.pair(RP_IDENTITY_INTERVAL_S="0.2")
    others = site.directory / "other"
    for command in (("init",), ("issue", "server", "--server"), ("issue", "client")):
        site.run("restpipe", "ca", *command, "--dir", "other").wait()
    ca = site.directory / "ca.crt.pem"
    old, new = ca.read_bytes(), (others / "ca.crt.pem").read_bytes()

    def both_take(taken: int) -> None:
        for name, node in (("server", server), ("client", client)):
            node.wait_for(f"took a new identity: {name}", times=taken)

    with load(f"{client.web}/server/echo", f"{server.web}/client/client/echo") as loads:
        ca.write_bytes(old + new)
        both_take(1)
        for name in ("server", "client"):
            for kind in ("key", "crt"):
                shutil.copy(others / f"{name}.{kind}.pem", site.directory)
        both_take(2)
        server.wait_for("client client disconnected: another pipe, with newer certificates", times=2)
        ca.write_bytes(new)
        both_take(3)
        server.wait_for("client client disconnected: another pipe, with newer certificates", times=3)
        outcomes = [one.end() for one in loads]
    for outcome in outcomes:
        assert outcome.keys() == {"done"}, outcome
    assert "is from no CA that is trusted" not in server.output + client.output


def test_a_key_without_its_certificate_breaks_nothing(site: Site) -> None:
    server, client = site.pair(RP_IDENTITY_INTERVAL_S="0.2")
    old = (site.directory / "client.crt.pem").read_bytes()
    site.authority.renew("client")
    new = (site.directory / "client.crt.pem").read_bytes()
    (site.directory / "client.crt.pem").write_bytes(old)
    client.wait_for(r"client\.key\.pem: is not the key of .*client\.crt\.pem; .*\(what was there before stays in use\)")
    assert curl(f"{client.web}/server/data").status == 200
    assert curl(f"{server.web}/client/client/data").status == 200
    (site.directory / "client.crt.pem").write_bytes(new)
    client.wait_for("took a new identity")
    client.wait_for("connected to the server anew")
    assert curl(f"{server.web}/client/client/data").status == 200


def test_a_revoked_client_is_cut_within_the_bound_and_stays_out_until_it_has_a_new_certificate(site: Site) -> None:
    server = site.server()
    client, other = site.client(server.pipe_port), site.client(server.pipe_port, name="other")
    site.run("restpipe", "ca", "revoke", "client").wait()
    revoked = time.monotonic()
    server.wait_for(r"ended the pipe to client \(127\.0\.0\.1\): the certificate of client was revoked on ")
    client.wait_for("disconnected from the server: the certificate of client was revoked on ")
    assert time.monotonic() - revoked < BOUND
    assert curl(f"{server.web}/client/client/data", "-H", "Prefer: wait=0").outcome == (503, 245, "no")
    assert curl(f"{server.web}/client/other/data").status == 200
    client.wait_for("cannot connect to the server: .*the certificate of client was revoked on ")
    server.wait_for(r"refused client at 127\.0\.0\.1: the certificate of client was revoked on ")
    assert other.running

    site.run("restpipe", "ca", "renew", "client").wait()
    client.wait_connected(times=2)
    assert curl(f"{server.web}/client/client/data").status == 200


def cut_short(site: Site, name: str) -> None:
    """Replace a certificate by one that ends soon, for the same key."""
    path = site.directory / f"{name}.crt.pem"
    old = x509.load_pem_x509_certificate(path.read_bytes())
    key = serialization.load_pem_private_key((site.directory / "ca.key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(datetime.now(UTC) + LEFT)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    new = path.with_suffix(".new")
    new.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    new.replace(path)


def test_a_pipe_ends_within_the_bound_of_the_expiry_of_either_certificate_and_a_new_one_brings_it_back(
    site: Site,
) -> None:
    site.settings["RP_IDENTITY_INTERVAL_S"] = "0.2"
    named_short = site.identity("server", "short")
    server = site.server()
    short = site.server(
        RP_SERVER_KEY_FILENAME=named_short["RP_SERVER_KEY_FILENAME"],
        RP_SERVER_CRT_FILENAME=named_short["RP_SERVER_CRT_FILENAME"],
    )
    client = site.client(server.pipe_port)
    other = site.client(short.pipe_port, name="other")
    cut_short(site, "short")
    short.wait_for("took a new identity")
    site.authority.renew("other")  # which has it connect anew
    cut_short(site, "client")
    for node in (client, other):
        node.wait_for("connected to the server anew")
    expires = time.monotonic() + LEFT.total_seconds()
    server.wait_for(r"ended the pipe to client \(127\.0\.0\.1\): the certificate of client expired on ")
    other.wait_for(r"ended the pipe to localhost .*: the certificate of localhost expired on ")
    assert time.monotonic() < expires + BOUND
    assert curl(f"{server.web}/client/client/data", "-H", "Prefer: wait=0").outcome == (503, 245, "no")

    for name in ("client", "short"):
        site.run("restpipe", "ca", "renew", name).wait()
    client.wait_connected(times=2)
    other.wait_connected(times=2)
    assert curl(f"{server.web}/client/client/data").status == 200
    assert curl(f"{other.web}/server/data").status == 200


def test_a_client_leaves_a_revoked_server(site: Site) -> None:
    server = site.server()
    client = site.client(server.pipe_port)
    site.run("restpipe", "ca", "revoke", "server.crt.pem").wait()
    client.wait_for("ended the pipe to localhost .*: the certificate of localhost was revoked on ")
    server.wait_for(r"server\.crt\.pem: was revoked on .*; issue it anew with `restpipe ca renew server`")
    client.wait_for("cannot connect to the server: .*the server's certificate was revoked on ")


@needs_openssl
def test_openssl_agrees_with_what_was_revoked(site: Site) -> None:
    site.identity("client", "client")
    site.identity("client", "other")
    number = serial(site, "client")
    site.run("restpipe", "ca", "revoke", "--serial", number).wait()
    listed = subprocess.run(
        ("openssl", "crl", "-in", "ca.crl.pem", "-noout", "-text", "-CAfile", "ca.crt.pem"),
        cwd=site.directory, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert re.findall(r"Serial Number: (\S+)", listed.stdout) == [number]
    assert "verify OK" in listed.stderr
    verify = ("openssl", "verify", "-CAfile", "ca.crt.pem", "-CRLfile", "ca.crl.pem", "-crl_check")
    done = {
        name: subprocess.run(
            (*verify, f"{name}.crt.pem"), cwd=site.directory, capture_output=True, check=False
        ).returncode
        for name in ("client", "other")
    }
    assert done["client"] != 0
    assert done["other"] == 0


def test_sighup_looks_at_once(site: Site) -> None:
    server, client = site.pair(RP_IDENTITY_INTERVAL_S="3600")
    for node, name in ((client, "client"), (server, "server")):
        node.send(signal.SIGHUP)
        node.wait_for("looked for a new identity and a new revocation list: there is none")
        site.run("restpipe", "ca", "renew", name).wait()
        node.send(signal.SIGHUP)
        node.wait_for(f"took a new identity: {name}")
    client.wait_for("connected to the server anew")
    assert curl(f"{server.web}/client/client/data").status == 200


def test_a_certificate_that_expires_soon_is_warned_of_by_its_node_and_by_the_peer(site: Site) -> None:
    site.authority.issue("client", "client", days=3)
    server, client = site.pair(RP_IDENTITY_INTERVAL_S="0.2")
    client.wait_for(r"client\.crt\.pem: expires in 2 days, on .*; issue it anew with `restpipe ca renew NAME`")
    server.wait_for("the certificate of client expires in 2 days, on ")


def test_no_list_that_is_broken_or_older_lets_a_revoked_client_back_in(site: Site) -> None:
    site.settings["RP_IDENTITY_INTERVAL_S"] = "0.1"
    server = site.server()
    client, other = site.client(server.pipe_port), site.client(server.pipe_port, name="other")
    path = site.directory / "ca.crl.pem"
    site.authority.revoke([1])
    server.wait_for("took a new revocation list: 1 revoked")
    older = path.read_bytes()
    site.authority.revoke([site.authority.issued("client")[-1].serial_number])
    server.wait_for(r"ended the pipe to client \(127\.0\.0\.1\): the certificate of client was revoked on ")
    newest = path.read_bytes()
    for spoilt, said in (
        (older, "is older than the one in use, number 2 of "),
        (newest[:-100], "was cut off"),
        (b"\x00garbage", "is not a PEM file"),
        (b"", "is empty"),
    ):
        path.write_bytes(spoilt)
        server.wait_for(rf"ca\.crl\.pem: .*{said}.*\(what was there before stays in use\)")
        refused = server.output.count("refused client at")
        server.wait_for(r"refused client at 127\.0\.0\.1: the certificate of client was revoked on ", times=refused + 1)
    path.unlink()
    server.wait_for("is gone; what it revoked stays revoked until this node is started again")
    assert curl(f"{server.web}/client/client/data", "-H", "Prefer: wait=0").outcome == (503, 245, "no")
    assert curl(f"{server.web}/client/other/data").status == 200
    assert client.output.count("connected to the server at") == other.output.count("connected to the server at") == 1
