"""What the pipe's port tells the tools of gRPC: health, the protocol's own description, an exchange by hand."""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_processes import SCRIPTS, Site

README = Path(__file__).parents[2] / "README.md"
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


def by_hand() -> tuple[str, str]:
    """Return what the README has its reader type: commands, and an exchange."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    commands, exchange = [block for block in blocks if re.search(r"\bpipe (-d|localhost)", block)]
    return commands, exchange


def test_the_commands_of_the_readme_work(site: Site, address: str) -> None:
    commands, _ = by_hand()
    shell = subprocess.run(
        ["bash", "-ec", f"shopt -s expand_aliases\n{commands.replace('localhost:1234', address)}"],
        cwd=site.directory, env={**os.environ, "PATH": f"{SCRIPTS}:{Path(str(GRPCURL)).parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert shell.returncode == 0, shell.stderr
    for told in ("restpipe.v1.Pipe", "string noun = 2;", '"status": "SERVING"'):
        assert told in shell.stdout


def test_an_exchange_is_made_by_hand_as_the_readme_says(site: Site, address: str) -> None:
    site.identity("client", "by-hand")
    hello, request = re.findall(r"^  echo '(.*)'$", by_hand()[1], re.MULTILINE)
    call = subprocess.Popen(
        [str(GRPCURL), "-cacert", "ca.crt.pem", "-cert", "by-hand.crt.pem", "-key", "by-hand.key.pem",
         "-d", "@", address, "restpipe.v1.Pipe/Connect"],
        cwd=site.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert call.stdin is not None
    assert call.stdout is not None
    received: dict[str, Any] = {}
    frames = ""
    with call, contextlib.ExitStack() as stack:
        stack.callback(call.kill)
        call.stdin.write(hello)
        call.stdin.flush()
        for line in call.stdout:
            frames += line
            if line != "}\n":  # of a frame, which is printed over several lines
                continue
            for envelope in json.loads(frames)["envelopes"]:
                received |= envelope
            frames = ""
            if "hello" in received and request:
                call.stdin.write(request)
                call.stdin.flush()
                request = ""
            if "response" in received:
                break
    assert ("get", "time") in {(event["verb"], event["noun"]) for event in received["hello"]["manifest"]}
    response = received["response"]
    assert (received["exchange_id"], response["status"]) == ("1", 200)
    assert json.loads(base64.b64decode(response["body"])).keys() == {"time_from_server"}
