"""What was executed: the file that every handler appends to before it answers."""

import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One execution."""

    nonce: str
    node: str
    pid: int


@dataclass
class Taken:
    """What a handler had of a streamed body, as far as it is known.

    Attributes:
        moved: when it took a piece last, by the machine's monotonic clock.
        wholes: size and checksum of each body that it saw the end of.
    """

    moved: float = 0.0
    wholes: list[tuple[int, str]] = field(default_factory=list)


class Ledger:
    """The file, which survives every process that writes to it.

    Args:
        path: of the file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def settings_of(self, node: str) -> dict[str, str]:
        """Return what a node has to be told in order to write down what it executes."""
        return {
            "RP_EVENT_HANDLER_FQ_CLASS": "ledger_handlers.Handler",
            "LEDGER_FILE": str(self.path),
            "LEDGER_NODE": node,
        }

    def entries(self) -> list[Entry]:
        """Return all executions so far. A line is one `write` to a file opened with O_APPEND: none is torn."""
        if not self.path.exists():
            return []
        rows = (line.split() for line in self.path.read_text().splitlines())
        return [Entry(nonce, node, int(pid)) for nonce, node, pid in rows]

    def taken(self) -> dict[str, Taken]:
        """Return what handlers had of streamed bodies, by nonce."""
        taken: dict[str, Taken] = defaultdict(Taken)
        path = self.path.with_suffix(".bodies")
        for line in path.read_text().splitlines() if path.exists() else ():
            nonce, moved, *whole = line.split()
            taken[nonce].moved = max(taken[nonce].moved, float(moved))
            if whole:
                taken[nonce].wholes.append((int(whole[0]), whole[1]))
        return taken

    def times(self) -> Counter[str]:
        """Return how often each nonce was executed."""
        return Counter(entry.nonce for entry in self.entries())


def copy_handlers(directory: Path) -> None:
    """Put the handlers that write it to where nodes are started."""
    for name in ("ledger_handlers.py", "bodies.py"):
        shutil.copy(Path(__file__).with_name(name), directory)
