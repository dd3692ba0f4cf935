"""What the benchmarks start: nodes, uvicorn, tunnels. All of it ends with the `with` that started it."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e_processes import Node, Process, Site, children_of, clean_environment, free_port
from workload import Run, UnavailableError

HERE = Path(__file__).parent
TICK = 1 / os.sysconf("SC_CLK_TCK")

__all__ = ["HERE", "Pair", "cpu_seconds", "free_port", "memory_bytes", "need", "nodes", "running", "uvicorn"]


def need(program: str, package: str) -> None:
    """Refuse to go on without a program.

    Raises:
        UnavailableError: it is not installed.
    """
    if shutil.which(program) is None:
        raise UnavailableError(f"{program} is not installed ({package})")


@contextlib.contextmanager
def running(
    *command: str | Path, until: str, directory: Path = HERE, environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run a process that is up once it has written what matches `until`.

    Raises:
        UnavailableError: it did not come up; says what it wrote.
    """
    # What a benchmark runs is as fast as its user has it: no warnings to be turned into errors.
    process = Process(
        *command, directory=directory, environment=clean_environment(PYTHONWARNINGS="") | dict(environment or {})
    )
    try:
        try:
            process.wait_for(until)
        except AssertionError as error:
            print(error, file=sys.stderr)
            raise UnavailableError(f"{Path(command[0]).name} did not start") from error
        yield process
    finally:
        process.kill()


@contextlib.contextmanager
def uvicorn(
    application: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Process, int]]:
    """Serve an application of `endpoints.py`; yield the process and its port."""
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "--no-access-log", "--port", str(port), *options, application)
    with running(*command, until="running on", environment=environment) as process:
        yield process, port


@dataclass(frozen=True)
class Pair:
    """A server node and a client node named `client`, joined by mutual TLS; `.web` of each is its URL."""

    server: Node
    client: Node


@contextlib.contextmanager
def nodes(run: Run, handler: str = "", **settings: str) -> Iterator[Pair]:
    """Run a server and a client node with identities of their own.

    Args:
        run: in whose scratch directory they live.
        handler: dotted path of a class for both, `endpoints.Something`; none for the examples.
        settings: further ones for both, by variable; they beat those that would be chosen, ports for one.
    """
    directory = run.scratch / f"nodes-{free_port()}"
    directory.mkdir()
    if handler:
        settings |= {"RP_EVENT_HANDLER_FQ_CLASS": handler, "PYTHONPATH": str(HERE)}
    with Site(directory, PYTHONWARNINGS="") as site:
        server, client = site.pair(**settings)
        yield Pair(server, client)


def _family(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [pid, *(each for child in children_of(pid) for each in _family(child))]
    return []


def cpu_seconds(*processes: Process) -> float:
    """Return the processor time that processes and their children have used."""
    total = 0
    for pid in (pid for process in processes for pid in _family(process.pid)):
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total * TICK


def memory_bytes(process: Process) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
