"""OpenAPI documents: what the peers' manifests say they serve.

A manifest is described apart from the peer that it comes from: paths are relative to the address of the events, which
stands in `servers`. Peers that serve the same have that part in common, and client code that is made from it fits all.
"""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from restpipe.handlers.events import VERBS
from restpipe.handlers.payload import BINARY, JSON
from restpipe.handlers.problems import PROBLEM
from restpipe_pb.v1.pipe_pb2 import Argument, Content, Event

log = logging.getLogger(__name__)

# Events that one document shows: a peer can say ever so many.
MOST_EVENTS = 1000
TAG = "events"
# Of a parameter that takes many arguments, which the slashes of its value separate.
MANY = "x-restpipe-many"

_SCHEMAS = "#/components/schemas/"
_DEFINITIONS = "#/$defs/"
# What the name of a component may not have (OpenAPI 3.1 section 4.8.7).
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9._-]")
_WITH_BODY = ("post", "put", "patch")

# What makes Swagger UI ask for a file.
_FILE = {"type": "string", "format": "binary"}
_PROBLEM = {"$ref": f"{_SCHEMAS}Problem"}
_RETURN_CODE = {"$ref": "#/components/headers/X-Event-Return-Code"}
_HEADERS = {
    "X-Event-Return-Code": {
        "description": "The handler's own result code, or RestPipe's where the event did not succeed; 0 is success.",
        "schema": {"type": "integer"},
    }
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
        "executed": {"type": "string", "enum": ["no", "yes", "unknown"]},
        "retryable": {"type": "boolean"},
        "exception": {
            "type": "object",
            "required": ["class", "message", "traceback"],
            "properties": {name: {"type": "string"} for name in ("class", "message", "traceback")},
        },
    },
}
_FAILURES = {
    "400": "The arguments or the body do not fit, or the request is malformed.",
    "401": "The token of this node is missing or wrong.",
    "403": "The event is not for this caller, or a page of another site asks.",
    "404": "There is no such event, or no such client.",
    "408": "The body arrives too slowly.",
    "413": "The body is larger than the event takes.",
    "421": "`Host` is none of the node's names.",
    "422": "The `Idempotency-Key` belongs to another request.",
    "431": "The head of the request is too large.",
    "500": "The handler raised.",
    "502": "The pipe was lost, or the answer cannot be used: `executed` says what is known of the outcome.",
    "503": "The peer is not connected, or busy: never sent, safe to repeat.",
    "504": "The time of the request is over.",
}
_OF_BODIES = ("408", "413")
_OF_KEYS = ("422",)
# A handler may choose any status.
_CHOSEN = {"description": "The handler chose this status.", "headers": {"X-Event-Return-Code": _RETURN_CODE}}
_OTHERWISE = {
    "2XX": {"$ref": "#/components/responses/2XX"},
    "4XX": {"$ref": "#/components/responses/4XX"},
    "5XX": {"$ref": "#/components/responses/5XX"},
}


def describe(events: Sequence[Event], *, token: bool) -> dict[str, Any]:
    """Return `paths` and `components` of the document of a peer, whoever it is.

    The peer says what it likes: what cannot be shown is left out.

    Args:
        events: its manifest.
        token: whether the node wants a token.
    """
    failures = {status: text for status, text in _FAILURES.items() if token or status != "401"}
    shown = _Shown(failures)
    named = {
        (event.noun, VERBS.index(event.verb)): event
        for event in events[:MOST_EVENTS]
        if event.verb in VERBS and event.noun and f"_{event.noun}".isidentifier()
    }
    for _, event in sorted(named.items()):
        try:
            shown.add(event)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            log.warning("the event %s %s of a peer is not shown: no schema describes it", event.verb, event.noun)
    responses = {status: _failure(text) for status, text in failures.items()}
    responses |= {"2XX": _CHOSEN, "4XX": _failure("The handler refused."), "5XX": _failure("The handler failed.")}
    components = {"schemas": shown.schemas, "responses": responses, "headers": _HEADERS, **security(token=token)}
    return {"paths": shown.paths, "components": components}


def security(*, token: bool) -> dict[str, Any]:
    """Return what is among the components of a document where the node wants a token."""
    return {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {}


def _failure(text: str) -> dict[str, Any]:
    return {
        "description": text,
        "headers": {"X-Event-Return-Code": _RETURN_CODE},
        "content": {PROBLEM: {"schema": _PROBLEM}},
    }


class _Shown:
    """The part of a document that grows by one event after the other.

    Args:
        failures: that may occur, by status.
    """

    def __init__(self, failures: Iterable[str]) -> None:
        self.paths: dict[str, Any] = {}
        self.schemas: dict[str, Any] = {"Problem": PROBLEM_SCHEMA}
        self._failures = {status: {"$ref": f"#/components/responses/{status}"} for status in failures}
        # Paths that differ in the names of arguments only are the same (OpenAPI 3.1 section 4.8.8.2): the first stay.
        self._names: dict[tuple[str, int], list[str]] = {}

    def add(self, event: Event) -> None:
        """Add the operations of an event: all of them, or none.

        Raises:
            ValueError, TypeError, AttributeError, LookupError, RecursionError: it cannot be shown.
        """
        _check_arguments(event.arguments)
        schemas = _Schemas(self.schemas)
        operations = [(form, self._operation(event, form, schemas)) for form in _forms(event)]
        for form, operation in operations:
            names = self._names.setdefault((event.noun, len(form)), [argument.name for argument in form])
            for name, parameter in zip(names, operation["parameters"], strict=False):
                parameter["name"] = name
            if operation is not operations[0][1]:
                operation["operationId"] += "-many"  # a hyphen, which neither verb nor noun has
            self.paths.setdefault(_path(event.noun, names), {})[event.verb] = operation
        self.schemas.update(schemas.added)

    def _operation(self, event: Event, in_path: Sequence[Argument], schemas: "_Schemas") -> dict[str, Any]:
        key = f"{event.verb}_{event.noun}"
        summary, _, description = event.doc.partition("\n\n")
        by_query = [argument for argument in event.arguments if argument.place != Argument.PATH]
        operation: dict[str, Any] = {
            "tags": [TAG],
            "operationId": key,
            "summary": " ".join(summary.replace("`", "").split()) or f"{event.verb.upper()} {event.noun}",
            "description": "\n\n".join([description.strip(), *_notes(event, in_path)]).strip(),
            "parameters": [
                *(_in_path(argument, schemas, key) for argument in in_path),
                *(_in_query(argument, schemas, key) for argument in by_query if argument not in in_path),
            ],
        }
        if event.deprecated:
            operation["deprecated"] = True
        has_body = event.verb in _WITH_BODY or event.streams_body or bool(event.body_schema)
        if has_body:
            operation["requestBody"] = _body(event, schemas, key)
        failures = {
            status: reference
            for status, reference in self._failures.items()
            if (has_body or status not in _OF_BODIES) and (event.verb in ("post", "patch") or status not in _OF_KEYS)
        }
        answer = event.answer if event.HasField("answer") else None
        operation["responses"] = {"200": _answer(answer, schemas, key), **failures, **_OTHERWISE}
        return operation


def _check_arguments(arguments: Sequence[Argument]) -> None:
    names = [argument.name for argument in arguments]
    if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
        raise ValueError("arguments are told apart by names")


def _forms(event: Event) -> list[list[Argument]]:
    """Return the arguments that stand in the path, in each form that the path of an event has.

    What the query can say stands there: it may be left out, be empty, and be given by name. A method that takes any
    number of arguments has those before them in the path, too; as none of them is a number, its GET is shown without.
    """
    named = [argument for argument in event.arguments if not argument.variadic]
    by_path_only = [argument for argument in named if argument.place == Argument.PATH]
    many = [argument for argument in event.arguments if argument.variadic and argument.place == Argument.PATH]
    if not many:
        return [by_path_only]
    longest = [argument for argument in named if argument.place != Argument.QUERY] + many
    return [by_path_only, longest] if event.verb == "get" else [longest]


def _path(noun: str, names: Sequence[str]) -> str:
    return f"/{noun}//{'/'.join(f'{{{name}}}' for name in names)}" if names else f"/{noun}"


def _notes(event: Event, in_path: Sequence[Argument]) -> list[str]:
    notes = []
    if event.deprecated:
        notes.append(f"Deprecated: {event.deprecated}")
    if event.allow:
        notes.append(f"For {', '.join(f'`{name}`' for name in event.allow)} only.")
    if event.at_most_once:
        notes.append("Not repeated when the pipe is lost.")
    by_position = [each for each in event.arguments if not each.variadic and each.place != Argument.QUERY]
    if by_position and not in_path:
        notes.append(f"By position: `{_path(event.noun, [each.name for each in by_position])[1:]}`")
    return notes


def _in_path(argument: Argument, schemas: "_Schemas", key: str) -> dict[str, Any]:
    parameter: dict[str, Any] = {"name": argument.name, "in": "path", "required": True}
    if argument.variadic:
        parameter["description"] = "Any number of arguments, with slashes between them."
        return parameter | {"schema": {"type": "string"}, MANY: True}
    schema = schemas.take(argument.schema, f"{key}.{argument.name}")
    return parameter | _by_type(schema, schemas, ("object", "array"))


def _in_query(argument: Argument, schemas: "_Schemas", key: str) -> dict[str, Any]:
    schema = schemas.take(argument.schema, f"{key}.{argument.name}")
    parameter: dict[str, Any] = {"name": argument.name, "in": "query", "required": argument.required}
    if "description" in schema:
        parameter["description"] = schema["description"]
    if argument.variadic:
        parameter["description"] = "Any further parameters, by their names."
        return parameter | {"schema": {"type": "object", "additionalProperties": schema}, "example": {}}
    return parameter | _by_type(schema, schemas, ("object",))


def _by_type(schema: dict[str, Any], schemas: "_Schemas", as_json: Sequence[str]) -> dict[str, Any]:
    """Say how an argument is written: an object as JSON, others as text; a list in a query as one that is repeated."""
    parts = [schemas.followed(part) for part in (schema, *schema.get("anyOf", ()))]
    if any(part.get("type") in as_json for part in parts):
        return {"content": {JSON: {"schema": schema}}}
    return {"schema": schema}


def _body(event: Event, schemas: "_Schemas", key: str) -> dict[str, Any]:
    if event.streams_body:
        return {"content": {BINARY: {"schema": _FILE}}}
    if not event.body_schema:
        return {"content": {JSON: {"schema": {}}, BINARY: {"schema": _FILE}}}
    schema = schemas.take(event.body_schema, f"{key}.body")
    may_be_none = any(part.get("type") == "null" for part in schema.get("anyOf", ()))
    return {"required": not may_be_none, "content": {JSON: {"schema": schema}}}


def _answer(answer: Content | None, schemas: "_Schemas", key: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": "What the handler returned.",
        "headers": {"X-Event-Return-Code": _RETURN_CODE},
    }
    if answer is None:
        described["content"] = {JSON: {}}
    elif answer.schema:
        described["content"] = {JSON: {"schema": schemas.take(answer.schema, f"{key}.answer")}}
    elif answer.content_type:
        described["content"] = {BINARY: {"schema": _FILE}}
        if answer.streamed:
            described["description"] = "What the handler returned, sent as it is made."
    else:
        described["description"] = "It is done; there is no body."
    return described


class _Schemas:
    """Takes schemas, and has what they define among the components of the document.

    Args:
        known: components that are there, by name.

    Attributes:
        added: those that were not.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known
        self.added: dict[str, Any] = {}

    def take(self, text: str, key: str) -> dict[str, Any]:
        """Return a schema whose references are to the whole document.

        Args:
            text: of the schema.
            key: which no other schema has. It stands before the names of definitions that differ from others'.

        Raises:
            ValueError, TypeError, AttributeError, LookupError, RecursionError: it is none, or refers to others.
        """
        schema: dict[str, Any] = json.loads(text, parse_constant=_refuse)
        definitions: dict[str, Any] = schema.pop("$defs", {})
        if not all(isinstance(definition, dict) for definition in definitions.values()):
            raise ValueError("a definition is a schema")
        title = schema.get("title")
        if title and isinstance(title, str) and "properties" in schema and title not in definitions:
            definitions[title] = schema
            schema = {"$ref": _DEFINITIONS + title}
        for prefix in ("", f"{key}."):
            names = {name: _NOT_IN_KEYS.sub("_", prefix + name) for name in definitions}
            moved = {names[name]: _moved(definition, names) for name, definition in definitions.items()}
            if len(moved) == len(names) and all(
                self._find(name, definition) == definition for name, definition in moved.items()
            ):
                self.added |= moved
                taken: dict[str, Any] = _moved(schema, names)
                return taken
        raise ValueError("definitions are told apart by names")

    def followed(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return what a schema refers to, or else itself."""
        found: dict[str, Any] = self._find(schema.get("$ref", "").removeprefix(_SCHEMAS), schema)
        return found

    def _find(self, name: str, otherwise: Any) -> Any:
        return self.added.get(name, self._known.get(name, otherwise))


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _moved(node: Any, names: dict[str, str]) -> Any:
    """Return a part of a schema whose references to definitions are to components.

    Raises:
        LookupError: it refers to what is not there.
    """
    if isinstance(node, dict):
        if not str(node.get("$ref", _DEFINITIONS)).startswith(_DEFINITIONS):
            raise LookupError("a reference that leads out of the schema")
        return {key: _moved(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(each, names) for each in node]
    if isinstance(node, str) and node.startswith(_DEFINITIONS):
        return _SCHEMAS + names[node.removeprefix(_DEFINITIONS)]
    return node
