"""The web application of a node."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from restpipe.exceptions import NoHandlerError
from restpipe.nodes.client import ClientNode
from restpipe.nodes.exchanges import Patience, PipeTo
from restpipe.nodes.server import ServerNode
from restpipe.pipe import Pipe
from restpipe.version import __version__
from restpipe.web.door import Door
from restpipe.web.gateway import App, Gateway, Route
from restpipe.web.openapi import PROBLEM_SCHEMA, event_paths
from restpipe.web.paths import decode

_DESCRIPTION = """
Events of the other side of the pipe.

The path after the prefix is the noun; arguments follow as a query, or by position after `//`:
`time`, `cat?x=a&y=b`, `cat//a/b`. Every answer carries `X-Event-Return-Code`.
"""


def make_app(node: ServerNode | ClientNode) -> App:
    """Return the ASGI application of a node; within a running event loop."""
    settings = node.settings
    if settings.web_bind is None:
        raise ValueError("the node has no web server")
    prefix, route = (b"/client/", _to_client(node)) if isinstance(node, ServerNode) else (b"/server/", _to_server(node))
    return Gateway(
        make_fastapi(node),
        door=Door(settings.web_bind, (node.identity.name, *settings.web_hosts), settings.web_token.get_secret_value()),
        prefix=prefix,
        route=route,
        patience=Patience(settings.request_timeout_s, settings.connection_wait_timeout_s),
        max_timeout=settings.max_request_timeout_s,
    )


def make_fastapi(node: ServerNode | ClientNode) -> FastAPI:
    """Return the FastAPI application: the docs page, and what is no event."""
    app = FastAPIOffline(
        title=f"RestPipe {node.settings.node} {node.identity.name}",
        version=__version__,
        description=_DESCRIPTION,
        redoc_url=None,
    )
    of_routes = app.openapi

    def openapi() -> dict[str, Any]:
        document = {**of_routes()}
        document["paths"] = {**document.get("paths", {}), **dict(_remote_paths(node))}
        document["components"] = {"schemas": {"Problem": PROBLEM_SCHEMA}}
        return document

    # FastAPI's way to extend the document; this one changes as peers come and go.
    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _remote_paths(node: ServerNode | ClientNode) -> Iterator[tuple[str, Any]]:
    for pipe in node.pipes:
        if not pipe.available:
            continue
        name = pipe.peer.name
        prefix, tag = (f"/client/{quote(name)}/", name) if isinstance(node, ServerNode) else ("/server/", "server")
        yield from event_paths(prefix, tag, pipe.ready.result().manifest).items()


def _to_client(node: ServerNode) -> Route:
    def route(path: bytes) -> tuple[PipeTo, bytes]:
        name, _, rest = path.partition(b"/")
        target = decode(name)
        if not target:
            raise NoHandlerError("the path names no client: /client/<name>/<noun>")

        async def pipe_to(wait: float) -> Pipe:
            return await node.pipe_to(target, wait)

        return pipe_to, rest

    return route


def _to_server(node: ClientNode) -> Route:
    def route(path: bytes) -> tuple[PipeTo, bytes]:
        return node.pipe_to_server, path

    return route
