"""What a node tells its operator's own code about connections; and nodes without a web server."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import Site, free_port, site_with_handlers

UTC_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?\+00:00"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path) as site:
        yield site


def test_the_hooks_of_a_server_handler_see_each_client_come_and_go(site: Site) -> None:
    server, client = site.pair()
    server.wait_for(r"^start_hook client 127\.0\.0\.1$|^start_hook client ::1$")
    client.end()
    server.wait_for(r"^stop_hook client ")
    site.client(server.pipe_port, name="other")
    server.wait_for(r"^start_hook other ")
    assert re.findall(r"^(\w+_hook \w+) ", server.end(), re.MULTILINE) == [
        "start_hook client",
        "stop_hook client",
        "start_hook other",
        "stop_hook other",
    ]


def test_the_events_of_a_server_tell_addresses_and_counts(site: Site) -> None:
    server = site.server(RP_SERVER_CONNECTION_STATE_CHANGE_EVENT_CLASS="e2e_handlers.OnServer")
    first = site.client(server.pipe_port, name="first")
    server.wait_for(r"^connection_added 127\.0\.0\.1 1$")
    second = site.client(server.pipe_port, name="second")
    server.wait_for(r"^connection_added 127\.0\.0\.1 2$")
    first.end()
    server.wait_for(r"^connection_removed 127\.0\.0\.1 1$")
    second.kill()
    server.wait_for(r"^connection_removed 127\.0\.0\.1 0$")


@pytest.mark.parametrize(
    ("events", "success", "fail"),
    [
        ("e2e_handlers.OnClient", "connect_success", "connect_fail"),
        ("e2e_handlers.OnClientOfOld", "connection_success", "connection_fail"),
    ],
)
def test_the_events_of_a_client_tell_failed_attempts_and_when_it_was_last_connected(
    site: Site, events: str, success: str, fail: str
) -> None:
    port = free_port()
    client = site.client(port, connected=False, RP_CLIENT_CONNECTION_STATE_CHANGE_EVENT_CLASS=events)
    client.wait_for(rf"^{fail} 0 None$")
    client.wait_for(rf"^{fail} 1 None$")
    server = site.server(port=port)
    attempts = int(client.wait_for(rf"^{success} (\d+) None$")[1])
    assert len(re.findall(rf"^{fail} \d+ None$", client.output, re.MULTILINE)) == attempts
    server.kill()
    client.wait_for(rf"^{fail} 0 {UTC_TIME}$")
    site.server(port=port)
    client.wait_for(rf"^{success} \d+ {UTC_TIME}$")


def test_nodes_without_a_web_server_serve_all_the_same(site: Site) -> None:
    """Either node can do without; its events are served to the other one."""
    server = site.server(RP_SERVER_WEB_BIND="")
    server.wait_for("^  web       none$")
    client = site.client(server.pipe_port)
    assert curl(f"{client.web}/server/data").json == {"data": [1, 2]}
    client.end()
    server.end()
    server = site.server()
    client = site.client(server.pipe_port, RP_CLIENT_WEB_BIND="")
    client.wait_for("^  web       none$")
    assert curl(f"{server.web}/client/client/data").json == {"data": [1, 2]}
