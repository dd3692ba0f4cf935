"""From the arguments of a URL, which are text, to those of a method."""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from restpipe.exceptions import BadArgumentsError, BadBodyError, ConfigError
from restpipe.handlers import payload
from restpipe_pb.v1.pipe_pb2 import Argument, Parameter

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_TEXT_SCHEMA = '{"type": "string"}'


@dataclass(frozen=True, slots=True)
class _Argument:
    """An argument of a method.

    Attributes:
        name: as in the method.
        adapter: converts text, None where the method takes text.
        from_json: the text is JSON, for models, lists and the like.
        repeats: a repeated query parameter is a list.
        required: it has no default.
        kind: as in the method.
    """

    name: str
    adapter: "TypeAdapter[Any] | None"
    from_json: bool
    repeats: bool
    required: bool
    kind: inspect._ParameterKind

    def convert(self, value: str) -> Any:
        """Convert text.

        Raises:
            BadArgumentsError: it does not fit the type.
        """
        if self.adapter is None:
            return value
        try:
            return self.adapter.validate_json(value) if self.from_json else self.adapter.validate_strings(value)
        except ValidationError as error:
            raise BadArgumentsError(f"argument {self.name!r}: {first_fault(error)}") from error

    def convert_all(self, values: list[str]) -> Any:
        """Convert the values of a query parameter.

        Raises:
            BadArgumentsError: they do not fit the type, or are several where one is taken.
        """
        if len(values) == 1 and not (self.repeats and not values[0].startswith("[")):
            return self.convert(values[0])
        if not self.repeats or self.adapter is None:
            raise BadArgumentsError(f"argument {self.name!r} is given {len(values)} times")
        try:
            return self.adapter.validate_strings(values)
        except ValidationError as error:
            raise BadArgumentsError(f"argument {self.name!r}: {first_fault(error)}") from error

    def describe(self) -> Argument:
        """Describe it for the manifest."""
        schema = _TEXT_SCHEMA if self.adapter is None else json.dumps(self.adapter.json_schema())
        variadic = self.kind is inspect.Parameter.VAR_POSITIONAL
        return Argument(name=self.name, schema=schema, required=self.required, variadic=variadic)


class Arguments:
    """How a method is called.

    Args:
        method: bound; takes the context and the body before the URL's arguments.

    Raises:
        ConfigError: it does not take context and body, or a type cannot be converted to.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._name = method.__name__
        try:
            parameters = list(inspect.signature(method, eval_str=True).parameters.values())
        except NameError as error:
            raise ConfigError(f"{method.__qualname__}: {error}") from error
        if len(parameters) < 2 or any(parameter.kind not in _POSITIONAL for parameter in parameters[:2]):
            raise ConfigError(f"{method.__qualname__} must take (self, ctx, post_data, ...)")
        self._body = self._body_adapter(method, parameters[1])
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
        self.described = [
            argument.describe() for argument in arguments if argument.kind is not inspect.Parameter.VAR_KEYWORD
        ]

    def bind(self, positional: Sequence[str], query: Sequence[Parameter]) -> tuple[list[Any], dict[str, Any]]:
        """Return what the method is called with, after context and body.

        Raises:
            BadArgumentsError: the arguments do not fit. The message names the first that does not.
        """
        if not positional and not query and not self._required:
            return [], {}
        arguments = [self._positional_argument(i).convert(value) for i, value in enumerate(positional)]
        values: dict[str, list[str]] = {}
        for parameter in query:
            values.setdefault(parameter.name, []).append(parameter.value)
        given = {argument.name for argument in self._positional[: len(positional)]}
        named = {name: self._named_argument(name, given).convert_all(texts) for name, texts in values.items()}
        for argument in self._required:
            if argument.name not in given and argument.name not in named:
                raise BadArgumentsError(f"argument {argument.name!r} of {self._name} is missing")
        return arguments, named

    def body(self, content_type: str, body: bytes) -> Any:
        """Return the body as the method takes it.

        Raises:
            BadBodyError: it is not the JSON that it claims to be, or does not fit the method's model.
        """
        if self._body is None:
            return payload.decode(content_type, body)
        try:
            return self._body.validate_json(body)
        except ValidationError as error:
            raise BadBodyError(f"the body does not fit: {first_fault(error)}") from error

    def _positional_argument(self, index: int) -> _Argument:
        if index < len(self._positional):
            return self._positional[index]
        if self._rest is None:
            raise BadArgumentsError(
                f"{self._name} takes {len(self._positional)} positional arguments, there is one more: "
                f"argument {index + 1}"
            )
        return self._rest

    def _named_argument(self, name: str, given: set[str]) -> _Argument:
        if name in given:
            raise BadArgumentsError(f"argument {name!r} is given both in the path and in the query")
        argument = self._named.get(name) or self._any_name
        if argument is None:
            known = ", ".join(self._named) or "none"
            raise BadArgumentsError(f"{self._name} has no argument {name!r} (it has: {known})")
        return argument

    @staticmethod
    def _body_adapter(method: Callable[..., Any], parameter: inspect.Parameter) -> "TypeAdapter[Any] | None":
        annotation = parameter.annotation
        if annotation in (inspect.Parameter.empty, Any, tuple) or get_origin(annotation) is tuple:
            return None
        return _adapter(method, parameter)

    @staticmethod
    def _argument(method: Callable[..., Any], parameter: inspect.Parameter) -> _Argument:
        annotation = parameter.annotation
        adapter = None if annotation in (inspect.Parameter.empty, Any, str) else _adapter(method, parameter)
        kind = adapter.json_schema().get("type") if adapter is not None else "string"
        variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return _Argument(
            name=parameter.name,
            adapter=adapter,
            from_json=kind in ("object", "array"),
            repeats=kind == "array",
            required=parameter.default is inspect.Parameter.empty and not variadic,
            kind=parameter.kind,
        )


def first_fault(error: ValidationError) -> str:
    """Say in one line what the first fault of a validation is, and where."""
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {fault['msg']}" if where else fault["msg"]


def _adapter(method: Callable[..., Any], parameter: inspect.Parameter) -> "TypeAdapter[Any]":
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(parameter.annotation)
        adapter.json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise ConfigError(
            f"{method.__qualname__}: nothing can be converted to the type of {parameter.name!r}"
        ) from error
    return adapter


def _of_kind(arguments: list[_Argument], kind: "inspect._ParameterKind") -> _Argument | None:
    return next((argument for argument in arguments if argument.kind is kind), None)
