"""The OpenAPI document of the event routes: what the peers' manifests say they serve."""

import json
from collections.abc import Iterable
from typing import Any

from restpipe_pb.v1.pipe_pb2 import Event

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_RETURN_CODE = {
    "description": "The handler's own result code, or RestPipe's where the event did not succeed; 0 is success.",
    "schema": {"type": "integer"},
}
PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "A failure, as RFC 9457 has it.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "executed", "retryable", "exception"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "executed": {"enum": ["no", "yes", "unknown"]},
        "retryable": {"type": "boolean"},
        "exception": {
            "type": "object",
            "required": ["class", "message", "traceback"],
            "properties": {name: {"type": "string"} for name in ("class", "message", "traceback")},
        },
    },
}


def event_paths(prefix: str, tag: str, events: Iterable[Event]) -> dict[str, Any]:
    """Return the path items of the events of one peer.

    Args:
        prefix: of their routes, such as "/server/".
        tag: to group them by.
        events: the peer's manifest.
    """
    paths: dict[str, Any] = {}
    for event in events:
        item = paths.setdefault(f"{prefix}{event.noun}", {})
        item[event.verb] = _operation(prefix, tag, event)
    return paths


def _operation(prefix: str, tag: str, event: Event) -> dict[str, Any]:
    summary, _, rest = event.doc.partition("\n")
    operation: dict[str, Any] = {
        "tags": [tag],
        "operationId": f"{event.verb}{prefix}{event.noun}".replace("/", "_").rstrip("_"),
        "summary": summary or f"{event.verb.upper()} {event.noun}",
        "description": rest.strip(),
        "parameters": [
            {
                "name": argument.name,
                "in": "query",
                "required": argument.required,
                "schema": json.loads(argument.schema),
            }
            for argument in event.arguments
            if not argument.variadic
        ],
        "responses": {
            "200": {
                "description": "What the handler returned.",
                "headers": {"X-Event-Return-Code": _RETURN_CODE},
                "content": {"application/json": {}},
            },
            "default": {
                "description": "The event did not succeed.",
                "headers": {"X-Event-Return-Code": _RETURN_CODE},
                "content": {"application/problem+json": {"schema": _PROBLEM}},
            },
        },
    }
    if event.verb in ("post", "put", "patch"):
        operation["requestBody"] = {"content": {"application/json": {}, "application/octet-stream": {}}}
    return operation
