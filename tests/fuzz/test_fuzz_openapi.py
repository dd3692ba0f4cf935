"""Schemathesis asks the nodes what their OpenAPI documents offer, and what they do not: every answer is documented."""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import SCRIPTS, Node, Site
from hypothesis import settings

pytestmark = pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="needs schemathesis")

# Of each operation. The nightly profile asks for more.
EXAMPLES = 1000 if settings.default is not None and settings.default.max_examples > 1000 else 3
SECONDS = 1800 if EXAMPLES > 3 else 4


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Node]]:
    directory = tmp_path_factory.mktemp("openapi")
    shutil.copy(Path(__file__).with_name("fuzzed_handlers.py"), directory)
    with Site(directory, RP_EVENT_HANDLER_FQ_CLASS="fuzzed_handlers.Handler", RP_CONNECTION_WAIT_TIMEOUT_S="1") as site:
        server, client = site.pair()
        yield {"server": server, "client": client}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("node", "document", "offers"),
    [
        ("client", "/openapi.json", '"/numbers"'),
        ("server", "/client/client/openapi.json", '"/numbers"'),
        ("server", "/openapi.json", '"/client/{client}/openapi.json"'),
    ],
)
def test_every_answer_is_documented_and_none_is_a_fault(
    nodes: dict[str, Node], tmp_path: Path, node: str, document: str, offers: str
) -> None:
    url = f"{nodes[node].web}{document}"
    assert offers in curl(url).text
    # A client that is not there is a documented 503.
    faults = "" if "{client}" in offers else ",not_a_server_error"
    command = [
        str(SCRIPTS / "schemathesis"), "run", url, "--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES),
        "--max-time", str(SECONDS), "--checks",
        "status_code_conformance,content_type_conformance,response_schema_conformance" + faults,
        "--request-timeout", "20", "--suppress-health-check", "all", "--no-color", "--warnings", "off",
        "--generation-database", "none", "--max-failures", "3",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any("Traceback" in each.output for each in nodes.values())
