"""The page that a browser shows of a node."""

import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

import pytest
from e2e_curl import curl
from e2e_processes import Node, Site


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Node]]:
    with Site(tmp_path_factory.mktemp("docs")) as site:
        server, client = site.pair()
        server.wait_for("client client connected")
        yield {"server": server, "client": client}


@pytest.mark.parametrize("role", ["server", "client"])
def test_the_docs_page_needs_nothing_from_any_other_host(nodes: dict[str, Node], role: str) -> None:
    web = nodes[role].web
    page = curl(f"{web}/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    references = re.findall(r"""(?:src|href)=["']([^"']+)["']|url: *["']([^"']+)["']""", page.text)
    links = {first or second for first, second in references}
    assert len(links) >= 3  # a script, a style sheet, and the OpenAPI document
    for link in links:
        url = urljoin(f"{web}/docs", link)
        assert urlsplit(url).netloc == urlsplit(web).netloc
        assert curl(url).status == 200, url
    assert not re.search(r"https?://", page.text.replace(web, ""))


@pytest.mark.parametrize(
    ("role", "prefix", "own_result"), [("server", "/client/client/", "client"), ("client", "/server/", "server")]
)
def test_the_openapi_document_lists_the_events_of_the_other_side(
    nodes: dict[str, Node], role: str, prefix: str, own_result: str
) -> None:
    web = nodes[role].web
    document = curl(f"{web}/openapi.json").json
    assert document["openapi"].startswith("3.")
    assert set(document["paths"]) == {f"{prefix}time", f"{prefix}cat"}
    cat = document["paths"][f"{prefix}cat"]["get"]
    assert [(each["name"], each["required"]) for each in cat["parameters"]] == [("x", True), ("y", True)]
    assert cat["summary"] == "Join two texts."
    # What the page's "Try it out" sends.
    tried = curl(f"{web}{prefix}cat?x=a&y=b", "-H", f"Origin: {web}", "-H", "Sec-Fetch-Site: same-origin")
    assert tried.json == {f"result_from_{own_result}": "ab"}
