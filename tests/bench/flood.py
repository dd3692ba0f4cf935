"""A client that floods the server with requests that succeed, and what the callers of another client notice.

The flood takes a processor of its own, and on a small machine whatever it asks slows everything else. So the same flood
also goes to another server on the same machine: what is worse beside a flood of the same server is the server's doing.
"""

import contextlib
import http.client
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import flooding
from e2e_processes import Site
from processes import HERE, running
from results import Figure
from workload import Run, Workload

P50, P99 = "p50 ms", "p99 ms"
ALONE, ELSEWHERE = "no flood", "at another server"
# What is asked, and of which client.
FLOODS = {
    "answered in the event loop": ("number", ""),
    "answered in threads": ("number_sync", ""),
    "passed on to a third client": ("number", "third"),
}
# Requests a second of the other client's caller: a steady few, so that what is measured is the wait.
RATE = 200


@dataclass(frozen=True)
class Place:
    """Two servers, each with a client for what is passed on; the callers' client has a pipe to the first.

    Attributes:
        url: that the callers ask.
        directory: with the identities.
        port: of the first server, for pipes.
        other_port: of the other one.
    """

    url: str
    directory: Path
    port: int
    other_port: int


@contextlib.contextmanager
def place(run: Run) -> Iterator[Place]:
    directory = run.scratch / "flood"
    directory.mkdir()
    shutil.copy(HERE / "flood_endpoints.py", directory)
    with Site(
        directory, PYTHONWARNINGS="", RP_EVENT_HANDLER_FQ_CLASS="flood_endpoints.Flooded", RP_RELAY="*>*"
    ) as site:
        server, other = site.server(), site.server()
        for each in (server, other):
            site.client(each.pipe_port, name="third")
        asking = site.client(server.pipe_port)
        site.identity("client", flooding.NAME)
        yield Place(f"{asking.web}/server/number", directory, server.pipe_port, other.pipe_port)


def ask(url: str, seconds: float) -> dict[str, float]:
    """Ask `RATE` times a second, over one connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    took = []
    began = time.perf_counter()
    for number in range(int(seconds * RATE)):
        time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
        asked = time.perf_counter()
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        answer.read()
        took.append(1e3 * (time.perf_counter() - asked))
        if answer.status != 200:
            raise RuntimeError(f"{url} answered {answer.status}")
    connection.close()
    took.sort()
    return {P50: took[len(took) // 2], P99: took[len(took) * 99 // 100]}


def ask_beside(run: Run, found: Place, port: int, noun: str, to: str) -> dict[str, float]:
    command = (sys.executable, "flooding.py", found.directory, str(port), noun, to)
    with running(*command, until="flooding"):
        return ask(found.url, 2 * run.seconds)


def measure(run: Run) -> None:
    with place(run) as found:
        subjects = {ALONE: partial(ask, found.url, 2 * run.seconds)}
        for name, (noun, to) in FLOODS.items():
            subjects[name] = partial(ask_beside, run, found, found.port, noun, to)
            subjects[f"{name}, {ELSEWHERE}"] = partial(ask_beside, run, found, found.other_port, noun, to)
        run.interleave(subjects)


WORKLOAD = Workload(
    name="flood",
    title=f"small GET of one client, while another keeps {flooding.IN_FLIGHT:,} requests in flight",
    measure=measure,
    figures=tuple(
        Figure(
            text=f"p99, {name}, of the same {ELSEWHERE}",
            subject=name,
            metric=P99,
            to=f"{name}, {ELSEWHERE}",
            at_most=2,
        )
        for name in FLOODS
    ),
)
