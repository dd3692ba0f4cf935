"""The web application of a node."""

from functools import partial

from fastapi import FastAPI, Request, Response, WebSocket
from starlette.exceptions import HTTPException

from restpipe.exceptions import InternalError, NoHandlerError, WrongVerbError
from restpipe.handlers.paths import decode
from restpipe.nodes.client import ClientNode
from restpipe.nodes.exchanges import Patience, PipeTo
from restpipe.nodes.server import ServerNode
from restpipe.version import __version__
from restpipe.web.admission import Admission
from restpipe.web.docs import add_docs
from restpipe.web.door import Door
from restpipe.web.gateway import App, Gateway, Route
from restpipe.web.health import add_health
from restpipe.web.problems import problem_response
from restpipe.web.relayed import AskedOfClient
from restpipe.web.status import add_status


def make_app(node: ServerNode | ClientNode, *, mounted: bool = False) -> App:
    """Return the ASGI application of a node; within a running event loop.

    Args:
        node: that it is of.
        mounted: another application has it, and knows the names that requests may carry in Host.
    """
    settings = node.settings
    if settings.web_bind is None and not mounted:
        raise ValueError("the node has no web server")
    gateway = partial(
        Gateway,
        door=Door(
            None if mounted else settings.web_bind,
            (node.identity.name, *settings.web_hosts),
            settings.web_token.get_secret_value(),
        ),
        patience=Patience(settings.request_timeout_s, settings.connection_wait_timeout_s),
        max_timeout=settings.max_request_timeout_s,
        max_message=settings.max_body_bytes,
        admission=Admission(settings.web_max_requests, shared=isinstance(node, ServerNode)),
    )
    app: App = make_fastapi(node)
    if isinstance(node, ServerNode):
        app = gateway(app, prefix=b"/client/", route=_to_client(node), exchange=node.exchange)
    else:
        to_server = _to_server(node)
        # Behind the other: what is for the server itself does not pass by.
        to_clients = gateway(app, prefix=b"/client/", route=to_server, exchange=node.exchange, asked=AskedOfClient)
        app = gateway(to_clients, prefix=b"/server/", route=to_server, exchange=node.exchange)
    return app if node.tracing is None else node.tracing.door(app)


def make_fastapi(node: ServerNode | ClientNode) -> FastAPI:
    """Return the FastAPI application: the docs page, and what is no event."""
    prefix = "/client/NAME/" if isinstance(node, ServerNode) else "/server/"
    app = FastAPI(
        title=f"RestPipe {node.settings.node} node {node.identity.name!r}",
        version=__version__,
        openapi_url=None,
    )
    add_health(app, node)
    add_status(app, node)
    if node.settings.metrics:
        # Imported where it is turned on: not every node pays for it.
        from restpipe.web.metrics import add_metrics

        add_metrics(app, node)
    add_docs(app, node)

    async def no_such_socket(socket: WebSocket) -> None:
        error = NoHandlerError(f"no web socket is at {socket.url.path!a}; those of services are at {prefix}")
        await socket.send_denial_response(problem_response(error))

    async def no_such_page(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException) or error.status_code not in (404, 405):
            return problem_response(InternalError(f"{type(error).__name__}: {error}"))
        if error.status_code == 404:
            return problem_response(
                NoHandlerError(f"nothing is at {request.url.path!a}; events are at {prefix}NOUN, see /docs")
            )
        allow = (error.headers or {}).get("Allow", "").lower().split(", ")
        return problem_response(WrongVerbError(f"{request.method} is not for {request.url.path!a}", allow=tuple(allow)))

    app.add_api_websocket_route("/{path:path}", no_such_socket)
    app.add_exception_handler(HTTPException, no_such_page)
    app.add_exception_handler(Exception, no_such_page)
    return app


def _to_client(node: ServerNode) -> Route:
    def route(path: bytes) -> tuple[str, PipeTo, bytes]:
        name, _, rest = path.partition(b"/")
        target = decode(name)
        if not target:
            raise NoHandlerError("the path names no client: /client/<name>/<noun>")
        return target, partial(node.pipe_to, target), rest

    return route


def _to_server(node: ClientNode) -> Route:
    def route(path: bytes) -> tuple[str, PipeTo, bytes]:
        return "server", node.pipe_to_server, path

    return route
