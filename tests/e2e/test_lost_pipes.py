"""What becomes of requests when nodes come, go, hang and die."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import Curl, curl
from e2e_processes import Site, free_port, site_with_handlers, stopped

NOW = ("-H", "Prefer: wait=0")
POST = ("-X", "POST")
# CURLE_PARTIAL_FILE
PARTIAL_FILE = 18


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path) as site:
        yield site


def test_a_client_that_starts_first_waits_for_its_server(site: Site) -> None:
    port = free_port()
    client = site.client(port, connected=False)
    client.wait_for("cannot connect to the server: localhost:.*nothing listens there")
    at_once = curl(f"{client.web}/server/data", *NOW)
    assert at_once.outcome == (503, 245, "no")
    assert int(at_once.headers["retry-after"]) >= 1
    with Curl(f"{client.web}/server/data") as request:
        site.server(port=port)
        assert request.answer().json == {"data": [1, 2]}


def test_a_request_to_a_server_that_was_killed_waits_for_the_next_one(site: Site) -> None:
    server, client = site.pair()
    port = server.pipe_port
    for restarts in (1, 2):
        server.kill()
        client.wait_for("disconnected from the server", times=restarts)
        assert curl(f"{client.web}/server/data", *NOW).outcome == (503, 245, "no")
        with Curl(f"{client.web}/server/echo", data=b"safe: it was never sent") as request:
            server = site.server(port=port)
            answer = request.answer()
        assert (answer.status, answer.body) == (200, b"safe: it was never sent")
        assert "x-event-attempts" not in answer.headers
    # Neither did the server know the client's name, nor the client's pipe yet: it waits for both.
    server.kill()
    server = site.server(port=port)
    assert curl(f"{server.web}/client/client/data").json == {"data": [1, 2]}


def test_a_request_to_a_client_that_was_killed_waits_for_the_next_one(site: Site) -> None:
    server, client = site.pair()
    server.wait_for("client client connected from")
    client.kill()
    server.wait_for("client client disconnected: the connection was lost", within=0.5)
    absent = curl(f"{server.web}/client/client/data", *NOW)
    assert absent.outcome == (503, 245, "no")
    assert int(absent.headers["retry-after"]) >= 1
    with Curl(f"{server.web}/client/client/echo", data=b"\0") as request:
        site.client(server.pipe_port)
        answer = request.answer()
    assert (answer.status, answer.body) == (200, b"\0")


def test_a_post_whose_server_is_killed_has_an_unknown_outcome_within_half_a_second(site: Site) -> None:
    server, client = site.pair()
    with Curl(f"{client.web}/server/wait//a", *POST) as request:
        server.wait_for("^post_wait begins")
        killed = time.monotonic()
        server.kill()
        answer = request.answer()
    assert answer.outcome == (502, 246, "unknown")
    assert answer.json["retryable"] is False
    assert answer.json["instance"].startswith("urn:restpipe:request:")
    assert time.monotonic() - killed < 0.5


def test_a_post_whose_client_is_killed_has_an_unknown_outcome(site: Site) -> None:
    server, client = site.pair()
    with Curl(f"{server.web}/client/client/wait//a", *POST) as request:
        client.wait_for("^post_wait begins")
        client.kill()
        assert request.answer().outcome == (502, 246, "unknown")


def test_a_get_is_repeated_on_the_next_pipe_and_says_so_unless_its_handler_objects(site: Site) -> None:
    server, client = site.pair()
    port = server.pipe_port
    with Curl(f"{client.web}/server/wait//a") as repeated, Curl(f"{client.web}/server/once//a") as once:
        server.wait_for("^get_wait begins")
        server.wait_for("^get_once begins")
        server.kill()
        assert once.answer().outcome == (502, 246, "unknown")
        server = site.server(port=port)
        server.wait_for("^get_wait begins")
        assert curl(f"{client.web}/server/gate//a", *POST).status == 200
        answer = repeated.answer()
    assert (answer.status, answer.json) == (200, "waited")
    assert answer.headers["x-event-attempts"] == "2"
    assert "get_once begins" not in server.output


@pytest.mark.parametrize(("which", "number"), [("server", signal.SIGTERM), ("client", signal.SIGINT)])
def test_a_node_that_is_told_to_stop_finishes_what_is_in_flight(site: Site, which: str, number: signal.Signals) -> None:
    os.mkfifo(site.directory / "fifo")
    server, client = site.pair()
    stopping, base = (server, f"{client.web}/server") if which == "server" else (client, f"{server.web}/client/client")
    with Curl(f"{base}/fifo") as request, (site.directory / "fifo").open("w") as fifo:  # opens once the handler reads
        stopping.send(number)
        stopping.wait_for("stopping: what is in flight has 10 s to finish")
        while (refused := curl(f"{base}/data", *NOW)).status == 200:
            pass  # its goaway is on the way
        assert refused.outcome == (503, 245, "no")
        fifo.write("finished")
        fifo.close()
        answer = request.answer()
    assert (answer.status, answer.json) == (200, "finished")
    assert "left behind" not in stopping.wait()


def test_a_node_that_is_told_to_stop_answers_those_who_wait_for_its_peer(site: Site) -> None:
    client = site.client(free_port(), connected=False)
    with Curl(f"{client.web}/server/wait//a", *POST) as request:
        # Both are on their way; the first has arrived once the second, which came later, is answered.
        assert curl(f"{client.web}/server/data", *NOW).status == 503
        client.end()
        assert request.answer().outcome == (503, 245, "no")


def test_what_does_not_finish_in_the_time_that_a_stopping_node_gives_it_is_cut(site: Site) -> None:
    server, client = site.pair(RP_DRAIN_TIMEOUT_S="0.5")
    with Curl(f"{client.web}/server/wait//a", *POST) as request, Curl(f"{client.web}/server/lines//a") as lines:
        server.wait_for("^post_wait begins")
        lines.read_until(b"first\n")
        server.end()
        assert request.answer().outcome == (502, 246, "unknown")
        assert lines.failure() == PARTIAL_FILE
    server.wait_for("^post_wait is cancelled")


def test_a_node_that_is_told_twice_to_stop_does_not_wait(site: Site) -> None:
    server, client = site.pair()
    with Curl(f"{client.web}/server/wait//a", *POST) as request:
        server.wait_for("^post_wait begins")
        server.send(signal.SIGTERM)
        server.wait_for("stopping: ")
        server.send(signal.SIGTERM)
        server.wait(code=1)
        assert request.answer().outcome == (502, 246, "unknown")


def test_a_caller_that_hangs_up_cancels_the_handler(site: Site) -> None:
    server, client = site.pair()
    with Curl(f"{client.web}/server/wait//a", *POST):
        server.wait_for("^post_wait begins")
    server.wait_for("^post_wait is cancelled", within=1.0)


def test_a_handler_that_blocks_the_event_loop_is_named_and_its_pipe_survives(site: Site) -> None:
    server, client = site.pair()
    assert curl(f"{client.web}/server/block//1.5").json == "blocked"
    server.wait_for(r"Handler\.get_block blocks the event loop, .* \(.*e2e_handlers\.py:\d+\): make it a plain `def`")
    server.wait_for(r"Handler\.get_block blocked the event loop for about \d+\.\d s")
    assert "disconnected" not in client.output + server.output


def test_a_deadline_is_kept_and_ends_the_handler(site: Site) -> None:
    server, client = site.pair()
    begun = time.monotonic()
    answer = curl(f"{client.web}/server/wait//a", *POST, "-H", "X-Event-Timeout: 0.3")
    assert answer.outcome == (504, 247, "unknown")
    assert 0.3 <= time.monotonic() - begun < 0.8
    server.wait_for("^post_wait is cancelled", within=1.0)


class TestWithShortHeartbeats:
    """Pings every 0.2 s, and a peer is dead after 0.8 s of silence."""

    @pytest.fixture
    def site(self, tmp_path: Path) -> Iterator[Site]:
        settings = {"RP_CLIENT_HEARTBEAT_INTERVAL_S": "0.2", "RP_CLIENT_HEARTBEAT_TIMEOUT_S": "0.8"}
        with site_with_handlers(tmp_path, **settings) as site:
            yield site

    def test_a_handler_that_is_busy_for_longer_than_the_timeout_keeps_its_pipe(self, site: Site) -> None:
        server, client = site.pair()
        assert curl(f"{client.web}/server/busy//2").json == "busy"
        assert curl(f"{server.web}/client/client/busy//2").json == "busy"
        # One that blocks the event loop itself is at fault, but for less than the timeout it is forgiven.
        assert curl(f"{client.web}/server/block//0.6").json == "blocked"
        assert "disconnected" not in client.output + server.output

    def test_a_server_that_stands_still_is_found_and_its_caller_is_answered(self, site: Site) -> None:
        server, client = site.pair()
        with Curl(f"{client.web}/server/wait//a", *POST) as request:
            server.wait_for("^post_wait begins")
            with stopped(server):
                begun = time.monotonic()
                assert request.answer().outcome == (502, 246, "unknown")
                assert time.monotonic() - begun < 0.8 + 0.5
                client.wait_for("disconnected from the server: nothing was received for 0.8 s")
        client.wait_connected(times=2)
        assert curl(f"{client.web}/server/data").status == 200

    def test_a_client_that_stands_still_is_found_and_its_caller_is_answered(self, site: Site) -> None:
        server, client = site.pair()
        with Curl(f"{server.web}/client/client/wait//a", *POST) as request:
            client.wait_for("^post_wait begins")
            with stopped(client):
                assert request.answer().outcome == (502, 246, "unknown")
                server.wait_for("client client disconnected: nothing was received for 0.8 s")
        client.wait_connected(times=2)
        assert curl(f"{server.web}/client/client/data").status == 200
