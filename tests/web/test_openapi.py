"""The OpenAPI document tells what the other side serves, typed, valid, whatever the other side says."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_handlers import ServerEvents
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel
from typing_extensions import deprecated

from restpipe import ClientEventHandler, Reply, at_most_once
from restpipe.handlers.events import EventTable
from restpipe.handlers.payload import PostData
from restpipe.web.openapi import MOST_EVENTS, describe
from restpipe_pb.v1.pipe_pb2 import Argument, Content, Event


def complaints(document: dict[str, Any]) -> list[str]:
    return [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()]


def document_of(*events: Event, token: bool = False) -> dict[str, Any]:
    """Return the document of a peer that serves these events, which is valid."""
    document = {"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, **describe(events, token=token)}
    assert complaints(document) == []
    # As it is sent.
    sent: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return sent


def document_of_handler(handler: object) -> dict[str, Any]:
    return document_of(*EventTable(handler).manifest)


def parameters_of(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {parameter["name"]: parameter for parameter in operation["parameters"]}


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference from the root of the document."""
    found: Any = document
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found


class Item(BaseModel):
    name: str


class Order(BaseModel):
    items: list[Item]
    note: str | None = None


class Shop(ClientEventHandler):
    async def post_order(self, ctx: object, order: Order) -> Reply[Order]:
        """Take an order.

        It is written down.
        """
        raise NotImplementedError

    async def patch_order(self, ctx: object, order: Order | None) -> None:
        raise NotImplementedError

    async def put_order(self, ctx: object, post_data: PostData, number: int) -> Item:
        raise NotImplementedError

    def get_order(self, ctx: object, post_data: PostData, number: int, /, *fields: int, deep: bool = False) -> Order:
        raise NotImplementedError

    def delete_order(self, ctx: object, post_data: PostData, which: int, /) -> None:
        raise NotImplementedError

    async def post_file(self, ctx: object, body: AsyncIterator[bytes], *path: str) -> Path:
        raise NotImplementedError

    async def get_ticks(self, ctx: object, post_data: PostData, **options: int) -> AsyncIterator[bytes]:
        for piece in options:
            yield piece.encode()

    async def get_whatever(self, ctx, post_data, x, y="there"):  # type: ignore[no-untyped-def]
        """Say something about `x`.

        It may be long.
        """
        raise NotImplementedError

    @at_most_once
    @deprecated("use put_order", category=None)
    async def put_old(self, ctx: object, post_data: PostData) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module")
def shop() -> dict[str, Any]:
    return document_of_handler(Shop())


def body_of(operation: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = operation["requestBody"]["content"]
    return content


def answer_of(operation: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = operation["responses"]["200"].get("content", {})
    return content


def test_a_doc_string_is_a_summary_and_a_description(shop: dict[str, Any]) -> None:
    operation = shop["paths"]["/order"]["post"]
    assert (operation["summary"], operation["description"]) == ("Take an order.", "It is written down.")
    assert shop["paths"]["/order"]["patch"]["summary"] == "PATCH order"
    told = shop["paths"]["/whatever"]["get"]
    assert (told["summary"], told["description"]) == (
        "Say something about x.",
        "It may be long.\n\nBy position: `whatever//{x}/{y}`",
    )


def test_a_model_that_is_taken_and_returned_is_one_schema_with_its_own_name(shop: dict[str, Any]) -> None:
    operation = shop["paths"]["/order"]["post"]
    reference = {"$ref": "#/components/schemas/Order"}
    assert body_of(operation) == {"application/json": {"schema": reference}}
    assert answer_of(operation) == {"application/json": {"schema": reference}}
    order = resolved(shop, reference)
    assert resolved(shop, order["properties"]["items"]["items"])["properties"]["name"]["type"] == "string"
    assert [*shop["components"]["schemas"]] == ["Problem", "Item", "Order"]


def test_a_body_is_required_unless_the_method_does_without(shop: dict[str, Any]) -> None:
    operations = shop["paths"]["/order"]
    assert operations["post"]["requestBody"]["required"]
    assert not operations["patch"]["requestBody"]["required"]
    assert [*body_of(operations["put"])] == ["application/json", "application/octet-stream"]
    assert "requestBody" not in shop["paths"]["/whatever"]["get"]


def test_a_body_that_is_streamed_is_a_file_and_so_is_a_file_that_is_returned(shop: dict[str, Any]) -> None:
    operation = shop["paths"]["/file//{path}"]["post"]
    file = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    assert body_of(operation) == answer_of(operation) == file
    assert answer_of(shop["paths"]["/ticks"]["get"]) == file


def test_an_answer_that_has_no_body_has_none_in_the_document(shop: dict[str, Any]) -> None:
    assert answer_of(shop["paths"]["/order"]["patch"]) == {}
    assert answer_of(shop["paths"]["/whatever"]["get"]) == {"application/json": {}}


def test_arguments_that_only_the_path_can_say_stand_in_the_path(shop: dict[str, Any]) -> None:
    one, many = shop["paths"]["/order//{number}"]["get"], shop["paths"]["/order//{number}/{fields}"]["get"]
    for operation in (one, many):
        parameters = parameters_of(operation)
        assert parameters["number"] == {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}
        assert parameters["deep"]["in"] == "query"
        assert parameters["deep"]["schema"] == {"type": "boolean", "default": False}
    assert "fields" not in parameters_of(one)
    # Slashes stand between them, so that together they are text.
    assert parameters_of(many)["fields"]["schema"] == {"type": "string"}
    assert parameters_of(many)["fields"]["x-restpipe-many"]
    assert (one["operationId"], many["operationId"]) == ("get_order", "get_order-many")


def test_paths_that_differ_in_the_names_of_arguments_are_one(shop: dict[str, Any]) -> None:
    assert {*shop["paths"]["/order//{number}"]} == {"get", "delete"}
    assert [*parameters_of(shop["paths"]["/order//{number}"]["delete"])] == ["number"]


def test_any_further_parameter_of_the_query_is_shown(shop: dict[str, Any]) -> None:
    options = parameters_of(shop["paths"]["/ticks"]["get"])["options"]
    assert (options["in"], options["required"]) == ("query", False)
    assert options["schema"] == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_what_is_deprecated_or_not_repeated_says_so(shop: dict[str, Any]) -> None:
    old = shop["paths"]["/old"]["put"]
    assert old["deprecated"]
    assert old["description"] == "Deprecated: use put_order\n\nNot repeated when the pipe is lost."
    assert "deprecated" not in shop["paths"]["/order"]["put"]


def test_every_failure_that_can_occur_is_a_problem_document(shop: dict[str, Any]) -> None:
    always = {"400", "403", "404", "421", "431", "500", "502", "503", "504"}
    for path, verb, more in (
        ("/whatever", "get", set()),
        ("/order", "put", {"408", "413"}),
        ("/order", "post", {"408", "413", "422"}),
    ):
        responses = shop["paths"][path][verb]["responses"]
        assert {status for status in responses if status.isdigit()} == {"200"} | always | more
        for status in always | more | {"4XX", "5XX"}:
            content = resolved(shop, responses[status])["content"]
            assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        assert "content" not in resolved(shop, responses["2XX"])


def test_where_a_token_is_wanted_the_document_says_so() -> None:
    event = Event(verb="get", noun="x")
    assert document_of(event, token=True)["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "401" in document_of(event, token=True)["paths"]["/x"]["get"]["responses"]
    assert "401" not in document_of(event)["paths"]["/x"]["get"]["responses"]


def test_arguments_are_typed_and_their_definitions_are_found() -> None:
    document = document_of_handler(ServerEvents())
    arguments = parameters_of(document["paths"]["/typed"]["get"])
    assert arguments["number"] == {"name": "number", "in": "query", "required": True, "schema": {"type": "integer"}}
    assert arguments["day"]["schema"] == {"type": "string", "format": "date", "default": "2000-01-01"}
    assert not arguments["day"]["required"]
    assert arguments["colour"]["schema"]["enum"] == ["red", "blue"]
    # An object travels as JSON.
    line = resolved(document, arguments["line"]["content"]["application/json"]["schema"]["anyOf"][0])
    assert resolved(document, line["properties"]["begin"])["properties"]["x"] == {"title": "X", "type": "integer"}


def test_models_of_one_name_are_told_apart() -> None:
    def event(noun: str, **properties: Any) -> Event:
        schema = {"title": "Thing", "type": "object", "properties": properties}
        return Event(verb="post", noun=noun, body_schema=json.dumps(schema))

    document = document_of(event("a", x={"type": "integer"}), event("b"), event("c", x={"type": "integer"}))
    names = {
        path: body_of(item["post"])["application/json"]["schema"]["$ref"] for path, item in document["paths"].items()
    }
    assert names["/a"] == names["/c"] != names["/b"]
    assert resolved(document, {"$ref": names["/b"]})["properties"] == {}


def test_a_model_that_refers_to_itself_is_shown() -> None:
    class Tree(BaseModel):
        leaves: list["Tree"] = []

    event = Event(verb="post", noun="x", body_schema=json.dumps(Tree.model_json_schema()))
    assert "/x" in document_of(event)["paths"]


def test_a_description_of_an_argument_is_shown() -> None:
    argument = Argument(name="x", schema='{"type": "string", "description": "What is sought."}')
    document = document_of(Event(verb="get", noun="x", arguments=[argument]))
    assert parameters_of(document["paths"]["/x"]["get"])["x"]["description"] == "What is sought."


@pytest.mark.parametrize(
    "arguments",
    [
        [Argument(name="x", schema="{}"), Argument(name="x", schema="{}")],
        [Argument(name="a/b", schema="{}", place=Argument.PATH)],
        [Argument(name="{", schema="{}")],
        [Argument(name="x", schema='{"$ref": "http://elsewhere/x"}')],
        [Argument(name="x", schema='{"$ref": "#/components/schemas/Problem"}')],
        [Argument(name="x", schema='{"$ref": "#/$defs/Nothing"}')],
        [Argument(name="x", schema='{"default": NaN}')],
        [Argument(name="x", schema='{"$defs": {"a b": {}, "a_b": {"type": "object"}}}')],
    ],
)
def test_what_no_document_may_say_costs_its_own_event_only(arguments: list[Argument]) -> None:
    document = document_of(Event(verb="get", noun="bad", arguments=arguments), Event(verb="get", noun="good"))
    assert [*document["paths"]] == ["/good"]


def test_a_peer_that_serves_ever_so_much_makes_no_document_without_end() -> None:
    events = [Event(verb="get", noun=f"x{i}") for i in range(MOST_EVENTS + 1)]
    assert len(describe(events, token=False)["paths"]) == MOST_EVENTS


def test_an_event_that_is_told_twice_is_shown_once() -> None:
    argument = Argument(name="x", schema="{}", place=Argument.PATH)
    document = document_of(Event(verb="get", noun="x"), Event(verb="get", noun="x", arguments=[argument]))
    assert [*document["paths"]] == ["/x//{x}"]


@pytest.mark.parametrize(
    "schema",
    ["", "{", "[]", "5", "null", '"x"', "[" * 100_000, '{"$defs": 5}', '{"anyOf": 5}', '{"anyOf": [5]}', '{"$ref": 5}'],
)
def test_a_schema_that_is_none_costs_its_own_event_only(schema: str) -> None:
    events = [
        Event(verb="get", noun="bad", arguments=[Argument(name="x", schema=schema)]),
        Event(verb="get", noun="good", arguments=[Argument(name="x", schema='{"type": "string"}')]),
    ]
    assert [*document_of(*events)["paths"]] == ["/good"]


@pytest.mark.parametrize(
    ("verb", "noun"),
    [
        ("parameters", "x"),
        ("", "x"),
        ("GET", "x"),
        ("get", ""),
        ("get", "{x}"),
        ("get", "a/b"),
        ("get", "../x"),
        ("get", "a b"),
    ],
)
def test_what_is_no_verb_or_no_noun_is_left_out(verb: str, noun: str) -> None:
    assert [*document_of(Event(verb=verb, noun=noun), Event(verb="get", noun="2fa"))["paths"]] == ["/2fa"]


def test_names_that_components_cannot_have_are_replaced() -> None:
    schema = '{"$defs": {"P ü": {"type": "object"}}, "$ref": "#/$defs/P ü"}'
    document = document_of(Event(verb="get", noun="größe", arguments=[Argument(name="maß", schema=schema)]))
    (parameter,) = document["paths"]["/größe"]["get"]["parameters"]
    assert resolved(document, parameter["content"]["application/json"]["schema"]) == {"type": "object"}


KEYS = st.sampled_from(["$ref", "$defs", "anyOf", "type", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
)
ARGUMENTS = st.builds(
    Argument,
    name=st.text(max_size=5),
    schema=st.text(max_size=20) | JSON.map(json.dumps),
    required=st.booleans(),
    variadic=st.booleans(),
    place=st.sampled_from([0, 1, 2, 3]),
)
EVENTS = st.builds(
    Event,
    verb=st.sampled_from(["get", "post", "x", ""]),
    noun=st.text(max_size=5) | st.just("noun"),
    doc=st.text(max_size=20),
    arguments=st.lists(ARGUMENTS, max_size=3),
    body_schema=JSON.map(json.dumps) | st.text(max_size=5),
    answer=st.builds(Content, content_type=st.text(max_size=5), schema=JSON.map(json.dumps)),
)


@given(st.lists(EVENTS, max_size=4))
def test_whatever_a_peer_says_a_document_comes_of_it(events: list[Event]) -> None:
    json.dumps(describe(events, token=False), allow_nan=False)


def test_an_event_that_is_not_for_everyone_says_for_whom_it_is() -> None:
    event = Event(verb="get", noun="till", doc="Look.\n\nInside.", allow=["shop-*", "admin"])
    operations = document_of(event, Event(verb="put", noun="till"))["paths"]["/till"]
    assert operations["get"]["description"] == "Inside.\n\nFor `shop-*`, `admin` only."
    assert operations["put"]["description"] == ""
