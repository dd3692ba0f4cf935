"""The pages that a browser shows of a node: from the node alone, and of use."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from e2e_browser import Browser, Page, browser_command
from e2e_curl import curl
from e2e_processes import Node, Site

HANDLER = '''
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel

from restpipe import ClientEventHandler


class Order(BaseModel):
    item: str
    count: int = 1


class Shop(ClientEventHandler):
    async def get_cat(self, ctx, post_data, x: str, y: str = "there"):
        """Join two texts."""
        return {"cat": x + y}

    def get_sum(self, ctx, post_data, *numbers: int) -> int:
        """Add numbers."""
        return sum(numbers)

    async def post_order(self, ctx, order: Order) -> Order:
        """Take an order."""
        return order

    async def put_file(self, ctx, body: AsyncIterator[bytes]):
        """Take a file."""
        return {"size": sum([len(piece) async for piece in body])}

    def get_file(self, ctx, post_data) -> Path:
        """Return a file."""
        return Path(__file__).with_name("file.bin")
'''
FILE = bytes(range(256)) * 16


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Node]]:
    directory = tmp_path_factory.mktemp("docs")
    (directory / "shop.py").write_text(HANDLER)
    (directory / "file.bin").write_bytes(FILE)
    with Site(directory) as site:
        server = site.server()
        client = site.client(server.pipe_port, name="shop", RP_EVENT_HANDLER_FQ_CLASS="shop.Shop")
        server.wait_for("client shop connected")
        yield {"server": server, "client": client}


@pytest.mark.parametrize(("role", "path"), [("server", "/docs"), ("server", "/docs/client/shop"), ("client", "/docs")])
def test_a_page_needs_nothing_from_any_other_host(nodes: dict[str, Node], role: str, path: str) -> None:
    web = nodes[role].web
    page = curl(f"{web}{path}")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    references = re.findall(r"""(?:src|href|data-document|data-list)=["']([^"']+)["']""", page.text)
    links = {link for link in references if link != "data:,"}
    assert len(links) >= 3  # a script, a style sheet, and a document
    for link in links:
        url = urljoin(f"{web}{path}", link)
        assert urlsplit(url).netloc == urlsplit(web).netloc
        assert curl(url).status == 200, url
    assert not re.search(r"https?://", page.text.replace(web, ""))


@pytest.mark.parametrize(
    ("role", "path", "nouns"),
    [
        ("server", "/client/shop/openapi.json", {"/cat", "/sum", "/sum//{numbers}", "/order", "/file"}),
        ("client", "/openapi.json", {"/time", "/cat", "/client/{client}/{noun}"}),
    ],
)
def test_the_openapi_document_lists_the_events_of_the_other_side(
    nodes: dict[str, Node], role: str, path: str, nouns: set[str]
) -> None:
    web = nodes[role].web
    document = curl(f"{web}{path}").json
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == nouns
    cat = document["paths"]["/cat"]["get"]
    assert [(each["name"], each["required"]) for each in cat["parameters"]] == [("x", True), ("y", role == "client")]
    assert cat["summary"] == "Join two texts."
    # What the page's "Try it out" sends.
    prefix = document["servers"][0]["url"]
    tried = curl(f"{web}{prefix}/cat?x=a&y=b", "-H", f"Origin: {web}", "-H", "Sec-Fetch-Site: same-origin")
    assert "ab" in tried.json.values()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    command = browser_command()
    if command is None:
        pytest.skip("Chromium is not installed")
    with Browser(command, tmp_path_factory.mktemp("browser")) as started:
        yield started


def test_the_docs_page_of_a_server_lists_clients_and_finds_them(nodes: dict[str, Node], browser: Browser) -> None:
    with browser.open(f"{nodes['server'].web}/docs") as page:
        page.wait_for("document.querySelectorAll('#list .event').length >= 6")
        assert page.value("document.title") == "Clients - RestPipe server node server"
        assert page.value("document.getElementById('count').textContent") == "1 connected"
        assert page.value("document.querySelector('summary .name').textContent") == "shop"
        page.value("search.value = 'nobody'; search.dispatchEvent(new Event('input'))")
        page.wait_for("document.getElementById('count').textContent === '0 of 1 connected'")
        page.wait_for("document.querySelectorAll('details').length === 0")
        assert page.complaints == []


# https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio, of the text of an element and the page behind it.
CONTRAST = """
(selector => {
  if (!document.querySelector(selector)) return 0;
  const luminance = color => color.match(/[0-9.]+/g).slice(0, 3)
    .map(part => part / 255).map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [.2126, .7152, .0722][at], 0);
  const [text, page] = [document.querySelector(selector), document.querySelector('.swagger-ui')]
    .map((element, at) => getComputedStyle(element)[at ? 'backgroundColor' : 'color']);
  const behind = page === 'rgba(0, 0, 0, 0)' ? getComputedStyle(document.body).backgroundColor : page;
  const [low, high] = [luminance(text), luminance(behind)].sort((one, other) => one - other);
  return (high + .05) / (low + .05);
})
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_docs_page_can_be_read_by_day_and_by_night(nodes: dict[str, Node], browser: Browser, scheme: str) -> None:
    with browser.open(f"{nodes['server'].web}/docs/client/shop") as page:
        page.wait_for(block("get_cat"))
        page.prefer(scheme)
        open_to_try(page, "get_cat")
        for text in (".info .title", ".opblock-summary-path", ".opblock-summary-description", "td.header-col"):
            page.wait_for(f"{CONTRAST.strip()}({json.dumps(text)}) >= 4.5")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_status_page_needs_no_scrolling_to_the_side(nodes: dict[str, Node], browser: Browser, width: int) -> None:
    with browser.open(f"{nodes['server'].web}/") as page:
        page.resize(width, 900)
        page.wait_for("document.querySelector('#peers th')")
        boxes = "[document.documentElement, ...document.querySelectorAll('.scroll')]"
        page.wait_for(f"{boxes}.every(box => box.scrollWidth <= box.clientWidth)")


def test_events_are_tried_out_on_the_docs_page(nodes: dict[str, Node], browser: Browser, tmp_path: Path) -> None:
    with browser.open(f"{nodes['server'].web}/docs/client/shop") as page:
        try_out(page, "get_cat", {"cat": "a/bü&there"}, x="a/bü&")
        try_out(page, "get_sum-many", 6, numbers="1/2/3")
        try_out(page, "post_order", {"item": "tea", "count": 2}, body='{"item": "tea", "count": 2}')
        try_out(page, "put_file", {"size": 70_000}, file="x" * 70_000)
        open_to_try(page, "get_file")
        page.value(f"{block('get_file')}.querySelector('.execute').click()")
        link = f"{block('get_file')}.querySelector('.live-responses-table a[download]')"
        page.wait_for(link)
        assert page.download(f"{link}.click()", tmp_path) == FILE
        assert page.hosts == {urlsplit(nodes["server"].web).netloc}


def block(operation: str) -> str:
    return f"document.getElementById('operations-events-{operation}')"


def open_to_try(page: Page, operation: str) -> None:
    page.wait_for(block(operation))
    page.value(f"{block(operation)}.querySelector('.opblock-summary-control').click()")
    page.wait_for(f"{block(operation)}.querySelector('.execute')")


def try_out(page: Page, operation: str, answer: object, *, file: str = "", body: str = "", **arguments: str) -> None:
    """Try an event out as a user does, until the page shows this answer: it takes what is typed after a moment."""
    open_to_try(page, operation)
    for name, value in arguments.items():
        page.fill(f"{block(operation)}.querySelector('tr[data-param-name=\"{name}\"] input')", value)
    if body:
        page.fill(f"{block(operation)}.querySelector('textarea')", body)
    if file:
        page.attach(f"{block(operation)}.querySelector('input[type=file]')", file)
    shown = f"{block(operation)}.querySelector('.live-responses-table pre code')"
    expected = json.dumps(json.dumps(answer, ensure_ascii=False).replace(" ", ""))
    click = f"{block(operation)}.querySelector('.execute').click()"
    page.wait_for(
        f"(performance.now() > (window.next || 0) && (window.next = performance.now() + 500, {click}), {shown})"
        f" && {shown}.textContent.replace(/\\s/g, '') === {expected}"
    )
