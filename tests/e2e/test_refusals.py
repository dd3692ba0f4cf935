"""What is refused: certificates that do not fit, requests that did not come from here, addresses that are taken."""

import re
import shutil
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from e2e_curl import Answer, curl
from e2e_processes import Node, Site, free_port

from restpipe.identity import Authority, Role

# Within which a client says why it has no pipe.
SOON = 5.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def reason(client: Node) -> str:
    """Return the line in which a client says why it cannot connect; it has no pipe then."""
    line = client.wait_for("cannot connect to the server: (.*)$", within=SOON)[1]
    assert curl(f"{client.web}/server/time", "-H", "Prefer: wait=0").outcome == (503, 245, "no")
    assert "connected to the server at" not in client.output
    return line


def with_identity_of_another_ca(site: Site, role: Role) -> dict[str, str]:
    """Return the settings of a node that belongs to another CA altogether."""
    directory = site.directory / "elsewhere"
    directory.mkdir()
    authority = Authority.create(directory, name="Another CA")
    authority.issue(role, role)
    return {f"RP_{role.upper()}_CERT_PATH": str(directory)}


def lasting(site: Site, role: Role, life: timedelta) -> datetime:
    """Issue the identity of a node with a certificate that lasts so long from now; return when it ends."""
    site.identity(role, role)
    path = site.directory / f"{role}.crt.pem"
    model = x509.load_pem_x509_certificate(path.read_bytes())
    ca_key = serialization.load_pem_private_key((site.directory / "ca.key.pem").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    end = datetime.now(UTC) + life
    builder = (
        x509.CertificateBuilder()
        .subject_name(model.subject)
        .issuer_name(model.issuer)
        .public_key(model.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=1))
        .not_valid_after(end)
    )
    for extension in model.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    path.write_bytes(builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return end


def test_a_client_refuses_a_server_of_another_ca(site: Site) -> None:
    settings = with_identity_of_another_ca(site, "server")
    server = site.server(port=0, **settings)
    assert "the server's certificate is not from this node's CA" in reason(
        site.client(server.pipe_port, connected=False)
    )
    assert "client connected" not in server.output


def test_a_server_refuses_a_client_of_another_ca(site: Site) -> None:
    settings = with_identity_of_another_ca(site, "client")
    # It trusts the server's CA, too, as a client has to that wants to get so far.
    trusted = site.directory / "elsewhere" / "ca.crt.pem"
    trusted.write_bytes((site.directory / "ca.crt.pem").read_bytes() + trusted.read_bytes())
    server = site.server()
    told = reason(site.client(server.pipe_port, connected=False, **settings))
    assert "trusts another CA" in told
    server.wait_for("CERTIFICATE_VERIFY_FAILED: (unable to get local issuer|self signed) certificate")
    assert "client connected" not in server.output


def test_a_client_refuses_a_server_whose_certificate_names_another_host(site: Site) -> None:
    site.identity("server", "server", "rp.example.com")
    server = site.server()
    told = reason(site.client(server.pipe_port, connected=False))
    assert "the server's certificate does not name 'localhost'" in told
    assert "restpipe ca issue NAME --server --host localhost" in told


def test_a_client_refuses_a_server_whose_certificate_has_expired(site: Site) -> None:
    end = lasting(site, "server", timedelta(seconds=4))
    server = site.server()
    time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds() + 1))  # it is the clock that is waited for
    assert "the server's certificate has expired" in reason(site.client(server.pipe_port, connected=False))


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_node_whose_own_certificate_has_expired_does_not_start(site: Site, role: Role) -> None:
    lasting(site, role, timedelta(seconds=-1))
    output = site.run("restpipe", role, **site.identity(role, role)).wait(code=1)
    assert re.search(rf"{role}\.crt\.pem: .*expired", output)
    assert output.count("\n") == 1


def test_a_server_that_shows_a_clients_certificate_is_refused(site: Site) -> None:
    site.identity("client", "client")
    for kind in ("key", "crt"):
        shutil.copy(site.directory / f"client.{kind}.pem", site.directory / f"server.{kind}.pem")
    output = site.run("restpipe", "server", **site.identity("server", "server")).wait(code=1)
    assert "server" in output
    assert output.count("\n") == 1


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Site(tmp_path_factory.mktemp("door")) as site:
        _, client = site.pair()
        yield client.web


def ask(web: str, *headers: str) -> Answer:
    return curl(f"{web}/server/time", *(word for header in headers for word in ("-H", header)))


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:80", "127.0.0.1.evil.example.com"])
def test_a_host_that_is_not_this_nodes_is_refused_before_anything_is_done(web: str, host: str) -> None:
    answer = ask(web, f"Host: {host}")
    assert answer.outcome == (421, 253, "no")
    assert "RP_WEB_HOSTS" in answer.json["detail"]


@pytest.mark.parametrize("host", ["localhost", "localhost:8081", "client", "127.0.0.1", "[::1]:80"])
def test_the_names_and_addresses_of_this_node_are_let_in(web: str, host: str) -> None:
    assert ask(web, f"Host: {host}").status == 200


@pytest.mark.parametrize(
    "header",
    ["Origin: http://evil.example.com", "Origin: null", "Sec-Fetch-Site: cross-site", "Origin: http://localhost:1"],
)
def test_pages_of_other_sites_are_refused(web: str, header: str) -> None:
    assert ask(web, header).outcome == (403, 253, "no")


def test_its_own_pages_are_let_in(web: str) -> None:
    assert ask(web, f"Origin: {web}", "Sec-Fetch-Site: same-origin").status == 200


def test_the_docs_page_is_behind_the_same_door(web: str) -> None:
    assert curl(f"{web}/docs", "-H", "Host: evil.example.com").status == 421


@pytest.mark.parametrize(
    ("role", "variable", "what"),
    [
        ("server", "RP_SERVER_BIND_PORT", "pipes"),
        ("server", "RP_SERVER_WEB_BIND", "HTTP"),
        ("client", "RP_CLIENT_WEB_BIND", "HTTP"),
    ],
)
def test_an_address_that_is_taken_is_named_in_one_line(site: Site, role: Role, variable: str, what: str) -> None:
    settings = {"RP_SERVER_BIND_INTERFACE": "127.0.0.1", "RP_SERVER_BIND_PORT": str(free_port())}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings |= site.identity(role, role)
        settings[variable] = address.rpartition(":")[2] if what == "pipes" else address
        output = site.run("restpipe", role, **settings).wait(code=2)
    assert (
        output
        == f"cannot listen on {address} for {what}: the port is taken by another process; end that, or set another\n"
    )
