"""For tests of one's own handlers: a server and clients joined in memory, within milliseconds, without certificates.

    async with restpipe.testing.join(server=Shop(), clients={"box": Box()}) as nodes:
        result = await nodes.server.client("box").call("get", "weight")
        await nodes.link("box").cut()

The nodes are `restpipe.ServerNode` and `restpipe.ClientNode`, with all that they do but gRPC and TLS. Tests that are
not asynchronous have the fixture `restpipe_join` in place of `join`, by which the same is called without `await`.

    links     what joins a client to its server, and what can go wrong with it
    memory    nodes that are joined by links
    joined    all nodes of a test
    blocking  the same for tests that are not asynchronous
    web       callers of a node's REST surface
"""

from restpipe.testing.blocking import BlockingLink, BlockingNodes
from restpipe.testing.joined import Nodes, join
from restpipe.testing.links import Link
from restpipe.testing.web import http

__all__ = ["BlockingLink", "BlockingNodes", "Link", "Nodes", "http", "join"]
