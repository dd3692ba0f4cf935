"""What the annotations of a handler method say of its answer, for the manifest."""

import inspect
import io
import json
import types
import typing
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, BinaryIO

from pydantic import TypeAdapter

from restpipe.handlers import payload
from restpipe.handlers.base import Reply
from restpipe_pb.v1.pipe_pb2 import Content

_UNKNOWN = (inspect.Signature.empty, Any, object, Reply, tuple)
_BYTES = (bytes, bytearray, memoryview)
_FILES = (Path, BinaryIO, IO, io.BufferedReader, io.BytesIO, io.BufferedIOBase, io.RawIOBase, io.IOBase)
_STREAMS = (AsyncGenerator, AsyncIterator, Generator, Iterator)


def answer_of(method: Callable[..., Any]) -> Content | None:
    """Describe what a method answers with where it succeeds; None where it does not say.

    An annotation that cannot be understood says nothing: it is for others, and nothing depends on it.
    """
    function = inspect.unwrap(method)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return Content(content_type=payload.BINARY, streamed=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic's, of what a schema cannot express
            return _content(_return_annotation(function))
    except Exception:  # noqa: BLE001 - annotations may be anything, and raise anything
        return None


def _return_annotation(function: Callable[..., Any]) -> Any:
    annotation = inspect.signature(function).return_annotation
    annotated = SimpleNamespace(__annotations__={"return": annotation})
    return typing.get_type_hints(annotated, function.__globals__, include_extras=True)["return"]


def _content(annotation: Any) -> Content | None:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _UNKNOWN or (origin is tuple and len(parts) == 3 and parts[0] is str):
        return None  # of a (mime_type, return_code, data) nothing but that is known
    if origin is Reply:
        return _content(parts[0])
    if origin in (typing.Union, types.UnionType):
        return _content_of_any(parts)
    if annotation is types.NoneType:
        return Content()
    kind = origin or annotation
    if kind in _BYTES or kind in _FILES:
        return Content(content_type=payload.BINARY)
    if kind in _STREAMS:
        return Content(content_type=payload.BINARY, streamed=True)
    return _json(annotation)


def _content_of_any(parts: tuple[Any, ...]) -> Content | None:
    """Describe a union: of JSON in several forms, or of one kind; None is an empty body, of which any may be."""
    told = [part for part in parts if part is not types.NoneType]
    contents = [_content(part) for part in told]
    if len(contents) == 1:
        return contents[0]
    if any(content is None or not content.schema for content in contents):
        return None
    return _json(typing.Union[tuple(told)])  # noqa: UP007 - made here


def _json(annotation: Any) -> Content:
    schema = TypeAdapter[Any](annotation).json_schema(mode="serialization")
    return Content(content_type=payload.JSON, schema=json.dumps(schema))
