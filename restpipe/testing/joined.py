"""All nodes of a test."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from restpipe.embed.nodes import ClientNode, ServerNode
from restpipe.testing import memory
from restpipe.testing.links import Link


class Nodes:
    """A server node, and the clients that are joined to it.

    Attributes:
        server: the server node.
    """

    def __init__(self, server: memory.ServerNode, clients: Mapping[str, memory.ClientNode]) -> None:
        self.server: ServerNode = server
        self._clients = clients

    def client(self, name: str) -> ClientNode:
        """Return a client node."""
        return self._clients[name]

    def link(self, name: str) -> Link:
        """Return what joins a client to the server."""
        return self._clients[name].link

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the clients."""
        return tuple(self._clients)


@contextlib.asynccontextmanager
async def join(
    *, server: object | None = None, clients: Mapping[str, object | None] | None = None, **settings: object
) -> AsyncGenerator[Nodes, None]:
    """Run a server node and client nodes that are joined in memory, and wait until they are connected.

    Args:
        server: its event handler, an object or a class; or a mapping of what `restpipe.ServerNode` takes.
        clients: by name, the same of each client; one that is called "client", without a handler, by default.
        settings: of all nodes. Variables of the machine that the test runs on are not read.

    Raises:
        ConfigError: settings are wrong. The message has a line for each.
    """
    async with contextlib.AsyncExitStack() as stack:
        server_node = await stack.enter_async_context(memory.ServerNode(**settings | _options(server)))
        nodes: dict[str, memory.ClientNode] = {}
        for number, (name, given) in enumerate((clients or {"client": None}).items()):
            address = f"192.0.2.{2 + number % 253}"
            node = memory.ClientNode(server_node, name, address, **settings | _options(given))
            nodes[name] = await stack.enter_async_context(node)
        for name, node in nodes.items():
            await node.wait_connected()
            await server_node.client(name).wait_connected()
        for node in nodes.values():
            stack.callback(node.link.repair)  # nodes that end have something to say
        yield Nodes(server_node, nodes)


def _options(given: object | None) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else {"handler": given}
