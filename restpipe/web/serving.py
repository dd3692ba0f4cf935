"""The web server of a node, as its settings have it."""

import asyncio

from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.web.app import make_app
from restpipe.web.server import WebServer


async def stop_serving(node: ServerNode | ClientNode, web: WebServer | None, grace: float) -> None:
    """Stop a node and its web server: no request that was accepted is lost while the node can serve it.

    Args:
        node: what stops.
        web: its web server, if it has one.
        grace: seconds that what is in flight has to finish.
    """
    if web is None:
        await node.stop(grace)
    else:
        await web.leave()
        await asyncio.gather(node.stop(grace), web.stop())


def web_server_of(node: ServerNode | ClientNode) -> WebServer | None:
    """Return the web server of a node, to be started; None where its settings want none."""
    settings = node.settings
    if settings.web_bind is None:
        return None
    return WebServer(
        make_app(node),
        settings.web_bind,
        socket_mode=settings.web_socket_mode,
        grace=settings.drain_timeout_s,
        max_message=settings.max_body_bytes,
        head_timeout=settings.web_head_timeout_s,
        idle_timeout=settings.web_idle_timeout_s,
    )
