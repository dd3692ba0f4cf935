"""Requests of a client node's callers to other clients: the server passes them on."""

import asyncio
from typing import Any

from restpipe.exceptions import NoHandlerError, PeerTooOldError
from restpipe.handlers.calls import SERVER_TOO_OLD
from restpipe.handlers.events import VERBS
from restpipe.handlers.paths import decode
from restpipe.nodes.exchanges import Patience
from restpipe.pipe import Pipe
from restpipe.web.requests import Asked, Scope
from restpipe_pb.v1.pipe_pb2 import Request


class AskedOfClient(Asked):
    """What a caller asks of another client.

    Args:
        scope: as of `Asked`.
        rest: the path after "/client/".
        kept: as of `Asked`.
        patience: likewise.
        max_timeout: likewise.

    Raises:
        BadRequestError: as from `Asked`.
        NoHandlerError: the path names no client.
    """

    __slots__ = ("_asked_at", "_to")

    def __init__(
        self, scope: Scope, rest: bytes, *, kept: frozenset[bytes], patience: Patience, max_timeout: float
    ) -> None:
        name, _, rest = rest.partition(b"/")
        self._to = decode(name)
        if not self._to:
            raise NoHandlerError("the path names no client: /client/<name>/<noun>")
        super().__init__(scope, rest, kept=kept, patience=patience, max_timeout=max_timeout)
        self._asked_at: float | None = asyncio.get_running_loop().time()

    def _address(self, request: Request, pipe: Pipe) -> bool:
        """Say what is asked for by its target: what that client wants, the server knows."""
        if not pipe.relays:
            raise PeerTooOldError(SERVER_TOO_OLD)
        self._forward(request)
        request.to = self._to
        wait = self.patience.connection
        if self._asked_at is not None:  # not for a repeat: the time since then was not spent on waiting
            wait -= asyncio.get_running_loop().time() - self._asked_at
            self._asked_at = None
        request.wait_ms = min(max(0, round(1000 * wait)), 2**32 - 1)
        return True


def paths_of_clients(root: str) -> dict[str, Any]:
    """Return the path item of what other clients serve, for the OpenAPI document of a client node.

    Args:
        root: of the node's web server.
    """
    responses = {status: {"$ref": f"#/components/responses/{status}"} for status in ("2XX", "4XX", "5XX")}
    text = {"type": "string"}
    item: dict[str, Any] = {
        "servers": [{"url": root or "/"}],
        "parameters": [
            {"name": "client", "in": "path", "required": True, "description": "Its name.", "schema": text},
            {"name": "noun", "in": "path", "required": True, "description": "Of its event.", "schema": text},
        ],
    }
    for verb in VERBS[:-1]:  # all but HEAD, which follows from GET
        item[verb] = {
            "tags": ["other clients"],
            "operationId": f"{verb}_client_event",
            "summary": "Call another client through the server, if its operator permits that.",
            "responses": responses,
        }
    return {"/client/{client}/{noun}": item}
