"""What becomes of requests when the network between two nodes is late, narrow, mute or broken."""

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from calls import MIB
from census import memory_of
from e2e_curl import Curl, curl
from e2e_processes import PATIENCE, SCRIPTS, Node, clean_environment
from ledger_site import NOW, POST, LedgerSite, ledger_site, ways
from namespaces import ADDRESSES, two_machines, why_not
from tcp_proxy import Proxy, proxy_to

# Pings, and the end of patience: short, yet long enough for a busy machine to keep what is alive.
SHORT = {"RP_CLIENT_HEARTBEAT_INTERVAL_S": "0.5", "RP_CLIENT_HEARTBEAT_TIMEOUT_S": "2"}
# Seconds that a request takes at most, where no reset is in its way and nothing else on the machine.
UNHINDERED = 0.05
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


@contextmanager
def reset_every(seconds: float, proxy: Proxy) -> Iterator[None]:
    """Reset all connections again and again, whatever is under way."""
    over = threading.Event()

    def reset() -> None:
        while not over.wait(seconds):
            proxy.reset()

    resetting = threading.Thread(target=reset)
    resetting.start()
    try:
        yield
    finally:
        over.set()
        resetting.join()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_resets_every_200_ms_lose_no_answer_and_double_nothing(site: LedgerSite, *, long: bool) -> None:
    seconds = 60 if long else 4
    server = site.server()
    told: dict[str, object] = {}
    done: Counter[int] = Counter()  # by the second
    slow: set[int] = set()  # seconds in which the machine has too much else to do
    with proxy_to(server.pipe_port) as proxy:
        client = site.client(proxy.port, RP_CLIENT_RECONNECT_MAX_S="5")
        url = f"{server.web}/client/client"
        begun = time.monotonic()
        with reset_every(0.2, proxy):
            while time.monotonic() < begun + seconds or "done" not in told.values():
                nonce = f"n{len(told)}"
                answer = curl(f"{url}/note//{nonce}/0.05", *POST)
                told[nonce] = "done" if answer.status == 200 else answer.json["executed"]
                second = int(time.monotonic() - begun)
                done[second] += told[nonce] == "done"
                asked = time.monotonic()
                assert curl(f"{server.web}/healthz").status == 200
                if time.monotonic() - asked > UNHINDERED:
                    slow |= {second, int(time.monotonic() - begun)}
        # Afterwards each is answered at once: none waits for what the resets have made of the back-off.
        client.wait_for("connected to the server at", times=2)
        for number in range(20):
            nonce = f"after{number}"
            assert curl(f"{url}/note//{nonce}", *POST).json["nonce"] == nonce
        client.end()
    print(f"{Counter(told.values())} in {seconds} s of resets; of them done in each second: {sorted(done.items())}")
    print(f"slow seconds: {sorted(slow)}")
    assert sum(done.values()) >= (seconds if long else 1)
    assert not long or not [second for second in range(seconds) if not done[second] and second not in slow]
    times = site.ledger.times()
    assert max(times.values()) == 1
    for nonce, outcome in told.items():
        assert outcome != "done" or times[nonce] == 1
        assert outcome != "no" or times[nonce] == 0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_slow_reader_costs_no_node_more_than_16_mib_and_its_neighbours_nothing(
    site: LedgerSite, *, long: bool
) -> None:
    if not long:
        pytest.skip("lasts a minute; a short one is among those of streams")
    server, client = site.pair()
    nodes = server, client
    for url, _ in ways(server, client):
        for number in range(50):
            assert curl(f"{url}/note//warm{number}{url[-6:]}", *POST).status == 200
        assert curl(f"{url}/bytes//warm{url[-6:]}/{4 * MIB}/0").status == 200
    before = [memory_of(node.pid) for node in nodes]
    most = list(before)
    slowest = 0.0
    received = 0
    with ExitStack() as stack:
        readers = []
        for number, (url, _) in enumerate(ways(server, client)):
            host, port = url.removeprefix("http://").split("/")[0].split(":")
            reader = stack.enter_context(socket.create_connection((host, int(port)), PATIENCE))
            path = f"{url.removeprefix(f'http://{host}:{port}')}/bytes//slow{number}/{1024 * MIB}/0"
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            readers.append(reader)
        begun = time.monotonic()
        for number in itertools.count():
            received += sum(len(reader.recv(16 * 1024)) for reader in readers)
            for url, _ in ways(server, client):
                asked = time.monotonic()
                assert curl(f"{url}/note//{number}{url[-6:]}", *POST).status == 200
                slowest = max(slowest, time.monotonic() - asked)
            most = [max(known, memory_of(node.pid)) for known, node in zip(most, nodes, strict=True)]
            if time.monotonic() > begun + 60:
                break
    grown = [(now - then) / MIB for now, then in zip(most, before, strict=True)]
    print(f"{received} bytes taken in 60 s; grown by {grown} MiB; the slowest of {2 * number} others {slowest:.3f} s")
    assert max(grown) <= 16
    assert "disconnected" not in server.output + client.output
