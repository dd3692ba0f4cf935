"""The OpenAPI document tells what the other side serves, typed, valid, whatever the other side says."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_nodes import asgi_of, connected, running_client, running_server
from openapi_spec_validator import OpenAPIV31SpecValidator

from restpipe.web.openapi import PROBLEM_SCHEMA, event_paths
from restpipe_pb.v1.pipe_pb2 import Argument, Event, Request


def complaints(document: dict[str, Any]) -> list[str]:
    return [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()]


def whole(paths: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "x", "version": "1"},
        "paths": paths,
        "components": {"schemas": {"Problem": PROBLEM_SCHEMA, **schemas}},
    }


async def document_of(http: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await http.get("/openapi.json")).json()
    assert complaints(document) == []
    return document


def parameters_of(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {parameter["name"]: parameter for parameter in operation["parameters"]}


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference from the root of the document."""
    found: Any = document
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found


async def test_a_client_node_lists_the_events_of_its_server(identity_files: Path) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        async with asgi_of(client) as http:
            document = await document_of(http)
    value = document["paths"]["/server/value"]["get"]
    assert (value["tags"], value["summary"], value["description"]) == (
        ["server"],
        "Return a value.",
        "The same each time.",
    )
    assert {*document["paths"]["/server/wait"]} == {"get", "put", "delete", "post", "patch"}
    assert "requestBody" in document["paths"]["/server/echo"]["post"]
    assert "requestBody" not in value
    assert value["responses"]["default"]["content"]["application/problem+json"]["schema"] == {
        "$ref": "#/components/schemas/Problem"
    }
    assert not any("hook" in path or "_wait" in path for path in document["paths"])


async def test_arguments_are_typed_and_their_definitions_are_found(identity_files: Path) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        async with asgi_of(client) as http:
            document = await document_of(http)
    arguments = parameters_of(document["paths"]["/server/typed"]["get"])
    assert arguments["number"] == {"name": "number", "in": "query", "required": True, "schema": {"type": "integer"}}
    assert arguments["day"]["schema"] == {"type": "string", "format": "date"}
    assert not arguments["day"]["required"]
    assert arguments["colour"]["schema"]["enum"] == ["red", "blue"]
    # An object travels as JSON.
    line = resolved(document, arguments["line"]["content"]["application/json"]["schema"]["anyOf"][0])
    assert resolved(document, line["properties"]["begin"])["properties"]["x"] == {"title": "X", "type": "integer"}
    assert "`cat//texts/...`" in document["paths"]["/server/cat"]["get"]["description"]


async def test_what_the_document_says_about_arguments_is_what_works(identity_files: Path) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        async with asgi_of(client) as http:
            line = json.dumps({"begin": {"x": 1}, "end": {"x": 2, "y": 3}})
            response = await http.get(
                "/server/typed", params={"number": 1, "day": "2020-02-02", "colour": "blue", "line": line}
            )
    assert response.json() == {
        "number": 1,
        "day": "2020-02-02",
        "colour": "blue",
        "line": {"begin": {"x": 1, "y": 0}, "end": {"x": 2, "y": 3}},
    }


async def test_a_server_node_lists_the_events_of_each_client_as_they_come_and_go(identity_files: Path) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        assert (await document_of(http))["paths"] == {}
        async with running_client(identity_files, server.port, "alpha") as alpha:
            await connected(server, alpha)
            document = await document_of(http)
            assert "/client/alpha/value" in document["paths"]
            async with running_client(identity_files, server.port, "beta") as beta:
                await connected(server, beta)
                document = await document_of(http)
                assert {"/client/alpha/value", "/client/beta/value"} <= document["paths"].keys()
                assert [tag["name"] for tag in document["tags"]] == ["alpha", "beta"]
                assert "127.0.0.1, restpipe/" in document["tags"][0]["description"]
            await server._events.until("connection_removed")
            document = await document_of(http)
            assert not any(path.startswith("/client/beta/") for path in document["paths"])
            assert not any("beta" in name for name in document["components"]["schemas"])
        await server._events.until("connection_removed", 2)
        assert (await document_of(http))["paths"] == {}


async def test_a_client_that_is_leaving_is_not_listed(identity_files: Path) -> None:
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port) as client,
        asgi_of(server) as http,
    ):
        await connected(server, client)
        pipe = await server.pipe_to("alpha", 0)
        asking = asyncio.create_task(pipe.call(Request(verb="get", noun="wait", timeout_ms=10_000)))
        await client.handler.entered.wait()
        stopping = asyncio.create_task(client.stop(10))
        await asyncio.wait({pipe.departing})
        assert server.pipes == (pipe,)
        assert (await document_of(http))["paths"] == {}
        client.handler.release.set()
        await asyncio.gather(asking, stopping)


async def test_a_client_that_is_not_connected_lists_nothing(identity_files: Path) -> None:
    async with running_client(identity_files, 1) as client, asgi_of(client) as http:
        assert (await document_of(http))["paths"] == {}


async def test_where_a_token_is_wanted_the_document_says_so(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", "s3cret")
    async with running_client(identity_files, 1) as client, asgi_of(client) as http:
        http.headers["Authorization"] = "Bearer s3cret"
        document = await document_of(http)
    assert document["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "s3cret" not in json.dumps(document)


def test_a_body_that_is_streamed_is_shown_as_binary() -> None:
    paths, schemas = event_paths("/server/", "server", [Event(verb="put", noun="file", streams_body=True)])
    body = paths["/server/file"]["put"]["requestBody"]
    assert body == {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    assert complaints(whole(paths, schemas)) == []


def test_operation_ids_are_one_of_a_kind_even_for_names_that_look_alike() -> None:
    names = [("a_b", "c"), ("a", "b_c"), ("a.b", "c"), ("a-b", "c")]
    paths: dict[str, Any] = {}
    for name, noun in names:
        found, _ = event_paths(f"/client/{name}/", name, [Event(verb=verb, noun=noun) for verb in ("get", "put")])
        paths |= found
    ids = [operation["operationId"] for item in paths.values() for operation in item.values()]
    assert len(set(ids)) == len(ids) == 8
    assert complaints(whole(paths, {})) == []


@pytest.mark.parametrize(
    "schema",
    ["", "{", "[]", "5", "null", '"x"', "[" * 100_000, '{"$defs": 5}', '{"anyOf": 5}', '{"anyOf": [5]}', '{"$ref": 5}'],
)
def test_a_schema_that_is_none_costs_its_own_event_only(schema: str) -> None:
    events = [
        Event(verb="get", noun="bad", arguments=[Argument(name="x", schema=schema)]),
        Event(verb="get", noun="good", arguments=[Argument(name="x", schema='{"type": "string"}')]),
    ]
    paths, schemas = event_paths("/server/", "server", events)
    assert [*paths] == ["/server/good"]
    assert complaints(whole(paths, schemas)) == []


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
    paths, _ = event_paths("/server/", "server", [Event(verb=verb, noun=noun), Event(verb="get", noun="2fa")])
    assert [*paths] == ["/server/2fa"]


def test_names_that_components_cannot_have_are_replaced() -> None:
    schema = '{"$defs": {"P": {"type": "object"}}, "$ref": "#/$defs/P"}'
    event = Event(verb="get", noun="größe", arguments=[Argument(name="maß", schema=schema)])
    paths, schemas = event_paths("/server/", "server", [event])
    document = whole(paths, schemas)
    assert complaints(document) == []
    (parameter,) = paths["/server/größe"]["get"]["parameters"]
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
)
EVENTS = st.builds(
    Event,
    verb=st.sampled_from(["get", "post", "x", ""]),
    noun=st.text(max_size=5) | st.just("noun"),
    doc=st.text(max_size=20),
    arguments=st.lists(ARGUMENTS, max_size=3),
)


@given(st.lists(EVENTS, max_size=4))
def test_whatever_a_peer_says_a_document_comes_of_it(events: list[Event]) -> None:
    paths, schemas = event_paths("/server/", "server", events)
    json.dumps(whole(paths, schemas))


def test_an_event_that_is_not_for_everyone_says_for_whom_it_is() -> None:
    event = Event(verb="get", noun="till", doc="Look.\n\nInside.", allow=["shop-*", "admin"])
    paths, schemas = event_paths("/server/", "server", [event, Event(verb="put", noun="till")])
    assert complaints(whole(paths, schemas)) == []
    assert paths["/server/till"]["get"]["description"] == "Inside.\n\nFor `shop-*`, `admin` only."
    assert paths["/server/till"]["put"]["description"] == ""
