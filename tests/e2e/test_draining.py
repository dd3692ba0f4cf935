"""Nodes that are restarted under load lose no request, and streams without an end do not keep them from stopping."""

import asyncio
import contextlib
import itertools
import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import Curl, curl
from e2e_processes import PATIENCE, Node, Site, free_port, site_with_handlers

# Requests a second, from each side.
RATE = 100
# Seconds that a request may take: longer than a node takes to start, on a machine that is busy.
DEADLINE = 60.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path, RP_CONNECTION_WAIT_TIMEOUT_S=str(DEADLINE - 5)) as site:
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


async def restart(site: Site, node: Node, role: str, port: int, web: str) -> Node:
    """End a node as a service manager does, and start it again once it has ended."""

    def again() -> Node:
        node.end(signal.SIGTERM)
        if role == "server":
            return site.server(port=port, RP_SERVER_WEB_BIND=web)
        return site.client(port, connected=False, RP_CLIENT_WEB_BIND=web)

    return await asyncio.to_thread(again)


async def test_both_nodes_are_restarted_under_200_requests_a_second_and_each_is_executed_once(site: Site) -> None:
    port, *webs = free_port(), f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    server = site.server(port=port, RP_SERVER_WEB_BIND=webs[0])
    client = site.client(port, RP_CLIENT_WEB_BIND=webs[1])
    to_server = Load(f"http://{webs[1]}/server/ledger", "from-client")
    to_client = Load(f"http://{webs[0]}/client/client/ledger", "from-server")
    over = asyncio.Event()

    async with asyncio.TaskGroup() as tasks:
        for load in (to_server, to_client):
            tasks.create_task(load.run(over))
        server = await restart(site, server, "server", port, webs[0])
        await asyncio.to_thread(client.wait_connected, 2)
        assert not to_server.tries, "the client's callers have seen nothing of it"
        seen = Counter(to_client.tries)
        client = await restart(site, client, "client", port, webs[1])
        await asyncio.to_thread(client.wait_connected)
        assert to_client.tries == seen, "neither have the server's"
        over.set()

    for load in (to_server, to_client):
        assert load.outcomes == {"done": len(load.nonces)}
    assert Counter((site.directory / "ledger").read_text().split()) == Counter(to_server.nonces + to_client.nonces)


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
