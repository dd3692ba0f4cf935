"""The machine that a benchmark ran on, described so that someone else can judge its figures."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

# Python packages whose versions matter, and what tells the version of a program.
PACKAGES = ("grpcio", "protobuf", "uvicorn", "uvloop", "httptools", "fastapi", "nats-py", "fastapi-websocket-rpc")
PROGRAMS = {
    "wrk": ("wrk", "--version"),
    "OpenSSH": ("ssh", "-V"),
    "frp": ("frps", "--version"),
    "chisel": ("chisel", "--version"),
    "rathole": ("rathole", "--version"),
    "nats-server": ("nats-server", "--version"),
}


class Machine(BaseModel):
    """A machine and the software on it."""

    model_config = ConfigDict(frozen=True)

    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    versions: dict[str, str]

    @property
    def words(self) -> str:
        """The machine in one line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib:.0f} GiB, {self.kernel}, "
            f"Python {self.python}, {versions}"
        )


def this_machine() -> Machine:
    versions = {name: number for name in PACKAGES if (number := _package_version(name))}
    versions |= {name: number for name, command in PROGRAMS.items() if (number := _program_version(command))}
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=f"{platform.system()} {platform.release()}",
        python=".".join(map(str, sys.version_info[:3])),
        versions=versions,
    )


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _program_version(command: tuple[str, str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"\d+\.\d+(p\d+|\.\d+)", done.stdout + done.stderr)
    return found[0] if found else None
