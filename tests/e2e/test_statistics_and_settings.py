"""Statistics over a real UDP socket; settings from a module of the user's own."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import PATIENCE, Site, site_with_handlers, stopped

# As RestPipe 0.2 named them.
OF_A_CLIENT = {
    "client.connect.new.tick",
    "client.connect.connected.tick",
    "client.connect.broken.tick",
    "client.connect.heartbeat.success.tick",
    "client.connect.heartbeat.fail.tick",
    "message.send.tick",
    "message.receive.tick",
    "message.received.handle.get_data.tick",
    "client.connect.new.attempt.timing",
    "client.connect.heartbeat.timing",
    "message.send.timing",
    "message.receive.handle.timing",
    "message.received.handle.get_data.timing",
    "identity.expires_in_days",
    "identity.ca.expires_in_days",
    "identity.peers.expires_in_days",
}
LINE = re.compile(r"([\w.]+):(\d+\|c|\d+\.\d+\|ms|\d+\.\d+\|g)(\|@0\.\d+)?")


class Receiver:
    """A statsd server that keeps names."""

    def __init__(self) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
        self.port: int = self._socket.getsockname()[1]
        self.names: set[str] = set()

    def wait_for(self, names: set[str]) -> None:
        """Wait until all of `names` have been received."""
        deadline = time.monotonic() + PATIENCE
        while not names <= self.names:
            assert time.monotonic() < deadline, f"not received: {sorted(names - self.names)}"
            for line in self._socket.recv(65536).decode().splitlines():
                matched = LINE.fullmatch(line)
                assert matched, line
                self.names.add(matched[1])

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path) as site:
        yield site


def test_a_client_sends_statistics_under_the_names_of_old(site: Site) -> None:
    with closing(Receiver()) as receiver:
        server = site.server()
        client = site.client(
            server.pipe_port,
            RP_STATSD_HOST="127.0.0.1",
            RP_STATSD_PORT=str(receiver.port),
            RP_CLIENT_HEARTBEAT_INTERVAL_S="0.1",
            RP_CLIENT_HEARTBEAT_TIMEOUT_S="0.3",
        )
        assert curl(f"{client.web}/server/data").status == 200
        assert curl(f"{server.web}/client/client/data").status == 200
        receiver.wait_for({"client.connect.heartbeat.success.tick"})
        with stopped(server):
            client.wait_for("disconnected from the server: nothing was received")
        receiver.wait_for(OF_A_CLIENT)


def test_a_module_of_the_users_own_replaces_defaults_on_both_sides(site: Site) -> None:
    (site.directory / "my_settings.py").write_text(
        'WEB_BIND = "127.0.0.1:0"\n'
        'EVENT_HANDLER_FQ_CLASS = "e2e_handlers.Alpha"\n'
        "MAX_BODY_BYTES = 10\n"
        "_private = WEB_BIND\n"
        "HEARTBEET_INTERVAL_S = 3\n"
    )
    for variable in ("RP_SERVER_WEB_BIND", "RP_CLIENT_WEB_BIND", "RP_EVENT_HANDLER_FQ_CLASS"):
        del site.settings[variable]
    server = site.server(RP_SERVER_USER_CONFIG_MODULE="my_settings")
    client = site.client(
        server.pipe_port, RP_CLIENT_USER_CONFIG_MODULE="my_settings", RP_EVENT_HANDLER_FQ_CLASS="e2e_handlers.Beta"
    )
    assert curl(f"{client.web}/server/name").json == "alpha"
    assert curl(f"{server.web}/client/client/name").json == "beta"  # the environment beats the module
    assert curl(f"{client.web}/server/echo", data=b"12345678901").outcome == (413, 249, "no")
    for node in (server, client):
        node.wait_for("my_settings.HEARTBEET_INTERVAL_S is no setting of RestPipe; did you mean HEARTBEAT_INTERVAL_S")


@pytest.mark.parametrize("role", ["server", "client"])
def test_wrong_values_are_named_each_in_a_line_and_the_node_does_not_start(site: Site, role: str) -> None:
    (site.directory / "my_settings.py").write_text("HEARTBEAT_INTERVAL_S = 'often'\n")
    settings = {f"RP_{role.upper()}_USER_CONFIG_MODULE": "my_settings", "RP_MAX_EXCHANGES": "0"}
    output = site.run("restpipe", role, "--drain-timeout", "-1", **settings).wait(code=2)
    assert len(output.splitlines()) == 3
    assert "my_settings.HEARTBEAT_INTERVAL_S='often': should be a number" in output
    assert "RP_MAX_EXCHANGES='0': should be greater than or equal to 1" in output
    assert "--drain-timeout='-1': should be greater than or equal to 0" in output


def test_a_web_server_for_other_machines_needs_a_token_which_it_then_asks_for(site: Site) -> None:
    refused = site.run("restpipe", "server", RP_SERVER_WEB_BIND="0.0.0.0:0").wait(code=2)
    assert "unless RP_WEB_TOKEN is set" in refused
    server = site.server(RP_SERVER_WEB_BIND="0.0.0.0:0", RP_WEB_TOKEN="open-sesame")
    url = server.web.replace("0.0.0.0", "127.0.0.1") + "/client/nobody/data"
    assert curl(url).outcome == (401, 253, "no")
    assert curl(url, "-H", "Authorization: Bearer open-sesam").outcome == (401, 253, "no")
    let_in = curl(url, "-H", "Authorization: Bearer open-sesame", "-H", "Prefer: wait=0")
    assert let_in.outcome == (404, 254, "no")
    assert "open-sesame" not in server.end()
