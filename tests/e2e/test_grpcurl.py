"""What the pipe's port tells the tools of gRPC: health, and the protocol's own description."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from e2e_processes import SCRIPTS, Site

GRPCURL = shutil.which("grpcurl", path=f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")

pytestmark = pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("grpcurl")) as site:
        site.identity("client", "client")
        yield site


@pytest.fixture(scope="module")
def address(site: Site) -> str:
    return f"localhost:{site.server().pipe_port}"


def grpcurl(site: Site, *arguments: str, certificate: bool = True) -> subprocess.CompletedProcess[str]:
    own = ("-cert", "client.crt.pem", "-key", "client.key.pem") if certificate else ()
    command = [str(GRPCURL), "-cacert", "ca.crt.pem", "-connect-timeout", "2", *own, *arguments]
    return subprocess.run(command, check=False, cwd=site.directory, capture_output=True, text=True, timeout=30)


def test_it_lists_and_describes_the_protocol(site: Site, address: str) -> None:
    services = grpcurl(site, address, "list").stdout.split()
    assert services == ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "restpipe.v1.Pipe"]
    described = grpcurl(site, address, "describe", "restpipe.v1.Pipe").stdout
    assert "rpc Connect ( stream .restpipe.v1.Frame ) returns ( stream .restpipe.v1.Frame );" in described
    assert "message Frame" in grpcurl(site, address, "describe", "restpipe.v1.Frame").stdout


@pytest.mark.parametrize("service", ["", "restpipe.v1.Pipe"])
def test_it_is_healthy(site: Site, address: str, service: str) -> None:
    checked = grpcurl(site, "-d", json.dumps({"service": service}), address, "grpc.health.v1.Health/Check")
    assert json.loads(checked.stdout) == {"status": "SERVING"}


def test_without_a_certificate_it_tells_nothing(site: Site, address: str) -> None:
    refused = grpcurl(site, address, "list", certificate=False)
    assert refused.returncode != 0
    assert refused.stdout == ""
