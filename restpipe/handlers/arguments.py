"""From the arguments of a URL, which are text, to those of a method."""

import contextlib
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from restpipe.exceptions import BadArgumentsError, BadBodyError, ConfigError
from restpipe.handlers import payload
from restpipe.handlers.uploads import OpenBody, opener_of
from restpipe_pb.v1.pipe_pb2 import Argument, Parameter

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_PLACES: dict[inspect._ParameterKind, Argument.Place.ValueType] = {
    inspect.Parameter.POSITIONAL_ONLY: Argument.PATH,
    inspect.Parameter.VAR_POSITIONAL: Argument.PATH,
    inspect.Parameter.KEYWORD_ONLY: Argument.QUERY,
    inspect.Parameter.VAR_KEYWORD: Argument.QUERY,
}


@dataclass(frozen=True, slots=True)
class _Argument:
    """An argument of a method.

    Attributes:
        name: as in the method.
        adapter: converts text, None where the method takes text.
        structured: it may be a model, a list and the like, which is given as JSON.
        repeats: it may be a list, which is given as a repeated query parameter, too.
        default: as in the method.
        kind: as in the method.
    """

    name: str
    adapter: "TypeAdapter[Any] | None"
    structured: bool
    repeats: bool
    default: Any
    kind: inspect._ParameterKind

    @property
    def variadic(self) -> bool:
        """Whether it takes any number of arguments."""
        return self.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    @property
    def required(self) -> bool:
        """Whether the method cannot be called without it."""
        return self.default is inspect.Parameter.empty and not self.variadic

    def convert(self, text: str, name: str) -> Any:
        """Convert text, of the argument that the caller knows by `name`.

        Raises:
            BadArgumentsError: it does not fit the type.
        """
        if self.adapter is None:
            return text
        as_json = self.structured and text.startswith(("[", "{"))
        try:
            return self.adapter.validate_json(text) if as_json else self.adapter.validate_strings(text)
        except ValidationError as error:
            if not as_json:
                # null, and the members of an Enum or a Literal that are no texts.
                with contextlib.suppress(ValidationError):
                    return self.adapter.validate_json(text, strict=True)
            raise BadArgumentsError(f"argument {name!r}: {first_fault(error)}") from error

    def convert_all(self, texts: list[str], name: str) -> Any:
        """Convert the values of a query parameter.

        Raises:
            BadArgumentsError: they do not fit the type, or are several where one is taken.
        """
        if len(texts) == 1 and not (self.repeats and not texts[0].startswith("[")):
            return self.convert(texts[0], name)
        if not self.repeats or self.adapter is None:
            raise BadArgumentsError(f"argument {name!r} is given {len(texts)} times")
        try:
            return self.adapter.validate_python(texts)  # validate_strings takes no lists
        except ValidationError as error:
            raise BadArgumentsError(f"argument {name!r}: {first_fault(error)}") from error

    def describe(self) -> Argument:
        """Describe it for the manifest."""
        schema: dict[str, Any] = {"type": "string"} if self.adapter is None else self.adapter.json_schema()
        if self.default not in (None, inspect.Parameter.empty):
            with contextlib.suppress(PydanticSerializationError, ValueError):
                default = to_jsonable_python(self.default)
                json.dumps(default, allow_nan=False)  # raises where there is no JSON for it, as for infinity
                schema["default"] = default
        return Argument(
            name=self.name,
            schema=json.dumps(schema),
            required=self.required,
            variadic=self.variadic,
            place=_PLACES.get(self.kind, Argument.ANYWHERE),
        )


class Arguments:
    """How a method is called.

    Args:
        method: bound; takes the context and the body before the URL's arguments.

    Attributes:
        open_body: opens the body as the stream that the method reads; None where it takes the body whole.
        described: what the URL may say, for the manifest.
        body_schema: JSON Schema of the body, "" where the method takes any.

    Raises:
        ConfigError: it does not take context and body, or a type cannot be converted to.
    """

    open_body: OpenBody | None

    def __init__(self, method: Callable[..., Any]) -> None:
        self._name = method.__name__
        parameters = list(inspect.signature(method).parameters.values())
        if len(parameters) < 2 or any(parameter.kind not in _POSITIONAL for parameter in parameters[:2]):
            raise ConfigError(
                f"{method.__qualname__} must take (self, ctx, post_data, ...), "
                "or begin with an underscore where it serves no event"
            )
        self._taken = {"self", *(parameter.name for parameter in parameters[:2])}
        body_type = _annotation(method, parameters[1])
        self.open_body = opener_of(method, parameters[1].name, body_type)
        self._body = None if self.open_body else self._body_adapter(method, parameters[1].name, body_type)
        arguments = [self._argument(method, parameter) for parameter in parameters[2:]]
        self._positional = [argument for argument in arguments if argument.kind in _POSITIONAL]
        self._rest = _of_kind(arguments, inspect.Parameter.VAR_POSITIONAL)
        self._any_name = _of_kind(arguments, inspect.Parameter.VAR_KEYWORD)
        self._named = {
            argument.name: argument
            for argument in arguments
            if argument.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        }
        self._required = [argument for argument in arguments if argument.required]
        self.described = [argument.describe() for argument in arguments]
        self.body_schema = "" if self._body is None else json.dumps(self._body.json_schema())

    def bind(self, positional: Sequence[str], query: Sequence[Parameter]) -> tuple[list[Any], dict[str, Any]]:
        """Return what the method is called with, after context and body.

        Raises:
            BadArgumentsError: the arguments do not fit. The message names the first that does not.
        """
        if not positional and not query and not self._required:
            return [], {}
        arguments = [
            argument.convert(text, argument.name) for argument, text in zip(self._positional, positional, strict=False)
        ]
        arguments += self._further_arguments(positional[len(self._positional) :])
        texts: dict[str, list[str]] = {}
        for parameter in query:
            texts.setdefault(parameter.name, []).append(parameter.value)
        given = {argument.name for argument in self._positional[: len(positional)]}
        named = {name: self._named_argument(name, given).convert_all(texts[name], name) for name in texts}
        given |= named.keys() & self._named.keys()
        for argument in self._required:
            if argument.name not in given:
                raise BadArgumentsError(f"argument {argument.name!r} of {self._name} is missing")
        return arguments, named

    def body(self, content_type: str, body: bytes) -> Any:
        """Return a whole body as the method takes it.

        Raises:
            BadBodyError: it is not the JSON that it claims to be, or does not fit the method's model.
        """
        if self._body is None:
            return payload.decode(content_type, body)
        try:
            return self._body.validate_json(body or b"null")
        except ValidationError as error:
            fault = first_fault(error) if body else "there is none"
            raise BadBodyError(f"the body does not fit: {fault}") from error

    def _further_arguments(self, texts: Sequence[str]) -> list[Any]:
        rest = self._rest
        if rest is not None:
            return [rest.convert(text, f"{rest.name}[{i}]") for i, text in enumerate(texts)]
        if texts:
            most = len(self._positional)
            raise BadArgumentsError(
                f"{self._name} takes {most} positional arguments, there is one more: argument {most + 1}"
            )
        return []

    def _named_argument(self, name: str, given: set[str]) -> _Argument:
        if name in given:
            raise BadArgumentsError(f"argument {name!r} is given both in the path and in the query")
        argument = self._named.get(name) or self._any_name
        if argument is None or name in self._taken:
            known = ", ".join(self._named) or "none"
            raise BadArgumentsError(f"{self._name} has no argument {name!r} (it has: {known})")
        return argument

    @staticmethod
    def _body_adapter(method: Callable[..., Any], name: str, annotation: Any) -> "TypeAdapter[Any] | None":
        if annotation in (inspect.Parameter.empty, Any, object, tuple) or typing.get_origin(annotation) is tuple:
            return None
        return _adapter(method, name, annotation)

    @staticmethod
    def _argument(method: Callable[..., Any], parameter: inspect.Parameter) -> _Argument:
        annotation = _annotation(method, parameter)
        untyped = annotation in (inspect.Parameter.empty, Any, str)
        adapter = None if untyped else _adapter(method, parameter.name, annotation)
        types = set() if adapter is None else _types(adapter.json_schema())
        return _Argument(
            name=parameter.name,
            adapter=adapter,
            structured=bool(types & {"object", "array"}),
            repeats="array" in types,
            default=parameter.default,
            kind=parameter.kind,
        )


def first_fault(error: ValidationError) -> str:
    """Say in one line what the first fault of a validation is, and where."""
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {fault['msg']}" if where else fault["msg"]


def _annotation(method: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the type of a parameter; those of others may be known to type checkers only.

    Raises:
        ConfigError: it is written as text, and names what there is not.
    """
    if parameter.annotation is inspect.Parameter.empty:
        return parameter.annotation
    annotated = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = typing.get_type_hints(annotated, inspect.unwrap(method).__globals__, include_extras=True)
    except Exception as error:
        raise ConfigError(f"{method.__qualname__}: the type of {parameter.name!r} cannot be found: {error}") from error
    return hints[parameter.name]


def _adapter(method: Callable[..., Any], name: str, annotation: Any) -> "TypeAdapter[Any]":
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        adapter.json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise ConfigError(f"{method.__qualname__}: nothing can be converted to the type of {name!r}") from error
    return adapter


def _types(schema: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that a schema admits; those of its parts are not among them."""
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    types: set[str] = set()
    due = [schema]
    while due:
        schema = due.pop()
        due += [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        if "$ref" in schema:
            due.append(definitions[schema["$ref"].rpartition("/")[2]])
        if "type" in schema:
            types.add(schema["type"])
    return types


def _of_kind(arguments: list[_Argument], kind: "inspect._ParameterKind") -> _Argument | None:
    return next((argument for argument in arguments if argument.kind is kind), None)
