"""Nodes that are restarted under load lose no request, and streams without an end do not keep them from stopping."""

import asyncio
import contextlib
import itertools
import json
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from e2e_curl import Curl, curl
from e2e_processes import PATIENCE, Node, Site, free_port, site_with_handlers

# Requests a second, from each side.
RATE = 100
# Callers of the server that keep their connections.
KEEPERS = 4
# Seconds that a request may take: longer than a node takes to start, on a machine that is busy.
DEADLINE = 60.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    # However many gather while a node starts, on a machine that is busy, are let in.
    room = {"RP_CONNECTION_WAIT_TIMEOUT_S": str(DEADLINE - 5), "RP_MAX_EXCHANGES": "100000"}
    with site_with_handlers(tmp_path, **room) as site:
        yield site


class Load:
    """Makes requests at a steady rate, whether or not the ones before have been answered.

    A caller whose own node is being restarted tries again: while nothing listens, and after 503, which says that it was
    never sent.

    Args:
        url: that takes nonces.
        name: of what asks.
    """

    def __init__(self, url: str, name: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.nonces: list[str] = []
        self._host, _, path = url.removeprefix("http://").partition("/")
        self._path = f"/{path}"
        self._name = name

    async def run(self, over: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for number in itertools.count():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(begun + number / RATE):
                        await over.wait()
                        return
                nonce = f"{self._name}-{number}"
                self.nonces.append(nonce)
                tasks.create_task(self._ask(nonce))

    async def _ask(self, nonce: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    status, body = await self._post(nonce)
                except (ConnectionError, asyncio.IncompleteReadError) as error:
                    self.tries[type(error).__name__] += 1
                else:
                    if status != 503:
                        break
                    assert json.loads(body)["executed"] == "no"
                    self.tries["503"] += 1
                await asyncio.sleep(0.05)
        self.outcomes["done" if (status, body) == (200, json.dumps(nonce)) else f"{status} {body}"] += 1

    async def _post(self, nonce: str) -> tuple[int, str]:
        host, _, port = self._host.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            head = f"POST {self._path}//{nonce} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            return int(head.split()[1]), (await reader.read()).decode()
        finally:
            writer.close()


class Keepers:
    """Callers that ask one request after the other, each on a connection that it keeps, and try none again."""

    def __init__(self, url: str) -> None:
        self.nonces: list[str] = []
        # Of the connections on which an answer came.
        self.connections: set[object] = set()
        self.begun = asyncio.Event()
        self._url = url

    async def run(self, over: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(KEEPERS):
                tasks.create_task(self._ask(number, over))

    async def _ask(self, keeper: int, over: asyncio.Event) -> None:
        async with httpx.AsyncClient(timeout=DEADLINE, trust_env=False) as web:
            for number in itertools.count():
                nonce = f"kept-{keeper}-{number}"
                self.nonces.append(nonce)
                answer = await web.post(f"{self._url}//{nonce}")
                assert (answer.status_code, answer.json()) == (200, nonce)
                self.connections.add(answer.extensions["network_stream"])
                if len(self.connections) == KEEPERS:
                    self.begun.set()
                if over.is_set():
                    return


async def test_both_nodes_are_restarted_under_200_requests_a_second_and_each_is_executed_once(site: Site) -> None:
    """A service manager listens for the server, whose callers see nothing of it; the client listens by itself."""
    port, web = free_port(), f"127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:

        def start_server() -> Node:
            # Where its settings have it listen, it could not.
            return site.activated_server(listener, port=port, RP_SERVER_WEB_BIND="unix:/nowhere/web.sock")

        def start_client() -> Node:
            return site.client(port, RP_CLIENT_WEB_BIND=web)

        def restart(node: Node, start: Callable[[], Node]) -> Node:
            node.end(signal.SIGTERM)
            return start()

        server, client = start_server(), start_client()
        to_server = Load(f"http://{web}/server/ledger", "from-client")
        to_client = Load(f"{server.web}/client/client/ledger", "from-server")
        kept = Keepers(f"{server.web}/client/client/ledger")
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for load in (to_server, to_client, kept):
                tasks.create_task(load.run(over))
            await kept.begun.wait()
            server = await asyncio.to_thread(restart, server, start_server)
            await asyncio.to_thread(client.wait_connected, 2)
            assert not to_server.tries, "the client's callers have seen nothing of it"
            client = await asyncio.to_thread(restart, client, start_client)
            over.set()

    for each in (to_server, to_client):
        assert each.outcomes == {"done": len(each.nonces)}
    assert not to_client.tries, "neither have the server's"
    assert len(kept.connections) >= 2 * KEEPERS
    ledger = Counter((site.directory / "ledger").read_text().split())
    assert ledger == Counter(to_server.nonces + to_client.nonces + kept.nonces)


def test_a_socket_that_a_service_manager_holds_outlives_the_node_and_its_callers_wait_for_the_next_one(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        first = site.activated_server(listener)
        assert f"unix:{path}, /client/NAME/NOUN, a socket of the service manager" in first.output
        assert curl("http://localhost/healthz", "--unix-socket", str(path)).status == 200
        first.end()
        with Curl("http://localhost/healthz", "--unix-socket", str(path)) as waiting:
            site.activated_server(listener)
            assert waiting.answer().status == 200


@pytest.mark.parametrize("which", ["server", "client"])
def test_an_event_stream_is_ended_and_does_not_keep_a_node_from_stopping(site: Site, which: str) -> None:
    server, client = site.pair(RP_DRAIN_TIMEOUT_S=str(10 * PATIENCE))
    with Curl(f"{client.web}/server/events//a") as events:
        assert events.read_until(b"data: 1\n\n").endswith(b"data: 1\n\n")
        (server if which == "server" else client).end()
        events.read_to_end()
    server.wait_for("get_events is cancelled")


def test_a_connection_that_its_caller_keeps_does_not_keep_a_node_from_stopping(site: Site) -> None:
    _, client = site.pair(RP_DRAIN_TIMEOUT_S=str(10 * PATIENCE))
    assert curl(f"{client.web}/server/data").status == 200
    host, _, port = client.web.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))):
        client.end()
