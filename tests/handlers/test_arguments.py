"""The text of a URL becomes the arguments of a method, or an answer that names the one that does not fit."""

import contextlib
import datetime
import enum
import functools
import json
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from types import MethodType
from typing import Annotated, Any, Literal, Optional

import annotated_as_text
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from restpipe.exceptions import BadArgumentsError, BadBodyError, ConfigError
from restpipe.handlers.arguments import Arguments
from restpipe.handlers.payload import NOTHING, PostData
from restpipe_pb.v1.pipe_pb2 import Argument, Parameter


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


class Level(enum.IntEnum):
    LOW = 1


class Model(BaseModel):
    name: str
    age: int = 0


class Tree(BaseModel):
    name: str
    children: "list[Tree]" = []


@dataclass
class Point:
    x: int
    y: int


Method = Callable[..., Any]


def of(function: Method) -> Arguments:
    """Return how a method of a handler is called."""
    return Arguments(MethodType(function, object()))


def called(function: Method, *positional: str, query: str | list[tuple[str, str]] = "") -> Any:
    """Return what the method returns when it is called with the text of a URL."""
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair] if isinstance(query, str) else query
    arguments, named = of(function).bind(positional, [Parameter(name=name, value=value) for name, value in pairs])
    return MethodType(function, object())("the context", NOTHING, *arguments, **named)


def taking(annotation: Any) -> Method:
    """Return a method with an argument x of this type."""

    def get_x(self: object, ctx: object, post_data: object, x: Any) -> Any:
        return x

    get_x.__annotations__["x"] = annotation
    return get_x


def plain(self, ctx, post_data, x, y="default"):  # type: ignore[no-untyped-def]
    return x, y


def rest(self: object, ctx: object, post_data: object, x: int, *numbers: int) -> Any:
    return x, numbers


def anything(self: object, ctx: object, post_data: object, **options: int) -> Any:
    return options


def keyword_only(self: object, ctx: object, post_data: object, *, limit: int, offset: int = 0) -> Any:
    return limit, offset


def positional_only(self: object, ctx: object, post_data: object, x: int, /, y: int = 0) -> Any:
    return x, y


def positional_only_and_anything(self: object, ctx: object, post_data: object, x: int, /, **options: str) -> Any:
    return x, options


def everything(self: object, ctx: object, post_data: object, x: int, *more: str, limit: int = 9, **others: str) -> Any:
    return x, more, limit, others


METHODS = [plain, rest, anything, keyword_only, positional_only, positional_only_and_anything, everything]


def test_an_argument_without_a_type_is_the_text() -> None:
    assert called(plain, "1", "") == ("1", "")
    assert called(plain, "%2F ü") == ("%2F ü", "default")
    assert called(taking(str), "01") == "01"
    assert called(taking(Any), "[1]") == "[1]"


def test_a_query_parameter_is_an_argument_by_its_name() -> None:
    assert called(plain, query="y=2&x=1") == ("1", "2")
    assert called(plain, "1", query="y=") == ("1", "")


def test_a_method_without_arguments_takes_none() -> None:
    def get_x(self: object, ctx: object, post_data: object) -> str:
        return "called"

    assert called(get_x) == "called"
    with pytest.raises(BadArgumentsError, match="takes 0 positional arguments, there is one more: argument 1"):
        called(get_x, "")
    with pytest.raises(BadArgumentsError, match=r"get_x has no argument 'a' \(it has: none\)"):
        called(get_x, query="a=1")


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "-5", -5),
        (float, "1.5", 1.5),
        (bool, "true", True),
        (bool, "0", False),
        (Decimal, "1.10", Decimal("1.10")),
        (bytes, "abc", b"abc"),
        (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
        (datetime.datetime, "2024-02-29T12:00:00Z", datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)),
        (datetime.timedelta, "PT1H", datetime.timedelta(hours=1)),
        (uuid.UUID, "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
        (Colour, "red", Colour.RED),
        (Size, "2", Size.LARGE),
        (Level, "1", Level.LOW),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
        (Optional[int], "5", 5),  # noqa: UP045
        (int | None, "null", None),
        (int | None, "5", 5),
        (str | None, "[a]", "[a]"),
        (Size | None, "1", Size.SMALL),
        (int | str, "a", "a"),
        (list[int], "[1, 2]", [1, 2]),
        (list[int] | None, "[1, 2]", [1, 2]),
        (set[Colour], '["red"]', {Colour.RED}),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Model, '{"name": "Ada", "age": 36}', Model(name="Ada", age=36)),
        (Model | None, '{"name": "Ada"}', Model(name="Ada")),
        (Tree, '{"name": "a", "children": [{"name": "b"}]}', Tree(name="a", children=[Tree(name="b")])),
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (Annotated[int, Field(gt=0)], "1", 1),
        ("int", "1", 1),
        ("list[Colour]", '["blue"]', [Colour.BLUE]),
        (list["Size"], "[1]", [Size.SMALL]),
    ],
)
def test_text_is_converted_to_the_type_of_the_argument(annotation: Any, text: str, value: object) -> None:
    method = taking(annotation)
    assert called(method, text) == value
    assert type(called(method, text)) is type(value)
    assert called(method, query=[("x", text)]) == value


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, ""),
        (int, "1.5"),
        (int, "true"),
        (int, "null"),
        (int, "9" * 10_000),
        (float, "one"),
        (bool, "2"),
        (datetime.date, "2023-02-29"),
        (datetime.datetime, "noon"),
        (uuid.UUID, "1"),
        (Colour, "green"),
        (Size, "3"),
        (Size, "SMALL"),
        (Literal["a"], "b"),
        (Literal[1], "one"),
        (int | None, ""),
        (list[int], "[1, "),
        (list[int], '["a"]'),
        (list[int], '{"a": 1}'),
        (list[int], "[" * 10_000),
        (Model, '{"age": 1}'),
        (Model, "Ada"),
        (Model | None, '{"age": "old"}'),
        (Point, '{"x": 1}'),
        (Point, "[1, 2]"),
        (Annotated[int, Field(gt=0)], "0"),
    ],
)
def test_what_does_not_fit_the_type_is_refused_by_the_name_of_the_argument(annotation: Any, text: str) -> None:
    method = taking(annotation)
    with pytest.raises(BadArgumentsError, match=r"^argument 'x': .") as refused:
        called(method, text)
    assert refused.value.status == 400
    with pytest.raises(BadArgumentsError, match=r"^argument 'x': ."):
        called(method, query=[("x", text)])


def test_the_place_within_a_model_that_does_not_fit_is_named() -> None:
    with pytest.raises(BadArgumentsError, match=r"^argument 'x': children\.0\.name: "):
        called(taking(Tree), '{"name": "a", "children": [{}]}')
    with pytest.raises(BadArgumentsError, match="line 1 column 4"):
        called(taking(list[int]), "[1, ")


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(BadArgumentsError, match="argument 'x' of plain is missing"):
        called(plain)
    with pytest.raises(BadArgumentsError, match="argument 'x' of plain is missing"):
        called(plain, query="y=1")
    with pytest.raises(BadArgumentsError, match="argument 'limit' of keyword_only is missing"):
        called(keyword_only)


def test_an_unknown_argument_is_named_with_those_there_are() -> None:
    with pytest.raises(BadArgumentsError, match=r"plain has no argument 'z' \(it has: x, y\)"):
        called(plain, "1", query="z=1")


def test_one_positional_argument_too_many_is_refused() -> None:
    with pytest.raises(BadArgumentsError, match="plain takes 2 positional arguments, there is one more: argument 3"):
        called(plain, "1", "2", "3")
    with pytest.raises(BadArgumentsError, match="there is one more: argument 1"):
        called(keyword_only, "1")


def test_an_argument_given_in_the_path_and_in_the_query_is_refused() -> None:
    with pytest.raises(BadArgumentsError, match="argument 'x' is given both in the path and in the query"):
        called(plain, "1", query="x=1")


def test_a_parameter_given_twice_is_refused_unless_a_list_is_taken() -> None:
    for method in (plain, taking(int)):
        with pytest.raises(BadArgumentsError, match="argument 'x' is given 2 times"):
            called(method, query="x=1&x=2")
    assert called(taking(list[int]), query="x=1&x=2") == [1, 2]
    assert called(taking(list[int] | None), query="x=1&x=2") == [1, 2]
    assert called(taking(set[str]), query="x=a&x=b&x=a") == {"a", "b"}


def test_a_list_in_the_query_is_one_value_or_several_or_json() -> None:
    assert called(taking(list[int]), query="x=1") == [1]
    assert called(taking(list[str]), query="x=") == [""]
    assert called(taking(list[int]), query="x=[1,2]") == [1, 2]
    with pytest.raises(BadArgumentsError, match=r"argument 'x': 1: "):
        called(taking(list[int]), query="x=1&x=a")


def test_a_list_in_the_path_is_json() -> None:
    with pytest.raises(BadArgumentsError, match=r"argument 'x': Input should be a valid (list|array)"):
        called(taking(list[int]), "1")


def test_further_positional_arguments_are_taken_by_a_variadic_method() -> None:
    assert called(rest, "1") == (1, ())
    assert called(rest, "1", "2", "3") == (1, (2, 3))
    with pytest.raises(BadArgumentsError, match=r"argument 'numbers\[1\]': "):
        called(rest, "1", "2", "three")
    with pytest.raises(BadArgumentsError, match="rest has no argument 'numbers'"):
        called(rest, "1", query="numbers=2")


def test_any_query_parameter_is_taken_by_a_method_with_keyword_arguments() -> None:
    assert called(anything) == {}
    assert called(anything, query="a=1&b-c=2&options=3") == {"a": 1, "b-c": 2, "options": 3}
    with pytest.raises(BadArgumentsError, match="argument 'a': "):
        called(anything, query="a=x")
    with pytest.raises(BadArgumentsError, match="argument 'a' is given 2 times"):
        called(anything, query="a=1&a=2")


@pytest.mark.parametrize("name", ["self", "ctx", "post_data"])
def test_no_query_parameter_takes_the_place_of_context_or_body(name: str) -> None:
    for method in (plain, anything):
        with pytest.raises(BadArgumentsError, match=f"has no argument '{name}'"):
            called(method, query=f"x=1&{name}=1" if method is plain else f"{name}=1")


def test_keyword_only_arguments_are_taken_from_the_query() -> None:
    assert called(keyword_only, query="limit=5") == (5, 0)
    assert called(keyword_only, query="limit=5&offset=1") == (5, 1)


def test_positional_only_arguments_are_taken_from_the_path() -> None:
    assert called(positional_only, "1", query="y=2") == (1, 2)
    with pytest.raises(BadArgumentsError, match="positional_only has no argument 'x'"):
        called(positional_only, query="x=1")
    assert called(positional_only_and_anything, "1", query="a=b") == (1, {"a": "b"})
    with pytest.raises(BadArgumentsError, match="argument 'x' of positional_only_and_anything is missing"):
        called(positional_only_and_anything, query="x=1")


def test_all_kinds_of_arguments_go_together() -> None:
    assert called(everything, "1", "2", "3", query="limit=4&a=b") == (1, ("2", "3"), 4, {"a": "b"})
    assert called(everything, query="x=1") == (1, (), 9, {})


NAMES = st.sampled_from(
    ["x", "y", "limit", "offset", "self", "ctx", "post_data", "options", "more", "numbers", "z", ""]
)
TEXTS = st.one_of(st.sampled_from(["", "1", "[1]", "{}", "null", "true"]), st.text(max_size=5))


@given(
    method=st.sampled_from([*METHODS, *(taking(each) for each in (list[int], Model, Optional[list[str]], Size, Tree))]),  # noqa: UP045
    positional=st.lists(TEXTS, max_size=4),
    query=st.lists(st.tuples(NAMES, TEXTS), max_size=4),
)
def test_any_url_calls_the_method_or_is_refused_by_it(
    method: Method, positional: list[str], query: list[tuple[str, str]]
) -> None:
    with contextlib.suppress(BadArgumentsError):
        called(method, *positional, query=query)


def test_annotations_may_be_text_and_only_those_that_convert_must_exist() -> None:
    arguments = Arguments(annotated_as_text.Lazy().get_sum)
    assert arguments.bind(["1", "[2]"], []) == ([1, [2]], {})
    with pytest.raises(BadArgumentsError, match="'x'"):
        arguments.bind(["one"], [])


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (
            annotated_as_text.Unresolvable().get_sum,
            "Unresolvable.get_sum: the type of 'x' cannot be found: .*'Decimal'",
        ),
        (MethodType(taking("in t"), object()), "get_x: the type of 'x' cannot be found"),
    ],
)
def test_an_annotation_that_names_no_type_is_a_fault_of_the_handler(method: Method, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Arguments(method)


@pytest.mark.parametrize("annotation", [Arguments, Callable[[], None]])
def test_a_type_that_text_cannot_become_is_a_fault_of_the_handler(annotation: Any) -> None:
    with pytest.raises(ConfigError, match="get_x: nothing can be converted to the type of 'x'"):
        of(taking(annotation))


def no_body(self, ctx):  # type: ignore[no-untyped-def]
    raise NotImplementedError


def body_by_keyword(self, ctx, *, post_data):  # type: ignore[no-untyped-def]
    raise NotImplementedError


def all_in_one(self, *arguments):  # type: ignore[no-untyped-def]
    raise NotImplementedError


@pytest.mark.parametrize("method", [no_body, body_by_keyword, all_in_one])
def test_a_method_that_does_not_take_context_and_body_is_a_fault_of_the_handler(method: Method) -> None:
    with pytest.raises(ConfigError, match=rf"{method.__name__} must take \(self, ctx, post_data, \.\.\.\)"):
        of(method)


def test_a_decorated_method_is_called_as_the_one_it_wraps() -> None:
    inner = taking("Colour")

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return "outer", inner(*args, **kwargs)

    assert called(outer, "red") == ("outer", Colour.RED)


# The body


def body_as(annotation: Any) -> Arguments:
    """Return how a method is called that takes the body as this type."""

    def post_x(self: object, ctx: object, post_data: Any) -> None:
        raise NotImplementedError

    post_x.__annotations__["post_data"] = annotation
    return of(post_x)


@pytest.mark.parametrize("annotation", [Any, object, tuple, PostData, tuple[str, Any], "PostData"])
def test_a_body_is_its_type_and_its_data(annotation: Any) -> None:
    assert body_as(annotation).body("application/json", b"[1]") == ("application/json", [1])
    assert body_as(annotation).body("", b"") == ("", "")
    assert of(plain).body("text/plain", b"abc") == ("text/plain", b"abc")


def test_a_body_is_validated_where_the_method_takes_a_model() -> None:
    assert body_as(Model).body("application/json", b'{"name": "Ada"}') == Model(name="Ada")
    assert body_as(list[Model]).body("", b'[{"name": "Ada"}]') == [Model(name="Ada")]
    assert body_as(Point).body("application/json", b'{"x": 1, "y": 2}') == Point(1, 2)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b'{"age": 1}', "the body does not fit: name: Field required"),
        (b'{"name": "Ada", "age": "x"}', "the body does not fit: age: "),
        (b'{"name": ', "the body does not fit: Invalid JSON: .* line 1 column 9"),
        (b"\xff", "the body does not fit: Invalid JSON"),
        (b"", "the body does not fit: there is none"),
    ],
)
def test_a_body_that_does_not_fit_the_model_is_refused_by_the_place(body: bytes, complaint: str) -> None:
    with pytest.raises(BadBodyError, match=complaint) as refused:
        body_as(Model).body("application/json", body)
    assert (refused.value.status, refused.value.return_code) == (400, 252)


def test_a_body_may_be_left_out_where_the_method_takes_none_too() -> None:
    assert body_as(Model | None).body("", b"") is None
    assert body_as(Model | None).body("", b'{"name": "Ada"}') == Model(name="Ada")


# The manifest


@pytest.mark.parametrize("default", [math.inf, math.nan, [math.inf]])
def test_a_default_that_json_does_not_know_is_left_out_of_the_description(default: Any) -> None:
    def get_x(self: object, ctx: object, post_data: object, a: float | list[float] = default) -> None:
        raise NotImplementedError

    (described,) = of(get_x).described
    assert not described.required
    assert "default" not in json.loads(described.schema)


def test_arguments_are_described_for_the_peer() -> None:
    def get_x(
        self: object, ctx: object, post_data: object, a: int, b: str = "", *c: Colour, d: Model | None = None, **e: int
    ) -> None:
        raise NotImplementedError

    described = of(get_x).described
    assert [(each.name, each.required, each.variadic) for each in described] == [
        ("a", True, False),
        ("b", False, False),
        ("c", False, True),
        ("d", False, False),
        ("e", False, True),
    ]
    assert [each.place for each in described] == [
        Argument.ANYWHERE,
        Argument.ANYWHERE,
        Argument.PATH,
        Argument.QUERY,
        Argument.QUERY,
    ]
    schemas = [json.loads(each.schema) for each in described]
    assert schemas[0] == {"type": "integer"}
    assert schemas[1] == {"type": "string", "default": ""}
    assert schemas[2]["enum"] == ["red", "blue"]
    assert schemas[3]["anyOf"][1] == {"type": "null"}
