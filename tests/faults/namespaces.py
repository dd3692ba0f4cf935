"""Two machines on one cable, as network namespaces; needs root, and leaves nothing behind."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Of each end of the cable. The namespaces see no other network: any address will do.
ADDRESSES = ("10.213.0.1", "10.213.0.2")


def why_not() -> str:
    """Return what keeps this machine from having network namespaces; empty where nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in ("ip", "nft") if shutil.which(tool) is None]:
        return f"{' and '.join(missing)} not installed"
    name = f"restpipe-try-{os.getpid()}"
    tried = subprocess.run(("ip", "netns", "add", name), capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no network namespaces here: {tried.stderr.strip()}"
    drops = subprocess.run(
        _in(name, "nft", "add", "table", "inet", "fault"), capture_output=True, text=True, check=False
    )
    _run("ip", "netns", "delete", name)
    return f"no packet filter here: {drops.stderr.strip()}" if drops.returncode else ""


@dataclass(frozen=True)
class Machines:
    """Two namespaces.

    Attributes:
        names: of the namespaces, whose addresses are `ADDRESSES`.
    """

    names: tuple[str, str]

    def command(self, machine: int, *command: str | Path) -> tuple[str, ...]:
        """Return what runs a command on one of them."""
        return _in(self.names[machine], *command)

    def drop(self) -> None:
        """Drop every packet, both ways, without a word to anyone."""
        for hook in ("input", "output"):
            chain = f"add chain inet fault {hook} {{ type filter hook {hook} priority 0; policy drop; }}"
            _run(*self.command(1, "nft", f"add table inet fault; {chain}"))

    def heal(self) -> None:
        """Let packets pass again."""
        _run(*self.command(1, "nft", "delete table inet fault"))


@contextmanager
def two_machines() -> Iterator[Machines]:
    """Make them; see them, and the cable, gone afterwards."""
    machines = Machines((f"restpipe-a-{os.getpid()}", f"restpipe-b-{os.getpid()}"))
    try:
        for name in machines.names:
            _run("ip", "netns", "add", name)
        near, far = machines.names
        _run("ip", "-n", near, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", far)
        for name, address in zip(machines.names, ADDRESSES, strict=True):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", name, "link", "set", "cable", "up")
        yield machines
    finally:
        for name in machines.names:
            subprocess.run(("ip", "netns", "delete", name), capture_output=True, check=False)


def _in(name: str, *command: str | Path) -> tuple[str, ...]:
    return ("ip", "netns", "exec", name, *map(str, command))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
