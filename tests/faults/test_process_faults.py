"""What becomes of requests when processes are killed, stand still, come in crowds, or run out of what they need."""

import asyncio
import fcntl
import http.client
import os
import re
import resource
import select
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from e2e_curl import Curl, curl
from e2e_processes import PATIENCE, SCRIPTS, Node, Process, clean_environment, free_port, stopped
from ledger_site import NOW, POST, LedgerSite, ledger_site, ways
from live_nodes import running_client

from restpipe.identity import Role

CROWD = 20
# CURLE_GOT_NOTHING, CURLE_RECV_ERROR: the connection was closed before it was served.
CUT = (52, 56)
AGAIN = ("--retry", "20", "--retry-all-errors", "--retry-delay", "0", "--retry-max-time", "20")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LedgerSite]:
    with ledger_site(tmp_path) as site:
        yield site


def test_a_caller_whose_peer_is_killed_is_answered_at_once_and_not_by_a_heartbeat(site: LedgerSite) -> None:
    server, client = site.pair()
    url = f"{server.web}/client/client"
    with (
        Curl(f"{url}/held//posted/gate", *POST) as posted,
        Curl(f"{url}/held//keyed/gate", *POST, "-H", "Idempotency-Key: k") as keyed,
    ):
        client.wait_for("^held posted")
        client.wait_for("^held keyed")
        killed = time.monotonic()
        client.kill()
        assert posted.answer().outcome == (502, 246, "unknown")
        assert time.monotonic() - killed < 5  # the interval of the pings; it takes some 10 ms
        site.client(server.pipe_port)
        assert keyed.answer().outcome == (502, 246, "unknown")
    assert site.ledger.times() == {"posted": 1, "keyed": 1}


def test_a_node_that_stood_still_and_goes_on_answers_nobody_twice_and_takes_no_name_back(tmp_path: Path) -> None:
    with ledger_site(tmp_path, RP_CLIENT_HEARTBEAT_INTERVAL_S="0.5", RP_CLIENT_HEARTBEAT_TIMEOUT_S="2") as site:
        server, client = site.pair()
        for turn, (url, node) in enumerate(ways(server, client), 1):
            with Curl(f"{url}/held//late{turn}/gate{turn}", *POST) as waiting:
                node.wait_for(f"^held late{turn}")
                with stopped(node):
                    assert waiting.answer().outcome == (502, 246, "unknown")
            client.wait_for("disconnected from the server", times=turn)
            client.wait_connected(times=turn + 1)
            # The event that was held is answered now, if it still runs, to a pipe that is no more.
            assert curl(f"{url}/gate//gate{turn}", *POST).status == 200
            for way, _ in ways(server, client):
                nonce = f"next{turn}{way[-6:]}"
                assert curl(f"{way}/note//{nonce}", *POST).json["nonce"] == nonce
    assert max(site.ledger.times().values()) == 1


async def test_a_crowd_of_clients_is_back_after_its_server_was_killed_and_the_first_request_to_each_succeeds(
    site: LedgerSite,
) -> None:
    server = site.server()
    port = server.pipe_port
    names = [f"crowd{number}" for number in range(CROWD)]
    for name in names:
        site.identity("client", name)
    async with AsyncExitStack() as stack:
        for name in names:
            await stack.enter_async_context(running_client(
                site.directory, port, name, web_bind=None, connection_wait_timeout_s=PATIENCE, connect_timeout_s=5,
                reconnect_min_s=0.1, reconnect_max_s=5, target_hostname="localhost",
            ))  # fmt: skip
        before = await first_requests(server, names)
        server.kill()
        again = site.server(port=port)
        after = await first_requests(again, names)
    assert before == after == [f'"{name} is there"' for name in names]


async def first_requests(server: Node, names: list[str]) -> list[str]:
    """Ask each client for something, as soon as it is there; return what they answer."""
    async with httpx.AsyncClient(base_url=server.web, timeout=2 * PATIENCE) as web:
        calls = (web.post(f"/client/{name}/echo", json=f"{name} is there") for name in names)
        return [answer.text for answer in await asyncio.gather(*calls)]


@contextmanager
def full_disk(_site: LedgerSite) -> Iterator[str]:
    yield "/dev/full"


@contextmanager
def paused_reader(site: LedgerSite) -> Iterator[str]:
    """Make a pipe that nobody reads, and that one page fills."""
    path = site.directory / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    try:
        yield str(path)
        assert os.read(reader, select.PIPE_BUF)
    finally:
        os.close(reader)


@pytest.mark.parametrize("log", [full_disk, paused_reader])
def test_a_log_that_nobody_takes_fails_no_request(
    site: LedgerSite, log: Callable[[LedgerSite], AbstractContextManager[str]]
) -> None:
    with log(site) as path:
        requests_of_nodes_that_log_to(path, site)


def requests_of_nodes_that_log_to(path: str, site: LedgerSite) -> None:
    port = free_port()
    full = f'exec "$@" 2>{path}'
    nodes = []
    roles: tuple[Role, ...] = ("server", "client")
    for role in roles:
        settings = site.identity(role, role) | {
            "RP_SERVER_BIND_INTERFACE": "127.0.0.1",
            "RP_SERVER_BIND_PORT": str(port),
            "RP_CLIENT_TARGET_PORT": str(port),
            f"RP_{role.upper()}_WEB_BIND": f"unix:{site.directory}/{role}.sock",
            "DEBUG": "1",
        }
        node = Process(
            "sh", "-c", full, "sh", SCRIPTS / "restpipe", role,
            directory=site.directory, environment=clean_environment(**site.settings | settings),
        )  # fmt: skip
        nodes.append(node)
    try:
        for socket, way in (("client", "/server"), ("server", "/client/client")):
            options = ("--unix-socket", f"{site.directory}/{socket}.sock", *POST)
            while not (site.directory / f"{socket}.sock").exists():
                assert all(node.running for node in nodes), "a node ended"
                time.sleep(0.01)
            for number in range(5):
                answer = curl(
                    f"http://localhost{way}/note//{socket}{number}", *options,
                    "--retry", "20", "--retry-connrefused", "--retry-delay", "0", "--retry-max-time", "20",
                )  # fmt: skip
                assert answer.json["nonce"] == f"{socket}{number}"
            assert curl(f"http://localhost{way}/raise//ValueError", *options[:2]).outcome == (500, 251, "yes")
        for node in reversed(nodes):
            node.end()
    finally:
        for node in nodes:
            node.kill()
    assert set(site.ledger.times().values()) == {1}


def test_a_node_without_file_descriptors_serves_those_whom_it_has_and_recovers(site: LedgerSite) -> None:
    server, client = site.pair()
    host, port = server.web.removeprefix("http://").split(":")
    kept = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)

    def ask(nonce: str) -> int:
        kept.request("POST", f"/client/client/note//{nonce}")
        answer = kept.getresponse()
        answer.read()
        return answer.status

    assert ask("before") == 200
    held = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (held, hard))
    try:
        with Curl(f"{server.web}/client/client/note//outside", *POST) as outside:
            for number in range(20):
                assert ask(f"inside{number}") == 200
            assert outside.failure() in CUT
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert curl(f"{server.web}/client/client/note//after", *POST, *AGAIN).status == 200
    finally:
        kept.close()
    assert "disconnected" not in client.output + server.output
    assert "outside" not in site.ledger.times()


def test_a_client_that_loses_its_server_without_file_descriptors_lives_on_and_dials_when_it_has_some(
    site: LedgerSite,
) -> None:
    server, client = site.pair()
    host, port = client.web.removeprefix("http://").split(":")
    kept = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)

    def ask(nonce: str, **headers: str) -> int:
        kept.request("POST", f"/server/note//{nonce}", headers=headers)
        answer = kept.getresponse()
        answer.read()
        return answer.status

    assert ask("before") == 200
    _, hard = resource.prlimit(client.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(client.pid, resource.RLIMIT_NOFILE, (3, hard))
    pipe_port = server.pipe_port
    server.kill()
    site.server(port=pipe_port)
    client.wait_for("cannot connect to the server: .*: this node has no file descriptors left")
    assert ask("inside", Prefer="wait=0") == 503
    resource.prlimit(client.pid, resource.RLIMIT_NOFILE, (hard, hard))
    client.wait_connected(times=2)
    assert ask("after") == 200
    kept.close()
    assert site.ledger.times() == {"before": 1, "after": 1}


@pytest.mark.parametrize("revision", [0, 2])
def test_a_peer_of_another_revision_is_refused_by_a_message_that_names_both(site: LedgerSite, revision: int) -> None:
    server = site.server()
    script = (
        "import sys\n"
        "from restpipe.protocol import connection\n"
        f"connection.REVISION = {revision}\n"
        "sys.argv = ['restpipe', 'client']\n"
        "from restpipe.cli import main\n"
        "main()\n"
    )
    settings = site.identity("client", "client") | {"RP_CLIENT_TARGET_PORT": str(server.pipe_port)}
    client = site.run(SCRIPTS / "python", "-c", script, **settings)
    both = rf"speaks revision 1 of the protocol, the peer \(.*\) {revision}"
    client.wait_for(both)
    server.wait_for(both)
    assert curl(f"{server.web}/client/client/note//n", *POST, *NOW).status in {404, 503}
    assert re.search("client client connected from", server.output) is None
