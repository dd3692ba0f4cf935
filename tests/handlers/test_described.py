"""What a method's annotations say of its answer reaches the manifest; what they do not say is not made up."""

import json
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import pytest
from pydantic import BaseModel
from typing_extensions import deprecated

from restpipe import ClientEventHandler, Reply
from restpipe.handlers.described import answer_of
from restpipe.handlers.events import EventTable
from restpipe_pb.v1.pipe_pb2 import Content


class Order(BaseModel):
    item: str


@dataclass
class Place:
    x: int


def returning(annotation: Any) -> Any:
    def get_x(self: object, ctx: object, post_data: object) -> None:
        raise NotImplementedError

    get_x.__annotations__["return"] = annotation
    return get_x


def told(annotation: Any) -> Content:
    content = answer_of(returning(annotation))
    assert content is not None
    return content


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (int, {"type": "integer"}),
        (str, {"type": "string"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Reply[int], {"type": "integer"}),
        (Annotated[int, "of something"], {"type": "integer"}),
        ("int", {"type": "integer"}),
    ],
)
def test_data_that_is_sent_as_json_is_told_by_its_schema(annotation: Any, schema: dict[str, Any]) -> None:
    content = told(annotation)
    assert (content.content_type, json.loads(content.schema), content.streamed) == ("application/json", schema, False)


@pytest.mark.parametrize("annotation", [Order, Reply[Order], Order | None, Order | Reply[Order], Place])
def test_a_model_is_told_by_its_schema(annotation: Any) -> None:
    schema = json.loads(told(annotation).schema)
    shown = schema.get("anyOf", [schema])[0]
    if "$ref" in shown:
        shown = schema["$defs"][shown["$ref"].rpartition("/")[2]]
    assert [*shown["properties"]] == (["x"] if annotation is Place else ["item"])


@pytest.mark.parametrize("annotation", [bytes, Path, BinaryIO, Reply[bytes], Path | None])
def test_bytes_and_files_are_told_as_bytes(annotation: Any) -> None:
    assert told(annotation) == Content(content_type="application/octet-stream")


@pytest.mark.parametrize(
    "annotation", [AsyncIterator[bytes], Iterator[str], Generator[bytes, None, None], Reply[Iterator[str]]]
)
def test_iterators_are_told_as_streams(annotation: Any) -> None:
    assert told(annotation) == Content(content_type="application/octet-stream", streamed=True)


def test_a_generator_is_told_as_a_stream_without_any_annotation() -> None:
    def pieces(self, ctx, post_data):  # type: ignore[no-untyped-def]
        yield b""

    async def more(self, ctx, post_data):  # type: ignore[no-untyped-def]
        yield b""

    streamed = Content(content_type="application/octet-stream", streamed=True)
    assert answer_of(pieces) == answer_of(more) == streamed


def test_an_answer_without_a_body_is_told() -> None:
    assert told(None) == Content()


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        Reply,
        Reply[Any],
        tuple,
        tuple[str, int, Any],
        Order | Reply,
        bytes | Order,
        "NoSuchName",
        "in t",
        5,
        EventTable,
    ],
)
def test_what_an_annotation_does_not_say_is_not_made_up(annotation: Any) -> None:
    assert answer_of(returning(annotation)) is None


def test_a_method_without_an_annotation_says_nothing() -> None:
    def get_x(self, ctx, post_data):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    assert answer_of(get_x) is None


class Shop(ClientEventHandler):
    async def post_order(self, ctx: object, order: Order) -> Order:
        raise NotImplementedError

    @deprecated("use post_order", category=None)
    async def put_order(self, ctx: object, post_data: object) -> None:
        raise NotImplementedError


def test_the_manifest_tells_body_answer_and_what_is_deprecated() -> None:
    post, put = EventTable(Shop()).manifest
    assert json.loads(post.body_schema) == json.loads(post.answer.schema) == Order.model_json_schema()
    assert (post.deprecated, put.deprecated) == ("", "use post_order")
    assert (put.body_schema, put.HasField("answer"), put.answer) == ("", True, Content())
