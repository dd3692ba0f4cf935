"""Bodies become what a handler is given, and what it returns becomes bodies."""

import contextlib
import datetime
import enum
import uuid
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from restpipe.exceptions import BadBodyError, BadResultError
from restpipe.handlers.payload import BINARY, JSON, decode, encode


class Model(BaseModel):
    name: str
    born: datetime.date | None = None


@dataclass
class Point:
    x: int
    y: Model


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


Pair = namedtuple("Pair", "left right")

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


# What a handler is given


@pytest.mark.parametrize("content_type", ["", JSON, "text/plain", "nonsense"])
def test_no_body_is_two_empty_texts(content_type: str) -> None:
    assert decode(content_type, b"") == ("", "")


@pytest.mark.parametrize(
    ("content_type", "mime_type"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        (" application/json ;a=b", "application/json"),
        ("application/problem+json", "application/problem+json"),
    ],
)
def test_json_is_decoded_whatever_its_parameters(content_type: str, mime_type: str) -> None:
    assert decode(content_type, b'{"a": [1, 2.5, null, true, "\xc3\xbc"]}') == (
        mime_type,
        {"a": [1, 2.5, None, True, "ü"]},
    )


@pytest.mark.parametrize("content_type", ["text/plain", "application/jsonp", "json", "text/x+json", "image/png; a=b"])
def test_everything_else_is_bytes(content_type: str) -> None:
    assert decode(content_type, b'{"a": 1}') == (content_type.partition(";")[0], b'{"a": 1}')


def test_a_body_without_a_type_is_binary() -> None:
    assert decode("", b"\0\xff") == (BINARY, b"\0\xff")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", "line 1 column 1"),
        (b'{"a":\n 1,}', "line 2 column 4"),
        (b"[1] 2", "line 1 column 5"),
        (b" ", "line 1 column 1"),
        (b"NaN", "line 1 column 1"),
        (b"[Infinity]", "line 1 column 2"),
        (b'"\xff"', "line 1 column"),
        (b'"\\ud800"', "line 1 column"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
        (b"[" * 100_000, "line 1 column"),
    ],
)
def test_json_that_is_none_is_refused_by_its_place(body: bytes, where: str) -> None:
    with pytest.raises(BadBodyError, match=f"the body is not JSON: .*{where}") as refused:
        decode(JSON, body)
    assert (refused.value.status, refused.value.return_code) == (400, 252)


def test_integers_keep_every_digit() -> None:
    assert decode(JSON, b"123456789012345678901234567890") == (JSON, 123456789012345678901234567890)


@given(data=ANY_JSON)
def test_what_is_sent_as_json_arrives_as_it_was(data: Any) -> None:
    content_type, body = encode([data], None)
    assert decode(content_type, body) == (JSON, [data])


@given(body=st.binary(min_size=1))
def test_any_body_is_decoded_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadBodyError):
        decode(JSON, body)


# What a handler returns


@pytest.mark.parametrize("mime_type", [None, "text/plain"])
def test_none_is_an_empty_body(mime_type: str | None) -> None:
    assert encode(None, mime_type) == (mime_type or "", b"")


@pytest.mark.parametrize("data", [b"\0\xff", bytearray(b"\0\xff"), memoryview(b"\0\xff"), memoryview(b"\0-\xff")[::2]])
def test_bytes_are_sent_as_they_are(data: bytes | bytearray | memoryview) -> None:
    assert encode(data, None) == (BINARY, b"\0\xff")
    assert encode(data, "image/png") == ("image/png", b"\0\xff")
    assert encode(data, JSON) == (JSON, b"\0\xff")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"time_from_server": 1.5, "b": [1, None]}, '{"time_from_server": 1.5, "b": [1, null]}'),
        ("grün", '"grün"'),
        (0, "0"),
        (False, "false"),
        ("", '""'),
        ([], "[]"),
        ((1, 2), "[1, 2]"),
        (10**30, "1" + "0" * 30),
        ({1: "a", None: "b"}, '{"1": "a", "null": "b"}'),
        (OrderedDict(a=1), '{"a": 1}'),
        (Pair(1, "b"), '[1, "b"]'),
        (Model(name="Ada", born=datetime.date(1815, 12, 10)), '{"name": "Ada", "born": "1815-12-10"}'),
        ([Model(name="Ada")], '[{"name": "Ada", "born": null}]'),
        (Point(1, Model(name="Ada")), '{"x": 1, "y": {"name": "Ada", "born": null}}'),
        (datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), '"2024-01-02T00:00:00Z"'),
        (datetime.timedelta(hours=1), '"PT1H"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.10"), '"1.10"'),
        ({"one"}, '["one"]'),
        (frozenset({1}), "[1]"),
        (deque([1]), "[1]"),
        (Colour.RED, '"red"'),
        (Level.LOW, "1"),
        (Path("/a"), '"/a"'),
        ({"nested": {"a": {Colour.RED}}}, '{"nested": {"a": ["red"]}}'),
        ({datetime.date(2024, 1, 2): uuid.UUID(int=1)}, '{"2024-01-02": "00000000-0000-0000-0000-000000000001"}'),
        ({Colour.RED: 1}, '{"red": 1}'),
    ],
    ids=repr,
)
def test_data_is_sent_as_json(data: object, text: str) -> None:
    content_type, body = encode(data, None)
    assert content_type == JSON
    assert body.decode() == text
    assert encode(data, "application/problem+json") == ("application/problem+json", body)


def test_text_of_another_type_is_sent_as_utf_8_and_says_so() -> None:
    assert encode("grün", "text/html") == ("text/html; charset=utf-8", "grün".encode())
    assert encode("grün", "text/html; charset=UTF-8") == ("text/html; charset=UTF-8", "grün".encode())
    assert encode("<a/>", "application/xml") == ("application/xml", b"<a/>")


def circular() -> list[Any]:
    data: list[Any] = []
    data.append(data)
    return data


def deep() -> list[Any]:
    data: list[Any] = []
    for _ in range(100_000):
        data = [data]
    return data


@pytest.mark.parametrize(
    "make",
    [
        object,
        lambda: {"a": object()},
        lambda: {object(): 1},
        lambda: object,
        lambda: float("nan"),
        lambda: [float("inf")],
        lambda: "\ud800",
        lambda: {"\ud800": 1},
        lambda: {"a": b"\xff"},
        lambda: {object()},
        circular,
        deep,
    ],
)
def test_what_json_cannot_say_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(BadResultError, match=r"the result cannot be encoded as JSON: .") as refused:
        encode(make(), None)
    assert (refused.value.status, refused.value.return_code) == (500, 251)


@pytest.mark.parametrize("data", [{"a": 1}, 1, ["text"]])
def test_data_of_another_type_than_json_must_be_bytes_or_text(data: object) -> None:
    with pytest.raises(BadResultError, match=f"text/html data is bytes or str, not {type(data).__name__}"):
        encode(data, "text/html")


def test_text_with_lone_surrogates_is_refused() -> None:
    with pytest.raises(BadResultError, match="cannot be encoded as UTF-8"):
        encode("\ud800", "text/html")
