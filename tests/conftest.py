"""What all tests share: identities, the proof that nothing is left behind, and the profiles of Hypothesis.

`pytest --long` has faults last as long as they are borne, where a few seconds do otherwise: `make soak` does.
The profile is `ci` by default; the long search is `--hypothesis-profile nightly --timeout 0 -o faulthandler_timeout=0`.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
from carriers import Identities
from hypothesis import HealthCheck, settings

from restpipe.identity import Authority, load_identity

# Real nodes.
pytest_plugins = ("live_nodes",)

settings.register_profile("ci", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", parent=settings.get_profile("ci"), max_examples=100_000)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="have faults last as long as they are borne: a minute")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time."""
    return bool(request.config.getoption("--long"))


def pytest_collection_finish() -> None:
    """Let `gc.collect` look at what the tests make, and not at every module again."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what is captured be UTF-8, as workers of pytest-xdist want it: some tests log what no encoding has."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    authority = Authority.create(tmp_path_factory.mktemp("ca"))
    server = authority.issue("server-1", "server")
    client = authority.issue("client-1", "client")
    return Identities(
        load_identity(server.key_path, server.certificate_path, authority.certificate_path, "server"),
        load_identity(client.key_path, client.certificate_path, authority.certificate_path, "client"),
    )


@pytest.fixture
async def leak_free() -> AsyncIterator[None]:
    """Fail a test that leaves a task, or an exception that nobody looked at."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:  # gRPC takes a moment to end its own
        _, left = await asyncio.wait(left, timeout=2)
    assert not left
    gc.collect()
    assert not complaints
