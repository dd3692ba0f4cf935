"""Nodes whose handlers keep a ledger, for tests that drive a few of them by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e_processes import Node, Site
from ledger import Ledger, copy_handlers

POST = ("-X", "POST")
NOW = ("-H", "Prefer: wait=0")


class LedgerSite(Site):
    """A site whose nodes write down what they execute.

    Args:
        directory: empty.
        settings: of every node, by variable.
    """

    def __init__(self, directory: Path, **settings: str) -> None:
        self.ledger = Ledger(directory / "ledger")
        copy_handlers(directory)
        super().__init__(directory, **self.ledger.settings_of("either") | settings)


@contextmanager
def ledger_site(directory: Path, **settings: str) -> Iterator[LedgerSite]:
    """Run a site whose nodes write down what they execute."""
    site = LedgerSite(directory, **settings)
    with site:
        yield site


def ways(server: Node, client: Node) -> tuple[tuple[str, Node], tuple[str, Node]]:
    """Return both directions: the URL that leads to a node's handler, and that node."""
    return (f"{client.web}/server", server), (f"{server.web}/client/client", client)
