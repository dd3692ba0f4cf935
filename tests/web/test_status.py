"""`/` and `/status` tell how a node does: to those who may know, cheaply, and without reaching any other host."""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from live_nodes import PATIENCE, asgi_of, connected, running_client, running_server, server_settings, web_of

from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.version import __version__
from restpipe.web import status
from restpipe.web.app import make_app
from restpipe.web.server import WebServer


class Site:
    """A server, two clients, and the web servers of the server and of the first client."""

    def __init__(self, server: ServerNode, alpha: ClientNode, at_server: Any, at_client: Any) -> None:
        self.server, self.alpha, self.at_server, self.at_client = server, alpha, at_server, at_client


@pytest.fixture
async def site(identity_files: Path) -> AsyncIterator[Site]:
    async with (
        running_server(identity_files, heartbeat_interval_s=0.01) as server,
        running_client(identity_files, server.port) as alpha,
        running_client(identity_files, server.port, "beta") as beta,
        web_of(server) as at_server,
        web_of(alpha) as at_client,
    ):
        await connected(server, alpha)
        await connected(server, beta)
        yield Site(server, alpha, at_server, at_client)


async def told(http: httpx.AsyncClient, **query: object) -> Any:
    response = await http.get("/status", params={name: str(value) for name, value in query.items()})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    return response.json()


def names(document: Any) -> list[str]:
    return [peer["name"] for peer in document["peers"]["list"]]


async def test_a_server_tells_who_is_connected_since_when_from_where_and_how_it_goes(site: Site) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(pipe.round_trip is None for pipe in site.server.pipes):
            await site.at_client.get("/server/value")
    await site.at_server.get("/client/alpha/value")
    await site.at_server.get("/client/alpha/raise")
    document = await told(site.at_server)
    node = document["node"]
    assert (node["role"], node["name"], node["version"], node["ready"]) == ("server", "server", __version__, True)
    assert (document["peers"]["connected"], document["peers"]["matching"]) == (2, 2)
    assert names(await told(site.at_server, sort="name")) == ["alpha", "beta"]
    (alpha,) = [peer for peer in document["peers"]["list"] if peer["name"] == "alpha"]
    assert (alpha["address"], alpha["software"]) == ("127.0.0.1", f"restpipe/{__version__}")
    assert node["started"] <= alpha["since"] <= document["now"] < time.time() + 1
    assert 0 < alpha["round_trip_s"] < PATIENCE
    assert (alpha["opened"], alpha["opened_failed"], alpha["in_flight"]) == (2, 1, 0)
    assert alpha["received"] > 0 < alpha["sent"]
    for end in (alpha["expires"], document["certificates"]["node"], document["certificates"]["ca"]):
        assert end > document["now"] + 86400
    assert document["totals"]["opened"] == 2
    raised, done, *_ = document["events"]
    assert (raised["noun"], raised["outcome"], raised["fault"]) == ("raise", "failed", "LookupError")
    assert (done["verb"], done["noun"], done["peer"], done["outcome"]) == ("get", "value", "alpha", "done")


async def test_a_server_tells_its_policy_as_it_is_now_and_a_client_has_none(identity_files: Path) -> None:
    policy = {"allowed_clients": ["*"], "relay": ["alpha>beta", "*>alpha"]}
    async with (
        running_server(identity_files, relay=("alpha>beta", "*>alpha")) as server,
        running_client(identity_files, server.port) as alpha,
        web_of(server) as at_server,
        web_of(alpha) as at_client,
    ):
        node = (await told(at_server))["node"]
        assert {name: node[name] for name in policy} == policy
        server.settings = server.settings.model_copy(update={"allowed_clients": ("alpha",)})
        assert (await told(at_server))["node"]["allowed_clients"] == ["alpha"]
        assert not policy.keys() & (await told(at_client))["node"].keys()


async def test_a_client_tells_of_its_server_and_why_it_is_not_there(site: Site, identity_files: Path) -> None:
    document = await told(site.at_client)
    assert (document["node"]["role"], document["node"]["name"]) == ("client", "alpha")
    assert (document["peers"]["connected"], names(document)) == (1, ["127.0.0.1"])
    async with running_client(identity_files, 1) as lonely, web_of(lonely) as http:
        async with asyncio.timeout(PATIENCE):
            while not (document := await told(http))["node"]["last_failure"]:
                pass
    assert (document["node"]["ready"], document["peers"]["connected"], names(document)) == (False, 0, [])
    assert "not connected" in document["node"]["fault"]
    assert "nothing listens there" in document["node"]["last_failure"]


async def test_what_is_under_way_is_in_flight(site: Site) -> None:
    asking = asyncio.create_task(site.at_client.get("/server/wait"))
    await site.server.handler.entered.wait()
    document = await told(site.at_server, clients="alpha")
    assert document["peers"]["in_flight"] == document["peers"]["list"][0]["in_flight"] == 1
    site.server.handler.release.set()
    await asking


async def test_clients_are_filtered_sorted_and_paged(site: Site) -> None:
    assert names(await told(site.at_server, clients="ALPH")) == ["alpha"]
    assert names(await told(site.at_server, clients="127.0.0", sort="name")) == ["alpha", "beta"]
    none = await told(site.at_server, clients="nobody")
    assert (none["peers"]["matching"], none["peers"]["connected"], names(none)) == (0, 2, [])
    await site.at_server.get("/client/beta/raise")
    for sort in status._KEYS:
        page = await told(site.at_server, sort=sort)
        assert sorted(names(page)) == ["alpha", "beta"]
    assert names(await told(site.at_server, sort="failed")) == ["beta", "alpha"]
    second = await told(site.at_server, sort="name", offset=1, limit=1)
    assert (second["peers"]["matching"], second["peers"]["offset"], names(second)) == (2, 1, ["beta"])
    assert names(await told(site.at_server, limit=0)) == []


@pytest.mark.parametrize("query", ["sort=colour", "limit=-1", "offset=x", "since=1e3", "events=many", "limit=٣"])
async def test_a_query_that_makes_no_sense_is_refused_as_a_problem_that_names_it(
    identity_files: Path, query: str
) -> None:
    async with running_client(identity_files, 1) as client, asgi_of(client) as http:
        response = await http.get(f"/status?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["detail"]


async def test_who_looks_again_is_told_what_is_new(site: Site) -> None:
    meter = site.server.meter
    await site.at_server.get("/client/alpha/value")
    for _ in range(3):
        meter.stop()
        meter._tick(asyncio.get_running_loop().time())
    first = await told(site.at_server)
    assert len(first["samples"]["opened"]) >= 3
    assert sum(first["samples"]["opened"]) == 1
    again = await told(site.at_server, since=first["sequence"])
    assert again["events"] == []
    assert len(again["samples"]["opened"]) == again["sequence"] - first["sequence"]
    await site.at_server.get("/client/beta/code")
    (event,) = (await told(site.at_server, since=first["sequence"]))["events"]
    assert (event["noun"], event["peer"]) == ("code", "beta")


async def test_many_who_watch_cost_one_list_and_what_is_kept_is_bounded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    find = status.Status._find

    def counted(self: status.Status, asked: status.Asked) -> dict[str, Any]:
        made.append(self._kept)
        return find(self, asked)

    monkeypatch.setattr(status, "KEPT", 1000.0)
    monkeypatch.setattr(status.Status, "_find", counted)
    await asyncio.gather(*(told(site.at_server) for _ in range(20)))
    assert len(made) == 1
    for i in range(3 * status.MAX_KEPT):
        await told(site.at_server, clients=f"name{i}")
    assert len(made[0]) <= status.MAX_KEPT


async def test_a_watcher_does_not_hold_a_node_that_stops(identity_files: Path) -> None:
    node = ServerNode(server_settings(identity_files))
    await node.start()
    assert node.settings.web_bind is not None
    web = WebServer(make_app(node), node.settings.web_bind, socket_mode=0o660, grace=60)
    await web.start()
    async with httpx.AsyncClient(base_url=web.address, timeout=PATIENCE) as http:
        assert (await http.get("/")).status_code == (await http.get("/status")).status_code == 200
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(node.stop(60), web.stop())


async def test_the_page_needs_nothing_of_others_and_finds_its_own_wherever_it_is_mounted(site: Site) -> None:
    for http in (site.at_server, site.at_client):
        page = await http.get("/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        links = [link for link in re.findall(r'(?:src|href)="([^"]+)"', page.text) if link not in ("data:,", "#main")]
        assert {"status.js", "status.css", "status", "docs"} <= {*links}
        for link in links:
            assert not urlsplit(link).netloc
            assert not link.startswith("/")
            assert (await http.get(f"/{link}")).status_code == 200 or link == "metrics"
        for name in ("status.js", "status.css"):
            content = (await http.get(f"/{name}")).text
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import", content)


async def test_no_script_runs_that_is_not_the_page_s_file_and_no_type_is_guessed(site: Site) -> None:
    for path in ("/", "/status.js", "/status.css", "/status"):
        headers = (await site.at_server.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    headers = (await site.at_server.get("/")).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    page = (await site.at_server.get("/")).text
    assert not re.search(r"<script(?! src)|<style|\sstyle=|\son\w+=", page)
    script = (await site.at_server.get("/status.js")).text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|cookie", script)


async def test_the_page_and_what_it_tells_are_behind_the_token(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", "s3cret")
    basic = base64.b64encode(b"anyone:s3cret").decode()
    async with running_server(identity_files) as server, web_of(server) as http:
        for path in ("/", "/status", "/status.js", "/status.css"):
            refused = await http.get(path)
            assert refused.status_code == 401
            assert "Basic" in refused.headers["www-authenticate"]
            for shown in (f"Basic {basic}", "Bearer s3cret"):
                assert (await http.get(path, headers={"Authorization": shown})).status_code == 200
        evil = {"Authorization": "Bearer s3cret", "Host": "evil.example"}
        assert (await http.get("/status", headers=evil)).status_code == 421
        cross = {"Authorization": "Bearer s3cret", "Sec-Fetch-Site": "cross-site"}
        assert (await http.get("/status", headers=cross)).status_code == 403
