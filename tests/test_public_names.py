"""What `import restpipe` gives, and what it costs."""

import subprocess
import sys

import pytest

import restpipe


@pytest.mark.parametrize("name", restpipe.__all__)
def test_every_public_name_is_there_and_stays(name: str) -> None:
    value = getattr(restpipe, name)
    assert vars(restpipe)[name] is value
    assert name in dir(restpipe)


def test_a_name_that_is_none_is_told_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'restpipe' has no attribute 'nonesuch'"):
        _ = restpipe.nonesuch  # type: ignore[attr-defined]


def test_what_is_imported_costs_what_is_used() -> None:
    program = """
import sys
import restpipe
assert not {"grpc", "fastapi", "pydantic", "asyncio"} & set(sys.modules), sorted(sys.modules)
from restpipe import PipeFailError, raise_for_exception
assert not {"grpc", "fastapi", "pydantic"} & set(sys.modules), sorted(sys.modules)
from restpipe import ClientEventHandler, Reply
assert not {"grpc", "fastapi", "uvicorn"} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
