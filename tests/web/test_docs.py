"""`/docs` shows what the other side serves: every client, however many, under any name, as they come and go."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fake_peers import peer
from live_nodes import asgi_of, connected, running_client, running_server
from openapi_spec_validator import OpenAPIV31SpecValidator
from services import Connection, service, tunnel_to

from restpipe_pb.v1.pipe_pb2 import Event, Request


async def document_at(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    response = await http.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    document: dict[str, Any] = response.json()
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    return document


async def listed(http: httpx.AsyncClient, **query: Any) -> list[str]:
    found = (await http.get("/docs/clients.json", params=query)).json()
    return [client["name"] for client in found["clients"]]


@pytest.mark.parametrize("path", ["/openapi.json", "/server/openapi.json"])
async def test_a_client_node_describes_the_events_of_its_server(identity_files: Path, path: str) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        async with asgi_of(client) as http:
            document = await document_at(http, path)
            value = document["paths"]["/value"]["get"]
            assert (value["summary"], value["description"]) == ("Return a value.", "The same each time.")
            assert {*document["paths"]["/wait"]} == {"get", "put", "delete", "post", "patch"}
            assert not any("hook" in path or "_wait" in path for path in document["paths"])
            address = document["servers"][0]["url"]
            assert (await http.get(f"{address}/value")).json() == {"value": 1}


async def test_a_client_node_describes_the_way_to_other_clients(identity_files: Path) -> None:
    async with (
        running_server(identity_files, relay=("alpha>beta",)) as server,
        running_client(identity_files, server.port) as client,
        running_client(identity_files, server.port, "beta") as other,
    ):
        await connected(server, client)
        await connected(server, other)
        async with asgi_of(client) as http:
            item = (await document_at(http, "/openapi.json"))["paths"]["/client/{client}/{noun}"]
            assert set(item) == {"servers", "parameters", "get", "post", "put", "delete", "patch"}
            address = item["servers"][0]["url"].rstrip("/")
            assert (await http.get(f"{address}/client/beta/value")).json() == {"value": 1}


async def test_a_client_node_that_is_not_connected_says_so(identity_files: Path) -> None:
    async with running_client(identity_files, 1) as client, asgi_of(client) as http:
        assert (await http.get("/docs")).status_code == 200
        response = await http.get("/openapi.json")
        assert (response.status_code, response.headers["x-event-return-code"]) == (503, "245")


async def test_what_the_document_says_about_arguments_is_what_works(identity_files: Path) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        async with asgi_of(server) as http:
            document = await document_at(http, "/client/alpha/openapi.json")
            address = document["servers"][0]["url"]
            line = json.dumps({"begin": {"x": 1}, "end": {"x": 2, "y": 3}})
            query: dict[str, str | int] = {"number": 1, "day": "2020-02-02", "colour": "blue", "line": line}
            assert {*query} == {each["name"] for each in document["paths"]["/typed"]["get"]["parameters"]}
            typed = await http.get(f"{address}/typed", params=query)
            assert "/cat//{texts}" in document["paths"]
            texts = await http.get(f"{address}/cat//a%2Fb/c")
    assert typed.json() == {
        "number": 1,
        "day": "2020-02-02",
        "colour": "blue",
        "line": {"begin": {"x": 1, "y": 0}, "end": {"x": 2, "y": 3}},
    }
    assert texts.json() == ["a/b", "c"]


async def test_a_server_node_lists_clients_as_they_come_and_go(identity_files: Path) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        assert await listed(http) == []
        async with running_client(identity_files, server.port, "alpha") as alpha:
            await connected(server, alpha)
            async with running_client(identity_files, server.port, "beta") as beta:
                await connected(server, beta)
                found = (await http.get("/docs/clients.json")).json()
                assert (found["connected"], found["matching"]) == (2, 2)
                first, second = found["clients"]
                assert (first["name"], second["name"]) == ("alpha", "beta")
                assert (first["address"], first["forwards"]) == ("127.0.0.1", False)
                assert first["software"].startswith("restpipe/")
                for client in (first, second):
                    document = await document_at(http, client["document"])
                    nouns = {(path.split("/")[1], verb) for path, item in document["paths"].items() for verb in item}
                    assert len(nouns) == client["events"]
                    assert (await http.get(client["docs"])).status_code == 200
            await server._events.until("connection_removed")
            assert await listed(http) == ["alpha"]
            gone = await http.get("/client/beta/openapi.json", headers={"Prefer": "wait=0"})
            assert (gone.status_code, gone.headers["x-event-return-code"]) == (503, "245")
        await server._events.until("connection_removed", 2)
        assert await listed(http) == []


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
        assert await listed(http) == []
        client.handler.release.set()
        await asyncio.gather(asking, stopping)


async def test_a_document_that_is_known_is_not_sent_again(identity_files: Path) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        server.registry.add(peer("alpha", [Event(verb="get", noun="x")]))
        first = await http.get("/client/alpha/openapi.json")
        again = {"If-None-Match": f'"other", W/{first.headers["etag"]}'}
        known = await http.get("/client/alpha/openapi.json", headers=again)
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", first.headers["etag"])
        server.registry.add(peer("alpha", [Event(verb="get", noun="y")]))
        changed = await http.get("/client/alpha/openapi.json", headers=again)
        assert changed.status_code == 200
        assert [*changed.json()["paths"]] == ["/y"]


async def test_thousands_of_clients_are_found_by_name_and_address_and_listed_in_parts(identity_files: Path) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        events = [Event(verb="get", noun=f"x{i}") for i in range(10)]
        for i in range(2000):
            server.registry.add(peer(f"till-{i:04}", events))
        found = (await http.get("/docs/clients.json")).json()
        assert (found["connected"], found["matching"], len(found["clients"])) == (2000, 2000, 200)
        assert [client["name"] for client in found["clients"]] == [f"till-{i:04}" for i in range(200)]
        assert len(await listed(http, limit=1000)) == 1000
        assert await listed(http, search=" TILL-199", limit=3) == ["till-1990", "till-1991", "till-1992"]
        assert len(await listed(http, search="192.0.2.1")) == 200
        assert await listed(http, search="nobody") == []
        refused = await http.get("/docs/clients.json?limit=many")
        assert (refused.status_code, refused.headers["x-event-return-code"]) == (400, "252")


@pytest.mark.parametrize("name", ["a/b", "a b", "ü?#%", "<script>alert(1)</script>", '"', "openapi.json", "docs"])
async def test_a_client_of_any_name_has_a_page_and_a_document(identity_files: Path, name: str) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        server.registry.add(peer(name, [Event(verb="get", noun="x")]))
        (client,) = (await http.get("/docs/clients.json")).json()["clients"]
        document = await document_at(http, client["document"])
        assert (document["servers"], [*document["paths"]]) == ([{"url": f"/client/{quote(name, safe='')}"}], ["/x"])
        page = await http.get(client["docs"])
        assert page.status_code == 200
        assert "<script>a" not in page.text
        assert f'data-document="{client["document"]}"' in page.text


async def test_the_peer_s_own_description_is_not_hidden(identity_files: Path) -> None:
    async def serve(connection: Connection) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 200 OK", "Content-Length: 9", "Connection: close", body=b'{"its": 1')

    async with service(serve) as made, tunnel_to(identity_files, made.address) as tunnel:
        base = f"http://127.0.0.1:{tunnel.port}"
        async with httpx.AsyncClient(base_url=base) as http:
            assert (await http.get("/client/alpha/openapi.json")).text == '{"its": 1'
            (client,) = (await http.get("/docs/clients.json")).json()["clients"]
            assert client["forwards"]
            assert 'data-forwards="yes"' in (await http.get("/docs/client/alpha")).text


async def test_a_document_is_read_and_nothing_else_is_done_to_it(identity_files: Path) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        server.registry.add(peer("alpha"))
        head = await http.head("/client/alpha/openapi.json")
        assert (head.status_code, head.content) == (200, b"")
        posted = await http.post("/client/alpha/openapi.json", json={})
        assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")


async def test_a_server_node_describes_how_clients_are_found(identity_files: Path) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        document = await document_at(http, "/openapi.json")
        assert {*document["paths"]} == {"/docs/clients.json", "/client/{client}/openapi.json"}
        assert document["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("role", ["server", "client"])
async def test_where_a_token_is_wanted_documents_say_so(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", "s3cret")
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        async with asgi_of(server if role == "server" else client) as http:
            paths = ["/openapi.json", "/client/alpha/openapi.json" if role == "server" else "/server/openapi.json"]
            for path in (*paths, "/docs", "/docs/docs.css"):
                assert (await http.get(path)).status_code == 401
            http.headers["Authorization"] = "Bearer s3cret"
            for path in paths:
                document = await document_at(http, path)
                assert document["security"] == [{"token": []}]
                assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
                assert "s3cret" not in json.dumps(document)


async def test_pages_allow_nothing_from_elsewhere(identity_files: Path) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        for path in ("/docs", "/docs/client/alpha"):
            policy = (await http.get(path)).headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self';")
            assert "http" not in policy
            assert "*" not in policy
