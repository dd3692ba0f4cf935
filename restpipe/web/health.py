"""Is the node alive, and is it of use? For those who look after it: container engines, systemd, load balancers."""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.web.problems import problem_response

# Who asks for these need not show the token: the answers tell nothing but yes or no.
OPEN_TO_ALL = frozenset((b"/healthz", b"/readyz"))


def add_health(app: FastAPI, node: ServerNode | ClientNode) -> None:
    """Add `/healthz`, 200 while the node is alive, and `/readyz`, 200 while it is of use and 503 otherwise."""

    async def alive(_request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(_request: Request) -> Response:
        fault = node.fault
        return JSONResponse({"status": "ready"}) if fault is None else problem_response(fault)

    app.router.routes += [Route("/healthz", alive), Route("/readyz", ready)]
