"""Whoever has no certificate of the CA, by openssl and raw sockets: refused before any of RestPipe's code."""

import contextlib
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import forge
import pytest
from e2e_curl import curl
from e2e_processes import Site

from restpipe.identity import Identity
from restpipe.transport.channel_options import HANDSHAKE_TIMEOUT

# Seconds; reached only where a test fails.
PATIENCE = 30
SILENT = 1000
# What a client of HTTP/2 says first, and empty settings (RFC 9113 section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4


class Besieged:
    """A server that trusts the CA of the site and that of `forge`, and a client."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.silent_since = 0.0
        site.identity("server", "server")
        site.identity("client", "client")
        trusted = site.directory / "ca.crt.pem"
        trusted.write_bytes(trusted.read_bytes() + forge.ca().pem)
        self.server = site.server()
        self.client = site.client(self.server.pipe_port)

    def check(self) -> None:
        """See that only who belongs here was ever let in, and is served."""
        assert self.server.output.count("connected from") == 1
        assert curl(f"{self.client.web}/server/cat//a/b").status == 200
        assert "Traceback" not in self.server.output


@pytest.fixture(scope="module")
def silent() -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.socket()) for _ in range(SILENT)]


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory, silent: list[socket.socket]) -> Iterator[Besieged]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * SILENT:
        pytest.skip(f"needs {3 * SILENT} open files")
    with Site(tmp_path_factory.mktemp("strangers")) as site:
        yield Besieged(site)


def said_to(besieged: Besieged, directory: Path, who: Identity | None, *options: str) -> bytes:
    """Have openssl connect, and say what HTTP/2 says first; return the first of what the server says to that."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{besieged.server.pipe_port}", "-alpn", "h2", "-quiet"]
    command += ["-CAfile", str(besieged.site.directory / "ca.crt.pem"), *options]
    if who is not None:
        (directory / "key.pem").write_bytes(who.key_pem)
        (directory / "crt.pem").write_bytes(who.certificate_pem)
        command += ["-cert", str(directory / "crt.pem"), "-key", str(directory / "key.pem")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(PREFACE)
        said = process.stdout.read(9)
        process.kill()
    return said


# First, so that the other tests pass while the time does.
def test_a_thousand_connections_that_say_nothing_are_let_in_nowhere(
    besieged: Besieged, silent: list[socket.socket]
) -> None:
    for each in silent:
        each.settimeout(PATIENCE)
        each.connect(("127.0.0.1", besieged.server.pipe_port))
    besieged.silent_since = time.monotonic()
    besieged.check()


def test_openssl_gets_in_with_a_certificate_of_the_ca(besieged: Besieged, tmp_path: Path) -> None:
    assert said_to(besieged, tmp_path, forge.ca().make("client"))[3] == SETTINGS


STRANGERS = {
    "none": None,
    "of another CA": forge.other_ca().make("client"),
    "of another CA of the same name": forge.other_ca("CA").make("client"),
    "expired": forge.ca().make("client", valid=forge.PAST),
    "of the future": forge.ca().make("client", valid=forge.FUTURE),
    "of a server": forge.ca().make("server"),
}


@pytest.mark.parametrize("who", STRANGERS.values(), ids=list(STRANGERS))
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_does_not_get_in_with_any_other(
    besieged: Besieged, tmp_path: Path, who: Identity | None, version: str
) -> None:
    assert said_to(besieged, tmp_path, who, version) == b""
    besieged.check()


def test_the_log_tells_why_a_handshake_was_refused_unless_it_is_not_to(besieged: Besieged, tmp_path: Path) -> None:
    assert said_to(besieged, tmp_path, None) == b""
    besieged.server.wait_for("PEER_DID_NOT_RETURN_A_CERTIFICATE")
    silent = besieged.site.server(GRPC_VERBOSITY="ERROR")
    with socket.create_connection(("127.0.0.1", silent.pipe_port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            connection.recv(1)
    assert "andshake" not in silent.end()


def test_curl_does_not_get_in_without_a_certificate(besieged: Besieged) -> None:
    ca = str(besieged.site.directory / "ca.crt.pem")
    url = f"https://localhost:{besieged.server.pipe_port}/"
    done = subprocess.run(["curl", "-s", "--noproxy", "*", "--cacert", ca, url], capture_output=True, timeout=PATIENCE)
    assert done.returncode != 0
    assert done.stdout == b""
    besieged.check()


@pytest.mark.parametrize("words", [PREFACE, b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", bytes(2000)])
def test_nothing_is_said_to_plain_text(besieged: Besieged, words: bytes) -> None:
    with socket.create_connection(("127.0.0.1", besieged.server.pipe_port), timeout=PATIENCE) as connection:
        connection.sendall(words)
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1000):
                heard += piece
    assert len(heard) <= 7  # an alert of TLS, at most
    besieged.check()


def test_a_client_whose_name_no_node_can_have_is_nobody(besieged: Besieged, tmp_path: Path) -> None:
    for name in ("../client", "client\nclient", "c\u043bient"):
        said_to(besieged, tmp_path, forge.ca().make("client", name=name))
    besieged.check()


# Last, see above.
def test_each_connection_that_says_nothing_is_closed_in_time(besieged: Besieged, silent: list[socket.socket]) -> None:
    for each in silent:
        with contextlib.suppress(ConnectionResetError):
            assert each.recv(1) == b""
    # Bounded from below, too: who is slow has that time.
    assert time.monotonic() - besieged.silent_since > HANDSHAKE_TIMEOUT / 2
    besieged.check()
