"""`/docs`: pages to see and try what the other side serves, and the OpenAPI documents that they are made of."""

import heapq
import json
from collections.abc import Awaitable, Callable
from html import escape
from importlib import resources
from string import Template
from typing import Any
from urllib.parse import quote

import fastapi_offline
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from restpipe.exceptions import EventError
from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.pipe import Pipe
from restpipe.version import __version__
from restpipe.web.documents import MOST_TEXT, Document, Documents, document_of
from restpipe.web.openapi import describe
from restpipe.web.problems import problem_response
from restpipe.web.queries import number
from restpipe.web.relayed import paths_of_clients

# Clients that an answer lists, unless it is asked for more or fewer; and at most.
PAGE = 200
MOST = 10_000

# All of a page is the node's own, and no script is in it that is not a file; Swagger UI makes style sheets as it goes.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
_PAGE_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", **_HEADERS}
_FILES = {"docs.css": "text/css", "clients.js": "text/javascript", "events.js": "text/javascript"}

_LIST_DESCRIPTION = """
Each client that is connected has a document of its own, which tells what it serves: `/client/NAME/openapi.json`.
`/docs` shows all of them.
"""
_TEXT = {"type": "string"}
_CLIENTS_SCHEMA = {
    "title": "Clients",
    "type": "object",
    "required": ["clients", "connected", "matching"],
    "properties": {
        "connected": {"type": "integer", "description": "All clients that are connected."},
        "matching": {"type": "integer", "description": "Those that were asked for, listed or not."},
        "clients": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "address", "software", "events", "forwards", "path", "docs", "document"],
                "properties": {
                    "name": {"type": "string", "description": "Of its certificate."},
                    "address": _TEXT,
                    "software": _TEXT,
                    "events": {"type": "integer", "description": "Number of events that it serves."},
                    "forwards": {"type": "boolean", "description": "It passes requests on to an HTTP service."},
                    "path": {"type": "string", "description": "Below which its events are."},
                    "docs": {"type": "string", "description": "Path of its docs page."},
                    "document": {"type": "string", "description": "Path of its OpenAPI document."},
                },
            },
        },
    },
}

Endpoint = Callable[[Request], Awaitable[Response]]


def add_docs(app: FastAPI, node: ServerNode | ClientNode) -> None:
    """Add the docs pages, their files and the documents."""
    documents = Documents(token=bool(node.settings.web_token.get_secret_value()))
    of_node = _OfServerNode(node, documents) if isinstance(node, ServerNode) else _OfClientNode(node, documents)
    routes: list[Route | Mount] = [Route(path, _answering(endpoint)) for path, endpoint in of_node.routes.items()]
    routes += [Route(f"/docs/{name}", _file(_read(name), kind)) for name, kind in _FILES.items()]
    swagger_ui = resources.files(fastapi_offline) / "static"
    routes.append(Mount("/docs/swagger-ui", StaticFiles(directory=str(swagger_ui))))
    app.router.routes += routes


class _OfClientNode:
    """What a client node shows: the events of its server."""

    def __init__(self, node: ClientNode, documents: Documents) -> None:
        self._node = node
        self._documents = documents
        self.routes: dict[str, Endpoint] = {
            "/docs": self.page,
            "/openapi.json": self.document,
            "/server/openapi.json": self.document,
        }

    async def page(self, request: Request) -> Response:
        root = _root(request)
        pipes = [pipe for pipe in self._node.pipes if pipe.available]
        return _events_page(
            root,
            title=f"Server - RestPipe client node {self._node.identity.name}",
            heading="Server",
            back="",
            prefix=f"{root}/server/",
            document=f"{root}/server/openapi.json",
            forwards=any(pipe.forwards for pipe in pipes),
        )

    async def document(self, request: Request) -> Response:
        pipe = await self._node.pipe_to_server(0)
        title = f"Server of RestPipe client node {self._node.identity.name!r}"
        root = _root(request)
        return _sent(await self._documents.of(pipe, title, f"{root}/server", paths_of_clients(root)), request)


class _OfServerNode:
    """What a server node shows: its clients, and the events of each."""

    def __init__(self, node: ServerNode, documents: Documents) -> None:
        self._node = node
        self._documents = documents
        self._name = node.identity.name
        token = bool(node.settings.web_token.get_secret_value())
        self._own = json.dumps(_own_document(token=token)).encode()
        self.routes: dict[str, Endpoint] = {
            "/docs": self.page,
            "/docs/clients.json": self.clients,
            "/docs/client/{name:path}": self.page_of_client,
            "/openapi.json": self.own_document,
            "/client/{name:path}/openapi.json": self.document,
        }

    async def page(self, request: Request) -> Response:
        return _page("docs.html", root=_root(request), title=f"Clients - RestPipe server node {self._name}")

    async def clients(self, request: Request) -> Response:
        query, root = request.query_params, _root(request)
        # One for each name: a pipe that was succeeded by another, as certificates were replaced, lives on for a moment.
        pipes = {pipe.peer.name: pipe for pipe in self._node.pipes if pipe.available}
        wanted = query.get("search", "").strip().lower()
        matching = [name for name in pipes if wanted in name.lower() or wanted in pipes[name].peer.address]
        listed = heapq.nsmallest(number(query, "limit", PAGE, MOST), matching)
        found = {
            "clients": [_client(root, pipes[name]) for name in listed],
            "matching": len(matching),
            "connected": len(pipes),
        }
        return Response(json.dumps(found), media_type="application/json", headers=_HEADERS)

    async def page_of_client(self, request: Request) -> Response:
        root, name = _root(request), request.path_params["name"]
        forwards = any(pipe.forwards for pipe in self._node.registry if pipe.peer.name == name)
        prefix = _prefix(root, name)
        return _events_page(
            root,
            title=f"{name} - RestPipe server node {self._name}",
            heading=name,
            back="All clients",
            prefix=f"{prefix}/",
            document=f"{prefix}/openapi.json",
            forwards=forwards,
        )

    async def own_document(self, request: Request) -> Response:
        info = {
            "title": f"RestPipe server node {self._name!r}",
            "version": __version__,
            "description": _LIST_DESCRIPTION.strip(),
        }
        return _sent(document_of(self._documents.head(info, _root(request)), self._own), request)

    async def document(self, request: Request) -> Response:
        pipe = await self._node.pipe_to(request.path_params["name"], 0)
        name = pipe.peer.name
        title = f"Client {name!r} of RestPipe server node {self._name!r}"
        return _sent(await self._documents.of(pipe, title, _prefix(_root(request), name)), request)


def _own_document(*, token: bool) -> dict[str, Any]:
    document = describe([], token=token)
    failures = {status: {"$ref": f"#/components/responses/{status}"} for status in ("4XX", "5XX")}

    def reading(operation_id: str, summary: str, schema: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
        answer = {"description": summary, "content": {"application/json": {"schema": schema}}}
        responses = {"200": answer, **failures}
        return {
            "get": {"operationId": operation_id, "summary": summary, "parameters": parameters, "responses": responses}
        }

    document["components"]["schemas"]["Clients"] = _CLIENTS_SCHEMA
    document["paths"] = {
        "/docs/clients.json": reading(
            "list_clients",
            "List the clients that are connected, by name.",
            {"$ref": "#/components/schemas/Clients"},
            {"name": "search", "in": "query", "description": "Part of a name or an address.", "schema": _TEXT},
            {"name": "limit", "in": "query", "schema": {"type": "integer", "default": PAGE, "maximum": MOST}},
        ),
        "/client/{client}/openapi.json": reading(
            "describe_client",
            "Describe what a client serves, as OpenAPI.",
            {"type": "object", "additionalProperties": True},
            {"name": "client", "in": "path", "required": True, "schema": _TEXT},
        ),
    }
    return document


def _client(root: str, pipe: Pipe) -> dict[str, Any]:
    name, hello = pipe.peer.name, pipe.ready.result()
    prefix = _prefix(root, name)
    return {
        "name": name,
        "address": pipe.peer.address,
        "software": hello.software[:MOST_TEXT],
        "events": len(hello.manifest),
        "forwards": pipe.forwards,
        "path": f"{prefix}/",
        "docs": f"{root}/docs/client/{quote(name, safe='')}",
        "document": f"{prefix}/openapi.json",
    }


def _prefix(root: str, name: str) -> str:
    return f"{root}/client/{quote(name, safe='')}"


def _root(request: Request) -> str:
    """Where another application has the node mounted, as it stands in a URL."""
    return quote(request.scope.get("root_path", ""))


def _sent(document: Document, request: Request) -> Response:
    headers = _HEADERS | {"ETag": document.etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if document.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(document.body, media_type="application/json", headers=headers)


def _events_page(root: str, *, forwards: bool, **texts: str) -> Response:
    return _page("events.html", root=root, forwards="yes" if forwards else "", **texts)


def _page(name: str, **texts: str) -> Response:
    template = Template(_read(name).decode())
    html = template.substitute({key: escape(text) for key, text in texts.items()})
    return Response(html, media_type="text/html", headers=_PAGE_HEADERS)


def _read(name: str) -> bytes:
    return (resources.files("restpipe.web") / "pages" / name).read_bytes()


def _file(content: bytes, kind: str) -> Endpoint:
    async def send(_request: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return send


def _answering(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except EventError as error:
            return problem_response(error)

    return answer
