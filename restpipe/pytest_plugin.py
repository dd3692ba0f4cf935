"""The fixtures of RestPipe for pytest. pytest imports this module wherever RestPipe is installed: it imports little."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from restpipe.testing import BlockingNodes


@pytest.fixture
def restpipe_join() -> "Iterator[Callable[..., BlockingNodes]]":
    """Return what joins a server node and client nodes in memory, for tests that are not asynchronous.

    `restpipe_join(server=..., clients={"box": ...})` takes what `restpipe.testing.join` does. The nodes end with the
    test.
    """
    from restpipe.testing import BlockingNodes

    made: list[BlockingNodes] = []

    def join(**options: object) -> BlockingNodes:
        nodes = BlockingNodes(**options)  # type: ignore[arg-type]
        made.append(nodes)
        return nodes

    yield join
    for nodes in reversed(made):
        nodes.close()
