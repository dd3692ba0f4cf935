"""Callers of the REST surface of a node, without a web server."""

from typing import TYPE_CHECKING

from restpipe.embed.nodes import ClientNode, ServerNode

if TYPE_CHECKING:
    import httpx


def http(node: ServerNode | ClientNode) -> "httpx.AsyncClient":
    """Return an httpx client that calls the REST surface of a node.

        async with restpipe.testing.http(nodes.server) as client:
            answer = await client.get("/client/box/time")

    An answer is there once it is complete; streams are for `node.stream`.
    """
    import httpx

    return httpx.AsyncClient(transport=httpx.ASGITransport(node.app), base_url="http://restpipe")
