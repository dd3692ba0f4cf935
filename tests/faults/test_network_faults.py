"""What becomes of requests when the network between two nodes is late, narrow, mute or broken."""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e_curl import Curl, curl
from e2e_processes import SCRIPTS, Node, clean_environment
from ledger_site import NOW, POST, LedgerSite, ledger_site, ways
from namespaces import ADDRESSES, two_machines, why_not
from tcp_proxy import proxy_to

# Pings, and the end of patience: short, yet long enough for a busy machine to keep what is alive.
SHORT = {"RP_CLIENT_HEARTBEAT_INTERVAL_S": "0.5", "RP_CLIENT_HEARTBEAT_TIMEOUT_S": "2"}
# Seconds in which a peer that went mute is found, with the timers as they are by default.
BOUND = 15.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LedgerSite]:
    with ledger_site(tmp_path, **SHORT) as site:
        yield site


def test_packets_that_are_dropped_both_ways_are_found_by_both_sides_with_default_timers(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    with two_machines() as machines, ledger_site(tmp_path) as site:
        nodes = []
        for machine, role in enumerate(("server", "client")):
            settings = site.identity("server", "server", ADDRESSES[0]) | site.identity("client", "client") | {
                "RP_SERVER_BIND_INTERFACE": ADDRESSES[0],
                "RP_CLIENT_TARGET_HOSTNAME": ADDRESSES[0],
                f"RP_{role.upper()}_WEB_BIND": f"unix:{tmp_path}/{role}.sock",
            }  # fmt: skip
            command = machines.command(machine, SCRIPTS / "restpipe", role)
            node = Node(*command, directory=tmp_path, environment=clean_environment(**site.settings | settings))
            site.adopt(node)
            nodes.append(node)
        server, client = nodes
        client.wait_connected()
        to_client = ("--unix-socket", f"{tmp_path}/server.sock")
        to_server = ("--unix-socket", f"{tmp_path}/client.sock")
        with (
            Curl("http://localhost/client/client/held//one/gate", *POST, *to_client) as one,
            Curl("http://localhost/server/held//two/gate", *POST, *to_server) as two,
            Curl("http://localhost/server/held//hasty/gate", *POST, *to_server, "-H", "X-Event-Timeout: 2") as hasty,
        ):
            client.wait_for("^held one")
            server.wait_for("^held two")
            server.wait_for("^held hasty")
            dropped = time.monotonic()
            machines.drop()
            assert hasty.answer().outcome == (504, 247, "unknown")
            for waiting in (one, two):
                assert waiting.answer().outcome == (502, 246, "unknown")
            client.wait_for("disconnected from the server: ")  # by its own pings, or by those of gRPC
            server.wait_for("client client disconnected: ")
            assert time.monotonic() - dropped < BOUND
        assert curl("http://localhost/server/note//unsent", *POST, *to_server, *NOW).outcome == (503, 245, "no")
        machines.heal()
        client.wait_connected(times=2)
        assert curl("http://localhost/client/client/note//three", *POST, *to_client).json["nonce"] == "three"
        assert site.ledger.times() == {"one": 1, "two": 1, "hasty": 1, "three": 1}


def test_a_half_open_connection_is_found_and_what_it_held_back_reaches_nobody(site: LedgerSite) -> None:
    server = site.server()
    with proxy_to(server.pipe_port) as proxy:
        client = site.client(proxy.port)
        both = ways(server, client)
        with ExitStack() as stack:
            waiting = []
            for number, (url, handling) in enumerate(both):
                waiting.append(stack.enter_context(Curl(f"{url}/held//held{number}/gate", *POST)))
                handling.wait_for(f"^held held{number}")
            proxy.hold()
            assert [each.answer().outcome for each in waiting] == [(502, 246, "unknown")] * 2
        client.wait_for("disconnected from the server: nothing was received for 2 s")
        server.wait_for("client client disconnected: nothing was received for 2 s")
        proxy.release()
        client.wait_connected(times=2)
        for number, (url, _) in enumerate(both):
            assert curl(f"{url}/note//next{number}", *POST).json["nonce"] == f"next{number}"
        client.end()
    assert site.ledger.times() == {"held0": 1, "held1": 1, "next0": 1, "next1": 1}


def test_a_path_that_delays_every_piece_carries_requests_and_keeps_its_pipe(site: LedgerSite) -> None:
    server = site.server()
    with proxy_to(server.pipe_port) as proxy:
        client = site.client(proxy.port)
        proxy.delay = 0.4
        begun = time.monotonic()
        for turn in itertools.count():
            for number, (url, _) in enumerate(ways(server, client)):
                assert curl(f"{url}/note//{turn}-{number}", *POST).status == 200
            if time.monotonic() - begun > 2.5:  # longer than a mute peer is borne
                break
        assert "disconnected" not in server.output + client.output
        client.end()


def test_a_body_on_a_narrow_path_keeps_neither_its_pipe_nor_others_from_living(site: LedgerSite) -> None:
    server = site.server()
    size = 1_300_000
    with proxy_to(server.pipe_port) as proxy:
        client = site.client(proxy.port)
        proxy.rate = 500_000
        for number, (url, _) in enumerate(ways(server, client)):
            with Curl(f"{url}/note//large{number}", data=bytes(size)) as large:
                assert curl(f"{url}/note//small{number}", *POST).status == 200
                answer = large.answer()
            assert (answer.status, answer.json["size"]) == (200, size)
            assert "x-event-attempts" not in answer.headers
        assert "disconnected" not in server.output + client.output
        client.end()


def test_resets_every_200_ms_lose_no_answer_and_double_nothing(site: LedgerSite) -> None:
    server = site.server()
    told: dict[str, object] = {}
    with proxy_to(server.pipe_port) as proxy:
        client = site.client(proxy.port, RP_CLIENT_RECONNECT_MAX_S="5")
        url = f"{server.web}/client/client"
        begun = reset = time.monotonic()
        while reset < begun + 4:
            nonce = f"n{len(told)}"
            answer = curl(f"{url}/note//{nonce}/0.05", *POST)
            told[nonce] = "done" if answer.status == 200 else answer.json["executed"]
            if time.monotonic() > reset + 0.2:
                proxy.reset()
                reset = time.monotonic()
        # Afterwards each is answered at once: none waits for what the resets have made of the back-off.
        client.wait_for("connected to the server at", times=2)
        for number in range(20):
            nonce = f"after{number}"
            assert curl(f"{url}/note//{nonce}", *POST).json["nonce"] == nonce
        client.end()
    times = site.ledger.times()
    assert max(times.values()) == 1
    for nonce, outcome in told.items():
        assert outcome != "done" or times[nonce] == 1
        assert outcome != "no" or times[nonce] == 0
    assert "done" in told.values()
