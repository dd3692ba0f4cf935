"""What a node holds: descriptors, threads, tasks, exchanges, memory. Idle before the load, idle after it."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression

import httpx
from checker import IDLE, Violation

MIB = 1024 * 1024
# What may be there beyond the idle level. gRPC starts and ends threads, and opens descriptors for them, by itself; a
# task more may be that of a ping. Exchanges may not.
SLACK = {"descriptors": 8, "threads": 8, "tasks": 3, "exchanges": 0}


@dataclass(frozen=True, slots=True)
class Census:
    """What one process held at a moment; memory in bytes."""

    descriptors: int
    threads: int
    tasks: int
    exchanges: int
    memory: int


def memory_of(pid: int) -> int:
    """Return the bytes that are resident and its own: pages of files come and go as the system likes."""
    resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


async def census_of(pid: int, web: httpx.AsyncClient, tasks_from: tuple[httpx.AsyncClient, str]) -> Census:
    """Count what a node holds.

    Args:
        pid: of the node.
        web: calls its web server, which serves /metrics.
        tasks_from: calls the web server of another node, and the path there that leads to this one.
    """
    other, path = tasks_from
    tasks = (await other.get(f"{path}/tasks")).json()
    metrics = (await web.get("/metrics")).text
    found = re.search(r"^restpipe_exchanges_in_flight (\S+)$", metrics, re.MULTILINE)
    if found is None:
        raise AssertionError(metrics)
    return Census(
        descriptors=_entries(pid, "fd"),
        threads=_entries(pid, "task"),
        tasks=tasks,
        exchanges=int(float(found[1])),
        memory=memory_of(pid),
    )


def _entries(pid: int, table: str) -> int:
    return len(list(Path(f"/proc/{pid}/{table}").iterdir()))


def beyond_idle(node: str, idle: Census, now: Census) -> list[Violation]:
    """Return what a node holds that it did not when it was idle."""
    before, after = asdict(idle), asdict(now)
    return [
        Violation(IDLE, f"{node} has {after[what]} {what}, and had {before[what]}")
        for what, slack in SLACK.items()
        if after[what] > before[what] + slack
    ]


def growth(samples: Sequence[tuple[float, int]]) -> float:
    """Return by how many MiB a minute memory grew, of which samples were taken: at what second, how many bytes.

    It goes up and down by a MiB or two with what is under way: the trend of many samples tells, not two of them.
    """
    return linear_regression(*zip(*samples, strict=True)).slope / MIB * 60
