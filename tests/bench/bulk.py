"""A gigabyte: each way, at hand and on a long path, with small requests beside it, and what it takes of memory.

The file lies at the node that dials, RestPipe's client node or ssh, as behind every tunnel: a download comes from it,
an upload goes to it. RestPipe is measured the other way round too.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import wrk
from contenders import SSH, ssh_reverse
from e2e_processes import Process
from processes import cpu_seconds, free_port, need, nodes, running, uvicorn
from results import Bars, Figure
from workload import Run, UnavailableError, Workload

MIB = 1024 * 1024
PIPE, BACK, PLAIN = "RestPipe", "RestPipe, the other way round", "no tunnel"
DOWN, UP, CPU_DOWN, CPU_UP, GROWN = "MiB/s down", "MiB/s up", "CPU s/GiB down", "CPU s/GiB up", "memory MiB"
P99, BOTH, MEANWHILE = "p99 ms", "MiB/s both ways", "p99 ms meanwhile"
ALONE, TOGETHER = "alone", "together"
# Milliseconds; each way is half of it.
ROUND_TRIP = 50
CONNECTIONS = 64
FEW = 8


@dataclass(frozen=True)
class Place:
    """Where the file is had, and taken.

    Attributes:
        base: URL of the directory in which it, and something small, is.
        processes: what carries it.
    """

    base: str
    processes: tuple[Process, ...]

    @property
    def small(self) -> str:
        return self.base + "time"


@contextlib.contextmanager
def distant(port: int, round_trip: int) -> Iterator[int]:
    """Yield a port that leads to `port`, over a path with a round trip of so many milliseconds."""
    if not round_trip:
        yield port
        return
    command = (sys.executable, "delay_proxy.py", str(port), str(round_trip / 2))
    with running(*command, until=r"delaying on \d+") as proxy:
        yield int(proxy.wait_for(r"delaying on (\d+)")[1])


@contextlib.contextmanager
def places(run: Run, file: Path, round_trip: int) -> Iterator[dict[str, Place]]:
    """Run everything that carries the file."""
    told = {"BULK_FILE": str(file)}
    with ExitStack() as stack:
        port = free_port()
        target = stack.enter_context(distant(port, round_trip))
        ports = {"RP_SERVER_BIND_PORT": str(port), "RP_CLIENT_TARGET_PORT": str(target)}
        pair = stack.enter_context(nodes(run, "bulk_endpoints.Bulk", **told, **ports))
        both = (pair.server, pair.client)
        found = {
            PIPE: Place(f"{pair.server.web}/client/client/", both),
            BACK: Place(f"{pair.client.web}/server/", both),
        }
        plain, port = stack.enter_context(uvicorn("bulk_endpoints:plain", "--lifespan", "off", environment=told))
        try:
            tunnel = stack.enter_context(ssh_reverse(run, port, partial(distant, round_trip=round_trip)))
            found[SSH] = Place(tunnel.url.removesuffix("time"), tunnel.processes)
        except UnavailableError as reason:
            run.skip(SSH, str(reason))
        for name, place in found.items():
            check_path(name, place, round_trip)
        if not round_trip:
            found[PLAIN] = Place(f"http://127.0.0.1:{port}/client/client/", (plain,))
        yield found


def check_path(name: str, place: Place, round_trip: int) -> None:
    """See that an answer takes the round trip: what found a shorter way would be measured on that.

    Raises:
        RuntimeError: it takes less.
    """
    with urllib.request.urlopen(place.small) as answer:
        answer.read()
    started = time.monotonic()
    with urllib.request.urlopen(place.small) as answer:
        answer.read()
    if (took := 1000 * (time.monotonic() - started)) < round_trip:
        raise RuntimeError(f"{name} answers within {took:.1f} ms, on a path of {round_trip} ms")


def make_file(run: Run, mebibytes: int) -> Path:
    """Make a file of so many MiB that no one can compress."""
    need("curl", "apt-get install curl")
    file = run.scratch / "file"
    block = os.urandom(MIB)
    with file.open("wb") as opened:
        for _ in range(mebibytes):
            opened.write(block)
    return file


def curl(place: Place, file: Path, *, upload: bool) -> "subprocess.Popen[str]":
    quiet = ["curl", "-sS", "--fail", "--expect100-timeout", "0", "-w", " %{size_download}"]
    if upload:
        what = ["-X", "POST", "-H", "Content-Type: application/octet-stream", "-T", str(file)]
    else:
        what = ["-o", os.devnull]
    return subprocess.Popen([*quiet, *what, place.base + "file"], stdout=subprocess.PIPE, text=True)


def whole(transfer: "subprocess.Popen[str]", file: Path) -> None:
    """Wait for the end of a transfer, and see that all of the file was carried."""
    output, _ = transfer.communicate()
    if transfer.returncode or str(file.stat().st_size) not in output:
        raise RuntimeError(f"{transfer.args!r} ended with {transfer.returncode}: {output}")


def carry(place: Place, file: Path) -> dict[str, float]:
    """Carry the file down, then up."""
    found = {}
    size = file.stat().st_size
    with peak_memory(place.processes) as grown:
        for upload, rate, cpu in ((False, DOWN, CPU_DOWN), (True, UP, CPU_UP)):
            used, started = cpu_seconds(*place.processes), time.monotonic()
            whole(curl(place, file, upload=upload), file)
            found[rate] = size / MIB / (time.monotonic() - started)
            found[cpu] = (cpu_seconds(*place.processes) - used) * 1024 * MIB / size
    return found | {GROWN: grown()}


@contextlib.contextmanager
def peak_memory(processes: tuple[Process, ...]) -> Iterator[Callable[[], float]]:
    """Yield what tells by how many MiB the process grew most that grew most."""
    before = [_status(process.pid, "VmRSS") for process in processes]
    for process in processes:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak begins anew
    yield lambda: max(_status(p.pid, "VmHWM") - rss for p, rss in zip(processes, before, strict=True))


def _status(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def measure(run: Run, round_trip: int) -> None:
    file = make_file(run, 256 if run.quick or round_trip else 1024)
    with places(run, file, round_trip) as found:
        subjects: dict[str, Callable[[], Mapping[str, float]]] = {
            name: partial(carry, place, file) for name, place in found.items()
        }
        if round_trip:
            wrk.check()
            subjects["small requests"] = lambda: {MEANWHILE: beside(found[PIPE], file, FEW)[0]}
        run.interleave(subjects)


def beside(place: Place, file: Path, connections: int) -> tuple[float, float]:
    """Ask for something small while the file is carried both ways; return its p99 in ms, and MiB/s of both ways."""
    started = time.monotonic()
    transfers = [curl(place, file, upload=upload) for upload in (False, True)]
    seen: list[float] = []
    while connections:
        p99 = wrk.load(place.small, connections, 1).p99 * 1e3
        if seen and any(transfer.poll() is not None for transfer in transfers):
            break  # it was alone for a while
        seen.append(p99)
    for transfer in transfers:
        whole(transfer, file)
    rate = 2 * file.stat().st_size / MIB / (time.monotonic() - started)
    return (statistics.median(seen) if seen else 0.0), rate


def measure_beside(run: Run) -> None:
    wrk.check()
    file = make_file(run, 512 if run.quick else 1024)
    with places(run, file, 0) as found:
        place = found[PIPE]

        def alone() -> dict[str, float]:
            p99 = wrk.load(place.small, CONNECTIONS, run.seconds).p99 * 1e3
            return {P99: p99, BOTH: beside(place, file, 0)[1]}

        def together() -> dict[str, float]:
            p99, rate = beside(place, file, CONNECTIONS)
            return {P99: p99, BOTH: rate}

        run.interleave({ALONE: alone, TOGETHER: together})


def _to_ssh(target: float) -> tuple[Figure, ...]:
    return tuple(
        Figure(text=f"{text}, of `ssh -R`", subject=subject, metric=metric, to=SSH, at_least=target)
        for subject, metric, text in (
            (PIPE, DOWN, "client to server, asked for"),
            (PIPE, UP, "server to client, sent"),
            (BACK, DOWN, "server to client, asked for"),
            (BACK, UP, "client to server, sent"),
        )
    )


NEAR = Workload(
    name="bulk",
    title="1 GiB one way",
    measure=partial(measure, round_trip=0),
    figures=(*_to_ssh(0.8), Figure(text="memory", subject=PIPE, metric=GROWN, unit="MiB", at_most=64)),
    plots=(Bars(metric=DOWN, to=SSH), Bars(metric=UP, to=SSH)),
)

FAR = Workload(
    name="far",
    title=f"256 MiB one way at {ROUND_TRIP} ms round trip",
    measure=partial(measure, round_trip=ROUND_TRIP),
    figures=(
        *_to_ssh(1.0),
        Figure(
            text=f"p99 of small GETs meanwhile, {FEW} connections",
            subject="small requests",
            metric=MEANWHILE,
            unit="ms",
            at_most=1.5 * ROUND_TRIP,
        ),
    ),
    plots=(Bars(metric=DOWN, to=SSH),),
)

BESIDE = Workload(
    name="beside",
    title=f"small GET, {CONNECTIONS} connections, while 1 GiB flows each way",
    measure=measure_beside,
    figures=(
        Figure(text="p99, of its p99 alone", subject=TOGETHER, metric=P99, to=ALONE, at_most=3),
        Figure(text="rate of the bulk, of its rate alone", subject=TOGETHER, metric=BOTH, to=ALONE, at_least=0.6),
    ),
)
