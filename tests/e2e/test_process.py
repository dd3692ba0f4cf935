"""What a node sets for its whole process."""

import re
import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e_curl import Curl
from e2e_processes import Node, Site, site_with_handlers

THREADS = 12
# Bytes that glibc reserves for each heap but the first, and at a multiple of which it lies.
HEAP = 64 * 1024 * 1024


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path, RP_HANDLER_THREADS=str(THREADS)) as site:
        yield site


def run_all_threads(server: Node, client: Node) -> None:
    """Have all handler threads of a server there be at once."""
    with ExitStack() as naps:
        under_way = [naps.enter_context(Curl(f"{client.web}/server/nap//0.5")) for _ in range(THREADS)]
        assert {nap.answer().status for nap in under_way} == {200}
    server.wait_for(f"all {THREADS} handler threads are in use")


def heaps_beside_the_first(node: Node) -> int:
    """Count the heaps that threads of a node allocate from."""
    maps = Path(f"/proc/{node.pid}/maps").read_text()
    return sum(
        int(start, 16) % HEAP == 0 for start in re.findall(r"^([0-9a-f]+)-\S+ rw-p 0+ 00:00 0 *$", maps, re.MULTILINE)
    )


@pytest.mark.parametrize(("settings", "most"), [({}, 1), ({"MALLOC_ARENA_MAX": "6"}, 5)])
def test_all_threads_allocate_from_two_heaps_or_as_many_as_the_environment_names(
    site: Site, settings: dict[str, str], most: int
) -> None:
    server, client = site.pair(**settings)
    run_all_threads(server, client)
    assert heaps_beside_the_first(server) == most
    client.end()
    server.end()


def test_a_node_may_have_as_many_files_as_the_system_allows(site: Site) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, soft, hard - 1), hard))
    try:
        server = site.server()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    server.end()
