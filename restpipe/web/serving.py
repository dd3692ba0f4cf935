"""The web server of a node, as its settings have it."""

from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.web.app import make_app
from restpipe.web.server import WebServer


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
