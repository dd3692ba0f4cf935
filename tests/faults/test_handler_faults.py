"""What becomes of requests when handlers are at fault, or more is asked than a node carries."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from e2e_curl import Curl, curl
from e2e_processes import PATIENCE, Node
from ledger import Ledger
from ledger_site import POST, LedgerSite, ledger_site, ways

MOST_EXCHANGES = 8
THREADS = 4
RAISED = ["SystemExit", "KeyboardInterrupt", "RecursionError", "CancelledError", "GeneratorExit", "MemoryError",
          "StopIteration", "StopAsyncIteration", "BaseException", "TimeoutError"]  # fmt: skip
RETURNED = ["unencodable", "circular", "surrogate", "header", "file"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerSite]:
    settings = {"RP_MAX_EXCHANGES": str(MOST_EXCHANGES), "RP_HANDLER_THREADS": str(THREADS)}
    with ledger_site(tmp_path_factory.mktemp("handlers"), **settings) as site:
        yield site


@pytest.fixture(scope="module")
def pair(site: LedgerSite) -> tuple[Node, Node]:
    server, client = site.pair()
    server.wait_for("client client connected")
    server.may_raise = client.may_raise = True
    return server, client


def test_whatever_a_handler_raises_or_returns_is_told_to_its_caller_and_harms_nobody(pair: tuple[Node, Node]) -> None:
    for url, node in ways(*pair):
        with Curl(f"{url}/held//neighbour{node.pid}/gate{node.pid}") as neighbour:
            node.wait_for(f"^held neighbour{node.pid}")
            for noun in ("raise", "raise/sync"):
                for name in (*RAISED, *RETURNED):
                    answer = curl(f"{url}/{noun}//{name}")
                    assert answer.outcome in {(500, 251, "yes"), (500, 250, "unknown")}, (noun, name)
            curl(f"{url}/gate//gate{node.pid}", *POST)
            assert neighbour.answer().status == 200
    server, client = pair
    assert "disconnected" not in server.output + client.output


def test_what_is_more_than_a_node_carries_is_refused_unsent_and_the_rest_is_served(
    site: LedgerSite, pair: tuple[Node, Node]
) -> None:
    server, client = pair
    for url, node in ways(server, client):
        asyncio.run(overloaded(url, node.pid))
    times = site.ledger.times()
    assert sum(count for nonce, count in times.items() if nonce.startswith("many")) == 2 * MOST_EXCHANGES


async def overloaded(url: str, pid: int) -> None:
    """Ask ten times what is carried at once; let go what was accepted once the rest was refused."""
    async with httpx.AsyncClient(timeout=2 * PATIENCE, limits=httpx.Limits(max_connections=None)) as web:
        waiting = {
            asyncio.create_task(web.post(f"{url}/held//many{pid}-{number}/crowd{pid}"))
            for number in range(10 * MOST_EXCHANGES)
        }
        refused: set[asyncio.Task[httpx.Response]] = set()
        while len(refused) < 9 * MOST_EXCHANGES:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        for answer in (call.result() for call in refused):
            problem = answer.json()
            assert (answer.status_code, answer.headers["x-event-return-code"]) == (503, "249"), problem
            assert problem["executed"] == "no"
        assert len(waiting) == MOST_EXCHANGES
        (sacrificed, *others) = waiting
        sacrificed.cancel()  # its place is for the one that opens the gate
        await asyncio.wait({sacrificed})
        while (await web.post(f"{url}/gate//crowd{pid}")).status_code == 503:
            pass
        for accepted in await asyncio.gather(*others):
            assert accepted.status_code == 200


def test_one_slow_event_delays_none_of_a_thousand_fast_ones(pair: tuple[Node, Node]) -> None:
    server, client = pair

    async def fast(url: str) -> None:
        async with httpx.AsyncClient(timeout=2 * PATIENCE, limits=httpx.Limits(max_connections=4)) as web:
            for _ in range(125):
                answers = await asyncio.gather(*(web.get(f"{url}/tasks") for _ in range(4)))
                assert {answer.status_code for answer in answers} == {200}

    for url, node in ways(server, client):
        with Curl(f"{url}/held//slow{node.pid}/slow{node.pid}") as slow:
            node.wait_for(f"^held slow{node.pid}")
            asyncio.run(fast(url))
            assert curl(f"{url}/gate//slow{node.pid}", *POST).status == 200
            assert slow.answer().json["nonce"] == f"slow{node.pid}"


def test_a_thread_that_computes_lets_go_of_the_interpreter_after_a_millisecond(pair: tuple[Node, Node]) -> None:
    for url, _ in ways(*pair):
        assert curl(f"{url}/switch/interval").json == pytest.approx(0.001)


def test_what_is_more_than_the_threads_carry_is_refused_unrun_and_the_rest_is_served(tmp_path: Path) -> None:
    with ledger_site(tmp_path, RP_HANDLER_THREADS=str(THREADS)) as site:
        asyncio.run(more_than_threads_carry(*ways(*site.pair()), ledger=site.ledger))


async def more_than_threads_carry(*both: tuple[str, Node], ledger: Ledger) -> None:
    """Ask ten times what the threads carry at once, both ways, each for longer than anything waits for a thread."""
    async with httpx.AsyncClient(timeout=2 * PATIENCE, limits=httpx.Limits(max_connections=None)) as web:

        async def ask(nonce: str, url: str) -> tuple[str, httpx.Response]:
            return nonce, await web.get(f"{url}/note/sync//{nonce}/2")

        answers = await asyncio.gather(
            *(ask(f"{way}-{number}", url) for way, (url, _) in enumerate(both) for number in range(10 * THREADS))
        )
        for url, _ in both:
            assert (await web.get(f"{url}/note/sync//after{url[-6:]}")).status_code == 200
    refused = {nonce for nonce, answer in answers if answer.status_code != 200}
    for nonce, answer in answers:
        if nonce in refused:
            assert (answer.status_code, answer.headers["x-event-return-code"]) == (503, "245"), answer.text
            assert (answer.json()["executed"], answer.headers["retry-after"]) == ("no", "1")
    times = ledger.times()
    assert all(times[nonce] == (nonce not in refused) for nonce, _ in answers)
    for way in range(2):
        served = sum(nonce.startswith(f"{way}-") for nonce in {nonce for nonce, _ in answers} - refused)
        assert THREADS <= served <= 5 * THREADS


def test_threads_that_never_return_are_counted_and_capped_and_their_callers_get_504(tmp_path: Path) -> None:
    with ledger_site(tmp_path, RP_HANDLER_THREADS=str(THREADS)) as site:
        server, client = site.pair()
        url = f"{client.web}/server"
        for blocked in range(1, THREADS + 1):
            assert curl(f"{url}/blocked", "-H", "X-Event-Timeout: 0.3").outcome == (504, 247, "unknown")
            server.wait_for("^blocked", times=blocked)
        server.wait_for(f"all {THREADS} handler threads are in use")
        assert curl(f"{url}/blocked").outcome == (503, 245, "no")
        assert len(re.findall("^blocked$", server.output, re.MULTILINE)) == THREADS
        assert curl(f"{url}/note//unhindered", *POST).status == 200
        assert f"{THREADS} handler threads did not return" in server.end()
