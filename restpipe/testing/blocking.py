"""Nodes for tests that are not asynchronous: they live in a thread of their own."""

import contextlib
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from restpipe.embed.blocking import BlockingRemote
from restpipe.embed.loop_thread import LoopThread
from restpipe.embed.nodes import ClientNode, ServerNode
from restpipe.testing.joined import Nodes, join
from restpipe.testing.links import Link

if TYPE_CHECKING:
    import httpx

_Thread = LoopThread[Nodes]


class BlockingLink:
    """What joins a client to the server; see `Link`."""

    def __init__(self, link: Link, thread: _Thread) -> None:
        self._link = link
        self._thread = thread

    @property
    def delay(self) -> float:
        """Seconds that everything takes from one end to the other."""
        return self._link.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._link.delay = seconds

    def cut(self) -> None:
        """Break the connection, and wait until both ends know; see `Link.cut`."""
        self._thread.run(self._link.cut())

    def down(self) -> "contextlib.AbstractContextManager[None]":
        """Break the connection, and let there be no other until the end of the block; see `Link.down`."""
        return self._within(self._link.down())

    def stalled(self) -> "contextlib.AbstractContextManager[None]":
        """Let nothing arrive until the end of the block; see `Link.stalled`."""
        return self._within(self._link.stalled())

    @contextlib.contextmanager
    def _within(self, state: "contextlib.AbstractAsyncContextManager[None]") -> Generator[None, None, None]:
        async def enter() -> None:
            await state.__aenter__()

        async def leave() -> None:
            await state.__aexit__(None, None, None)

        self._thread.run(enter())
        try:
            yield
        finally:
            self._thread.run(leave())


class BlockingServer:
    """The server node."""

    def __init__(self, node: ServerNode, thread: _Thread) -> None:
        self._node = node
        self._thread = thread

    def client(self, name: str) -> BlockingRemote:
        """Return a client, connected or not, to be called by the server."""
        return BlockingRemote(self._node.client(name), self._thread)

    def http(self, method: str, url: str, **options: object) -> "httpx.Response":
        """Make a request to the node's REST surface; the options are those of `httpx.request`."""
        return _http(self._node, self._thread, method, url, options)


class BlockingClient(BlockingRemote):
    """A client node: what is called is the server."""

    def __init__(self, node: ClientNode, thread: _Thread) -> None:
        super().__init__(node.server, thread)
        self._node = node

    def client(self, name: str) -> BlockingRemote:
        """Return another client, to be called through the server; see `ClientNode.client`."""
        return BlockingRemote(self._node.client(name), self._thread)

    def http(self, method: str, url: str, **options: object) -> "httpx.Response":
        """Make a request to the node's REST surface; the options are those of `httpx.request`."""
        return _http(self._node, self._thread, method, url, options)


class BlockingNodes:
    """A server node, and the clients that are joined to it, in a thread of their own; what is told by `join`.

    Attributes:
        server: the server node.
    """

    def __init__(
        self, *, server: object | None = None, clients: Mapping[str, object | None] | None = None, **settings: object
    ) -> None:
        self._thread = LoopThread(lambda: join(server=server, clients=clients, **settings), "restpipe.testing")
        self._nodes = self._thread.entered
        self.server = BlockingServer(self._nodes.server, self._thread)

    def client(self, name: str) -> BlockingClient:
        """Return a client node, which calls the server."""
        return BlockingClient(self._nodes.client(name), self._thread)

    def link(self, name: str) -> BlockingLink:
        """Return what joins a client to the server."""
        return BlockingLink(self._nodes.link(name), self._thread)

    def close(self) -> None:
        """End all nodes."""
        self._thread.close()


def _http(
    node: ServerNode | ClientNode, thread: _Thread, method: str, url: str, options: Mapping[str, object]
) -> "httpx.Response":
    from restpipe.testing.web import http

    async def ask() -> "httpx.Response":
        async with http(node) as client:
            request = client.build_request(method, url, **options)  # type: ignore[arg-type]
            return await client.send(request)

    return thread.run(ask())
