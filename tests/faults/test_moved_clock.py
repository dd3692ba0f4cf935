"""A node's deadlines do not go by the wall clock, and its certificates do: real processes under libfaketime."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from e2e_curl import curl
from e2e_processes import PATIENCE, Node, Site, site_with_handlers

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
DAY = 86_400

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: faketime)")


class Clock:
    """The wall clock of the nodes of a site, moved while they run. Their monotonic clocks are those of the machine."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.move(0)
        self.settings = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds after which a node sees that it was moved
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }

    def move(self, seconds: int) -> None:
        """Set it so much ahead of the machine's."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    fast = {"RP_HEARTBEAT_INTERVAL_S": "0.2", "RP_HEARTBEAT_TIMEOUT_S": "20", "RP_IDENTITY_INTERVAL_S": "0.2"}
    patient = {"RP_REQUEST_TIMEOUT_S": "120"}
    with site_with_handlers(tmp_path, **clock.settings, **fast, **patient) as site:
        yield site


def see(node: Node, ahead: int) -> None:
    """Wait until a node takes it for so much later."""
    deadline = time.monotonic() + PATIENCE
    while abs(float(curl(f"{node.web}/status").json["now"]) - time.time() - ahead) > DAY / 2:
        assert time.monotonic() < deadline, f"the clock of the node should be {ahead} s ahead"


def test_a_wall_clock_that_jumps_a_day_and_back_moves_no_deadline_and_ends_nothing(site: Site, clock: Clock) -> None:
    server, client = site.pair()
    site.client(server.pipe_port, name="late").end()
    with ThreadPoolExecutor() as pool:
        waiting: list[Future[Any]] = [
            pool.submit(curl, f"{client.web}/server/wait//first"),
            pool.submit(curl, f"{server.web}/client/client/wait//first"),
            # One that waits for a client that comes back only after the jumps.
            pool.submit(curl, f"{server.web}/client/late/data", "-H", "Prefer: wait=100"),
        ]
        for node in (server, client):
            node.wait_for("get_wait begins")
        for ahead in (DAY, -DAY):
            clock.move(ahead)
            for node in (server, client):
                see(node, ahead)
            # Requests of after the jump are answered over the same pipe, by their usual deadline.
            assert curl(f"{client.web}/server/sum//20/22", "-H", "X-Event-Timeout: 20").json == {"sum": 42}
            assert curl(f"{server.web}/client/client/sum//20/22", "-H", "X-Event-Timeout: 20").json == {"sum": 42}
            # A short deadline still comes, though the clock says it is a day away, or a day ago.
            short = curl(f"{client.web}/server/wait//never", "-H", "X-Event-Timeout: 0.5")
            assert (short.status, short.code) == (504, 247)
        assert not any(each.done() for each in waiting)
        clock.move(0)  # no node starts before its certificate was made
        site.client(server.pipe_port, name="late")
        for opens in (f"{client.web}/server/gate//first", f"{server.web}/client/client/gate//first"):
            assert curl(opens, "-X", "POST").status == 200
        assert [each.result(PATIENCE).status for each in waiting] == [200, 200, 200]
    assert client.output.count("connected to the server at") == 1
    assert "client client disconnected" not in server.output


def test_a_clock_that_passes_the_end_of_a_certificate_cuts_the_pipe_and_put_right_brings_it_back(
    site: Site, clock: Clock
) -> None:
    site.authority.issue("client", "client", days=2)
    server, client = site.pair()
    clock.move(3 * DAY)
    server.wait_for(r"ended the pipe to client \(127\.0\.0\.1\): the certificate of client expired on ")
    client.wait_for("cannot connect to the server: ")
    assert curl(f"{server.web}/client/client/data", "-H", "Prefer: wait=0").outcome == (503, 245, "no")
    clock.move(0)
    client.wait_connected(times=2)
    assert curl(f"{server.web}/client/client/data").status == 200
