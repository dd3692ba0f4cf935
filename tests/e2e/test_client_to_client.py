"""Client to client: what one client asks of another passes the server, as its operator permits; by real processes."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e_curl import PATIENCE, Curl, curl
from e2e_processes import SCRIPTS, Node, Site, clean_environment, free_port, site_with_handlers
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

MIB = 1024 * 1024
POLICY = 'RELAY = "till-*>archive, till-*>front, till-*>spare"\n'
EXAMPLES = "restpipe.handlers.examples.ClientExamples"


@dataclass
class Shop:
    """A server, two clients that are called, and one that calls them.

    Attributes:
        till: calls.
        archive: serves files, and the handler of the tests.
        front: stands before a service that echoes on web sockets.
    """

    site: Site
    server: Node
    till: Node
    archive: Node
    front: Node

    def url(self, path: str) -> str:
        return f"{self.till.web}/client/{path}"

    def reload(self, policy: str) -> None:
        (self.site.directory / "policy.py").write_text(policy)
        self.server.send(signal.SIGHUP)


def echo(connection: ServerConnection) -> None:
    if connection.request is not None:
        connection.send(connection.request.headers["X-Event-Caller"])
    for message in connection:
        connection.send(message)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("shop")
    (directory / "policy.py").write_text(POLICY)
    (directory / "served").mkdir()
    with site_with_handlers(directory) as site, serve(echo, "127.0.0.1", 0) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            server = site.server(RP_SERVER_USER_CONFIG_MODULE="policy")
            archive = site.client(
                server.pipe_port, name="archive", RP_FILES=str(directory / "served"), RP_FILES_WRITABLE="1"
            )
            upstream = f"http://127.0.0.1:{service.socket.getsockname()[1]}"
            front = site.client(
                server.pipe_port,
                name="front",
                RP_UPSTREAM=upstream,
                RP_ALLOW="till-*",
                RP_EVENT_HANDLER_FQ_CLASS=EXAMPLES,
            )
            till = site.client(server.pipe_port, name="till-1")
            yield Shop(site, server, till, archive, front)
        finally:
            service.shutdown()
            thread.join()


def peaks(*nodes: Node) -> list[int]:
    """Return the most KiB that each node ever had."""
    status = [Path(f"/proc/{node.pid}/status").read_text() for node in nodes]
    return [int(text.partition("VmHWM:")[2].split()[0]) for text in status]


def test_the_server_shows_its_policy_and_the_far_client_knows_who_calls(shop: Shop) -> None:
    shop.server.wait_for(r"^  relays +till-\*>archive, till-\*>front, till-\*>spare$")
    assert curl(shop.url("archive/whoami")).json == {"caller": "till-1", "address": "127.0.0.1"}
    back = curl(f"{shop.archive.web}/client/till-1/whoami")
    assert back.outcome == (403, 253, "no")
    assert "does not permit 'archive' to reach 'till-1'; RP_RELAY" in back.json["detail"]


def test_files_of_any_size_pass_both_ways_in_constant_memory_and_by_ranges(shop: Shop, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        for mark in range(128):
            file.write(mark.to_bytes(4) * (MIB // 4))
    nodes = shop.till, shop.server, shop.archive
    before = peaks(*nodes)
    assert curl(shop.url("archive/files//large"), "-T", str(large)).status == 201
    copy = tmp_path / "copy"
    subprocess.run(
        ["curl", "-sS", "--fail", "--noproxy", "*", "-o", copy, shop.url("archive/files//large")],
        check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert subprocess.run(["cmp", large, copy], check=False).returncode == 0
    assert all(peak - earlier < 64 * 1024 for peak, earlier in zip(peaks(*nodes), before, strict=True))
    part = curl(shop.url("archive/files//large"), "--range", f"{5 * MIB - 2}-{5 * MIB + 1}")
    assert (part.status, part.body) == (206, b"\0\4\0\0")


def test_a_web_socket_of_a_service_works_and_the_service_is_for_those_that_the_node_allows(shop: Shop) -> None:
    with connect(shop.url("front/").replace("http:", "ws:"), proxy=None) as socket:
        assert socket.recv(PATIENCE) == "till-1"
        for message in ("süß", bytes(300_000)):
            socket.send(message)
            assert socket.recv(PATIENCE) == message
    refused = curl(f"{shop.server.web}/client/front/")
    assert refused.outcome == (403, 253, "no")
    assert refused.json["detail"] == "what this node serves is not for 'localhost'"


def test_restpipe_call_finds_the_client_node_where_no_server_runs(shop: Shop) -> None:
    environment = clean_environment(
        RP_CLIENT_WEB_BIND=shop.till.web.removeprefix("http://"), RP_SERVER_WEB_BIND=f"127.0.0.1:{free_port()}"
    )
    done = subprocess.run(
        [SCRIPTS / "restpipe", "call", "client/archive", "GET", "sum?x=2&y=3"],
        env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"sum": 5}', "")


def test_a_caller_that_hangs_up_cancels_the_handler_at_the_far_end(shop: Shop) -> None:
    with Curl(shop.url("archive/wait?gate=never")):
        shop.archive.wait_for("get_wait begins")
    shop.archive.wait_for("get_wait is cancelled")


def test_when_the_far_client_is_killed_its_callers_are_answered_that_the_outcome_is_unknown(shop: Shop) -> None:
    doomed = shop.site.client(shop.server.pipe_port, name="spare")
    with Curl(shop.url("spare/wait?gate=never"), "-X", "POST") as asking:
        doomed.wait_for("post_wait begins")
        doomed.kill()
        assert asking.answer().outcome == (502, 246, "unknown")


def test_on_sighup_the_policy_is_taken_anew_and_who_is_not_allowed_any_more_is_cut(shop: Shop) -> None:
    with Curl(shop.url("archive/wait?gate=cut"), "-X", "POST") as asking:
        shop.archive.wait_for("post_wait begins")
        shop.reload("RELAY = ['till-*>front']\nREQUEST_TIMEOUT_S = 30\n")
        shop.server.wait_for(
            "took a new setting: RP_RELAY is 'till-\\*>front', was 'till-\\*>archive,till-\\*>front,till-\\*>spare'"
        )
        shop.server.wait_for("not taken before this node is started anew: RP_REQUEST_TIMEOUT_S")
        assert asking.answer().outcome == (502, 246, "unknown")
    shop.archive.wait_for("post_wait is cancelled")
    assert curl(shop.url("archive/whoami")).outcome == (403, 253, "no")

    shop.reload("RELAY = 'till-*'\n")
    shop.server.wait_for(r"policy.RELAY='till-\*': should be rules such as .* \(what was set before stays in use\)")
    shop.reload("RELAY = (\n")
    shop.server.wait_for(r"importing 'policy' failed: SyntaxError.* \(what was set before stays in use\)")

    shop.reload(POLICY + "ALLOWED_CLIENTS = 'till-*,front'\n")
    shop.archive.wait_for("disconnected from the server: 'archive' is none of the clients that the server allows")
    shop.server.wait_for("ended the pipe to archive .*: it is not allowed any more")
    assert curl(shop.url("archive/whoami"), "-H", "Prefer: wait=0").outcome == (503, 245, "no")
    shop.archive.wait_for("cannot connect to the server: .*RP_ALLOWED_CLIENTS")

    shop.reload(POLICY)
    shop.archive.wait_connected(2)
    assert curl(shop.url("archive/whoami")).json["caller"] == "till-1"
