"""A node says that it is alive, and whether it is of use, to whoever asks by a name of the node's."""

from pathlib import Path

import httpx
import pytest
from live_nodes import PATIENCE, connected, running_client, running_server, server_settings, web_of

from restpipe.nodes.server import ServerNode

TOKEN = "s3cret"


async def asked(http: httpx.AsyncClient, path: str) -> tuple[int, str]:
    response = await http.get(path)
    return response.status_code, response.json()["status" if response.status_code == 200 else "detail"]


async def test_a_client_is_ready_while_it_has_a_pipe_and_alive_without_one(identity_files: Path) -> None:
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port) as client,
        web_of(client) as http,
    ):
        await connected(server, client)
        assert await asked(http, "/readyz") == (200, "ready")
        (pipe,) = client.pipes
        await server.stop(0)
        await pipe.ended
        assert await asked(http, "/readyz") == (503, "this node is not connected to the server")
        assert await asked(http, "/healthz") == (200, "alive")


async def test_a_client_that_never_reached_its_server_is_not_ready(identity_files: Path) -> None:
    async with running_server(identity_files) as server:
        port = server.port
    async with running_client(identity_files, port) as client, web_of(client) as http:
        response = await http.get("/readyz")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.headers["x-event-return-code"], response.json()["executed"]) == ("245", "no")


async def test_a_server_is_ready_from_its_start_to_its_draining_though_no_client_is_there(identity_files: Path) -> None:
    node = ServerNode(server_settings(identity_files))
    async with web_of(node) as http:
        assert await asked(http, "/readyz") == (503, "this node does not listen yet")
        await node.start()
        assert await asked(http, "/readyz") == (200, "ready")
        await node.stop(PATIENCE)
        assert await asked(http, "/readyz") == (503, "this node is stopping")
        assert await asked(http, "/healthz") == (200, "alive")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_told_without_the_token_and_to_no_other_site(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", TOKEN)
    async with running_server(identity_files) as server, web_of(server) as http:
        assert (await http.get(path)).status_code == 200
        assert (await http.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 200
        head = await http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert (await http.post(path)).status_code == 405
        assert (await http.get(path, headers={"Host": "evil.example"})).status_code == 421
        assert (await http.get(path, headers={"Origin": "http://evil.example"})).status_code == 403


@pytest.mark.parametrize(
    "path", ["/docs", "/openapi.json", "/healthz/", "/readyz/x", "//readyz", "/client/alpha/readyz"]
)
async def test_what_is_not_health_keeps_wanting_the_token(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", TOKEN)
    async with running_server(identity_files) as server, web_of(server) as http:
        assert (await http.get(path)).status_code == 401
