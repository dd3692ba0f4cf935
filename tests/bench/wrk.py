"""Load on one URL by wrk."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from processes import HERE, need


def check() -> None:
    """Refuse to go on without wrk."""
    need("wrk", "apt-get install wrk")


@dataclass(frozen=True)
class Load:
    """What wrk saw; times in seconds."""

    requests: int
    rate: float
    p50: float
    p99: float


def load(url: str, connections: int, seconds: float, *places: str) -> Load:
    """Ask for a URL over and over, each connection waiting for its answer.

    Args:
        url: where.
        connections: at once.
        seconds: for how long.
        places: a pattern and a number: each request is for one of so many places below the URL, by chance.

    Raises:
        RuntimeError: an answer was none, or not 2xx.
    """
    command = [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s",
        "--script", str(HERE / "wrk.lua"), url, *(("--", *places) if places else ()),
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    if told["failed"] or not told["requests"]:
        raise RuntimeError(f"{url}: {told['failed']} of {told['requests']} requests failed")
    return Load(
        requests=told["requests"],
        rate=told["requests"] / told["duration"] * 1e6,
        p50=told["p50"] / 1e6,
        p99=told["p99"] / 1e6,
    )
