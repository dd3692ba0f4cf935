"""Two connections of one name: a lost one that nobody saw end, and a second node with the same certificate."""

import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import Site, site_with_handlers
from e2e_proxy import Proxy

# Seconds for a client whose connection is half-open at the server to take its own place.
TAKEOVER = 2.0
# Seconds between two takeovers of nodes that both live, at least.
FLAPPING = timedelta(seconds=5)
LOSS = (
    r"^(\S+ \S+) ERROR +two live nodes have the identity 'client', this one and another: "
    r"client connected again, from 127\.0\.0\.1\. .*; this one connects again in 5 s$"
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path) as site:
        yield site


def logged_at(line: re.Match[str]) -> timedelta:
    return datetime.strptime(line[1], "%Y-%m-%d %H:%M:%S,%f") - datetime.min


def test_a_client_takes_its_own_place_three_times_while_the_server_believes_its_connection_alive(site: Site) -> None:
    server = site.server(RP_CLIENT_HEARTBEAT_TIMEOUT_S="60", RP_CLIENT_HEARTBEAT_INTERVAL_S="20")
    with Proxy(server.pipe_port) as proxy:
        client = site.client(proxy.port)
        server.wait_for("client client connected from 127.0.0.1")  # which is after the client knows that it is
        for times in range(1, 4):
            lost = time.monotonic()
            proxy.leave_half_open()
            client.wait_connected(times=times + 1)
            server.wait_for("client client connected again from 127.0.0.1 and takes over", times=times)
            assert time.monotonic() - lost < TAKEOVER
            assert curl(f"{server.web}/client/client/data").status == 200
        proxy.reset_half_open()
        server.wait_for("client client disconnected: client connected again, from 127.0.0.1", times=3)
        # The ends of the old ones have left the new one alone.
        assert curl(f"{server.web}/client/client/data", "-H", "Prefer: wait=0").status == 200
    assert "two live nodes" not in client.output


def test_of_two_live_nodes_the_newest_wins_both_say_so_and_they_do_not_flap(site: Site) -> None:
    server = site.server()
    first = site.client(server.pipe_port)
    second = site.client(server.pipe_port)
    lost = logged_at(first.wait_for(LOSS))
    server.wait_for("client client connected again from 127.0.0.1 and takes over from its connection from 127.0.0.1")
    assert curl(f"{server.web}/client/client/data").status == 200
    assert "two live nodes" not in second.output

    assert logged_at(second.wait_for(LOSS)) - lost >= FLAPPING
    first.wait_connected(times=2)
    assert curl(f"{server.web}/client/client/data").status == 200
