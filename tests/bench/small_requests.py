"""Requests a second through the pipe, beside a plain FastAPI endpoint and bare ASGI under the same uvicorn.

All run side by side on this machine, in turns, so that what disturbs one disturbs all: only the ratios mean something.
Needs wrk.
"""

import argparse
import contextlib
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).parent
PATH = "/client/client/time"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(*command: str, until: str) -> Iterator[None]:
    """Run a process; its output must contain `until` before it counts as up."""
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.stdout is None:
        raise AssertionError("the output is a pipe")
    try:
        for line in process.stdout:
            if until in line:
                break
        else:
            raise SystemExit(f"{' '.join(command)} did not start")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def requests_per_second(url: str, connections: int, seconds: int) -> float:
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if wrong := re.search(r"Non-2xx.*|Socket errors.*", output):
        raise SystemExit(f"{url}: {wrong[0]}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise SystemExit(f"wrk said: {output}")
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed")
    server, client, pipe, plain, bare = (free_port() for _ in range(5))
    uvicorn = (sys.executable, "-m", "uvicorn", "--no-access-log", "--lifespan", "off")
    demo = (sys.executable, "-m", "restpipe", "demo", "--port", str(pipe))
    urls = {
        "through the pipe": f"http://127.0.0.1:{server}{PATH}",
        "plain FastAPI": f"http://127.0.0.1:{plain}{PATH}",
        "bare ASGI": f"http://127.0.0.1:{bare}{PATH}",
    }
    rates: dict[str, list[float]] = {name: [] for name in urls}
    with (
        running(*demo, "--server-web", f"127.0.0.1:{server}", "--client-web", f"127.0.0.1:{client}", until="Ctrl-C"),
        running(*uvicorn, "--port", str(plain), "plain:endpoint", until="running on"),
        running(*uvicorn, "--port", str(bare), "plain:bare", until="running on"),
    ):
        for _ in track(range(options.rounds), description="measuring", console=Console(stderr=True)):
            for name, url in urls.items():
                rates[name].append(requests_per_second(url, options.connections, options.seconds))
    table = Table(title=f"GET {PATH}, {options.connections} connections, median of {options.rounds}")
    for column in ("", "requests/s", "of plain FastAPI"):
        table.add_column(column, justify="right" if column else "left")
    reference = statistics.median(rates["plain FastAPI"])
    for name, measured in rates.items():
        median = statistics.median(measured)
        table.add_row(name, f"{median:,.0f}", f"{median / reference:.2f}")
    Console().print(table)
    Console().print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    )


if __name__ == "__main__":
    main()
