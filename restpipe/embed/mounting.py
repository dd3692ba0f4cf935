"""The REST surface of a node as an application to be mounted in another."""

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from restpipe.exceptions import PeerRefusedError
from restpipe.web.callers import Receive
from restpipe.web.gateway import App
from restpipe.web.problems import problem
from restpipe.web.requests import Scope
from restpipe.web.sockets import Send

# The extension of ASGI by which a web socket is refused with an answer of HTTP, which not every server has.
_REFUSAL = "websocket.http.response"


class MountedApp:
    """An ASGI application that is there before its node runs, and refuses requests until it does.

    Attributes:
        app: the application of the running node; None while none runs.
    """

    def __init__(self) -> None:
        self.app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            raise RuntimeError("a node is started by `async with`, or as the lifespan of the application around it")
        if self.app is not None:
            if scope["type"] == "websocket" and _REFUSAL not in (scope.get("extensions") or {}):
                send = _closing_in_place_of_refusing(send)
            await self.app({**scope, "raw_path": path_within(scope)}, receive, send)
        elif scope["type"] == "http":
            status, headers, body = problem(PeerRefusedError("this node is not running"))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "websocket.close"})


def _closing_in_place_of_refusing(send: Send) -> Send:
    async def closing(message: MutableMapping[str, Any]) -> None:
        if message["type"] == f"{_REFUSAL}.start":
            await send({"type": "websocket.close"})
        elif message["type"] != f"{_REFUSAL}.body":
            await send(message)

    return closing


def path_within(scope: Scope) -> bytes:
    """Return the raw path below the place where the application is mounted, which `root_path` names."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    root = scope.get("root_path", "").rstrip("/").encode()
    end = 0
    for _ in range(root.count(b"/")):
        end = raw.find(b"/", end + 1)
        if end < 0:
            end = len(raw)
    return (raw[end:] or b"/") if unquote_to_bytes(raw[:end]) == root else raw
