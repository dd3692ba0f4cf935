"""A clock that is moved moves no deadline: only what tells dates looks at the clock on the wall."""

import ast
from pathlib import Path

import restpipe

PACKAGE = Path(restpipe.__file__).parent
# Modules that may, for they compare with dates of certificates or files, or tell people when something was.
TELL_DATES = {
    "cli", "identity", "nodes/client.py", "nodes/metering.py", "nodes/node.py", "nodes/server.py", "nodes/traffic.py",
    "nodes/watch.py", "testing", "transport/diagnosis.py",
    "handlers/examples.py", "handlers/file_answers.py", "handlers/files.py", "web/metrics.py", "web/status.py",
}  # fmt: skip
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")}


def looks_at_the_wall(source: str) -> list[int]:
    """Return the lines that ask for the time of day."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in WALL:
                found.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [node.lineno for name in node.names if name.name in {"time", "time_ns"}]
    return found


def test_the_search_finds_what_it_is_for() -> None:
    assert looks_at_the_wall("import time\nx = time.time()") == [2]
    assert looks_at_the_wall("from time import time") == [1]
    assert looks_at_the_wall("import datetime\ndatetime.datetime.now()") == [2]
    assert looks_at_the_wall("import time\nx = time.monotonic()\nloop.time()") == []


def test_nothing_that_waits_or_expires_looks_at_the_clock_on_the_wall() -> None:
    looking = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if looks_at_the_wall(file.read_text())
    }  # fmt: skip
    unexpected = {name for name in looking if name not in TELL_DATES and name.split("/")[0] not in TELL_DATES}
    assert unexpected == set()
