"""Many clients of one server: what idle ones cost, how soon all are back after a restart, requests to all of them.

The server is a process as users run it. Clients share a few processes, for so many interpreters would fit no machine:
each is a node of its own, with its own certificate and connection, as `fleet_clients.py` has it.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import wrk
from e2e_processes import Node, Process, Site
from fleet_clients import PATIENCE, name_of
from processes import HERE, cpu_seconds, free_port, memory_bytes, running
from results import Figure
from workload import Run, Workload

from restpipe.cli.process import raise_file_limit

IDLE, RETURNING, ASKED = 2000, 1000, 500
QUICK = 100
# Processes that the clients share.
HOSTS = 2
# Seconds that idle clients are left alone before, and while, they are measured.
SETTLING, WATCHING = 20.0, 20.0
# Seconds that the server is away, by round: clients are in the midst of their back-off, or have reached its end.
AWAY = (1.0, 5.0, 10.0, 20.0, 30.0)
MEMORY, CPU, CLIENTS_CPU = "KiB of the server each", "server's CPU ms a client and minute", "clients' CPU µs a request"
BACK, ACCEPT_CPU = "s until all are back", "server's CPU ms a client"
RATE, REQUEST_CPU, P99 = "requests/s", "server's CPU µs a request", "p99 ms"


@dataclass
class Fleet:
    """A server and where it lives; started anew, it has the same port."""

    site: Site
    port: int
    server: Node
    clients: int
    hosts: Sequence[Process] = ()

    @property
    def _arrived(self) -> Path:
        return self.site.directory / "arrived"

    def arrival(self) -> float:
        """Wait until all clients are connected; return when the last one was, as `time.monotonic` has it."""
        deadline = time.monotonic() + PATIENCE
        while not self._arrived.exists() or not (moment := self._arrived.read_text()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all {self.clients} clients connected within {PATIENCE:g} s")
            time.sleep(0.02)
        return float(moment)

    def restart(self, away: float) -> float:
        """Kill the server, start it again after some seconds, and return when it listens."""
        self.server.kill()
        self._arrived.unlink()
        time.sleep(away)
        self.server = self.site.server(port=self.port)
        return time.monotonic()


@contextlib.contextmanager
def server_of(run: Run, clients: int) -> Iterator[Fleet]:
    """Run a server, and issue the identities of its clients."""
    raise_file_limit()
    directory = run.scratch / f"fleet-{free_port()}"
    directory.mkdir()
    arrivals = {
        "RP_SERVER_CONNECTION_STATE_CHANGE_EVENT_CLASS": "fleet_arrivals.Arrivals",
        "PYTHONPATH": str(HERE),
        "FLEET_SIZE": str(clients),
        "FLEET_ARRIVED": str(directory / "arrived"),
    }
    with Site(directory, PYTHONWARNINGS="", **arrivals) as site:
        for number in range(clients):
            site.authority.issue(name_of(number), "client")
        server = site.server()
        fleet = Fleet(site, server.pipe_port, server, clients)
        try:
            yield fleet
        finally:
            fleet.server.kill()


@contextlib.contextmanager
def connected(fleet: Fleet) -> Iterator[None]:
    """Run the clients, all of which are connected."""
    each = -(-fleet.clients // HOSTS)
    with contextlib.ExitStack() as stack:
        for first in range(0, fleet.clients, each):
            numbers = (str(first), str(min(first + each, fleet.clients)))
            command = (sys.executable, HERE / "fleet_clients.py", fleet.site.directory, str(fleet.port), *numbers)
            fleet.hosts = (*fleet.hosts, stack.enter_context(running(*command, until="dialling")))
        fleet.arrival()
        yield


def measure_idle(run: Run) -> None:
    clients = QUICK if run.quick else IDLE
    wait = (1.0, 6.0) if run.quick else (SETTLING, WATCHING)
    for _ in range(run.rounds):
        with server_of(run, clients) as fleet:
            before = memory_bytes(fleet.server)
            with connected(fleet):
                time.sleep(wait[0])
                used = cpu_seconds(fleet.server)
                time.sleep(wait[1])
                used = cpu_seconds(fleet.server) - used
                memory = memory_bytes(fleet.server) - before
        per_minute = used / clients * 1e3 * 60 / wait[1]
        run.record("idle clients", {MEMORY: memory / clients / 1024, CPU: per_minute})


def measure_return(run: Run) -> None:
    clients = QUICK if run.quick else RETURNING
    with server_of(run, clients) as fleet, connected(fleet):
        for turn in range(run.rounds):
            listening = fleet.restart(AWAY[turn % len(AWAY)])
            used = cpu_seconds(fleet.server)
            back = max(0.0, fleet.arrival() - listening)
            accepting = (cpu_seconds(fleet.server) - used) / clients
            run.record("returning clients", {BACK: back, ACCEPT_CPU: accepting * 1e3})


def ask(fleet: Fleet, clients: int, seconds: float) -> dict[str, float]:
    """Load so many of the clients for some seconds, uniformly."""
    before = cpu_seconds(fleet.server), cpu_seconds(*fleet.hosts)
    seen = wrk.load(f"{fleet.server.web}/client/", 64, seconds, "c%04d/time", str(clients))
    after = cpu_seconds(fleet.server), cpu_seconds(*fleet.hosts)
    of_server, of_clients = ((late - early) / seen.requests * 1e6 for early, late in zip(before, after, strict=True))
    return {RATE: seen.rate, P99: seen.p99 * 1e3, REQUEST_CPU: of_server, CLIENTS_CPU: of_clients}


def measure_asked(run: Run) -> None:
    wrk.check()
    clients = QUICK if run.quick else ASKED
    with server_of(run, clients) as fleet, connected(fleet):
        run.interleave(
            {
                "one client": partial(ask, fleet, 1, run.seconds),
                "all clients": partial(ask, fleet, clients, run.seconds),
            }
        )


FLEET_IDLE = Workload(
    name="idle",
    title=f"{IDLE:,} clients, connected and idle",
    measure=measure_idle,
    figures=(
        Figure(text="memory of the server, each", subject="idle clients", metric=MEMORY, unit="KiB", at_most=120),
        Figure(text="CPU of the server, a client and minute", subject="idle clients", metric=CPU, unit="ms"),
    ),
)

FLEET_RETURN = Workload(
    name="return",
    title=f"{RETURNING:,} clients of a server that is killed, and back after {AWAY[0]:g} to {AWAY[-1]:g} s",
    measure=measure_return,
    figures=(Figure(text="until all are back", subject="returning clients", metric=BACK, unit="s", at_most=5),),
)

FLEET_ASKED = Workload(
    name="uniform",
    title=f"small GET of {ASKED} clients at random, 64 connections",
    measure=measure_asked,
    figures=(
        Figure(text="rate, of that to one client", subject="all clients", metric=RATE, to="one client", at_least=0.8),
    ),
)
