"""A DNS server that does not answer keeps no client from a server that its machine knows otherwise."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import SCRIPTS, Site

RESOLVER = "127.66.0.53"
# As a machine of its own: a file each instead of those of /etc.
MOUNT = """
mount --bind hosts /etc/hosts && mount --bind resolv.conf /etc/resolv.conf || exit 77
exec "$@"
"""
ISOLATED = ("unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site whose machine knows the server by /etc/hosts, and asks a DNS server that takes questions in silence."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost server\n")
    (tmp_path / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, Site(tmp_path) as site:
        try:
            silent.bind((RESOLVER, 53))
        except OSError as error:
            pytest.skip(f"no DNS server here: {error}")
        if not shutil.which("unshare") or subprocess.run((*ISOLATED, "true"), cwd=tmp_path, check=False).returncode:
            pytest.skip("no mount namespaces here")
        yield site


def test_a_client_whose_dns_is_silent_finds_its_server_by_the_hosts_file(site: Site) -> None:
    server = site.server()
    settings = site.identity("client", "client") | {
        "RP_CLIENT_TARGET_HOSTNAME": "server", "RP_CLIENT_TARGET_PORT": str(server.pipe_port)
    }  # fmt: skip
    client = site.run(*ISOLATED, SCRIPTS / "restpipe", "client", **settings)
    client.wait_for("connected to the server at server:")
    assert "cannot connect" not in client.output
    assert curl(f"{server.web}/client/client/time").status == 200
