"""The OpenAPI document of the event routes: what the peers' manifests say they serve."""

import json
import logging
import re
from collections.abc import Iterable
from typing import Any

from restpipe.handlers.events import VERBS
from restpipe_pb.v1.pipe_pb2 import Argument, Event

log = logging.getLogger(__name__)

_SCHEMAS = "#/components/schemas/"
# What the name of a component may not have (OpenAPI 3.1 section 4.8.7).
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9._-]")

# What makes Swagger UI ask for a file.
_BINARY = {"type": "string", "format": "binary"}
_PROBLEM = {"$ref": f"{_SCHEMAS}Problem"}
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


def event_paths(prefix: str, tag: str, events: Iterable[Event]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the path items of the events of one peer, and the schemas that they refer to.

    The peer says what it likes: what cannot be shown is left out.

    Args:
        prefix: of their routes, such as "/server/".
        tag: to group them by.
        events: the peer's manifest.
    """
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for event in events:
        if event.verb not in VERBS or not event.noun or not f"{event.verb}_{event.noun}".isidentifier():
            continue
        try:
            operation, its_schemas = _operation(prefix, tag, event)
        except (ValueError, TypeError, AttributeError, RecursionError):
            log.warning(
                "%s %s%s is not shown: its arguments are described by no schema", event.verb, prefix, event.noun
            )
            continue
        paths.setdefault(f"{prefix}{event.noun}", {})[event.verb] = operation
        schemas |= its_schemas
    return paths, schemas


def _operation(prefix: str, tag: str, event: Event) -> tuple[dict[str, Any], dict[str, Any]]:
    # Dots, which neither verb nor noun has: no two events have the same.
    key = f"{event.verb}{prefix}{event.noun}".replace("/", ".")
    summary, _, rest = event.doc.partition("\n")
    description = rest.strip()
    parameters: list[dict[str, Any]] = []
    schemas: dict[str, Any] = {}
    for argument in event.arguments:
        if argument.variadic:
            description += f"\n\nTakes any number of positional arguments: `{event.noun}//{argument.name}/...`"
        else:
            parameter, definitions = _parameter(_NOT_IN_KEYS.sub("_", f"{key}.{argument.name}"), argument)
            parameters.append(parameter)
            schemas |= definitions
    if event.allow:
        description += f"\n\nFor {', '.join(f'`{name}`' for name in event.allow)} only."
    operation: dict[str, Any] = {
        "tags": [tag],
        "operationId": key,
        "summary": summary or f"{event.verb.upper()} {event.noun}",
        "description": description.strip(),
        "parameters": parameters,
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
    if event.streams_body:
        operation["requestBody"] = {"content": {"application/octet-stream": {"schema": _BINARY}}}
    elif event.verb in ("post", "put", "patch"):
        operation["requestBody"] = {"content": {"application/json": {}, "application/octet-stream": {}}}
    return operation, schemas


def _parameter(key: str, argument: Argument) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe an argument; return the definitions of its schema apart, for references are to the whole document."""
    schema: dict[str, Any] = json.loads(argument.schema.replace('"#/$defs/', f'"{_SCHEMAS}{key}.'))
    definitions = {f"{key}.{name}": definition for name, definition in schema.pop("$defs", {}).items()}
    admitted = [definitions.get(part.get("$ref", "").removeprefix(_SCHEMAS), part) for part in _parts(schema)]
    takes_object = any(part.get("type") == "object" for part in admitted)
    parameter: dict[str, Any] = {"name": argument.name, "in": "query", "required": argument.required}
    # An object travels as JSON; anything else as text, and a list as a parameter that is repeated.
    parameter |= {"content": {"application/json": {"schema": schema}}} if takes_object else {"schema": schema}
    return parameter, definitions


def _parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *schema.get("anyOf", ())]
