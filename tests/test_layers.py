"""Imports run downward only: protocol <- transport <- pipe <- handlers <- nodes <- web <- embed <- testing, cli."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("protocol", "transport", "pipe", "handlers", "nodes", "web", "embed", "testing", "cli")
# What every layer may import, and what imports no layer.
BASE = ("exceptions", "version", "stats", "metrics", "config", "identity")
# Of what the standard library or others offer, what is left to some.
GRPC = ("grpc", "grpc_health", "grpc_reflection")
IMPURE = ("asyncio", *GRPC, "socket", "ssl", "time", "datetime", "threading", "random", "os")

FILES = sorted((ROOT / "restpipe").rglob("*.py"))


def part_of(module: str) -> str:
    """Return the layer, or the module beside the layers, that a module of RestPipe belongs to."""
    return [*module.split("."), ""][1]


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield line and module of every import, within functions and for type checkers too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            if module == "restpipe":
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
            else:
                yield node.lineno, module


def offences(source: str, package: str, part: str) -> Iterator[tuple[int, str]]:
    """Yield line and complaint for every import that a part must not have."""
    for line, module in imports(source, package):
        top, imported = module.split(".")[0], part_of(module)
        if (top in GRPC or module.endswith("_pb2_grpc")) and part != "transport":
            yield line, f"{module}: only transport imports grpc"
        if part == "protocol" and top in IMPURE:
            yield line, f"{module}: the protocol is pure"
        if top != "restpipe" or imported in (*BASE, part):
            continue
        if part in BASE:
            yield line, f"{module}: {part} is below every layer"
        elif part in LAYERS and imported not in LAYERS[: LAYERS.index(part)]:
            yield line, f"{module}: is not below {part}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward_only(path: Path) -> None:
    module = path.relative_to(ROOT).with_suffix("")
    package, part = ".".join(module.parent.parts), module.parts[1]
    found = offences(path.read_text(), package, part)
    assert not [f"{path.relative_to(ROOT)}:{line}: {complaint}" for line, complaint in found]


def test_every_layer_has_files_that_are_checked() -> None:
    assert {*LAYERS, "config", "identity", "exceptions"} <= {
        part_of(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in FILES
    }


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("protocol", "import asyncio"),
        ("protocol", "from time import monotonic"),
        ("protocol", "import grpc"),
        ("protocol", "def f():\n    import socket"),
        ("protocol", "from restpipe.pipe import Pipe"),
        ("pipe", "import grpc.aio"),
        ("web", "from grpc import aio"),
        ("nodes", "from restpipe_pb.v1.pipe_pb2_grpc import PipeStub"),
        ("pipe", "from restpipe.handlers.base import Reply"),
        ("pipe", "from restpipe import handlers"),
        ("pipe", "from ..handlers import base"),
        ("pipe", "from .. import handlers"),
        ("pipe", "import restpipe"),
        ("pipe", "if TYPE_CHECKING:\n    import restpipe.web.gateway"),
        ("handlers", "from restpipe.nodes.node import Node"),
        ("config", "from restpipe.cli import main"),
        ("exceptions", "from restpipe.protocol import failures"),
    ],
)
def test_an_import_that_runs_upward_is_found(part: str, source: str) -> None:
    assert list(offences(source, f"restpipe.{part}", part))


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("protocol", "from restpipe.exceptions import ProtocolError\nimport collections"),
        ("transport", "import grpc.aio\nimport asyncio"),
        ("pipe", "from restpipe.protocol import events\nfrom . import body\nfrom .body import Body"),
        ("cli", "from restpipe.web.gateway import Gateway\nfrom restpipe import config"),
        ("config", "from restpipe.identity.files import read"),
    ],
)
def test_an_import_that_runs_downward_is_none_of_its_business(part: str, source: str) -> None:
    assert not list(offences(source, f"restpipe.{part}", part))
