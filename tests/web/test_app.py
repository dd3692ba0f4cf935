"""The docs page opens without the world, and what is no event is answered as any failure is."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from live_nodes import connected, running_client, running_server, server_settings, web_of

from restpipe.nodes.server import ServerNode
from restpipe.web.app import make_app, make_fastapi

_URLS = re.compile(r"""(?:src|href|data-document|data-list)="([^"]+)\"""")


@pytest.fixture(params=["server node", "client node"])
async def http(request: pytest.FixtureRequest, identity_files: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        async with web_of(server if request.param == "server node" else client) as asking:
            yield asking


async def test_the_docs_page_opens_and_all_that_it_needs_comes_from_the_node(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.status_code == 200
    needed = [url for url in _URLS.findall(page.text) if url != "data:,"]
    assert any(url.endswith(".json") for url in needed)
    assert any(url.endswith(".js") for url in needed)
    for url in needed:
        assert url.startswith("/"), f"{url} is another host's"
        assert (await http.get(url)).status_code == 200
    assert "//cdn" not in page.text


async def test_the_title_names_the_node(http: httpx.AsyncClient) -> None:
    title = (await http.get("/openapi.json")).json()["info"]["title"]
    assert title in ("RestPipe server node 'server'", "Server of RestPipe client node 'alpha'")
    page = (await http.get("/docs")).text
    assert ("<title>Clients - RestPipe server node server<" in page) != (
        "<title>Server - RestPipe client node alpha<" in page
    )


@pytest.mark.parametrize("path", ["/nowhere", "/server", "/client", "/docs/x", "/%0d%0a", "/docs/swagger-ui/x"])
async def test_a_page_that_there_is_not_is_404_as_a_problem_that_names_the_ways(
    http: httpx.AsyncClient, path: str
) -> None:
    response = await http.get(path)
    assert (response.status_code, response.headers["x-event-return-code"]) == (404, "255")
    assert response.headers["content-type"] == "application/problem+json"
    assert "/docs" in response.json()["detail"]
    assert response.headers["content-length"] == str(len(response.content))


async def test_a_method_that_a_page_does_not_have_is_405_as_a_problem(http: httpx.AsyncClient) -> None:
    response = await http.post("/docs")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_bug_in_a_page_is_500_as_a_problem(identity_files: Path) -> None:
    app = make_fastapi(ServerNode(server_settings(identity_files)))

    @app.get("/bug")
    def bug() -> None:
        raise ZeroDivisionError("a bug")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/bug")
    assert (response.status_code, response.headers["x-event-return-code"]) == (500, "250")
    assert response.json()["exception"]["class"] == "InternalError"


async def test_pages_stand_behind_the_door_too(http: httpx.AsyncClient) -> None:
    for path in ("/docs", "/openapi.json", "/nowhere"):
        assert (await http.get(path, headers={"Host": "evil.example"})).status_code == 421
        assert (await http.get(path, headers={"Origin": "http://evil.example"})).status_code == 403


async def test_further_names_of_the_node_come_from_the_settings(identity_files: Path) -> None:
    async with running_server(identity_files, web_hosts=("files.example",)) as server, web_of(server) as http:
        for host, status in (("files.example:80", 200), ("server", 200), ("evil.example", 421)):
            assert (await http.get("/docs", headers={"Host": host})).status_code == status


async def test_a_node_without_web_server_has_no_application(identity_files: Path) -> None:
    node = ServerNode(server_settings(identity_files, web_bind=None))
    with pytest.raises(ValueError, match="no web server"):
        make_app(node)
