"""What was executed: the file that every handler appends to before it answers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One execution."""

    nonce: str
    node: str
    pid: int


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

    def times(self) -> Counter[str]:
        """Return how often each nonce was executed."""
        return Counter(entry.nonce for entry in self.entries())
